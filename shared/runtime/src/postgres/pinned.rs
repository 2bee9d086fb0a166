//! The settings that decide how PostgreSQL writes values as text.

/// Startup `options` of every connection, replication included.
///
/// A row of the snapshot and the same row of the WAL must be the same text, whatever the role, the database or
/// the server has as its default. `search_path` is left alone: statements name their schemas.
pub const PINNED_OPTIONS: &str = "-c datestyle=ISO,YMD -c intervalstyle=postgres -c timezone=UTC \
                                  -c extra_float_digits=1 -c bytea_output=hex -c xmloption=content \
                                  -c lc_monetary=C -c standard_conforming_strings=on \
                                  -c quote_all_identifiers=off -c client_encoding=UTF8";

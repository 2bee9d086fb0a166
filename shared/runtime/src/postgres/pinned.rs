//! The settings that decide how PostgreSQL writes values as text.

/// Startup `options` of every connection, replication included; they win over the settings of role and database.
///
/// A row of the snapshot and the same row of the WAL must be the same text, whatever the role, the database or
/// the server has as its default. Each of these decides how PostgreSQL 18 writes some type: times (`datestyle`,
/// `timezone`), `interval`, floats (`extra_float_digits`), `bytea`, `xml` (`xmloption`, `xmlbinary`), `money`, the types
/// that name objects (`quote_all_identifiers`), and all of them (`client_encoding`). Settings that only matter
/// when text is read, such as `array_nulls`, are left alone, and so is `search_path`: statements name their
/// schemas, but the application's own triggers and the operators of its types do not. It decides whether a `regclass` or
/// `regtype` names its schema, and it is the same for all connections of a role.
pub const PINNED_OPTIONS: &str = "-c datestyle=ISO,YMD -c intervalstyle=postgres -c timezone=UTC \
                                  -c extra_float_digits=1 -c bytea_output=hex -c xmloption=content \
                                  -c xmlbinary=base64 -c lc_monetary=C -c standard_conforming_strings=on \
                                  -c quote_all_identifiers=off -c client_encoding=UTF8";

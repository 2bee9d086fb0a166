//! `sync`: what leaves the server, and how a page is cut and compressed.

use posduif_model::rule::{DEFAULT_MAX_ROW_BYTES, RuleError, RuleSet, TableDeclaration};
use serde::Deserialize;

use super::{error::Problems, retention::RetentionConfig, wal::WalConfig};

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SyncConfig {
    /// Changes per page where a device asks for no limit.
    pub batch_size: u32,
    pub compression: bool,
    /// Responses shorter than this many bytes are not worth compressing.
    pub compression_threshold: usize,
    /// How often a device without a live connection should ask; told to it in the app instructions.
    pub sync_interval_seconds: u32,
    /// The operator's declarations; [`SyncConfig::rules`] joins them with the built-in ones.
    pub tables: Vec<TableDeclaration>,
    /// The largest row, in bytes of JSON, that anybody sees.
    pub max_row_bytes: usize,
    pub retention: RetentionConfig,
    pub wal: WalConfig,
}

/// The largest page a device may ask for, and the largest default.
pub const MAX_BATCH_SIZE: u32 = 500;

impl Default for SyncConfig {
    fn default() -> Self {
        SyncConfig {
            batch_size: 100,
            compression: true,
            compression_threshold: 1024,
            sync_interval_seconds: 30,
            tables: Vec::new(),
            max_row_bytes: DEFAULT_MAX_ROW_BYTES,
            retention: RetentionConfig::default(),
            wal: WalConfig::default(),
        }
    }
}

impl SyncConfig {
    /// What leaves the server: the declarations and the limit of a row, the same for every part of an installation.
    pub fn rules(&self) -> Result<RuleSet, RuleError> {
        Ok(RuleSet::new(&self.tables)?.with_max_row_bytes(self.max_row_bytes))
    }

    pub(super) fn check(&self, problems: &mut Problems) {
        problems.range("sync.batch_size", self.batch_size, 1..=MAX_BATCH_SIZE);
        problems.range("sync.sync_interval_seconds", self.sync_interval_seconds, 1..=86_400);
        problems.range("sync.max_row_bytes", self.max_row_bytes, 64 << 10..=64 << 20);
        if let Err(error) = self.rules() {
            problems.add("sync.tables", error);
        }
        self.retention.check(problems);
        self.wal.check(problems);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    fn with_tables(tables: &str) -> Result<Config, String> {
        let yaml = format!("{{tenants: [{{url: 'postgres://u@h/a'}}], sync: {{tables: [{tables}]}}}}");
        Config::from_yaml(&yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn tables_are_declared_in_the_file() {
        let table = "{table: public.tasks, buckets: ['user:{owner_id}', shared], columns: [id, owner_id], \
                     write: {owner: owner_id, columns: [title], version: updated_at}}";
        let config = with_tables(table).unwrap();
        assert_eq!(config.sync.tables[0].table.to_string(), "public.tasks");
        assert_eq!(config.sync.tables[0].buckets.len(), 2);
    }

    #[test]
    fn a_faulty_declaration_is_refused_with_its_place() {
        let error =
            with_tables("{table: a, buckets: [shared]}, {table: public.a, buckets: [shared]}").unwrap_err();
        assert!(error.contains("sync.tables: table public.a is declared twice"), "{error}");
        let error = with_tables("{table: a, buckets: [everyone]}").unwrap_err();
        assert!(error.contains("sync.tables[0].buckets[0]: \"everyone\" is not a bucket"), "{error}");
        let error = with_tables("{table: a, buckets: [shared], colums: [id]}").unwrap_err();
        assert!(error.contains("sync.tables[0].colums"), "{error}");
    }
}

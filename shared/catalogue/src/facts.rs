//! One statement, and so one snapshot of the catalogue, in; what it says of the declared tables out.

use posduif_model::{TableName, rule::RuleSet};
use serde::Deserialize;
use tokio_postgres::{Client, types::Json};

/// What the catalogue says.
#[derive(Clone, Debug, Deserialize)]
pub struct Facts {
    pub version: String,
    /// `server_version_num`, 180000 for PostgreSQL 18.0.
    pub version_number: i32,
    pub wal_level: String,
    pub encoding: String,
    /// Whether the engine's own tables are those of this version.
    pub migrated: bool,
    /// The role whose rights are looked at.
    pub role: String,
    pub publication: Option<PublicationFacts>,
    /// Oids of all tables that the publication names.
    pub published: Vec<u32>,
    /// In the order of the rules; `None` for a table that does not exist.
    pub tables: Vec<Option<TableFacts>>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct PublicationFacts {
    pub oid: u32,
    /// Changes with every ALTER PUBLICATION that is not about its tables.
    pub version: String,
    pub all_tables: bool,
    /// Whether inserts, updates, deletes and truncates are all published.
    pub operations: bool,
    pub via_root: bool,
    /// Whether stored generated columns are published.
    pub generated: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub struct TableFacts {
    pub oid: u32,
    /// `pg_class.relkind`.
    pub kind: char,
    /// `pg_class.relpersistence`.
    pub persistence: char,
    /// `pg_class.relreplident`.
    pub identity: char,
    /// Changes whenever the table is rewritten; 0 for a partitioned table.
    pub filenode: u32,
    /// The table that it is a partition of.
    pub parent: Option<String>,
    /// Whether other tables inherit from it without being partitions.
    pub inherited: bool,
    /// Whether policies hide rows from the role.
    pub row_security: bool,
    pub readable: bool,
    /// Its entry in the publication.
    pub published: Option<PublishedFacts>,
    pub key: Option<IndexFacts>,
    pub identity_index: Option<IndexFacts>,
    /// By number; dropped ones are left out.
    pub columns: Vec<ColumnFacts>,
    /// Everything below a partitioned table, at any depth.
    pub partitions: Vec<PartitionFacts>,
    /// Those that defaults of its columns draw from and that belong to it, as those of `serial` do. An identity column
    /// takes no right on its own.
    pub sequences: Vec<TableName>,
    pub capture: CaptureFacts,
}

/// The triggers that note which rows changed.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct CaptureFacts {
    /// The text of their function.
    pub body: Option<String>,
    /// Whether what is noted always is, on the table and all its partitions.
    pub notes_moves: bool,
    /// Whether all changes are.
    pub notes_changes: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub struct PublishedFacts {
    pub oid: u32,
    pub column_list: bool,
    pub row_filter: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub struct IndexFacts {
    pub oid: u32,
    /// Whether it is checked row by row; a deferrable one is not.
    pub immediate: bool,
    /// Key columns in key order, without those that are only included.
    pub columns: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ColumnFacts {
    pub number: i16,
    pub name: String,
    pub type_oid: u32,
    pub modifier: i32,
    /// The type as SQL writes it.
    pub type_name: String,
    /// Whether large values of it may lie outside of the row.
    pub toastable: bool,
    /// `pg_attribute.attgenerated`: empty, `s` stored, `v` virtual.
    pub generated: String,
    /// Changes whenever the column's definition does.
    pub version: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct PartitionFacts {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub kind: char,
    pub persistence: char,
    pub identity: char,
    pub filenode: u32,
    /// Changes whenever it is detached or attached.
    pub attached: String,
    /// Whether it was made as a partition, so that no row of it came in unheard, and was never truncated or rewritten.
    pub born: bool,
}

impl TableFacts {
    pub fn column(&self, name: &str) -> Option<&ColumnFacts> {
        self.columns.iter().find(|column| column.name == name)
    }

    pub fn is_partitioned(&self) -> bool {
        self.kind == 'p'
    }
}

impl PartitionFacts {
    /// The partition's name as SQL writes it.
    pub fn to_sql(&self) -> String {
        TableName::new(&self.schema, &self.name)
            .map_or_else(|_| format!("{}.{}", self.schema, self.name), |table| table.to_sql())
    }
}

impl Facts {
    /// Asks for the declared tables, with the rights of `role` (`None`: whoever is connected).
    pub async fn load(
        client: &Client,
        rules: &RuleSet,
        publication: &str,
        role: Option<&str>,
    ) -> Result<Self, tokio_postgres::Error> {
        let names = || rules.tables().iter().map(|declaration| &declaration.table);
        let (schemas, tables): (Vec<&str>, Vec<&str>) = names().map(|t| (t.schema(), t.name())).unzip();
        let row = client.query_one(CATALOGUE, &[&schemas, &tables, &publication, &role]).await?;
        row.try_get::<_, Json<Facts>>(0).map(|json| json.0)
    }
}

/// Everything in one statement. It takes no lock on any table: a TRUNCATE that is waiting must not stop it.
///
/// A table that was made by CREATE TABLE … PARTITION OF got its `pg_inherits` row and all of its `pg_attribute` rows
/// in one command; ATTACH writes the rows of its columns (never those of its system columns, numbers below 0) anew.
const CATALOGUE: &str = include_str!("facts.sql");

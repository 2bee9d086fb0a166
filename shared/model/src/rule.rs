//! The declaration of what leaves the server and what a device may write (`sync.tables`).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::table::TableName;

/// One entry of `sync.tables`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableDeclaration {
    pub table: TableName,
    /// The buckets a row goes to; a row may go to several.
    pub buckets: Vec<BucketTemplate>,
    /// The columns that leave the server, in this order; absent means all.
    #[serde(default)]
    pub columns: Option<Vec<String>>,
    /// What a device may write; absent means read-only.
    #[serde(default)]
    pub write: Option<WriteDeclaration>,
}

/// What a device may change in rows that its user owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteDeclaration {
    /// The column that holds the owner's user id.
    pub owner: String,
    /// The columns a device may set.
    pub columns: Vec<String>,
    /// The timestamp column that decides which of two versions wins.
    pub version: String,
}

/// How a row finds its bucket: `shared`, or `user:{column}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum BucketTemplate {
    Shared,
    User { column: String },
}

/// A set of declarations that cannot work.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RuleError {
    #[error(
        "{0:?} is not a bucket; write shared, or user:{{column}} with the column that holds the user's id"
    )]
    Bucket(String),
    #[error("table {0} is declared twice")]
    Duplicate(TableName),
    #[error("table {0} names no bucket; nobody would see its rows")]
    NoBucket(TableName),
    #[error("table {0} lists no columns; leave columns out to send all of them")]
    NoColumns(TableName),
    #[error("table {0} lists column {1} twice")]
    RepeatedColumn(TableName, String),
}

impl FromStr for BucketTemplate {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        if text == "shared" {
            return Ok(BucketTemplate::Shared);
        }
        text.strip_prefix("user:{")
            .and_then(|rest| rest.strip_suffix('}'))
            .filter(|column| !column.is_empty() && !column.contains(['{', '}']))
            .map(|column| BucketTemplate::User { column: column.to_owned() })
            .ok_or_else(|| RuleError::Bucket(text.to_owned()))
    }
}

impl TryFrom<String> for BucketTemplate {
    type Error = RuleError;

    fn try_from(text: String) -> Result<Self, RuleError> {
        text.parse()
    }
}

impl From<BucketTemplate> for String {
    fn from(template: BucketTemplate) -> String {
        template.to_string()
    }
}

impl fmt::Display for BucketTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BucketTemplate::Shared => f.write_str("shared"),
            BucketTemplate::User { column } => write!(f, "user:{{{column}}}"),
        }
    }
}

/// The hash of everything in the rules that changes what a reader sees: tables, buckets, columns, the limit of a row.
///
/// A cursor carries it: a device that synced under other rules takes a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RulesHash(String);

impl RulesHash {
    /// Takes a hash as it was stored.
    pub fn from_stored(text: &str) -> Self {
        RulesHash(text.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RulesHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All declarations of an installation: the built-in ones and the operator's, each table once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSet {
    tables: Vec<TableDeclaration>,
    /// The operator's tables in the order of the file.
    declared: Vec<TableName>,
    max_row_bytes: usize,
    hash: RulesHash,
}

/// `sync.max_row_bytes` where it is left out: 8 MiB.
pub const DEFAULT_MAX_ROW_BYTES: usize = 8 << 20;

impl RuleSet {
    /// Joins the operator's declarations with the built-in `messages` and `users`; naming one overrides it.
    pub fn new(declared: &[TableDeclaration]) -> Result<Self, RuleError> {
        for (index, declaration) in declared.iter().enumerate() {
            check(declaration)?;
            if declared.iter().take(index).any(|earlier| earlier.table == declaration.table) {
                return Err(RuleError::Duplicate(declaration.table.clone()));
            }
        }
        let built_in = built_in()?;
        let is_declared = |table: &TableName| declared.iter().any(|d| d.table == *table);
        let mut tables: Vec<_> = built_in.into_iter().filter(|b| !is_declared(&b.table)).collect();
        tables.extend_from_slice(declared);
        tables.sort_by(|a, b| a.table.cmp(&b.table));
        let max_row_bytes = DEFAULT_MAX_ROW_BYTES;
        let hash = hash(&tables, max_row_bytes);
        let declared = declared.iter().map(|declaration| declaration.table.clone()).collect();
        Ok(RuleSet { tables, declared, max_row_bytes, hash })
    }

    /// The same declarations with another limit of a row's size in bytes of JSON.
    pub fn with_max_row_bytes(self, max_row_bytes: usize) -> Self {
        let hash = hash(&self.tables, max_row_bytes);
        RuleSet { max_row_bytes, hash, ..self }
    }

    /// A row whose JSON has more bytes is seen by nobody.
    pub fn max_row_bytes(&self) -> usize {
        self.max_row_bytes
    }

    /// The declarations, ordered by table name.
    pub fn tables(&self) -> &[TableDeclaration] {
        &self.tables
    }

    pub fn find(&self, table: &TableName) -> Option<&TableDeclaration> {
        self.tables.iter().find(|declaration| declaration.table == *table)
    }

    /// Where the configuration declares a table, for messages; the built-in ones have no place in the file.
    pub fn place(&self, table: &TableName) -> String {
        match self.declared.iter().position(|declared| declared == table) {
            Some(index) => format!("sync.tables[{index}]"),
            None => format!("sync.tables (built in: {table})"),
        }
    }

    pub fn hash(&self) -> &RulesHash {
        &self.hash
    }
}

fn check(declaration: &TableDeclaration) -> Result<(), RuleError> {
    let table = || declaration.table.clone();
    if declaration.buckets.is_empty() {
        return Err(RuleError::NoBucket(table()));
    }
    let columns = declaration.columns.as_deref();
    if columns.is_some_and(<[String]>::is_empty) {
        return Err(RuleError::NoColumns(table()));
    }
    let mut seen = std::collections::BTreeSet::new();
    match columns.unwrap_or_default().iter().find(|column| !seen.insert(*column)) {
        Some(column) => Err(RuleError::RepeatedColumn(table(), column.clone())),
        None => Ok(()),
    }
}

/// Raised when the meaning of a stored entry changes, so that old logs are not read by new rules.
const FORMAT: u8 = 2;

fn hash(tables: &[TableDeclaration], max_row_bytes: usize) -> RulesHash {
    let mut digest = Sha256::new();
    digest.update([FORMAT]);
    let mut part = |text: &str| {
        digest.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
        digest.update(text);
    };
    part(&max_row_bytes.to_string());
    for declaration in tables {
        part(&declaration.table.to_string());
        part(&declaration.buckets.len().to_string());
        for bucket in &declaration.buckets {
            part(&bucket.to_string());
        }
        match &declaration.columns {
            None => part("*"),
            Some(columns) => {
                part(&columns.len().to_string());
                columns.iter().for_each(|column| part(column));
            }
        }
    }
    let bytes = digest.finalize();
    RulesHash(bytes.iter().take(8).map(|b| format!("{b:02x}")).collect())
}

fn built_in() -> Result<Vec<TableDeclaration>, RuleError> {
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let public = |name: &str| name.parse().map_err(|_| RuleError::Bucket(name.to_owned()));
    Ok(vec![
        TableDeclaration {
            table: public("messages")?,
            buckets: vec!["user:{sender_id}".parse()?, "user:{recipient_id}".parse()?],
            columns: Some(names(&[
                "id",
                "sender_id",
                "recipient_id",
                "content",
                "status",
                "created_at",
                "updated_at",
                "synced_at",
                "read_at",
            ])),
            write: Some(WriteDeclaration {
                owner: "sender_id".into(),
                columns: names(&["recipient_id", "content"]),
                version: "updated_at".into(),
            }),
        },
        TableDeclaration {
            table: public("users")?,
            buckets: vec![BucketTemplate::Shared],
            columns: Some(names(&[
                "id",
                "username",
                "user_type",
                "online_status",
                "last_seen",
                "enrolled_at",
                "last_message_sent",
                "last_message_at",
                "created_at",
                "updated_at",
            ])),
            write: Some(WriteDeclaration {
                owner: "id".into(),
                columns: names(&["username"]),
                version: "updated_at".into(),
            }),
        },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(columns: Option<&[&str]>) -> TableDeclaration {
        TableDeclaration {
            table: "tasks".parse().unwrap(),
            buckets: vec!["user:{owner_id}".parse().unwrap()],
            columns: columns.map(|list| list.iter().map(|c| (*c).to_owned()).collect()),
            write: None,
        }
    }

    #[test]
    fn messages_and_users_are_built_in_and_can_be_overridden() {
        let users = "users".parse().unwrap();
        let plain = RuleSet::new(&[]).unwrap();
        assert_eq!(plain.tables().len(), 2);
        let own = TableDeclaration { table: "users".parse().unwrap(), ..tasks(Some(&["id"])) };
        let overridden = RuleSet::new(std::slice::from_ref(&own)).unwrap();
        assert_eq!(overridden.tables().len(), 2);
        assert_eq!(overridden.find(&users), Some(&own));
        assert_ne!(plain.hash(), overridden.hash());
    }

    #[test]
    fn a_place_counts_as_the_file_does_and_not_as_names_sort() {
        let rules = RuleSet::new(&[
            TableDeclaration { table: "zoo".parse().unwrap(), ..tasks(None) },
            TableDeclaration { table: "ant".parse().unwrap(), ..tasks(None) },
        ])
        .unwrap();
        let places = ["zoo", "ant", "users"].map(|table| rules.place(&table.parse().unwrap()));
        assert_eq!(places, ["sync.tables[0]", "sync.tables[1]", "sync.tables (built in: public.users)"]);
    }

    #[test]
    fn no_user_row_carries_a_credential_or_a_device() {
        let rules = RuleSet::new(&[]).unwrap();
        let users = rules.find(&"users".parse().unwrap()).unwrap();
        let columns = users.columns.as_deref().unwrap();
        assert!(
            !columns.iter().any(|c| c.contains("device") || c.contains("token") || c.contains("password"))
        );
    }

    #[test]
    fn the_hash_sees_tables_buckets_columns_and_limits_but_not_write_rules() {
        let base = RuleSet::new(&[tasks(Some(&["id", "title"]))]).unwrap();
        assert_eq!(base.clone().with_max_row_bytes(DEFAULT_MAX_ROW_BYTES), base);
        assert_ne!(base.clone().with_max_row_bytes(DEFAULT_MAX_ROW_BYTES - 1).hash(), base.hash());
        let writable = TableDeclaration {
            write: Some(WriteDeclaration { owner: "o".into(), columns: vec![], version: "v".into() }),
            ..tasks(Some(&["id", "title"]))
        };
        assert_eq!(base.hash(), RuleSet::new(&[writable]).unwrap().hash());
        for other in
            [tasks(None), tasks(Some(&["id"])), tasks(Some(&["idtitle"])), tasks(Some(&["title", "id"]))]
        {
            assert_ne!(base.hash(), RuleSet::new(&[other]).unwrap().hash());
        }
    }

    #[test]
    fn declarations_that_cannot_work_are_refused() {
        let none = TableDeclaration { buckets: vec![], ..tasks(None) };
        assert!(matches!(RuleSet::new(&[none]), Err(RuleError::NoBucket(_))));
        assert!(matches!(RuleSet::new(&[tasks(Some(&[]))]), Err(RuleError::NoColumns(_))));
        assert!(matches!(RuleSet::new(&[tasks(Some(&["a", "a"]))]), Err(RuleError::RepeatedColumn(..))));
        assert!(matches!(RuleSet::new(&[tasks(None), tasks(None)]), Err(RuleError::Duplicate(_))));
        for text in ["", "user:", "user:owner", "user:{}", "user:{a}{b}", "team:{id}"] {
            assert_eq!(text.parse::<BucketTemplate>(), Err(RuleError::Bucket(text.into())), "{text:?}");
        }
    }
}

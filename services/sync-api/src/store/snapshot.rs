//! Pages of a synced table in key order, in the text form that the log has too.

use deadpool_postgres::Transaction;
use posduif_model::{
    TableName, UserId,
    row::{EncodedRow, Projection, TooLarge},
    rule::{BucketTemplate, TableDeclaration},
    table::{Column, TableShape, quote_identifier},
    value::{Datum, TypeCatalog},
};
use postgres_protocol::escape::escape_literal;
use sha2::{Digest, Sha256};
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use super::StoreError;

/// A declared table, ready to be read and encoded as the log encodes it.
#[derive(Clone, Debug)]
pub struct SnapshotTable {
    name: TableName,
    /// The listed columns and the key: what a page reads.
    columns: Vec<Column>,
    key: Vec<String>,
    key_shape: String,
    projection: Projection,
}

/// One row of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRow {
    /// The key's values as PostgreSQL's text: where the next page goes on.
    pub after: Vec<String>,
    /// The row as the log would have it, or why nobody sees it.
    pub encoded: Result<EncodedRow, TooLarge>,
}

impl SnapshotRow {
    /// Whether a cursor can name the row.
    pub fn is_addressable(&self) -> bool {
        !matches!(self.encoded, Err(TooLarge::Key(_)))
    }
}

impl SnapshotTable {
    /// Binds a declaration to the table as it is; `None` for a table without a primary key, which is not synced.
    pub fn bind(
        declaration: &TableDeclaration,
        shape: &TableShape,
        types: &TypeCatalog,
        max_row_bytes: usize,
    ) -> Result<Option<Self>, StoreError> {
        if shape.key.is_empty() {
            return Ok(None);
        }
        let listed = declaration.columns.as_deref();
        let is_needed = |column: &&Column| {
            listed.is_none_or(|names| names.contains(&column.name)) || shape.key.contains(&column.name)
        };
        let columns: Vec<Column> = shape.columns.iter().filter(is_needed).cloned().collect();
        let projection = Projection::new(&columns, &shape.key, listed, types, max_row_bytes)?;
        Ok(Some(SnapshotTable {
            name: shape.name.clone(),
            key_shape: key_shape(&columns, &shape.key),
            columns,
            key: shape.key.clone(),
            projection,
        }))
    }

    /// Names the key's columns and their types in a few characters.
    pub fn key_shape(&self) -> String {
        self.key_shape.clone()
    }

    /// At most `limit` rows of a bucket after a key.
    pub async fn page(
        &self,
        transaction: &Transaction<'_>,
        bucket: &BucketTemplate,
        user: UserId,
        after: Option<&[String]>,
        limit: usize,
    ) -> Result<Vec<SnapshotRow>, StoreError> {
        let sql = self.sql(bucket, user, after, limit);
        self.rows(transaction, &sql).await
    }

    /// The rows that a condition is true of.
    pub async fn matching(
        &self,
        transaction: &Transaction<'_>,
        condition: &str,
    ) -> Result<Vec<SnapshotRow>, StoreError> {
        let columns: Vec<String> = self.columns.iter().map(|column| quote_identifier(&column.name)).collect();
        let sql = format!("SELECT {} FROM {} WHERE {condition}", columns.join(", "), self.name.to_sql());
        self.rows(transaction, &sql).await
    }

    async fn rows(&self, transaction: &Transaction<'_>, sql: &str) -> Result<Vec<SnapshotRow>, StoreError> {
        // The simple protocol answers in the types' text output form; a cast to text differs from it.
        let answer = transaction.simple_query(sql).await?;
        let rows = answer.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        rows.map(|row| self.encode(row)).collect()
    }

    fn sql(&self, bucket: &BucketTemplate, user: UserId, after: Option<&[String]>, limit: usize) -> String {
        let names = |names: &mut dyn Iterator<Item = &String>| {
            names.map(|name| quote_identifier(name)).collect::<Vec<_>>().join(", ")
        };
        let columns = names(&mut self.columns.iter().map(|column| &column.name));
        let key = names(&mut self.key.iter());
        let mut conditions = Vec::new();
        if let BucketTemplate::User { column } = bucket {
            conditions.push(format!("{} = {}", quote_identifier(column), escape_literal(&user.to_string())));
        }
        if let Some(after) = after {
            let values: Vec<String> = after.iter().map(|value| escape_literal(value)).collect();
            conditions.push(format!("({key}) > ({})", values.join(", ")));
        }
        let filter = match conditions.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", conditions.join(" AND ")),
        };
        format!("SELECT {columns} FROM {}{filter} ORDER BY {key} LIMIT {limit}", self.name.to_sql())
    }

    fn encode(&self, row: &SimpleQueryRow) -> Result<SnapshotRow, StoreError> {
        let values: Vec<Datum<'_>> = (0..self.columns.len())
            .map(|index| Ok(row.try_get(index)?.map_or(Datum::Null, Datum::Text)))
            .collect::<Result<_, tokio_postgres::Error>>()?;
        let after = self.key.iter().map(|name| {
            let index = self.columns.iter().position(|column| column.name == *name);
            match index.and_then(|index| values.get(index)) {
                Some(Datum::Text(text)) => Ok((*text).to_owned()),
                _ => Err(StoreError::Unexpected(format!("{} has a row without a key", self.name))),
            }
        });
        Ok(SnapshotRow { after: after.collect::<Result<_, _>>()?, encoded: self.projection.encode(&values)? })
    }
}

fn key_shape(columns: &[Column], key: &[String]) -> String {
    let mut digest = Sha256::new();
    for column in key.iter().filter_map(|name| columns.iter().find(|column| column.name == *name)) {
        // No name of PostgreSQL holds a NUL.
        digest.update(column.name.as_bytes());
        digest.update([0]);
        digest.update(column.type_oid.to_be_bytes());
    }
    digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: Option<&[&str]>) -> SnapshotTable {
        let column = |name: &str| Column { name: name.into(), type_oid: 25, nullable: true };
        let declaration = TableDeclaration {
            table: "t".parse().unwrap(),
            buckets: vec![BucketTemplate::Shared],
            columns: columns.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
            write: None,
        };
        let shape = TableShape {
            name: "t".parse().unwrap(),
            columns: vec![column("a"), column("se\"cret"), column("b"), column("c")],
            key: vec!["b".into(), "a".into()],
        };
        SnapshotTable::bind(&declaration, &shape, &TypeCatalog::default(), 1000).unwrap().unwrap()
    }

    #[test]
    fn a_page_reads_listed_columns_and_the_key_of_one_users_rows() {
        let user = "00000000-0000-0000-0000-000000000001".parse().unwrap();
        let owner = BucketTemplate::User { column: "own\"er".into() };
        let after = ["x'y".to_owned(), "z".to_owned()];
        assert_eq!(
            table(Some(&["c"])).sql(&owner, user, Some(&after), 7),
            "SELECT \"a\", \"b\", \"c\" FROM \"public\".\"t\" \
             WHERE \"own\"\"er\" = '00000000-0000-0000-0000-000000000001' AND (\"b\", \"a\") > ('x''y', 'z') \
             ORDER BY \"b\", \"a\" LIMIT 7"
        );
    }

    #[test]
    fn a_shared_table_is_read_from_its_first_key() {
        let user = "00000000-0000-0000-0000-000000000001".parse().unwrap();
        assert_eq!(
            table(None).sql(&BucketTemplate::Shared, user, None, 1),
            "SELECT \"a\", \"se\"\"cret\", \"b\", \"c\" FROM \"public\".\"t\" ORDER BY \"b\", \"a\" LIMIT 1"
        );
    }
}

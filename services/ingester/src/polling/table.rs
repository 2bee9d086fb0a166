//! A declared table and a snapshot in, the query for its rows that changed since out; no I/O.

use posduif_model::{
    Bucket, TableName,
    rule::{RuleSet, TableDeclaration},
    table::quote_identifier,
    value::Datum,
};
use postgres_protocol::escape::escape_literal;

use crate::{
    catalog::{Catalog, KnownTable},
    relations::SyncedTable,
    visibility::Snapshot,
};

/// A table that is polled.
#[derive(Clone, Debug)]
pub struct PolledTable {
    pub oid: u32,
    pub synced: SyncedTable,
    /// The columns of its rows, in the order of the answer.
    columns: Vec<String>,
    /// Name and type of the key's columns, and where they stand among the others.
    key: Vec<KeyColumn>,
}

#[derive(Clone, Debug)]
struct KeyColumn {
    name: String,
    type_name: String,
    place: usize,
}

/// Which rows are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that the triggers noted.
    Noted,
    /// Those that are there in a version that is newer, whoever wrote it.
    Newer,
}

/// One row of the answer.
#[derive(Debug)]
pub struct Answer<'a> {
    /// Where versions of it were seen.
    pub users: Option<&'a str>,
    /// The device that wrote it last.
    pub origin: Option<&'a str>,
    /// Its key as it was noted, at the places of a row.
    pub noted: Vec<Datum<'a>>,
    /// It as it is now.
    pub now: Option<Vec<Datum<'a>>>,
}

impl PolledTable {
    /// All declared tables.
    ///
    /// # Errors
    /// One of them cannot be routed; the sentence says why.
    pub fn all(rules: &RuleSet, catalog: &Catalog) -> Result<Vec<Self>, String> {
        let of = |declaration: &TableDeclaration| {
            let known = catalog.table(&declaration.table)?;
            Some(Self::new(declaration, known, rules, catalog))
        };
        rules.tables().iter().filter_map(of).collect()
    }

    fn new(
        declaration: &TableDeclaration,
        known: &KnownTable,
        rules: &RuleSet,
        catalog: &Catalog,
    ) -> Result<Self, String> {
        let synced = SyncedTable::known(declaration, known, catalog.types(), rules.max_row_bytes())?;
        let columns: Vec<String> = known.columns.iter().map(|column| column.name.clone()).collect();
        let key = known.key.iter().map(|name| {
            let place = columns.iter().position(|column| column == name);
            let column = place.and_then(|place| known.columns.get(place));
            match (place, column) {
                (Some(place), Some(column)) => {
                    let type_name = column.type_name.clone();
                    Ok(KeyColumn { name: name.clone(), type_name, place })
                }
                _ => Err(format!("{} has no column {name}", declaration.table)),
            }
        });
        let key = key.collect::<Result<_, _>>()?;
        Ok(PolledTable { oid: known.oid, synced, columns, key })
    }

    pub fn name(&self) -> &TableName {
        &self.synced.table
    }

    /// The query for what `since` does not show: users, origin, the key as noted, then the row, whose key is NULL where it
    /// is gone.
    pub fn query(&self, which: Which, since: &Snapshot) -> String {
        let list = |values: &mut dyn Iterator<Item = String>| values.collect::<Vec<_>>().join(", ");
        let columns = list(&mut self.columns.iter().map(|column| format!("t.{}", quote_identifier(column))));
        let table = self.name().to_sql();
        match which {
            Which::Noted => {
                let values =
                    list(&mut self.key.iter().enumerate().map(|(index, key)| {
                        format!("(c.key[{}])::{} AS k{index}", index + 1, key.type_name)
                    }));
                let names = list(&mut (0..self.key.len()).map(|index| format!("n.k{index}")));
                let same: Vec<String> = self
                    .key
                    .iter()
                    .enumerate()
                    .map(|(index, key)| format!("t.{} = n.k{index}", quote_identifier(&key.name)))
                    .collect();
                format!(
                    "WITH n AS (
                         SELECT {values}, string_agg(DISTINCT u::text, ' ') AS users,
                                (array_agg(c.origin ORDER BY c.number DESC))[1] AS origin
                           FROM posduif_engine.captured c LEFT JOIN unnest(c.users) u ON true
                          WHERE c.table_name = {} AND c.kind = 'r' AND {}
                          GROUP BY c.key)
                     SELECT n.users, n.origin, {names}, {columns} FROM n LEFT JOIN {table} t ON {}",
                    escape_literal(&self.name().to_string()),
                    newer("c.xid", since),
                    same.join(" AND ")
                )
            }
            Which::Newer => {
                let names =
                    list(&mut self.key.iter().map(|key| format!("t.{}", quote_identifier(&key.name))));
                // A row knows its transaction by 32 bits of its id, or by a part of it that no snapshot names: so all from
                // the oldest that ran on. Ids below 3 are nobody's.
                let low = since.xmin & u64::from(u32::MAX);
                format!(
                    "SELECT NULL, NULL, {names}, {columns} FROM {table} t
                      WHERE t.xmin::text::int8 > 2
                        AND (t.xmin::text::int8 - {low} + 4294967296) % 4294967296 < 2147483648"
                )
            }
        }
    }

    /// How many columns an answer has.
    pub fn width(&self) -> usize {
        2 + self.key.len() + self.columns.len()
    }

    /// Takes an answer's values apart.
    pub fn answer<'a>(&self, values: &[Option<&'a str>]) -> Option<Answer<'a>> {
        let datum = |value: &Option<&'a str>| value.map_or(Datum::Null, Datum::Text);
        let [users, origin, rest @ ..] = values else { return None };
        let (key, row) = rest.split_at_checked(self.key.len())?;
        let mut noted = vec![Datum::Null; self.columns.len()];
        for (column, value) in self.key.iter().zip(key) {
            *noted.get_mut(column.place)? = datum(value);
        }
        let first = self.key.first()?;
        let is_there = row.get(first.place)?.is_some();
        let now = is_there.then(|| row.iter().map(datum).collect());
        Some(Answer { users: *users, origin: *origin, noted, now })
    }
}

impl Answer<'_> {
    /// The buckets where versions of the row were.
    pub fn before(&self, table: &SyncedTable) -> std::collections::BTreeSet<Bucket> {
        let users = self.users.unwrap_or_default().split_whitespace();
        let users = users.filter_map(|user| user.parse().ok().map(Bucket::User));
        users.chain(table.is_shared().then_some(Bucket::Shared)).collect()
    }
}

/// The condition that a snapshot does not show what a transaction did.
pub fn newer(xid: &str, since: &Snapshot) -> String {
    format!("{xid} >= '{}'::xid8 AND NOT pg_visible_in_snapshot({xid}, '{since}'::pg_snapshot)", since.xmin)
}

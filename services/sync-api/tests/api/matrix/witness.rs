//! Two databases in, a digest of every row out, so that a refused request that wrote anything shows.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use super::{
    operation::{Expected, Row},
    world::World,
};

pub struct Witness {
    one: Client,
    two: Client,
}

/// A digest of each table; every version of a row counts, also one that says the same as before.
#[derive(PartialEq)]
pub struct Sight {
    one: BTreeMap<String, String>,
    two: BTreeMap<String, String>,
}

impl Witness {
    pub async fn new(world: &World) -> Self {
        let (one, two) = (&world.one.database, &world.two.database);
        Witness { one: one.connect().await, two: two.connect().await }
    }

    pub async fn look(&self) -> Sight {
        Sight { one: digests(&self.one).await, two: digests(&self.two).await }
    }
}

impl Sight {
    /// The tables that are not as they were. What the second tenant's own callers may do there is no fault.
    pub fn changes(&self, after: &Sight, row: &Row) -> Vec<String> {
        let differing = |before: &BTreeMap<String, String>, after: &BTreeMap<String, String>| {
            assert!(before.len() > 10 && before.len() == after.len(), "{before:?}");
            let changed = before.iter().filter(|(table, digest)| after[*table] != **digest);
            changed.map(|(table, _)| table.clone()).collect::<Vec<_>>()
        };
        let mut changed = differing(&self.one, &after.one);
        if row.method == "GET" || row.stranger != Expected::Open {
            changed.extend(differing(&self.two, &after.two));
        }
        changed
    }
}

async fn digests(client: &Client) -> BTreeMap<String, String> {
    let tables = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
                   WHERE schemaname IN ('public', 'posduif_engine')";
    let mut digests = BTreeMap::new();
    for row in client.query(tables, &[]).await.unwrap() {
        let table: String = row.get(0);
        let sql = format!(
            "SELECT coalesce(md5(string_agg(t.xmin::text || t.*::text, '|' ORDER BY t.*::text)), '') FROM {table} t"
        );
        digests.insert(table, client.query_one(&sql, &[]).await.unwrap().get(0));
    }
    digests
}

//! Every change of the synced tables in, what each user's devices should hold at any position of the WAL out.
//!
//! It shares nothing with the product: triggers note each change in a table that is not synced, a slot of its own with
//! PostgreSQL's `test_decoding` tells in which order and where the transactions were committed.

use std::collections::{BTreeMap, VecDeque};

use posduif_model::{Lsn, UserId};
use posduif_testkit::{Database, eventually};
use serde_json::{Map, Value};
use tokio_postgres::{Client, NoTls};

use crate::{
    shape::{self, Row, Rows},
    site::PATIENCE,
};

const SQL: &str = "
    CREATE SCHEMA ledger;
    CREATE TABLE ledger.history (seq bigserial PRIMARY KEY, xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
        relation text NOT NULL, former jsonb, latter jsonb);
    CREATE INDEX ON ledger.history (xid);
    CREATE TABLE ledger.careless (token uuid PRIMARY KEY);
    CREATE FUNCTION ledger.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
        INSERT INTO ledger.history (relation, former, latter) VALUES (TG_TABLE_NAME,
            CASE WHEN TG_OP IN ('UPDATE', 'DELETE') THEN to_jsonb(OLD) END,
            CASE WHEN TG_OP IN ('UPDATE', 'INSERT') THEN to_jsonb(NEW) END);
        RETURN NULL; END $$;
    CREATE FUNCTION ledger.note_truncate() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
        INSERT INTO ledger.history (relation) VALUES (TG_TABLE_NAME); RETURN NULL; END $$;";

/// A row between two changes of it; `None`: there is none.
type Version = (Lsn, Option<Map<String, Value>>);

/// All that was committed so far.
pub struct Ledger {
    url: String,
    slot: String,
    client: Client,
    versions: BTreeMap<shape::Key, Vec<Version>>,
    /// Commits that are known, the position after each with its transaction.
    known: VecDeque<(Lsn, String)>,
    /// The newest commit that is known.
    at: Lsn,
    pub commits: u64,
}

impl Ledger {
    /// Begins to note what happens to the synced tables. What `users` holds already is taken along.
    pub async fn open(database: &Database) -> Self {
        let client = database.connect_superuser().await;
        client.batch_execute(SQL).await.unwrap();
        let slot = format!("ledger_{}", database.name());
        let sql = "SELECT lsn::text FROM pg_create_logical_replication_slot($1::text::name, 'test_decoding')";
        let at = client.query_one(sql, &[&slot]).await.unwrap().get::<_, String>(0).parse().unwrap();
        for (table, _) in shape::TABLES {
            let sql = format!(
                "CREATE TRIGGER ledger AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW
                    EXECUTE FUNCTION ledger.note();
                 CREATE TRIGGER ledger_truncate AFTER TRUNCATE ON {table} FOR EACH STATEMENT
                    EXECUTE FUNCTION ledger.note_truncate();"
            );
            client.batch_execute(&sql).await.unwrap();
        }
        client.batch_execute("UPDATE users SET username = username").await.unwrap();
        let url = database.superuser_url().to_owned();
        let (versions, known) = (BTreeMap::new(), VecDeque::new());
        Ledger { url, slot, client, versions, known, at, commits: 0 }
    }

    /// Follows every commit up to `upto`, which lies on the server's disk. The server may be away for a while.
    pub async fn follow(&mut self, upto: Lsn) {
        eventually(PATIENCE, "the ledger is followed", async || {
            if self.client.is_closed() {
                let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
                tokio::spawn(connection);
                self.client = client;
            }
            let sql = "SELECT lsn::text, xid::text FROM pg_logical_slot_get_changes($1::text::name, NULL, NULL)
                        WHERE data LIKE 'COMMIT%'";
            for row in self.client.query(sql, &[&self.slot]).await? {
                let end: Lsn = row.get::<_, String>(0).parse()?;
                // After a crash the slot says some of them again.
                if end > self.at {
                    self.at = end;
                    self.known.push_back((end, row.get(1)));
                }
            }
            while let Some((end, xid)) = self.known.front().filter(|(end, _)| *end <= upto).cloned() {
                // The slot knows a commit before others see it.
                let sql = "SELECT pg_visible_in_snapshot($1::text::xid8, pg_current_snapshot())";
                if !self.client.query_one(sql, &[&xid]).await?.get::<_, bool>(0) {
                    return Ok(None);
                }
                let sql = "SELECT relation, former, latter FROM ledger.history WHERE xid = $1::text::xid8 ORDER BY seq";
                let changes = self.client.query(sql, &[&xid]).await?;
                self.known.pop_front();
                self.commits += u64::from(!changes.is_empty());
                for row in changes {
                    self.note(end, row.get(0), row.get(1), row.get(2));
                }
            }
            Ok(Some(()))
        })
        .await;
    }

    fn note(&mut self, end: Lsn, table: &str, former: Option<Value>, latter: Option<Value>) {
        if former.is_none() && latter.is_none() {
            for (_, versions) in self.versions.iter_mut().filter(|((of, _), _)| of == table) {
                versions.push((end, None));
            }
            return;
        }
        let object = |value: Option<Value>| value.and_then(|value| value.as_object().cloned());
        let (former, latter) = (object(former), object(latter));
        if let Some(former) = former {
            self.versions.entry(shape::key(table, &former)).or_default().push((end, None));
        }
        if let Some(latter) = latter {
            self.versions.entry(shape::key(table, &latter)).or_default().push((end, Some(latter)));
        }
    }

    /// What a device of this user should hold at a position that was followed.
    pub fn at(&self, user: UserId, lsn: Lsn) -> Rows {
        let visible = |((table, key), versions): (&shape::Key, &Vec<Version>)| {
            let newest = versions.iter().rev().find(|(end, _)| *end <= lsn)?;
            let row = newest.1.as_ref().filter(|row| shape::is_visible(table, row, user))?;
            let columns = shape::columns(table);
            let row: Row = columns.iter().map(|name| shape::text(name, &row[*name])).collect();
            Some(((table.clone(), key.clone()), row))
        };
        self.versions.iter().filter_map(visible).collect()
    }

    /// Forgets what only states before `lsn` need.
    pub fn forget(&mut self, lsn: Lsn) {
        self.versions.retain(|_, versions| {
            let newest = versions.iter().rposition(|(end, _)| *end <= lsn).unwrap_or(0);
            versions.drain(..newest);
            versions.len() > 1 || versions.iter().any(|(end, row)| *end > lsn || row.is_some())
        });
    }
}

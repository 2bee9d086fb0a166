//! The raw streams of a log in, what each bucket's readers hold after every commit out; panics at the first breach.
//!
//! It is a model of its own: it follows the commit log entry by entry and shares no code with the product's reader,
//! except what takes an entry apart.

use std::collections::{BTreeMap, BTreeSet};

use posduif_changelog::{Entry, Keys, connect::Connection, entry};
use posduif_model::{Bucket, Epoch, Lsn, Op, Position, UserId};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    expected::{self, Buckets, Rows, canonical},
    schema::{Schema, TOTAL},
    tenant::Tenant,
};

type Stored = Vec<(String, Vec<(String, Vec<u8>)>)>;
type Fields = BTreeMap<String, String>;

/// What should be held at a mark: the state when that row was committed, with every writer at rest.
pub type Marks = BTreeMap<i64, Buckets>;

/// Follows one epoch of one log.
pub struct Auditor {
    keys: Keys,
    users: Vec<Uuid>,
    pub epoch: Epoch,
    /// The newest commit that was followed.
    pub at: Lsn,
    /// Below this the state mixes a snapshot with older changes, as a device's does until it has caught up.
    exact_from: Lsn,
    buckets: Buckets,
    balances: BTreeMap<String, i64>,
    sequences: BTreeMap<i64, i64>,
    transactions: BTreeSet<String>,
    /// Commits at which a mark was met and compared.
    pub marks: Vec<(i64, Lsn)>,
    pub commits: u64,
    pub changes: u64,
}

impl Auditor {
    /// Joins as a new device does: the watermark first, then a snapshot, then the log from that watermark on.
    pub async fn join(tenant: &Tenant, schema: &Schema) -> Self {
        let state = tenant.ready().await;
        let mut client = tenant.database.connect().await;
        let buckets = expected::snapshot(&mut client, schema).await;
        let exact_from = crate::tenant::insert_lsn(&client).await;
        let mut auditor = Auditor {
            keys: tenant.keys.clone(),
            users: schema.users.clone(),
            epoch: state.epoch,
            at: state.watermark.commit,
            exact_from,
            balances: BTreeMap::new(),
            buckets,
            sequences: BTreeMap::new(),
            transactions: BTreeSet::new(),
            marks: Vec::new(),
            commits: 0,
            changes: 0,
        };
        let shared = auditor.buckets.get("shared").cloned().unwrap_or_default();
        for ((table, key), row) in shared.iter().filter(|((table, _), _)| table == "accounts") {
            auditor.count(table, key, row);
        }
        auditor
    }

    /// What the readers of each bucket hold after the newest commit followed.
    pub fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    pub fn users(&self) -> &[Uuid] {
        &self.users
    }

    /// Follows every commit up to `upto`, and compares at every mark met.
    pub async fn follow(&mut self, tenant: &Tenant, upto: Lsn, marks: &Marks) {
        // A new connection each time: Redis itself may have been away.
        let mut redis = tenant.redis().await;
        let commits = self.range(&mut redis, &self.keys.commits(&self.epoch), upto).await;
        let mut entries: BTreeMap<Lsn, Vec<(Bucket, Entry)>> = BTreeMap::new();
        let buckets: Vec<Bucket> = std::iter::once(Bucket::Shared)
            .chain(self.users.iter().map(|user| Bucket::User(UserId::new(*user))))
            .collect();
        for bucket in buckets {
            let mut last = Position::last_of(self.at);
            for (id, fields) in self.range(&mut redis, &self.keys.bucket(&self.epoch, &bucket), upto).await {
                let entry = entry::decode(&id, &fields).unwrap();
                assert!(entry.position > last, "{id} of {bucket} does not come after {last}");
                last = entry.position;
                entries.entry(entry.position.commit).or_default().push((bucket, entry));
            }
        }
        for (id, fields) in commits {
            let position: Position = id.parse().unwrap();
            assert_eq!(position.ordinal, 0, "commit {id}");
            let text = |(name, value)| (name, String::from_utf8(value).unwrap());
            let record: Fields = fields.into_iter().map(text).collect();
            let changes = entries.remove(&position.commit).unwrap_or_default();
            self.commit(position.commit, &record, changes, marks);
        }
        assert!(entries.is_empty(), "entries without their commit: {:?}", entries.keys());
    }

    /// No bucket got entries that the model does not know.
    pub async fn assert_no_other_buckets(&self, tenant: &Tenant) {
        let mut redis = tenant.redis().await;
        let pattern =
            format!("{}*", self.keys.bucket(&self.epoch, &Bucket::Shared).trim_end_matches("shared"));
        let mut cursor = 0u64;
        loop {
            let (next, found): (u64, Vec<String>) = redis::cmd("SCAN")
                .arg((cursor, "MATCH", &pattern, "COUNT", 1000))
                .query_async(&mut redis)
                .await
                .unwrap();
            for key in found {
                let name = key.rsplit(":b:").next().unwrap();
                let known = name == "shared" || self.users.iter().any(|user| name == format!("user:{user}"));
                assert!(known, "a stream for a bucket that no row named: {key}");
            }
            cursor = next;
            if cursor == 0 {
                return;
            }
        }
    }

    async fn range(&self, redis: &mut Connection, key: &str, upto: Lsn) -> Stored {
        let (first, last) = (format!("({}", Position::last_of(self.at)), Position::last_of(upto).to_string());
        redis::cmd("XRANGE").arg((key, first, last)).query_async(redis).await.unwrap()
    }

    fn commit(&mut self, commit: Lsn, record: &Fields, mut changes: Vec<(Bucket, Entry)>, marks: &Marks) {
        let number = |name: &str| record[name].parse::<u64>().unwrap();
        assert_eq!(number("previous"), self.at.get(), "the chain is broken at {commit}");
        assert!(number("end") > commit.get() && commit > self.at, "{record:?}");
        let named: BTreeSet<&str> = record["buckets"].split_whitespace().collect();
        let got: BTreeSet<String> = changes.iter().map(|(bucket, _)| bucket.to_string()).collect();
        assert!(named.iter().copied().eq(got.iter().map(String::as_str)), "{commit}: {named:?}, but {got:?}");
        changes.sort_by_key(|(bucket, entry)| (entry.position, *bucket));
        let mut stamps = Vec::new();
        let mut met = Vec::new();
        let exact = commit >= self.exact_from;
        for (bucket, entry) in changes {
            assert!(entry.position.ordinal < number("changes"), "{} of {record:?}", entry.position);
            let origin = entry.origin.as_ref().map(ToString::to_string);
            assert_eq!(origin.as_ref(), record.get("origin"), "at {}", entry.position);
            for change in entry.changes {
                let table = change.table.name().to_owned();
                match change.op {
                    Op::Truncate => {
                        assert_eq!(bucket, Bucket::Shared);
                        self.buckets.values_mut().for_each(|rows| rows.retain(|(of, _), _| *of != table));
                    }
                    Op::Delete => {
                        let id = (table.clone(), canonical(&change.key));
                        let held =
                            self.buckets.get_mut(&bucket.to_string()).and_then(|rows| rows.remove(&id));
                        assert!(held.is_some() || !exact, "{id:?} leaves {bucket} without being there");
                    }
                    Op::Put => {
                        let (key, row) = (canonical(&change.key), change.row);
                        match table.as_str() {
                            "stamps_a" | "stamps_b" => stamps.push(row.clone()),
                            "marks" => met.push(field(&row, "id")),
                            _ => self.count(&table, &key, &row),
                        }
                        self.buckets.entry(bucket.to_string()).or_default().insert((table, key), row);
                    }
                }
                self.changes += 1;
            }
        }
        self.at = commit;
        self.commits += 1;
        self.check_stamps(commit, &stamps);
        if exact {
            let sum: i64 = self.balances.values().sum();
            assert_eq!(sum, TOTAL, "money appeared or vanished at {commit}");
        }
        for mark in met {
            if let Some(expected) = marks.get(&mark).filter(|_| exact) {
                self.assert_holds(expected, &format!("at mark {mark}, commit {commit}"));
                self.marks.push((mark, commit));
            }
        }
    }

    /// Compares every bucket with what PostgreSQL says.
    pub fn assert_holds(&self, expected: &Buckets, when: &str) {
        let none = Rows::new();
        for bucket in self.buckets.keys().chain(expected.keys()).collect::<BTreeSet<_>>() {
            let held = self.buckets.get(bucket).unwrap_or(&none);
            let wrong = expected::differences(held, expected.get(bucket).unwrap_or(&none));
            assert!(wrong.is_empty(), "{when}, bucket {bucket} differs from PostgreSQL:\n{wrong}");
        }
    }

    fn count(&mut self, table: &str, key: &str, row: &str) {
        if table == "accounts" {
            let row: Value = serde_json::from_str(row).unwrap();
            let balance = row["balance"].as_str().unwrap().parse().unwrap();
            self.balances.insert(key.to_owned(), balance);
        }
    }

    /// The rows of one transaction come all or not at all, and no transaction of a writer comes twice or not.
    fn check_stamps(&mut self, commit: Lsn, stamps: &[String]) {
        let Some(first) = stamps.first() else { return };
        let transaction = |row: &String| serde_json::from_str::<Value>(row).unwrap()["txn"].to_string();
        let places: BTreeSet<i64> = stamps.iter().map(|row| field(row, "k")).collect();
        let all: BTreeSet<i64> = (1..=field(first, "n")).collect();
        assert_eq!(places, all, "a part of a transaction at {commit}");
        assert_eq!(stamps.len(), all.len(), "a row came twice at {commit}");
        assert!(
            stamps.iter().all(|row| transaction(row) == transaction(first)),
            "two transactions at {commit}"
        );
        assert!(self.transactions.insert(transaction(first)), "transaction {} again", transaction(first));
        let (writer, sequence) = (field(first, "writer"), field(first, "seq"));
        let before = self.sequences.insert(writer, sequence);
        assert!(
            before.is_none_or(|before| before + 1 == sequence),
            "writer {writer} went from {before:?} to {sequence} at {commit}"
        );
    }
}

/// A number of a row; 64-bit ones are strings in JSON.
fn field(row: &str, name: &str) -> i64 {
    let value = &serde_json::from_str::<Value>(row).unwrap()[name];
    value.as_i64().unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
}

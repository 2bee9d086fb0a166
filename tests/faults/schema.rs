//! A seed in, the tables of one tenant and their declarations out.

use rand::{RngExt, rngs::StdRng};
use uuid::Uuid;

use crate::values::Kind;

/// Users of the tenant: each has a bucket of its own.
pub const USERS: usize = 4;
/// The sum over all accounts, the same after every commit.
pub const TOTAL: i64 = 20_000;
pub const ACCOUNTS: i64 = 20;

/// What the tests know of a synced table, written down independently of the product's rules.
#[derive(Clone, Debug)]
pub struct Declared {
    pub name: String,
    pub key: Vec<String>,
    /// The columns that leave the server; `None`: all.
    pub columns: Option<Vec<String>>,
    /// `None` for everyone, else the column that holds the user's id.
    pub buckets: Vec<Option<String>>,
}

/// A table with random columns that the writers change in every way.
#[derive(Clone, Debug)]
pub struct Random {
    pub name: String,
    pub keys: Vec<(String, Kind)>,
    pub data: Vec<(String, Kind)>,
    pub owners: Vec<String>,
    /// With an index as its identity, owners are never NULL.
    pub indexed: bool,
}

#[derive(Clone, Debug)]
pub struct Schema {
    pub users: Vec<Uuid>,
    pub random: Vec<Random>,
    pub declared: Vec<Declared>,
    pub sql: String,
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

/// The tables whose invariants are checked at every commit, and a pair with a deferred constraint.
const FIXED: &str = "
CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL);
INSERT INTO accounts SELECT n, 1000 FROM generate_series(1, 20) n;
CREATE TABLE stamps_a (txn uuid, k int, n int NOT NULL, writer int NOT NULL, seq bigint NOT NULL, PRIMARY KEY (txn, k));
CREATE TABLE stamps_b (txn uuid, k int, n int NOT NULL, writer int NOT NULL, seq bigint NOT NULL, owner uuid NOT NULL,
                       PRIMARY KEY (k, txn));
CREATE TABLE marks (id bigint PRIMARY KEY);
CREATE TABLE parents (id int PRIMARY KEY, title text);
CREATE TABLE children (id int PRIMARY KEY, owner uuid, parent int NOT NULL
                       REFERENCES parents ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED);
";

impl Schema {
    pub fn random(rng: &mut StdRng) -> Self {
        let users = (1..=USERS as u128).map(Uuid::from_u128).collect();
        let mut schema = Schema { users, random: Vec::new(), declared: fixed(), sql: FIXED.to_owned() };
        for index in 0..rng.random_range(2..=4) {
            // Whatever the seed: one table has toasted values, one an index as its identity, one both buckets.
            schema.add(rng, index);
        }
        schema
    }

    /// The users themselves; their rows are synced too.
    pub fn users_sql(&self) -> String {
        let row = |(n, id): (usize, &Uuid)| format!("('{id}', 'user {n}')");
        let rows: Vec<String> = self.users.iter().enumerate().map(row).collect();
        format!("INSERT INTO users (id, username) VALUES {}", rows.join(", "))
    }

    /// `sync.tables` for the ingester's configuration.
    pub fn tables(&self) -> String {
        let own = |d: &&Declared| d.name != "users" && d.name != "messages";
        let declaration = |d: &Declared| {
            let bucket = |b: &Option<String>| match b {
                None => "shared".to_owned(),
                Some(column) => format!("'user:{{{column}}}'"),
            };
            let buckets: Vec<String> = d.buckets.iter().map(bucket).collect();
            let columns = d.columns.as_ref().map(|list| format!(", columns: [{}]", list.join(", ")));
            format!("{{table: {}, buckets: [{}]{}}}", d.name, buckets.join(", "), columns.unwrap_or_default())
        };
        let list: Vec<String> = self.declared.iter().filter(own).map(declaration).collect();
        format!("[{}]", list.join(", "))
    }

    fn add(&mut self, rng: &mut StdRng, index: usize) {
        let name = format!("random_{index}");
        let indexed = index == 1;
        let column = |prefix: &str, n: usize| format!("{prefix}{n}");
        let keys: Vec<_> =
            (0..rng.random_range(1..=3)).map(|n| (column("k", n), Kind::of_key(rng, indexed))).collect();
        let mut data: Vec<_> =
            (0..rng.random_range(1..=5)).map(|n| (column("c", n), Kind::of_data(rng, indexed))).collect();
        if index == 0 || (!indexed && rng.random_bool(0.5)) {
            data.push(("large".to_owned(), Kind::Large));
        }
        let (owners, everyone) = match index {
            0 => (1, true),
            1 => (rng.random_range(1..=2), false),
            _ => [(1, false), (2, false), (0, true), (2, true)][rng.random_range(0..4)],
        };
        let owners: Vec<String> = (0..owners).map(|n| column("owner", n)).collect();
        let mut buckets: Vec<_> = owners.iter().cloned().map(Some).collect();
        buckets.extend(everyone.then_some(None));
        let key: Vec<String> = keys.iter().map(|(name, _)| name.clone()).collect();
        // An unlisted column beside the listed ones, in half of the tables.
        let listed = (index == 0 || rng.random_bool(0.5)).then(|| {
            let others = data.iter().map(|(name, _)| name).chain(&owners).cloned();
            let generated = (!indexed).then(|| "doubled".to_owned());
            key.iter().cloned().chain(generated).chain(others).collect()
        });
        let random = Random { name: name.clone(), keys, data, owners, indexed };
        self.sql += &random.create();
        self.declared.push(Declared { name, key, columns: listed, buckets });
        self.random.push(random);
    }
}

impl Random {
    fn create(&self) -> String {
        let Random { name, keys, data, owners, indexed } = self;
        let mut columns: Vec<String> =
            keys.iter().chain(data).map(|(name, kind)| format!("{name} {}", kind.sql())).collect();
        let not_null = if *indexed { " NOT NULL" } else { "" };
        columns.extend(owners.iter().map(|owner| format!("{owner} uuid{not_null}")));
        let key: Vec<&str> = keys.iter().map(|(name, _)| name.as_str()).collect();
        let mut sql =
            format!("CREATE TABLE {name} ({}, PRIMARY KEY ({}));\n", columns.join(", "), key.join(", "));
        if *indexed {
            let all =
                key.iter().copied().chain(owners.iter().map(String::as_str)).collect::<Vec<_>>().join(", ");
            sql += &format!(
                "CREATE UNIQUE INDEX {name}_identity ON {name} ({all});
                 ALTER TABLE {name} REPLICA IDENTITY USING INDEX {name}_identity;\n"
            );
        } else {
            // What stays on the server decides what leaves it.
            let doubled = "GENERATED ALWAYS AS (unlisted * 2) STORED";
            sql += &format!("ALTER TABLE {name} ADD unlisted int, ADD doubled int {doubled};\n");
        }
        sql
    }
}

fn fixed() -> Vec<Declared> {
    let declared = |name: &str, key: &[&str], columns: Option<&[&str]>, buckets: &[Option<&str>]| Declared {
        name: name.to_owned(),
        key: names(key),
        columns: columns.map(names),
        buckets: buckets.iter().map(|b| b.map(str::to_owned)).collect(),
    };
    // What the built-in declarations send, from the documentation.
    let users = [
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
    ];
    let messages = [
        "id",
        "sender_id",
        "recipient_id",
        "content",
        "status",
        "created_at",
        "updated_at",
        "synced_at",
        "read_at",
    ];
    vec![
        declared("users", &["id"], Some(&users), &[None]),
        declared("messages", &["id"], Some(&messages), &[Some("sender_id"), Some("recipient_id")]),
        declared("accounts", &["id"], None, &[None]),
        declared("stamps_a", &["txn", "k"], None, &[None]),
        declared("stamps_b", &["k", "txn"], None, &[Some("owner")]),
        declared("marks", &["id"], None, &[None]),
        declared("parents", &["id"], None, &[None]),
        declared("children", &["id"], Some(&["parent", "id"]), &[Some("owner"), None]),
    ]
}

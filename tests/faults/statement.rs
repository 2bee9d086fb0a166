//! A random table in, one random statement on it out.

use rand::{RngExt, rngs::StdRng};
use uuid::Uuid;

use crate::{
    schema::{Random, Schema},
    values::Kind,
};

/// Rows that a random table keeps; deletes take what is above.
const KEPT: usize = 120;

/// One statement that changes synced tables; it may fail on a constraint, as an application's would.
pub fn random(rng: &mut StdRng, schema: &Schema) -> String {
    let table = &schema.random[rng.random_range(0..schema.random.len())];
    match rng.random_range(0..100) {
        0..=19 => table.insert(rng, schema, 1..=5),
        20..=29 => table.upsert(rng, schema),
        30..=51 => table.update(rng),
        52..=61 => table.move_key(rng),
        62..=75 => table.move_bucket(rng, schema),
        76..=87 => table.delete(rng),
        88 => table.truncate(rng, schema),
        89..=94 => family(rng, schema),
        95 => reshape(rng),
        _ => messages(rng, schema),
    }
}

/// A statement of thousands of rows.
pub fn large(rng: &mut StdRng, schema: &Schema) -> String {
    let n = rng.random_range(1_000..=5_000);
    let parents = format!(
        "INSERT INTO parents SELECT n, 'p' || random() FROM generate_series(1, {n}) n
                           ON CONFLICT (id) DO UPDATE SET title = excluded.title"
    );
    match rng.random_range(0..3) {
        0 => parents,
        1 => "UPDATE parents SET title = title || '.'".to_owned(),
        _ => format!("{parents}; DELETE FROM parents WHERE id > 50; {}", family(rng, schema)),
    }
}

fn owner(rng: &mut StdRng, schema: &Schema, nullable: bool) -> String {
    match rng.random_range(0..6) {
        0 if nullable => "NULL".to_owned(),
        _ => format!("'{}'", schema.users[rng.random_range(0..schema.users.len())]),
    }
}

impl Random {
    /// Values for all columns but the unlisted one, as a select list.
    fn values(&self, rng: &mut StdRng, schema: &Schema) -> String {
        let mut list: Vec<String> = self.keys.iter().map(|(_, kind)| kind.random(true).to_owned()).collect();
        for (_, kind) in &self.data {
            let null = !self.indexed && rng.random_bool(if *kind == Kind::Large { 0.6 } else { 0.1 });
            list.push(if null { format!("NULL::{}", kind.sql()) } else { kind.random(false).to_owned() });
        }
        list.extend(self.owners.iter().map(|_| format!("{}::uuid", owner(rng, schema, !self.indexed))));
        list.join(", ")
    }

    fn columns(&self) -> String {
        let named = self.keys.iter().chain(&self.data).map(|(name, _)| name);
        named.chain(&self.owners).cloned().collect::<Vec<_>>().join(", ")
    }

    fn key(&self) -> String {
        self.keys.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>().join(", ")
    }

    /// A few rows, whichever the planner finds and the dice let pass.
    fn some_rows(&self, most: usize) -> String {
        format!("ctid IN (SELECT ctid FROM {} ORDER BY random() LIMIT {most})", self.name)
    }

    fn insert(&self, rng: &mut StdRng, schema: &Schema, rows: std::ops::RangeInclusive<usize>) -> String {
        let (rows, values) = (rng.random_range(rows), self.values(rng, schema));
        let ignore = if rng.random_bool(0.7) { " ON CONFLICT DO NOTHING" } else { "" };
        format!(
            "INSERT INTO {} ({}) SELECT {values} FROM generate_series(1, {rows}){ignore}",
            self.name,
            self.columns()
        )
    }

    fn upsert(&self, rng: &mut StdRng, schema: &Schema) -> String {
        let set = self.data.iter().map(|(name, _)| name).chain(&self.owners);
        let set: Vec<String> = set.map(|name| format!("{name} = excluded.{name}")).collect();
        let values = self.values(rng, schema);
        format!(
            "INSERT INTO {} ({}) SELECT {values} ON CONFLICT ({}) DO UPDATE SET {}",
            self.name,
            self.columns(),
            self.key(),
            set.join(", ")
        )
    }

    /// Some columns and not others; now and then none that leaves the server, or none at all.
    fn update(&self, rng: &mut StdRng) -> String {
        let set = match rng.random_range(0..8) {
            0 if !self.indexed => "unlisted = (random() * 100)::int".to_owned(),
            1 => format!("{0} = {0}", self.data[0].0),
            _ => {
                let (name, kind) = &self.data[rng.random_range(0..self.data.len())];
                format!("{name} = {}", kind.random(false))
            }
        };
        // All rows get the same large value, so one of them is enough.
        let most = if set.contains("string_agg") { 1 } else { rng.random_range(1..=8) };
        format!("UPDATE {} SET {set} WHERE {}", self.name, self.some_rows(most))
    }

    fn move_key(&self, rng: &mut StdRng) -> String {
        let (name, kind) = &self.keys[rng.random_range(0..self.keys.len())];
        format!("UPDATE {} SET {name} = {} WHERE {}", self.name, kind.random(true), self.some_rows(1))
    }

    fn move_bucket(&self, rng: &mut StdRng, schema: &Schema) -> String {
        if self.owners.is_empty() {
            return self.update(rng);
        }
        let column = &self.owners[rng.random_range(0..self.owners.len())];
        let to = owner(rng, schema, !self.indexed);
        format!("UPDATE {} SET {column} = {to} WHERE {}", self.name, self.some_rows(rng.random_range(1..=4)))
    }

    fn delete(&self, rng: &mut StdRng) -> String {
        let name = &self.name;
        let most = rng.random_range(1..=3);
        let limit = format!("(SELECT greatest({most}, count(*) - {KEPT}) FROM {name})");
        format!("DELETE FROM {name} WHERE ctid IN (SELECT ctid FROM {name} ORDER BY random() LIMIT {limit})")
    }

    fn truncate(&self, rng: &mut StdRng, schema: &Schema) -> String {
        match rng.random_range(0..4) {
            0 => format!("TRUNCATE {}", self.name),
            1 => format!("TRUNCATE {}, children", self.name),
            2 => "TRUNCATE parents CASCADE".to_owned(),
            _ => schema.random.iter().fold("TRUNCATE children".to_owned(), |sql, t| sql + ", " + &t.name),
        }
    }
}

/// DDL among the rows of one transaction, on the table that lists its columns: they come in two shapes.
fn reshape(rng: &mut StdRng) -> String {
    match rng.random_range(0..3) {
        0 => "ALTER TABLE random_0 DROP COLUMN IF EXISTS extra".to_owned(),
        _ => "ALTER TABLE random_0 ADD COLUMN IF NOT EXISTS extra int DEFAULT 1".to_owned(),
    }
}

/// Children before their parents, which a deferred constraint allows, or forbids at the commit.
fn family(rng: &mut StdRng, schema: &Schema) -> String {
    let (child, parent) = (rng.random_range(1..400), rng.random_range(1..60));
    let born = format!(
        "INSERT INTO children VALUES ({child}, {}, {parent})
         ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, parent = excluded.parent",
        owner(rng, schema, true)
    );
    match rng.random_range(0..8) {
        0 => born,
        1 => format!("DELETE FROM parents WHERE id = {parent}"),
        2 => format!("UPDATE children SET id = id + 1000 WHERE id = {child}"),
        _ => format!("{born}; INSERT INTO parents VALUES ({parent}, 'born') ON CONFLICT DO NOTHING"),
    }
}

/// The built-in tables, whose triggers change a second table in the same transaction.
fn messages(rng: &mut StdRng, schema: &Schema) -> String {
    let mut user = || -> Uuid { schema.users[rng.random_range(0..schema.users.len())] };
    let (from, to) = (user(), user());
    match rng.random_range(0..4) {
        0 => "DELETE FROM messages WHERE ctid IN (SELECT ctid FROM messages ORDER BY random() LIMIT 2)"
            .to_owned(),
        1 => format!("UPDATE messages SET status = 'read', read_at = now() WHERE recipient_id = '{to}'"),
        _ => format!(
            "INSERT INTO messages (sender_id, recipient_id, content) VALUES ('{from}', '{to}', md5(random()::text))"
        ),
    }
}

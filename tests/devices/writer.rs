//! A seed in, an endless row of random transactions of one SQL writer out.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use posduif_model::UserId;
use rand::{RngExt, rngs::StdRng};
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, Error, NoTls};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{shape::ACCOUNTS, site::PATIENCE};

/// What all writers share.
#[derive(Default)]
pub struct Shared {
    /// Nobody waits for the disk: a crash takes the newest commits.
    pub careless: AtomicBool,
    /// Everybody waits for the disk, and for standbys.
    pub careful: AtomicBool,
    /// Transactions that were acknowledged while all were careless, or all careful.
    pub acknowledged: Mutex<Vec<Uuid>>,
    pub committed: AtomicU64,
    pub refused: AtomicU64,
}

pub struct Writer {
    pub number: usize,
    pub url: String,
    pub users: Vec<UserId>,
    pub shared: Arc<Shared>,
    pub rng: StdRng,
    /// The longest pause between two transactions.
    pub pause: Duration,
}

const ITEMS: i64 = 160;
const NOTES: i64 = 60;

impl Writer {
    /// Works until it is told to stop; comes back after a server that went away.
    pub async fn work(mut self, stop: CancellationToken) {
        let mut client = connect(&self.url).await;
        while !stop.is_cancelled() {
            match self.transaction(&client).await {
                Ok(()) => drop(self.shared.committed.fetch_add(1, Ordering::Relaxed)),
                Err(_) => {
                    self.shared.refused.fetch_add(1, Ordering::Relaxed);
                    if client.is_closed() || client.batch_execute("ROLLBACK").await.is_err() {
                        client = connect(&self.url).await;
                    }
                }
            }
            let pause = self.rng.random_range(0..=self.pause.as_micros());
            sleep(Duration::from_micros(u64::try_from(pause).unwrap())).await;
        }
    }

    async fn transaction(&mut self, client: &Client) -> Result<(), Error> {
        let [careless, careful] =
            [&self.shared.careless, &self.shared.careful].map(|all| all.load(Ordering::Relaxed));
        let is_off = careless || (!careful && self.number.is_multiple_of(2));
        let commit = if is_off { "off" } else { "on" };
        client.batch_execute(&format!("BEGIN; SET LOCAL synchronous_commit = {commit}")).await?;
        let statements = self.rng.random_range(1..5);
        for _ in 0..statements {
            let sql = self.statement();
            client.batch_execute(&sql).await?;
            if self.rng.random_bool(0.1) {
                let undone = self.statement();
                client.batch_execute(&format!("SAVEPOINT a; {undone}; ROLLBACK TO a")).await?;
            }
        }
        if self.rng.random_bool(0.1) {
            return client.batch_execute("ROLLBACK").await;
        }
        let token = Uuid::from_u128(self.rng.random());
        if careless || careful {
            client.execute("INSERT INTO ledger.careless VALUES ($1)", &[&token]).await?;
        }
        client.batch_execute("COMMIT").await?;
        if careless || careful {
            self.shared.acknowledged.lock().unwrap().push(token);
        }
        Ok(())
    }

    fn statement(&mut self) -> String {
        let rng = &mut self.rng;
        let (user, other) = (pick(rng, &self.users), pick(rng, &self.users));
        let (item, other_item) = (rng.random_range(0..ITEMS), rng.random_range(0..ITEMS));
        let (kind, n, other_n) =
            (rng.random_range(0..3), rng.random_range(0..NOTES), rng.random_range(0..NOTES));
        let word: u32 = rng.random();
        match rng.random_range(0..100) {
            // Inserts, and updates of what is there; one body in four is kept outside of its row.
            0..16 => format!(
                "INSERT INTO items SELECT {item}, '{user}', 'new {word}',
                    repeat(md5('{word}'), CASE WHEN {word} % 4 = 0 THEN 120 ELSE 2 END), false
                 ON CONFLICT (id) DO UPDATE SET title = excluded.title, body = excluded.body"
            ),
            16..26 => format!("UPDATE items SET title = 'again {word}', done = NOT done WHERE id = {item}"),
            26..34 => format!("UPDATE items SET owner_id = '{other}' WHERE id = {item}"),
            34..37 => format!("UPDATE items SET owner_id = NULL WHERE id = {item}"),
            37..43 => format!(
                "UPDATE items SET id = {other_item}
                  WHERE id = {item} AND NOT EXISTS (SELECT FROM items WHERE id = {other_item})"
            ),
            43..50 => format!("DELETE FROM items WHERE id = {item}"),
            50..54 => format!("UPDATE items SET title = 'all {word}' WHERE owner_id = '{user}'"),
            54..62 => format!(
                "INSERT INTO notes VALUES ('{kind}', {n}, '{word}')
                 ON CONFLICT (kind, n) DO UPDATE SET text = excluded.text"
            ),
            62..65 => format!(
                "UPDATE notes SET n = {other_n} WHERE kind = '{kind}' AND n = {n}
                    AND NOT EXISTS (SELECT FROM notes WHERE kind = '{kind}' AND n = {other_n})"
            ),
            65..69 => format!("DELETE FROM notes WHERE kind = '{kind}' AND n = {n}"),
            69 if word.is_multiple_of(20) => "TRUNCATE notes".to_owned(),
            69..80 => transfer(rng, &self.users),
            80..90 => stamp(rng, user),
            90..94 => format!(
                "INSERT INTO messages (sender_id, recipient_id, content) VALUES ('{user}', '{other}', '{word}')"
            ),
            94..96 => format!(
                "UPDATE messages SET status = 'read', read_at = now() WHERE id = (
                    SELECT id FROM messages WHERE recipient_id = '{user}' AND status <> 'read' LIMIT 1)"
            ),
            _ => format!(
                "DELETE FROM messages WHERE id = (
                    SELECT id FROM messages WHERE sender_id = '{user}' ORDER BY created_at LIMIT 1)"
            ),
        }
    }
}

/// From one account of a user to another of its accounts.
fn transfer(rng: &mut StdRng, users: &[UserId]) -> String {
    let user = i64::try_from(rng.random_range(0..users.len())).unwrap();
    let (a, b) = (rng.random_range(0..ACCOUNTS), rng.random_range(0..ACCOUNTS));
    let amount = rng.random_range(1..50);
    let part = |account: i64, amount: i64| {
        format!("UPDATE accounts SET balance = balance + {amount} WHERE id = {};", user * ACCOUNTS + account)
    };
    // In the order of their ids: most of these do not deadlock.
    if a <= b { part(a, amount) + &part(b, -amount) } else { part(b, -amount) + &part(a, amount) }
}

/// Rows of one transaction in two tables, that say how many there are; older ones of the user go.
fn stamp(rng: &mut StdRng, user: UserId) -> String {
    let n = if rng.random_bool(0.1) { 40 } else { rng.random_range(2..7) };
    let txn = Uuid::from_u128(rng.random());
    // One statement, so that both tables lose the same.
    let tidy = format!(
        "WITH gone AS (SELECT txn FROM (SELECT DISTINCT txn FROM stamps_a WHERE owner_id = '{user}') t
                        ORDER BY md5(txn::text || '{txn}') OFFSET 6),
              first AS (DELETE FROM stamps_a WHERE txn IN (SELECT txn FROM gone))
         DELETE FROM stamps_b WHERE txn IN (SELECT txn FROM gone);"
    );
    let rows = |table, rest| {
        format!(
            "INSERT INTO {table} SELECT '{txn}', k, {n}, '{user}' FROM generate_series(1, {n}) k WHERE k % 2 = {rest};"
        )
    };
    format!("{tidy}{}{}", rows("stamps_a", 1), rows("stamps_b", 0))
}

fn pick<T: Copy>(rng: &mut StdRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

/// Each user's accounts, before anybody writes.
pub fn open_accounts(users: &[UserId]) -> String {
    let each = crate::shape::TOTAL / ACCOUNTS;
    let rows = (0..).zip(users).map(|(place, user): (i64, _)| {
        format!(
            "INSERT INTO accounts SELECT {place} * {ACCOUNTS} + n, '{user}', {each} FROM generate_series(0, {ACCOUNTS} - 1) n;"
        )
    });
    rows.collect()
}

async fn connect(url: &str) -> Client {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Ok((client, connection)) = tokio_postgres::connect(url, NoTls).await {
            tokio::spawn(connection);
            if client.batch_execute("SET deadlock_timeout = '50ms'").await.is_ok() {
                return client;
            }
        }
        assert!(Instant::now() < give_up, "a writer cannot connect");
        sleep(Duration::from_millis(20)).await;
    }
}

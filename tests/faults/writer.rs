//! A seed in, an endless row of random transactions of one writer out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::SinkExt;
use rand::{RngExt, rngs::StdRng};
use tokio::{
    sync::RwLock,
    time::{Instant, sleep},
};
use tokio_postgres::{Client, Error, NoTls};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    schema::{ACCOUNTS, Schema},
    statement,
    tenant::PATIENCE,
};

/// What all writers did so far.
#[derive(Debug, Default)]
pub struct Tally {
    pub committed: AtomicU64,
    pub rolled_back: AtomicU64,
    /// Commits or statements that PostgreSQL refused: constraints, deadlocks, a server that stopped.
    pub refused: AtomicU64,
    /// Single statements, and those that failed and were undone by their savepoint.
    pub statements: AtomicU64,
    pub failed: AtomicU64,
}

/// One client that changes everything, one transaction after another.
pub struct Writer {
    pub number: i32,
    pub schema: Arc<Schema>,
    pub url: String,
    pub rng: StdRng,
    pub tally: Arc<Tally>,
    /// Held for reading during a transaction; whoever holds it for writing has the database to itself.
    pub rest: Arc<RwLock<()>>,
    /// The longest pause between two transactions.
    pub pause: Duration,
}

impl Writer {
    /// Works until it is told to stop; comes back after a server that went away.
    pub async fn work(mut self, stop: CancellationToken) {
        let mut client = self.connect().await;
        let mut sequence = self.newest(&client).await;
        while !stop.is_cancelled() {
            let rest = Arc::clone(&self.rest);
            let turn = rest.read().await;
            let done = self.transaction(&client, sequence + 1).await;
            drop(turn);
            match done {
                Ok(true) => {
                    sequence += 1;
                    self.tally.committed.fetch_add(1, Ordering::Relaxed);
                }
                Ok(false) => drop(self.tally.rolled_back.fetch_add(1, Ordering::Relaxed)),
                Err(_) => {
                    self.tally.refused.fetch_add(1, Ordering::Relaxed);
                    if client.is_closed() || client.batch_execute("ROLLBACK").await.is_err() {
                        // Whether the last commit came through, only the database knows.
                        client = self.connect().await;
                        sequence = self.newest(&client).await;
                    }
                }
            }
            let pause = self.rng.random_range(0..=self.pause.as_micros());
            sleep(Duration::from_micros(u64::try_from(pause).unwrap())).await;
        }
    }

    async fn connect(&mut self) -> Client {
        let seed = self.rng.random_range(-1.0..1.0f64);
        // A crash of the server takes the newest commits of every second writer; the log must never have had them.
        let commit = if self.number % 2 == 0 { "off" } else { "on" };
        let settings = format!(
            "SET deadlock_timeout = '50ms'; SET synchronous_commit = {commit}; SELECT setseed({seed})"
        );
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Ok((client, connection)) = tokio_postgres::connect(&self.url, NoTls).await {
                tokio::spawn(connection);
                if client.batch_execute(&settings).await.is_ok() {
                    return client;
                }
            }
            assert!(Instant::now() < give_up, "a writer cannot connect");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn newest(&self, client: &Client) -> i64 {
        let sql = "SELECT coalesce(max(seq), 0) FROM stamps_a WHERE writer = $1";
        client.query_one(sql, &[&self.number]).await.map_or(0, |row| row.get(0))
    }

    /// Some random statements, a bank transfer, and stamps; gives whether it was committed.
    async fn transaction(&mut self, client: &Client, sequence: i64) -> Result<bool, Error> {
        let fate = self.rng.random_range(0..1000);
        client.batch_execute("BEGIN").await?;
        if fate < 100 {
            let message = format!("SELECT pg_logical_emit_message(true, 'posduif.origin', 'phone-{fate}')");
            client.batch_execute(&message).await?;
        }
        let statements = self.rng.random_range(0..6);
        for _ in 0..statements {
            let sql = statement::random(&mut self.rng, &self.schema);
            self.attempt(client, &sql).await?;
        }
        if (500..504).contains(&fate) {
            let sql = statement::large(&mut self.rng, &self.schema);
            self.attempt(client, &sql).await?;
        }
        self.transfer(client).await?;
        self.stamp(client, sequence).await?;
        match fate {
            900.. => client.batch_execute("ROLLBACK").await.map(|()| false),
            _ => client.batch_execute("COMMIT").await.map(|()| true),
        }
    }

    /// A statement in a savepoint, which a failure or the dice undo; sometimes with another inside.
    async fn attempt(&mut self, client: &Client, sql: &str) -> Result<(), Error> {
        client.batch_execute("SAVEPOINT a").await?;
        let mut done = client.batch_execute(sql).await;
        self.tally.statements.fetch_add(1, Ordering::Relaxed);
        if done.is_err() {
            self.tally.failed.fetch_add(1, Ordering::Relaxed);
        }
        if done.is_ok() && self.rng.random_bool(0.3) {
            client.batch_execute("SAVEPOINT b").await?;
            let inner = statement::random(&mut self.rng, &self.schema);
            let inner = client.batch_execute(&inner).await;
            if inner.is_err() || self.rng.random_bool(0.4) {
                client.batch_execute("ROLLBACK TO b").await?;
            }
            done = Ok(());
        }
        if client.is_closed() {
            return done;
        }
        match done {
            Ok(()) if self.rng.random_bool(0.85) => client.batch_execute("RELEASE a").await,
            _ => client.batch_execute("ROLLBACK TO a").await,
        }
    }

    async fn transfer(&mut self, client: &Client) -> Result<(), Error> {
        let (a, b) = (self.rng.random_range(1..=ACCOUNTS), self.rng.random_range(1..=ACCOUNTS));
        let amount = self.rng.random_range(1..50);
        let part = |id: i64, amount: i64| {
            format!("UPDATE accounts SET balance = balance + {amount} WHERE id = {id};")
        };
        // In the order of their ids: most of these do not deadlock.
        let (first, second) = if a <= b { (a, b) } else { (b, a) };
        client.batch_execute(&(part(first, amount) + &part(second, -amount))).await
    }

    /// Rows that tell which transaction they belong to and how many it has, in two tables; some come by COPY.
    async fn stamp(&mut self, client: &Client, sequence: i64) -> Result<(), Error> {
        let n = if self.rng.random_bool(0.02) { 200 } else { self.rng.random_range(2..6) };
        let id = Uuid::from_u128(self.rng.random());
        let writer = self.number;
        // The first one always goes to the table that the writer looks at when it has lost its connection.
        client
            .execute("INSERT INTO stamps_a VALUES ($1, 1, $2, $3, $4)", &[&id, &n, &writer, &sequence])
            .await?;
        let split = self.rng.random_range(2..=n);
        let copied: String = (2..split).map(|k| format!("{id}\t{k}\t{n}\t{writer}\t{sequence}\n")).collect();
        let mut sink = std::pin::pin!(client.copy_in::<_, Bytes>("COPY stamps_a FROM STDIN").await?);
        sink.send(Bytes::from(copied)).await?;
        sink.finish().await?;
        let user = self.schema.users[self.rng.random_range(0..self.schema.users.len())];
        let rest = format!(
            "INSERT INTO stamps_b SELECT '{id}', k, {n}, {writer}, {sequence}, '{user}' FROM generate_series({split}, {n}) k"
        );
        client.batch_execute(&rest).await
    }
}

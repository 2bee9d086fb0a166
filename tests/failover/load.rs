//! A database's address in, writers that keep it busy out, and what was promised to them.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use posduif_model::UserId;
use posduif_testkit::eventually;
use tokio::task::JoinSet;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    run::Run,
    site::PATIENCE,
    writer::{Shared, Writer},
};

const WRITERS: usize = 4;
/// The longest pause of a writer between two transactions.
const PAUSE: Duration = Duration::from_millis(60);
/// Where the writers note what they were promised; not synced.
pub const SQL: &str = "CREATE SCHEMA ledger; CREATE TABLE ledger.careless (token uuid PRIMARY KEY);";

/// Writers at work, all of whom wait until their commits are where the server wants them.
pub struct Load {
    shared: Arc<Shared>,
    stop: CancellationToken,
    writers: JoinSet<()>,
}

impl Load {
    /// In each shift they try something else.
    pub fn start(run: &Run, shift: u64, url: &str, users: &[UserId]) -> Self {
        let (shared, stop) = (Arc::new(Shared::default()), CancellationToken::new());
        shared.careful.store(true, Ordering::Relaxed);
        let mut writers = JoinSet::new();
        for number in 0..WRITERS {
            let (url, users, rng) = (url.to_owned(), users.to_owned(), run.rng(100 * shift + number as u64));
            let writer = Writer { number, url, users, shared: Arc::clone(&shared), rng, pause: PAUSE };
            writers.spawn(writer.work(stop.clone()));
        }
        Load { shared, stop, writers }
    }

    /// Waits for so many more transactions.
    pub async fn does(&self, transactions: u64) {
        let before = self.committed();
        eventually(PATIENCE, "the writers write", async || {
            Ok((self.committed() >= before + transactions).then_some(()))
        })
        .await;
    }

    fn committed(&self) -> u64 {
        self.shared.committed.load(Ordering::Relaxed)
    }

    /// Ends the writers; gives all that was promised to them.
    pub async fn end(mut self) -> Vec<Uuid> {
        self.stop.cancel();
        while let Some(ended) = self.writers.join_next().await {
            ended.unwrap();
        }
        std::mem::take(&mut *self.shared.acknowledged.lock().unwrap())
    }
}

/// How many of the promised transactions the database lacks.
pub async fn missing(client: &Client, promised: &[Uuid]) -> i64 {
    let sql = "SELECT count(*) FROM unnest($1::uuid[]) AS promised (token)
                WHERE NOT EXISTS (SELECT FROM ledger.careless c WHERE c.token = promised.token)";
    client.query_one(sql, &[&promised]).await.unwrap().get(0)
}

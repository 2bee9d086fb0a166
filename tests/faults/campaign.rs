//! A seed in, a tenant under the load of eight writers with its auditor and its devices out.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use posduif_model::Lsn;
use posduif_testkit::Servers;
use rand::rngs::StdRng;
use tokio::{
    sync::{OwnedRwLockWriteGuard, RwLock},
    task::JoinSet,
};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::{
    auditor::{Auditor, Marks},
    device::Device,
    expected::{self, Buckets},
    run::Run,
    schema::Schema,
    tenant::{PATIENCE, Settings, Tenant, flush_lsn},
    writer::{Tally, Writer},
};

pub const WRITERS: i32 = 8;

/// A tenant, its load, and everything that is known of it.
pub struct Campaign {
    pub tenant: Tenant,
    pub schema: Arc<Schema>,
    pub tally: Arc<Tally>,
    /// Sets its writers apart from those of other campaigns of the run.
    pub part: u64,
    rest: Arc<RwLock<()>>,
    stop: CancellationToken,
    writers: JoinSet<()>,
    marks: Marks,
    next_mark: i64,
    readers: Vec<Reader>,
    rng: StdRng,
}

/// Whoever joined the log at some time: the raw streams, and a device of each user.
struct Reader {
    auditor: Auditor,
    devices: Vec<Device>,
}

impl Campaign {
    /// Makes the tenant; nothing runs yet.
    pub async fn prepare(run: &Run, servers: &Servers, settings: &Settings) -> Self {
        let mut rng = run.rng(0);
        let schema = Schema::random(&mut rng);
        let tenant = Tenant::create(servers, &schema.tables(), &schema.sql, settings).await;
        tenant.database.connect().await.batch_execute(&schema.users_sql()).await.unwrap();
        Campaign {
            tenant,
            schema: Arc::new(schema),
            tally: Arc::default(),
            part: 0,
            rest: Arc::default(),
            stop: CancellationToken::new(),
            writers: JoinSet::new(),
            marks: Marks::new(),
            next_mark: 1,
            readers: Vec::new(),
            rng,
        }
    }

    /// Sets the writers to work.
    pub fn write(&mut self, run: &Run, writers: i32, pause: Duration) {
        for number in 1..=writers {
            let writer = Writer {
                number,
                schema: Arc::clone(&self.schema),
                url: self.tenant.database.superuser_url().to_owned(),
                rng: run.rng(self.part + u64::from(number.unsigned_abs())),
                tally: Arc::clone(&self.tally),
                rest: Arc::clone(&self.rest),
                pause,
            };
            self.writers.spawn(writer.work(self.stop.clone()));
        }
    }

    /// A transaction that goes to Redis in several parts.
    pub async fn spill(&self) {
        let client = self.tenant.database.connect().await;
        let sql =
            "INSERT INTO parents SELECT n, repeat(md5(random()::text), 20) FROM generate_series(1, 3000) n
                   ON CONFLICT (id) DO UPDATE SET title = excluded.title";
        // It may lose against the writers, who do the same.
        client.batch_execute(sql).await.ok();
    }

    /// A new reader joins, whatever goes on: a snapshot, then the log.
    pub async fn join(&mut self) {
        let auditor = Auditor::join(&self.tenant, &self.schema).await;
        let mut devices = auditor.devices();
        if !self.readers.is_empty() {
            devices.truncate(1);
        }
        self.readers.push(Reader { auditor, devices });
    }

    pub fn readers(&self) -> usize {
        self.readers.len()
    }

    /// The slot has not confirmed what the log has published: there is something to be lost.
    pub async fn assert_backlog(&self) {
        let client = self.tenant.database.connect().await;
        let sql =
            "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE database = current_database()";
        let confirmed: Lsn = client.query_one(sql, &[]).await.unwrap().get::<_, String>(0).parse().unwrap();
        assert!(confirmed < self.tenant.ready().await.watermark.end, "everything is confirmed");
    }

    /// Forgets all readers: their epoch ended.
    pub fn dismiss(&mut self) {
        self.readers.clear();
    }

    /// Waits until no writer is in a transaction, and keeps it so.
    pub async fn pause(&self) -> OwnedRwLockWriteGuard<()> {
        let pause = tokio::time::timeout(PATIENCE, Arc::clone(&self.rest).write_owned());
        pause.await.expect("the writers come to rest")
    }

    /// Commits a mark while the writers rest, and notes what every bucket's readers should hold then.
    pub async fn mark(&mut self) {
        let rest = self.pause().await;
        self.mark_at_rest().await;
        drop(rest);
    }

    /// Commits a mark; the caller keeps the writers at rest.
    pub async fn mark_at_rest(&mut self) -> &Buckets {
        let mut client = self.tenant.database.connect().await;
        let transaction = client.transaction().await.unwrap();
        let id = self.next_mark;
        // Old stamps have served; without them a long run gets slower and slower.
        let tidy = format!(
            "INSERT INTO marks VALUES ({id}); DELETE FROM marks WHERE id < {id};
             DELETE FROM stamps_b;
             DELETE FROM stamps_a s WHERE seq < (SELECT max(seq) FROM stamps_a m WHERE m.writer = s.writer)"
        );
        transaction.batch_execute(&tidy).await.unwrap();
        let expected = expected::read(&transaction, &self.schema).await.unwrap();
        transaction.commit().await.unwrap();
        self.next_mark += 1;
        self.marks.entry(id).or_insert(expected)
    }

    /// Waits until all that is committed now is published, and follows it: compares at every mark on the way.
    pub async fn catch_up(&mut self) {
        let client = self.tenant.database.connect().await;
        let (state, _) = self.tenant.reached(flush_lsn(&client).await).await;
        let upto = state.watermark.commit;
        // The ingester has kept up; the readers of the test, which are slower, need not.
        let rest = self.pause().await;
        for reader in &mut self.readers {
            assert_eq!(state.epoch, reader.auditor.epoch, "an epoch was opened: {}", reason(&client).await);
            reader.follow(&self.tenant, upto, &self.marks, &mut self.rng).await;
        }
        drop(rest);
        let seen = self
            .readers
            .iter()
            .all(|reader| reader.auditor.marks.last().is_none_or(|(mark, _)| *mark == self.next_mark - 1));
        assert!(seen, "the newest mark is not in the log");
        // Every reader compared these; memory is for what comes.
        self.marks.clear();
    }

    /// A mark with the writers at rest, and everything compared up to it.
    pub async fn compare(&mut self) {
        self.mark().await;
        self.catch_up().await;
    }

    /// Ends the writers.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        while let Some(ended) = self.writers.join_next().await {
            ended.unwrap();
        }
    }

    /// Ends the writers, compares once more, and says what was done.
    pub async fn finish(mut self, run: &Run) -> (Tenant, Summary) {
        self.stop().await;
        self.compare().await;
        let mut summary = Summary::default();
        for reader in &mut self.readers {
            reader.auditor.assert_no_other_buckets(&self.tenant).await;
            assert!(!reader.auditor.marks.is_empty(), "a reader was never compared");
            summary.compared += reader.auditor.marks.len();
            summary.commits = summary.commits.max(reader.auditor.commits);
            summary.changes = summary.changes.max(reader.auditor.changes);
        }
        summary.committed = self.tally.committed.load(Ordering::Relaxed);
        assert!(summary.committed > 0, "the writers did nothing");
        let (all, failed) = (&self.tally.statements, &self.tally.failed);
        assert!(failed.load(Ordering::Relaxed) * 2 < all.load(Ordering::Relaxed), "most statements fail");
        eprintln!("seed {}: {summary:?}, {:?}", run.seed, self.tally);
        (self.tenant, summary)
    }
}

/// What a campaign compared.
#[derive(Debug, Default)]
pub struct Summary {
    /// Transactions of the writers.
    pub committed: u64,
    /// Commits and operations that the reader with the longest way followed.
    pub commits: u64,
    pub changes: u64,
    /// Comparisons of all buckets with PostgreSQL, over all readers.
    pub compared: usize,
}

impl Reader {
    async fn follow(&mut self, tenant: &Tenant, upto: Lsn, marks: &Marks, rng: &mut StdRng) {
        let seen = self.auditor.marks.len();
        self.auditor.follow(tenant, upto, marks).await;
        let met = self.auditor.marks[seen..].iter();
        let met: BTreeMap<Lsn, &Buckets> = met.map(|(mark, commit)| (*commit, &marks[mark])).collect();
        for device in &mut self.devices {
            device.follow(tenant, rng, &met).await;
        }
    }
}

impl Auditor {
    pub fn devices(&self) -> Vec<Device> {
        let device = |user: &uuid::Uuid| Device::new(*user, self.epoch, self.at, self.buckets());
        self.users().iter().map(device).collect()
    }
}

/// Why the newest epoch was opened, as the tenant database has it.
async fn reason(client: &Client) -> String {
    let sql = "SELECT reason FROM posduif_engine.sync_epoch";
    client.query_one(sql, &[]).await.map_or_else(|error| error.to_string(), |row| row.get(0))
}

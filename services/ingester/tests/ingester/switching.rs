//! A tenant that goes from the WAL to polling and back: readers never see a state that PostgreSQL was not in.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use posduif_changelog::{Entry, reader::Read};
use posduif_model::{Bucket, Epoch, Lsn, Op, Source};
use posduif_testkit::{Servers, eventually};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tokio::task::JoinSet;

use crate::fixture::{Running, SOON, Tenant};

const BANK: &str = "[{table: bank, buckets: [shared]}]";
const ACCOUNTS: i32 = 40;
const EACH: i64 = 1_000;

async fn bank(servers: &Servers) -> Tenant {
    let sql = format!(
        "CREATE TABLE bank (id int PRIMARY KEY, balance int8 NOT NULL, note text);
         INSERT INTO bank SELECT n, {EACH} FROM generate_series(1, {ACCOUNTS}) n"
    );
    Tenant::with_tables(servers, BANK, &sql).await
}

/// What a device holds that follows the log from a snapshot on.
struct Reader {
    epoch: Epoch,
    cursor: Lsn,
    balances: BTreeMap<String, i64>,
    states: u64,
}

impl Reader {
    /// All accounts as they were when nothing had been written yet.
    async fn begin(tenant: &Tenant) -> Self {
        let state = tenant.caught_up().await;
        let rows = tenant.client.query("SELECT id, balance FROM bank", &[]).await.unwrap();
        let balances = rows.iter().map(|row| (format!("{{\"id\":{}}}", row.get::<_, i32>(0)), row.get(1)));
        Reader { epoch: state.epoch, cursor: state.watermark.commit, balances: balances.collect(), states: 0 }
    }

    /// Reads on, and looks at every commit on the way: each is a state in which no money is lost.
    async fn read(&mut self, tenant: &Tenant) {
        let Some(state) = tenant.log.state().await.unwrap() else { panic!("the log is gone") };
        assert_eq!(state.epoch, self.epoch, "another epoch began");
        let upto = state.watermark.commit;
        let page = tenant.log.read(&self.epoch, &[Bucket::Shared], self.cursor, upto, 1_000_000).await;
        let Read::Page(page) = page.unwrap() else { return };
        let mut commit = None;
        for entry in page.entries {
            if commit.is_some_and(|commit| commit != entry.position.commit) {
                self.check();
            }
            commit = Some(entry.position.commit);
            self.apply(entry);
        }
        if commit.is_some() {
            self.check();
        }
        self.cursor = upto;
    }

    fn apply(&mut self, entry: Entry) {
        for change in entry.changes {
            match change.op {
                Op::Put => {
                    let row: serde_json::Value = serde_json::from_str(&change.row).unwrap();
                    self.balances.insert(change.key, row["balance"].as_str().unwrap().parse().unwrap());
                }
                Op::Delete => drop(self.balances.remove(&change.key)),
                Op::Truncate => self.balances.clear(),
            }
        }
    }

    fn check(&mut self) {
        self.states += 1;
        let sum: i64 = self.balances.values().sum();
        assert_eq!(sum, i64::from(ACCOUNTS) * EACH, "money was lost or made at state {}", self.states);
    }
}

/// Moves money about until it is dropped; every fourth of them takes its time over each transaction.
fn movers(tenant: &Tenant, seed: u64, count: u64) -> (JoinSet<()>, Arc<AtomicU64>) {
    let (mut movers, moved) = (JoinSet::new(), Arc::<AtomicU64>::default());
    for number in 0..count {
        let (url, moved) = (tenant.database.admin_url().to_owned(), Arc::clone(&moved));
        let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(number));
        movers.spawn(async move {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            loop {
                let (from, to) = (rng.random_range(1..=ACCOUNTS), rng.random_range(1..=ACCOUNTS));
                let (low, high) = (from.min(to), from.max(to));
                let slow = number % 4 == 0;
                let sql = transfer(&mut rng, low, high, slow);
                client.batch_execute(&sql).await.unwrap();
                moved.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..15))).await;
            }
        });
    }
    (movers, moved)
}

fn transfer(rng: &mut impl Rng, low: i32, high: i32, slow: bool) -> String {
    let amount = rng.random_range(1..50);
    let pause = match slow {
        true => format!("SELECT pg_sleep({});", f64::from(rng.random_range(0..2_500)) / 1_000.0),
        false => String::new(),
    };
    let (one, two) = (
        format!("UPDATE bank SET balance = balance - {amount} WHERE id = {low};"),
        format!("UPDATE bank SET balance = balance + {amount} WHERE id = {high};"),
    );
    // Without them an UPDATE that waits for an account that is closed and opened again would find none.
    let begin = format!("BEGIN; SELECT pg_advisory_xact_lock({low}); SELECT pg_advisory_xact_lock({high});");
    match rng.random_range(0..10) {
        // An account is closed, and opened under its old number with all its money.
        0 => format!(
            "{begin} WITH gone AS (DELETE FROM bank WHERE id = {low} RETURNING *)
             INSERT INTO bank SELECT id + 1000, balance, note FROM gone; {pause}
             UPDATE bank SET id = id - 1000 WHERE id = {low} + 1000; COMMIT"
        ),
        1 => format!("{begin} {one} SAVEPOINT s; {two} ROLLBACK TO s; {pause} {two} COMMIT"),
        2 => format!("{begin} SET LOCAL synchronous_commit = off; {one} {pause} {two} COMMIT"),
        _ => format!("{begin} {one} {pause} {two} COMMIT"),
    }
}

async fn switched(tenant: &Tenant, reader: &mut Reader, to: Source) {
    let patience = std::time::Instant::now() + 6 * SOON;
    loop {
        reader.read(tenant).await;
        if tenant.log.state().await.unwrap().is_some_and(|state| state.supply.source == to) {
            return;
        }
        assert!(std::time::Instant::now() < patience, "the tenant does not go to {to}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn read_for(tenant: &Tenant, reader: &mut Reader, time: Duration) {
    let until = std::time::Instant::now() + time;
    while std::time::Instant::now() < until {
        reader.read(tenant).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn ends_as_postgresql_has_it(tenant: &Tenant, reader: &mut Reader) {
    // Who was dropped in the middle of a transaction ends it all the same.
    let open = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                 WHERE l.locktype = 'advisory' AND l.classid = 0 AND d.datname = current_database()";
    eventually(SOON, "all transfers have ended", async || {
        Ok((tenant.client.query_one(open, &[]).await?.get::<_, i64>(0) == 0).then_some(()))
    })
    .await;
    tenant.caught_up().await;
    reader.read(tenant).await;
    let rows = tenant.client.query("SELECT id, balance FROM bank", &[]).await.unwrap();
    let held: BTreeMap<String, i64> =
        rows.iter().map(|row| (format!("{{\"id\":{}}}", row.get::<_, i32>(0)), row.get(1))).collect();
    assert_eq!(reader.balances, held);
    let epochs = "SELECT count(DISTINCT epoch) FROM posduif_engine.epoch_history";
    assert_eq!(tenant.client.query_one(epochs, &[]).await.unwrap().get::<_, i64>(0), 1);
}

/// `POSDUIF_SWITCHES` and `POSDUIF_SWITCH_SEED`: how often, and which.
#[tokio::test(flavor = "multi_thread")]
async fn money_is_constant_in_every_state_through_random_switches_with_long_transactions_open() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (switches, seed) = (number("POSDUIF_SWITCHES", 6), number("POSDUIF_SWITCH_SEED", 4242));
    let mut rng = StdRng::seed_from_u64(seed);
    let mut tenant = bank(Servers::shared().await).await;
    let mut ingester: Running = tenant.ingest().await;
    let mut reader = Reader::begin(&tenant).await;
    let (movers, moved) = movers(&tenant, seed, 8);
    for switch in 0..switches {
        let to = if switch % 2 == 0 { Source::Polling } else { Source::Wal };
        read_for(&tenant, &mut reader, Duration::from_millis(rng.random_range(0..800))).await;
        // Killed in the middle, or once it has nothing in flight; its successor wants the other source.
        drop(ingester);
        tenant.session.tenant.wal = Some(to == Source::Wal);
        ingester = tenant.ingest_again().await;
        if rng.random_bool(0.3) {
            read_for(&tenant, &mut reader, Duration::from_millis(rng.random_range(0..500))).await;
            drop(ingester);
            ingester = tenant.ingest_again().await;
        }
        switched(&tenant, &mut reader, to).await;
    }
    drop(movers);
    ends_as_postgresql_has_it(&tenant, &mut reader).await;
    println!(
        "{switches} switches, {} transfers, {} states, seed {seed}",
        moved.load(Ordering::Relaxed),
        reader.states
    );
    assert!(reader.states > switches);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_slot_costs_no_epoch_where_what_changed_meanwhile_is_known() {
    let tenant = bank(Servers::shared().await).await;
    let ingester = tenant.ingest().await;
    let mut reader = Reader::begin(&tenant).await;
    let (movers, _) = movers(&tenant, 7, 4);
    read_for(&tenant, &mut reader, Duration::from_secs(2)).await;
    drop(ingester);
    tenant.slot_is_free().await;
    let drop_slot = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                      WHERE database = current_database()";
    tenant.database.connect_superuser().await.query(drop_slot, &[]).await.unwrap();
    // What happens now is in no slot: changes, deletes, keys that change.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let _ingester = tenant.ingest().await;
    switched(&tenant, &mut reader, Source::Polling).await;
    switched(&tenant, &mut reader, Source::Wal).await;
    read_for(&tenant, &mut reader, Duration::from_millis(500)).await;
    drop(movers);
    ends_as_postgresql_has_it(&tenant, &mut reader).await;
    assert!(reader.states > 2);
}

#[tokio::test]
async fn the_slot_goes_with_the_wal_and_comes_back_with_it() {
    let mut tenant = bank(Servers::shared().await).await;
    let first = tenant.ingest().await;
    let mut reader = Reader::begin(&tenant).await;
    drop(first);
    tenant.session.tenant.wal = Some(false);
    let second = tenant.ingest_again().await;
    switched(&tenant, &mut reader, Source::Polling).await;
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    eventually(SOON, "the slot is dropped", async || {
        Ok((tenant.client.query_one(slots, &[]).await?.get::<_, i64>(0) == 0).then_some(()))
    })
    .await;
    drop(second);
    tenant.session.tenant.wal = None;
    let _third = tenant.ingest_again().await;
    switched(&tenant, &mut reader, Source::Wal).await;
    tenant.client.batch_execute("UPDATE bank SET note = 'x' WHERE id = 1").await.unwrap();
    ends_as_postgresql_has_it(&tenant, &mut reader).await;
    let captured = "SELECT count(*) FROM posduif_engine.capture WHERE enabled";
    eventually(SOON, "the triggers are off again", async || {
        Ok((tenant.client.query_one(captured, &[]).await?.get::<_, i64>(0) == 0).then_some(()))
    })
    .await;
}

/// A slot does not have what was running when it was made, so snapshots wait for that; polls find it.
#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_whose_snapshots_wait_serves_them_once_it_is_polled() {
    let servers = Servers::private().await;
    let mut tenant = bank(&servers).await;
    drop(tenant.ingest().await);
    let mut holder = tenant.database.connect().await;
    let old = holder.transaction().await.unwrap();
    old.execute("SELECT pg_current_xact_id()", &[]).await.unwrap();
    let mut redis = tenant.redis().await;
    let state = posduif_changelog::Keys::new(tenant.id()).state();
    let () = redis::cmd("HSET").arg((state, "broken", "for the test")).query_async(&mut redis).await.unwrap();
    let following = tenant.ingest_again().await;
    assert!(tenant.state().await.unready_below.is_some());
    drop(following);
    tenant.session.tenant.wal = Some(false);
    let _polling = tenant.ingest_again().await;
    let mut reader = Reader::begin(&tenant).await;
    switched(&tenant, &mut reader, Source::Polling).await;
    eventually(SOON, "snapshots are served", async || {
        Ok(tenant.log.state().await?.filter(|state| state.unready_below.is_none()))
    })
    .await;
    old.batch_execute("UPDATE bank SET balance = balance - 5 WHERE id = 1; UPDATE bank SET balance = balance + 5 WHERE id = 2")
        .await
        .unwrap();
    old.commit().await.unwrap();
    let row = "SELECT balance FROM bank WHERE id = 2";
    let balance: i64 = tenant.client.query_one(row, &[]).await.unwrap().get(0);
    assert_eq!(balance, EACH + 5);
    tenant.caught_up().await;
    reader.read(&tenant).await;
    assert_eq!(reader.balances["{\"id\":2}"], EACH + 5);
}

/// One has the old configuration, one the new: the source changes again and again, also while the other waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn two_ingesters_that_want_different_sources_lose_nothing() {
    let mut tenant = bank(Servers::shared().await).await;
    drop(tenant.ingest().await);
    tenant.slot_is_free().await;
    let mut reader = Reader::begin(&tenant).await;
    let (movers, _) = movers(&tenant, 9, 4);
    let mut ingesters = JoinSet::new();
    for wal in [true, false] {
        let mut session = tenant.session.clone();
        session.tenant.wal = Some(wal);
        ingesters.spawn(async move {
            loop {
                // What ended it is the other.
                let _ = session.run().await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
    read_for(&tenant, &mut reader, Duration::from_secs(10)).await;
    drop((movers, ingesters));
    tenant.session.tenant.wal = Some(true);
    let _last = tenant.ingest_again().await;
    switched(&tenant, &mut reader, Source::Wal).await;
    ends_as_postgresql_has_it(&tenant, &mut reader).await;
    assert!(reader.states > 2);
}

#[tokio::test]
async fn a_tenant_that_nobody_needs_gives_its_slot_up_until_something_changes_or_somebody_comes() {
    let mut tenant = bank(Servers::shared().await).await;
    tenant.session.wal.cold_after = Duration::from_secs(1);
    tenant.session.wal.cold_interval = Duration::from_millis(500);
    let _ingester = tenant.ingest().await;
    let mut reader = Reader::begin(&tenant).await;
    switched(&tenant, &mut reader, Source::Polling).await;
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    eventually(SOON, "the slot is dropped", async || {
        Ok((tenant.client.query_one(slots, &[]).await?.get::<_, i64>(0) == 0).then_some(()))
    })
    .await;
    tenant.client.batch_execute("UPDATE bank SET note = 'x' WHERE id = 1").await.unwrap();
    switched(&tenant, &mut reader, Source::Wal).await;
    switched(&tenant, &mut reader, Source::Polling).await;
    // As a replica says it of whoever holds a connection.
    let mut redis = tenant.redis().await;
    let presence = posduif_changelog::Keys::new(tenant.id()).presence();
    let () = redis::cmd("ZADD")
        .arg((&presence, 4_000_000_000_u64, "somebody"))
        .query_async(&mut redis)
        .await
        .unwrap();
    switched(&tenant, &mut reader, Source::Wal).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(tenant.state().await.supply.source, Source::Wal, "somebody is there");
    let () = redis::cmd("DEL").arg(&presence).query_async(&mut redis).await.unwrap();
    switched(&tenant, &mut reader, Source::Polling).await;
    ends_as_postgresql_has_it(&tenant, &mut reader).await;
}

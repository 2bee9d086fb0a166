//! One transaction that is far larger than the ingester's memory may get.

use std::time::{Duration, Instant};

use posduif_changelog::reader::Read;
use posduif_model::{Bucket, Lsn, Position, UserId};
use posduif_testkit::{Process, Servers, eventually};
use uuid::Uuid;

use crate::{
    run::from_environment,
    tenant::{PATIENCE, Settings, Tenant, flush_lsn},
};

/// The full run has a million.
const ROWS: u64 = 25_000;
const OWNER: Uuid = Uuid::from_u128(1);
/// The most resident memory that the ingester may ever have had, in kB.
const MOST_RESIDENT: u64 = 300_000;
const TABLES: &str = "[{table: big, buckets: ['user:{owner}']}]";
const SQL: &str = "CREATE TABLE big (id bigint PRIMARY KEY, owner uuid, body text)";

/// Rows of nearly a kilobyte, `n` of them in one transaction.
async fn insert(tenant: &Tenant, n: u64) {
    let sql = format!(
        "INSERT INTO big SELECT n, '{OWNER}', repeat(md5(n::text), 28) FROM generate_series(1, {n}) n"
    );
    tenant.database.connect().await.batch_execute(&sql).await.unwrap();
}

/// How many rows are stored, visible or not, and whether a reader sees the first of them.
async fn stored(tenant: &Tenant) -> (u64, bool) {
    let state = tenant.ready().await;
    let (mut redis, key) =
        (tenant.redis().await, tenant.keys.bucket(&state.epoch, &Bucket::User(UserId::new(OWNER))));
    let last = Position::last_of(state.watermark.commit).to_string();
    let mut pipeline = redis::pipe();
    pipeline.atomic().cmd("XLEN").arg(&key).cmd("XRANGE").arg((&key, "-", last, "COUNT", 1));
    let (length, visible): (u64, Vec<redis::Value>) = pipeline.query_async(&mut redis).await.unwrap();
    (length, !visible.is_empty())
}

/// Waits until the transaction is visible; a reader never sees a part of it.
async fn whole(tenant: &Tenant, ingester: &Process, rows: u64, timeout: Duration) -> Lsn {
    let mut parts = 0;
    eventually(timeout, "the transaction is visible", async || {
        let (length, visible) = stored(tenant).await;
        parts += u64::from(length > 0 && length < rows);
        assert!(length == rows || !visible, "a reader sees {length} of {rows} rows");
        Ok(visible.then_some(()))
    })
    .await;
    assert!(parts > 0, "the transaction was never seen half-stored: nothing was proved");
    let peak = peak(ingester);
    eprintln!("{rows} rows: at most {peak} kB resident");
    assert!(peak < MOST_RESIDENT, "the ingester took {peak} kB");
    tenant.ready().await.watermark.end
}

/// The most resident memory that the process ever had, in kB.
fn peak(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_transaction_is_stored_in_bounded_memory_and_never_seen_in_part() {
    let rows = from_environment("POSDUIF_FAULT_ROWS", ROWS);
    let servers = Servers::private().await;
    let tenant = Tenant::create(&servers, TABLES, SQL, &Settings::default()).await;
    let ingester = tenant.ingester().await;
    let epoch = tenant.ready().await.epoch;
    insert(&tenant, rows).await;
    let begun = Instant::now();
    whole(&tenant, &ingester, rows, PATIENCE + Duration::from_millis(rows)).await;
    let took = begun.elapsed();
    eprintln!("{rows} rows in {took:?}: {:.0} rows/s", rows as f64 / took.as_secs_f64());
    assert_eq!(tenant.ready().await.epoch, epoch, "an epoch was opened");
    drop(ingester);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_does_not_fit_into_redis_is_whole_once_there_is_room() {
    let rows = ROWS / 2;
    let servers = Servers::private().await;
    let tenant = Tenant::create(&servers, TABLES, SQL, &Settings::default()).await;
    let ingester = tenant.ingester().await;
    let before = tenant.ready().await;
    let mut redis = tenant.redis().await;
    let limit = async |redis: &mut _, bytes: u64| {
        let set = redis::cmd("CONFIG").arg(("SET", "maxmemory", bytes)).query_async::<()>(redis).await;
        set.unwrap();
    };
    let used: String = redis::cmd("INFO").arg("memory").query_async(&mut redis).await.unwrap();
    let used: u64 =
        used.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse().unwrap();
    limit(&mut redis, used + (6 << 20)).await;
    insert(&tenant, rows).await;
    eventually(PATIENCE, "Redis refuses", async || {
        Ok(ingester.log().contains("Redis is out of memory").then_some(()))
    })
    .await;
    let (length, visible) = stored(&tenant).await;
    assert!(length > 0 && length < rows && !visible, "{length} rows are stored, visible: {visible}");
    limit(&mut redis, 0).await;
    whole(&tenant, &ingester, rows, PATIENCE).await;
    let client = tenant.database.connect().await;
    let (after, _) = tenant.reached(flush_lsn(&client).await).await;
    assert_eq!(after.epoch, before.epoch, "an epoch was opened");
    drop(ingester);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_over_the_cap_is_left_out_as_a_whole_and_readers_below_it_need_a_snapshot() {
    let tenant = {
        let settings = Settings { transaction_cap_bytes: Some(2 << 20), ..Settings::default() };
        Tenant::create(Servers::shared().await, TABLES, SQL, &settings).await
    };
    let ingester = tenant.ingester().await;
    let before = tenant.ready().await;
    insert(&tenant, ROWS / 2).await;
    let client = tenant.database.connect().await;
    let (after, _) = tenant.reached(flush_lsn(&client).await).await;
    assert_eq!(after.epoch, before.epoch, "an epoch was opened");
    assert!(after.floor > before.watermark.commit, "a reader from before would miss the transaction");
    let user = [Bucket::User(UserId::new(OWNER))];
    let read =
        async |from: Lsn, upto: Lsn| tenant.log.read(&after.epoch, &user, from, upto, 10).await.unwrap();
    assert_eq!(read(before.watermark.commit, after.watermark.commit).await, Read::Expired);
    client.batch_execute("UPDATE big SET body = 'small' WHERE id = 1").await.unwrap();
    let (later, _) = tenant.reached(flush_lsn(&client).await).await;
    match read(after.floor, later.watermark.commit).await {
        Read::Page(page) => assert_eq!(page.entries.len(), 1, "only what came after it"),
        other => panic!("who has its snapshot cannot read on: {other:?}"),
    }
    assert!(peak(&ingester) < MOST_RESIDENT);
}

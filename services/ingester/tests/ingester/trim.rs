//! P6: a log that forgets does so at commit boundaries, and no reader crosses its floor unnoticed.

use std::time::Duration;

use posduif_changelog::{
    Batch, CommitRecord, Keys, LogReader, LogState, Timeouts, Watermark, pool, reader::Read,
};
use posduif_model::{Bucket, Change, DeviceId, Epoch, Lsn, Op, TenantId, UserId};
use posduif_testkit::{Servers, eventually};

use crate::{
    fixture::{SOON, Tenant},
    scripts::{fresh, rows, transaction, writer},
};

async fn reader(tenant: &TenantId) -> LogReader {
    LogReader::new(pool(Servers::shared().await.redis_url(), 2, Timeouts::default()).unwrap(), tenant)
}

fn at(commit: u64) -> Watermark {
    Watermark { commit: Lsn::new(commit), end: Lsn::new(commit + 1) }
}

/// A log of commits 20, 30, … with `rows` rows each, all published.
async fn filled(commits: u64, rows: u64) -> (TenantId, LogState, posduif_changelog::LogWriter) {
    let (tenant, state) = fresh();
    let mut log = writer(&tenant, 1).await.unwrap();
    log.open(&state).await.unwrap();
    for commit in (20..).step_by(10).take(usize::try_from(commits).unwrap()) {
        let batch = transaction(&tenant, &state, commit, commit - 10, rows);
        log.append(&batch, Batch::guard(Lsn::new(commit - 10), None)).await.unwrap();
        log.publish(&state.epoch, at(commit), None, None, None).await.unwrap();
    }
    (tenant, state, log)
}

#[tokio::test]
async fn what_lies_at_or_below_the_floor_goes_and_its_readers_are_told() {
    let (tenant, state, mut log) = filled(4, 3).await;
    assert_eq!(log.trim(&state.epoch, Lsn::new(30)).await.unwrap(), 6);
    assert_eq!(rows(&tenant, &state).await, ["40-0", "40-1", "40-2", "50-0", "50-1", "50-2"]);
    assert_eq!(log.state().await.unwrap().unwrap().floor, Lsn::new(30));
    let reader = reader(&tenant).await;
    for (after, expected) in [(29, None), (30, Some(6)), (40, Some(3))] {
        let read = reader.read(&state.epoch, &[Bucket::Shared], Lsn::new(after), Lsn::new(50), 100).await;
        let entries = match read.unwrap() {
            Read::Page(page) => Some(page.entries.len()),
            Read::Expired => None,
            Read::Moved => panic!("the log did not move"),
        };
        assert_eq!(entries, expected, "after {after}");
    }
    // Again, and further: nothing is lost, and the commit log keeps its newest entry.
    assert_eq!(log.trim(&state.epoch, Lsn::new(30)).await.unwrap(), 0);
    assert_eq!(log.trim(&state.epoch, Lsn::new(50)).await.unwrap(), 6);
    assert_eq!(log.newest_commit(&state.epoch).await.unwrap().unwrap().commit, Lsn::new(50));
    log.append(&transaction(&tenant, &state, 60, 50, 1), Batch::guard(Lsn::new(50), None)).await.unwrap();
    assert_eq!(rows(&tenant, &state).await, ["60-0"]);
}

#[tokio::test]
async fn the_floor_never_passes_the_watermark() {
    let (tenant, state, mut log) = filled(2, 1).await;
    log.append(&transaction(&tenant, &state, 40, 30, 1), Batch::guard(Lsn::new(30), None)).await.unwrap();
    assert!(log.trim(&state.epoch, Lsn::new(40)).await.is_err());
    assert!(rows(&tenant, &state).await.contains(&"40-0".to_owned()));
}

#[tokio::test]
async fn no_reader_sees_a_cut_transaction_while_the_log_is_trimmed() {
    let (tenant, state, mut log) = filled(60, 20).await;
    let reading = {
        let (reader, state) = (reader(&tenant).await, state.clone());
        tokio::spawn(async move {
            let (mut pages, mut expired) = (0, 0);
            while pages == 0 || expired == 0 {
                for after in (10..600).step_by(70) {
                    let (bucket, after, upto) = ([Bucket::Shared], Lsn::new(after), Lsn::new(610));
                    match reader.read(&state.epoch, &bucket, after, upto, 50).await.unwrap() {
                        Read::Page(page) => {
                            let commits = (after.get() / 10 + 1..=page.through.get() / 10).map(|n| n * 10);
                            let expected =
                                commits.flat_map(|commit| (0..20).map(move |n| format!("{commit}-{n}")));
                            let found = page.entries.iter().map(|entry| entry.position.to_string());
                            assert!(found.eq(expected), "a page after {after} is not whole");
                            pages += 1;
                        }
                        Read::Expired => expired += 1,
                        Read::Moved => panic!("the log did not move"),
                    }
                }
            }
        })
    };
    for floor in (20..610).step_by(10) {
        log.trim(&state.epoch, Lsn::new(floor)).await.unwrap();
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(SOON, reading).await.expect("the reader never met the floor").unwrap();
}

#[tokio::test]
async fn buckets_that_only_a_set_names_are_trimmed_with_it() {
    let (tenant, state) = fresh();
    let mut log = writer(&tenant, 1).await.unwrap();
    log.open(&state).await.unwrap();
    let keys = Keys::new(&tenant);
    let users: Vec<Bucket> =
        (0..2_500).map(|n| Bucket::User(UserId::new(uuid::Uuid::from_u128(n)))).collect();
    for commit in [20, 30] {
        let mut batch = Batch::new(keys.clone(), state.epoch);
        for (ordinal, bucket) in (0..).zip(&users) {
            let change =
                Change { op: Op::Put, table: "t".parse().unwrap(), key: "{}".into(), row: "{}".into() };
            batch.push(format!("{commit}-{ordinal}").parse().unwrap(), bucket, None, &[change]);
        }
        batch.commit(CommitRecord {
            commit: Lsn::new(commit),
            end: Lsn::new(commit + 1),
            previous: Lsn::new(commit - 10),
            xid: 1,
            changes: 2_500,
            committed_at: 0,
            origin: None,
            buckets: users.clone(),
            buckets_elsewhere: false,
            written: commit,
            left_out: false,
            seen: None,
        });
        log.append(&batch, Batch::guard(Lsn::new(commit - 10), None)).await.unwrap();
        log.publish(&state.epoch, at(commit), None, None, None).await.unwrap();
    }
    assert_eq!(log.trim(&state.epoch, Lsn::new(20)).await.unwrap(), 2_500);
    assert_eq!(log.trim(&state.epoch, Lsn::new(30)).await.unwrap(), 2_500);
    let mut redis = redis::Client::open(Servers::shared().await.redis_url())
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    let pattern = format!("{}*", keys.epoch(&state.epoch));
    let left: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut redis).await.unwrap();
    assert_eq!(left, [keys.commits(&state.epoch)], "emptied streams and sets stay behind");
}

#[tokio::test]
async fn a_snapshot_under_way_is_known_until_it_ends() {
    let (tenant, state, mut log) = filled(2, 1).await;
    let (reader, device) = (reader(&tenant).await, |name: &str| name.parse::<DeviceId>().unwrap());
    assert_eq!(log.leased(&state.epoch).await.unwrap(), None);
    reader.lease(&state.epoch, Lsn::new(30), &device("a")).await.unwrap();
    reader.lease(&state.epoch, Lsn::new(20), &device("b")).await.unwrap();
    assert_eq!(log.leased(&state.epoch).await.unwrap(), Some(Lsn::new(20)));
    assert_eq!(log.leased(&Epoch::from_random(rand::random())).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_ingester_keeps_its_log_within_the_bytes_it_may_take() {
    let mut tenant = Tenant::create(Servers::shared().await).await;
    tenant.session.retention.interval = Duration::from_millis(50);
    tenant.session.retention.max_bytes = 100_000;
    let _running = tenant.ingest().await;
    let bob = tenant.user("Bob").await;
    let first = tenant.caught_up().await;
    for n in 0..40 {
        tenant.message(bob, bob, &format!("{n} {}", "x".repeat(10_000))).await;
    }
    // Heartbeats move the watermark, so what is kept is always a part of the messages, the newest ones.
    let page = eventually(SOON, "the log shrinks to what it may take", async || {
        let state = tenant.caught_up().await;
        let read = async |after| {
            let buckets = [Bucket::User(bob)];
            tenant.log.read(&state.epoch, &buckets, after, state.watermark.commit, 1_000).await
        };
        if state.floor <= first.watermark.commit {
            return Ok(None);
        }
        assert_eq!(read(first.watermark.commit).await?, Read::Expired);
        match read(state.floor).await? {
            Read::Page(page) => Ok((page.entries.len() < 20).then_some(page)),
            // The floor rose meanwhile.
            Read::Expired => Ok(None),
            Read::Moved => panic!("the log did not move"),
        }
    })
    .await;
    assert!(page.entries.last().unwrap().changes[0].row.contains("\"39 x"), "the newest message went");
}

//! What everyone sees, without the versions of rows that newer ones displace.

use std::{collections::BTreeMap, time::Duration};

use posduif_changelog::{
    Batch, CommitRecord, Keys, LogReader, Timeouts, Watermark, fold::fold, pool, reader::Read,
};
use posduif_model::{Bucket, Change, Lsn, Op};
use posduif_testkit::{Servers, eventually};

use crate::{
    fixture::{SOON, Tenant},
    scripts::{fresh, writer},
};

const ROWS: u64 = 7;

fn version(batch: &mut Batch, commit: u64) {
    let key = format!("{{\"id\":{}}}", commit / 10 % ROWS);
    let change = Change { op: Op::Put, table: "t".parse().unwrap(), key, row: commit.to_string() };
    batch.push(format!("{commit}-0").parse().unwrap(), &Bucket::Shared, None, &[change]);
    batch.commit(CommitRecord {
        commit: Lsn::new(commit),
        end: Lsn::new(commit + 1),
        previous: Lsn::new(commit - 10),
        xid: 1,
        changes: 1,
        committed_at: 0,
        origin: None,
        buckets: vec![Bucket::Shared],
        buckets_elsewhere: false,
        written: 0,
        left_out: false,
        seen: None,
    });
}

/// What every row must be for whoever has read up to `through`.
fn expected(after: u64, through: u64) -> BTreeMap<String, u64> {
    let commits = (after / 10 + 1..=through / 10).map(|n| n * 10);
    commits.map(|commit| (format!("{{\"id\":{}}}", commit / 10 % ROWS), commit)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_end_with_the_same_rows_while_the_bucket_grows_and_is_compacted() {
    let (tenant, state) = fresh();
    let mut log = writer(&tenant, 1).await.unwrap();
    log.open(&state).await.unwrap();
    let last = 20_000;
    let writing = {
        let (tenant, state) = (tenant.clone(), state.clone());
        tokio::spawn(async move {
            for commit in (20..=last).step_by(10) {
                let mut batch = Batch::new(Keys::new(&tenant), state.epoch);
                version(&mut batch, commit);
                log.append(&batch, Batch::guard(Lsn::new(commit - 10), None)).await.unwrap();
                let watermark = Watermark { commit: Lsn::new(commit), end: Lsn::new(commit + 1) };
                log.publish(&state.epoch, watermark, None, None, None).await.unwrap();
            }
        })
    };
    let reader =
        LogReader::new(pool(Servers::shared().await.redis_url(), 2, Timeouts::default()).unwrap(), &tenant);
    let mut upkeep = writer(&tenant, 1).await.unwrap();
    let (mut removed, mut compared) = (0, 0);
    loop {
        let is_done = writing.is_finished();
        let now = reader.state().await.unwrap().unwrap();
        removed += upkeep.compact_shared(&state.epoch, now.watermark.commit).await.unwrap().removed;
        let after = Lsn::new(10 + (compared * 130) % now.watermark.commit.get() / 10 * 10);
        let now = reader.state().await.unwrap().unwrap();
        let upto = now.watermark.commit;
        match reader.read(&state.epoch, &[Bucket::Shared], after, upto, 100_000).await.unwrap() {
            Read::Page(page) => {
                let rows = fold(page.entries, |_| false).into_iter();
                let found: BTreeMap<String, u64> =
                    rows.map(|last| (last.change.key, last.change.row.parse().unwrap())).collect();
                assert_eq!(found, expected(after.get(), upto.get()), "from {after} to {upto}");
                compared += 1;
            }
            other => panic!("{other:?}"),
        }
        if is_done {
            break;
        }
    }
    writing.await.unwrap();
    assert!(removed > 1_000 && compared > 20, "removed {removed}, compared {compared}");
    let kept = upkeep.compact_shared(&state.epoch, Lsn::new(last)).await.unwrap().kept;
    assert_eq!(kept, usize::try_from(ROWS).unwrap());
}

#[tokio::test]
async fn a_reader_that_would_stop_before_the_mark_looks_at_the_state_again() {
    let (tenant, state) = fresh();
    let mut log = writer(&tenant, 1).await.unwrap();
    log.open(&state).await.unwrap();
    let mut batch = Batch::new(Keys::new(&tenant), state.epoch);
    (20..=200).step_by(10).for_each(|commit| version(&mut batch, commit));
    log.append(&batch, Batch::guard(Lsn::new(10), None)).await.unwrap();
    let watermark = Watermark { commit: Lsn::new(200), end: Lsn::new(201) };
    log.publish(&state.epoch, watermark, None, None, None).await.unwrap();
    // As a reader that saw an older watermark before the compaction and comes to read after it.
    log.compact_shared(&state.epoch, Lsn::new(150)).await.unwrap();
    assert_eq!(log.state().await.unwrap().unwrap().compacted, Lsn::new(150));
    let reader =
        LogReader::new(pool(Servers::shared().await.redis_url(), 1, Timeouts::default()).unwrap(), &tenant);
    let read =
        async |upto| reader.read(&state.epoch, &[Bucket::Shared], Lsn::new(10), Lsn::new(upto), 100).await;
    assert_eq!(read(140).await.unwrap(), Read::Moved, "it would end in a state that never was");
    assert!(matches!(read(150).await.unwrap(), Read::Page(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_ingester_compacts_what_every_message_changes() {
    let mut tenant = Tenant::create(Servers::shared().await).await;
    tenant.session.retention.interval = Duration::from_millis(50);
    tenant.session.retention.compact_entries = 100;
    let running = tenant.ingest().await;
    let bob = tenant.user("Bob").await;
    for n in 0..400 {
        tenant.message(bob, bob, &format!("{n}")).await;
    }
    tenant.caught_up().await;
    let entries = eventually(SOON, "the shared bucket is compacted", async || {
        let entries = tenant.entries(&[Bucket::Shared]).await;
        Ok((entries.len() < 250).then_some(entries))
    })
    .await;
    let row: serde_json::Value = serde_json::from_str(&entries.last().unwrap().changes[0].row).unwrap();
    assert_eq!(row["last_message_sent"], "399");
    // A restart goes on behind the compacted bucket.
    drop(running);
    let _next = tenant.ingest_again().await;
    tenant.message(bob, bob, "after").await;
    let entries = tenant.entries(&[Bucket::Shared]).await;
    assert!(entries.last().unwrap().changes[0].row.contains("\"after\""));
}

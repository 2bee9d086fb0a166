//! P5 and P4 at the scripts themselves: who may write, and after what.

use posduif_changelog::{
    Batch, CommitRecord, Keys, LogError, LogState, LogWriter, Timeouts, Watermark, connect::connect,
};
use posduif_model::{Bucket, Change, Epoch, Lsn, Op, TenantId, rule::RulesHash};
use posduif_testkit::Servers;

async fn writer(tenant: &TenantId, token: i64) -> Result<LogWriter, LogError> {
    let url = Servers::shared().await.redis_url();
    LogWriter::claim(connect(url, Timeouts::default()).await?, tenant, token).await
}

fn fresh() -> (TenantId, LogState) {
    let tenant = format!("t{}", rand::random::<u64>()).parse().unwrap();
    let base = Lsn::new(10);
    let state = LogState {
        epoch: Epoch::from_random(rand::random()),
        base,
        watermark: Watermark { commit: base, end: base },
        floor: base,
        compacted: Lsn::ZERO,
        top: base,
        broken: None,
        tables: String::new(),
        rules: RulesHash::from_stored("r"),
        unready_below: None,
        heartbeat: None,
        system: "s".into(),
        timeline: 1,
    };
    (tenant, state)
}

/// A transaction of `rows` rows for everyone.
fn transaction(tenant: &TenantId, state: &LogState, commit: u64, previous: u64, rows: u64) -> Batch {
    let mut batch = Batch::new(Keys::new(tenant), state.epoch);
    add(&mut batch, commit, 0..rows);
    finish(&mut batch, commit, previous);
    batch
}

fn add(batch: &mut Batch, commit: u64, ordinals: std::ops::Range<u64>) {
    for ordinal in ordinals {
        let key = format!("{{\"id\":{ordinal}}}");
        let change = Change { op: Op::Put, table: "t".parse().unwrap(), row: key.clone(), key };
        batch.push(format!("{commit}-{ordinal}").parse().unwrap(), &Bucket::Shared, None, &[change]);
    }
}

fn finish(batch: &mut Batch, commit: u64, previous: u64) {
    batch.commit(CommitRecord {
        commit: Lsn::new(commit),
        end: Lsn::new(commit + 1),
        previous: Lsn::new(previous),
        xid: 1,
        changes: 1,
        committed_at: 0,
        origin: None,
        buckets: vec![Bucket::Shared],
        buckets_elsewhere: false,
        written: 0,
        left_out: false,
    });
}

async fn rows(tenant: &TenantId, state: &LogState) -> Vec<String> {
    let url = Servers::shared().await.redis_url();
    let mut redis = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let key = Keys::new(tenant).bucket(&state.epoch, &Bucket::Shared);
    let found: Vec<(String, Vec<String>)> =
        redis::cmd("XRANGE").arg(key).arg("-").arg("+").query_async(&mut redis).await.unwrap();
    found.into_iter().map(|(id, _)| id).collect()
}

#[tokio::test]
async fn a_writer_with_an_older_token_can_do_nothing_more() {
    let (tenant, state) = fresh();
    let mut old = writer(&tenant, 1).await.unwrap();
    old.open(&state).await.unwrap();
    let _new = writer(&tenant, 2).await.unwrap();
    let batch = transaction(&tenant, &state, 20, 10, 1);
    let watermark = Watermark { commit: Lsn::new(20), end: Lsn::new(21) };
    assert!(matches!(old.append(&batch, Batch::guard(Lsn::new(10), None)).await, Err(LogError::Fenced)));
    assert!(matches!(old.publish(&state.epoch, watermark, None, None).await, Err(LogError::Fenced)));
    assert!(matches!(old.open(&state).await, Err(LogError::Fenced)));
    assert!(matches!(old.ready(&state.epoch).await, Err(LogError::Fenced)));
    assert!(matches!(writer(&tenant, 1).await, Err(LogError::Fenced)));
    assert!(rows(&tenant, &state).await.is_empty());
}

#[tokio::test]
async fn tokens_and_positions_beyond_two_to_the_53_keep_their_order() {
    let (tenant, state) = fresh();
    let mut one = writer(&tenant, i64::MAX - 1).await.unwrap();
    one.open(&state).await.unwrap();
    let _other = writer(&tenant, i64::MAX).await.unwrap();
    assert!(matches!(one.ready(&state.epoch).await, Err(LogError::Fenced)));
    let mut other = writer(&tenant, i64::MAX).await.unwrap();
    let top = u64::MAX - 1;
    other.append(&transaction(&tenant, &state, top, 10, 2), Batch::guard(Lsn::new(10), None)).await.unwrap();
    let behind = Watermark { commit: Lsn::new(top - 1), end: Lsn::new(top) };
    let ahead = Watermark { commit: Lsn::new(top), end: Lsn::new(u64::MAX) };
    other.publish(&state.epoch, ahead, None, None).await.unwrap();
    assert!(matches!(other.publish(&state.epoch, behind, None, None).await, Err(LogError::Diverged(_))));
}

#[tokio::test]
async fn a_batch_that_does_not_follow_the_newest_commit_is_refused_whole() {
    let (tenant, state) = fresh();
    let mut log = writer(&tenant, 1).await.unwrap();
    log.open(&state).await.unwrap();
    log.append(&transaction(&tenant, &state, 20, 10, 1), Batch::guard(Lsn::new(10), None)).await.unwrap();
    let gap = transaction(&tenant, &state, 40, 30, 1);
    for previous in [10, 30] {
        let refused = log.append(&gap, Batch::guard(Lsn::new(previous), None)).await;
        assert!(matches!(refused, Err(LogError::Diverged(_))), "{refused:?}");
    }
    assert_eq!(rows(&tenant, &state).await, ["20-0"]);
}

#[tokio::test]
async fn a_retry_begins_inside_a_half_stored_transaction_and_only_there() {
    let (tenant, state) = fresh();
    let mut log = writer(&tenant, 1).await.unwrap();
    log.open(&state).await.unwrap();
    let mut half = Batch::new(Keys::new(&tenant), state.epoch);
    add(&mut half, 20, 0..3);
    log.append(&half, Batch::guard(Lsn::new(10), None)).await.unwrap();
    let whole = transaction(&tenant, &state, 20, 10, 5);
    let refused = log.append(&whole, Batch::guard(Lsn::new(10), None)).await;
    assert!(refused.is_err(), "an id that is stored was taken for new outside a retry");
    let added = log.append(&whole, Batch::guard(Lsn::new(10), Some(Lsn::new(20)))).await.unwrap();
    assert_eq!(added, 3, "two rows and the commit");
    assert_eq!(rows(&tenant, &state).await, ["20-0", "20-1", "20-2", "20-3", "20-4"]);
}

#[tokio::test]
async fn a_writer_of_another_epoch_is_refused() {
    let (tenant, state) = fresh();
    let mut log = writer(&tenant, 1).await.unwrap();
    log.open(&state).await.unwrap();
    let other = LogState { epoch: Epoch::from_random(rand::random()), ..state.clone() };
    let batch = transaction(&tenant, &other, 20, 10, 1);
    assert!(matches!(log.append(&batch, Batch::guard(Lsn::new(10), None)).await, Err(LogError::Diverged(_))));
}

#[tokio::test]
async fn entries_above_those_to_be_stored_end_the_log() {
    for retried in [None, Some(Lsn::new(20))] {
        let (tenant, state) = fresh();
        let mut log = writer(&tenant, 1).await.unwrap();
        log.open(&state).await.unwrap();
        let mut orphan = Batch::new(Keys::new(&tenant), state.epoch);
        add(&mut orphan, 90, 0..1);
        log.append(&orphan, Batch::guard(Lsn::new(10), None)).await.unwrap();
        assert_eq!(log.state().await.unwrap().unwrap().top, Lsn::new(90));
        let batch = transaction(&tenant, &state, 20, 10, 3);
        let refused = log.append(&batch, Batch::guard(Lsn::new(10), retried)).await;
        assert!(matches!(refused, Err(LogError::Diverged(_))), "{refused:?}");
        assert!(log.state().await.unwrap().unwrap().broken.is_some(), "the next session would not notice");
        assert_eq!(rows(&tenant, &state).await, ["90-0"]);
    }
}

#[tokio::test]
async fn the_watermark_never_passes_what_the_commit_log_has() {
    let (tenant, state) = fresh();
    let mut log = writer(&tenant, 1).await.unwrap();
    log.open(&state).await.unwrap();
    let ahead = Watermark { commit: Lsn::new(20), end: Lsn::new(21) };
    assert!(matches!(log.publish(&state.epoch, ahead, None, None).await, Err(LogError::Diverged(_))));
    log.append(&transaction(&tenant, &state, 20, 10, 1), Batch::guard(Lsn::new(10), None)).await.unwrap();
    log.publish(&state.epoch, ahead, None, None).await.unwrap();
}

//! P5 and P4 at the scripts themselves: who may write, and after what.

use posduif_changelog::{Batch, Keys, LogError, LogState, Watermark};
use posduif_model::{Epoch, Lsn};

use crate::scripts::{add, finish_in, fresh, rows, transaction, writer};

#[tokio::test]
async fn a_writer_with_an_older_token_can_do_nothing_more() {
    let (tenant, state) = fresh();
    let mut old = writer(&tenant, 1).await.unwrap();
    old.open(&state).await.unwrap();
    let _new = writer(&tenant, 2).await.unwrap();
    let batch = transaction(&tenant, &state, 20, 10, 1);
    let watermark = Watermark { commit: Lsn::new(20), end: Lsn::new(21) };
    assert!(matches!(old.append(&batch, Batch::guard(Lsn::new(10), None)).await, Err(LogError::Fenced)));
    assert!(matches!(old.publish(&state.epoch, watermark, None, None, None).await, Err(LogError::Fenced)));
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
    other.publish(&state.epoch, ahead, None, None, None).await.unwrap();
    assert!(matches!(
        other.publish(&state.epoch, behind, None, None, None).await,
        Err(LogError::Diverged(_))
    ));
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
    assert!(matches!(log.publish(&state.epoch, ahead, None, None, None).await, Err(LogError::Diverged(_))));
    log.append(&transaction(&tenant, &state, 20, 10, 1), Batch::guard(Lsn::new(10), None)).await.unwrap();
    log.publish(&state.epoch, ahead, None, None, None).await.unwrap();
}

#[tokio::test]
async fn what_follows_a_transaction_with_many_buckets_is_stored_after_a_lost_answer() {
    let (tenant, state) = fresh();
    let mut log = writer(&tenant, 1).await.unwrap();
    log.open(&state).await.unwrap();
    let mut batch = Batch::new(Keys::new(&tenant), state.epoch);
    add(&mut batch, 20, 0..1);
    finish_in(&mut batch, 20, 10, 1_001);
    add(&mut batch, 30, 0..1);
    log.append(&batch, Batch::guard(Lsn::new(10), None)).await.unwrap();
    // The answer was lost: what the commit log has is skipped, of the rest a part may be stored.
    batch.skip_through(Lsn::new(20));
    add(&mut batch, 30, 1..2);
    log.append(&batch, Batch::guard(Lsn::new(20), Some(Lsn::new(30)))).await.unwrap();
    assert_eq!(rows(&tenant, &state).await, ["20-0", "30-0", "30-1"]);
}

#[tokio::test]
async fn nothing_is_proven_of_a_log_that_fell_back() {
    let (tenant, state) = fresh();
    let mut log = writer(&tenant, 1).await.unwrap();
    log.open(&state).await.unwrap();
    let patience = std::time::Duration::from_millis(10);
    assert!(log.prove(&state.epoch, Lsn::new(10), 0, patience).await.is_ok());
    let ahead = log.prove(&state.epoch, Lsn::new(11), 0, patience).await;
    assert!(matches!(ahead, Err(LogError::Diverged(_))), "{ahead:?}");
}

//! What epochs leave behind.

use posduif_changelog::{Batch, Keys, LogState};
use posduif_model::{Epoch, Lsn};
use posduif_testkit::Servers;

use crate::scripts::{fresh, transaction, writer};

#[tokio::test]
async fn the_keys_of_a_replaced_epoch_go_and_those_of_the_next_stay() {
    let (tenant, state) = fresh();
    let mut log = writer(&tenant, 1).await.unwrap();
    log.open(&state).await.unwrap();
    log.append(&transaction(&tenant, &state, 20, 10, 3), Batch::guard(Lsn::new(10), None)).await.unwrap();
    assert!(log.retired(0).await.unwrap().is_empty());
    assert!(log.sweep(&state.epoch, 0).await.is_err(), "the epoch in use would go");

    let next = LogState { epoch: Epoch::from_random(rand::random()), ..state.clone() };
    log.open(&next).await.unwrap();
    log.append(&transaction(&tenant, &next, 20, 10, 3), Batch::guard(Lsn::new(10), None)).await.unwrap();
    assert_eq!(log.retired(0).await.unwrap(), [state.epoch]);
    assert!(log.retired(3_600).await.unwrap().is_empty(), "somebody may still be reading it");
    // A change of the timeline writes the state anew and retires nothing.
    log.open(&LogState { timeline: 2, ..next.clone() }).await.unwrap();
    assert_eq!(log.retired(0).await.unwrap(), [state.epoch]);

    let mut cursor = Some(0);
    while let Some(at) = cursor {
        cursor = log.sweep(&state.epoch, at).await.unwrap();
    }
    assert!(log.retired(0).await.unwrap().is_empty());
    let mut redis = redis::Client::open(Servers::shared().await.redis_url())
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    let keys = Keys::new(&tenant);
    let mut count = async |epoch| {
        let pattern = format!("{}*", keys.epoch(epoch));
        redis::cmd("KEYS").arg(pattern).query_async::<Vec<String>>(&mut redis).await.unwrap().len()
    };
    assert_eq!((count(&state.epoch).await, count(&next.epoch).await), (0, 2));
}

//! A standby that has all that was published takes the primary's place: nobody begins again.

use posduif_testkit::eventually;
use reqwest::Client;
use serde_json::Value;

use crate::{
    site::PATIENCE,
    stage::{Outcome, PREPARED, STANDBY, Set, Stage, report},
    status::codes,
};

/// What a promotion without a copy of the slot costs where nothing else is missing: what changed meanwhile is compared.
const WITHOUT_A_SLOT: Outcome = Outcome::GoesOn;

/// Whether operators are told that a fail-over is not prepared.
fn warns(status: &Value) -> bool {
    codes(status, "warnings").contains(&"standby_not_waited_for".to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_prepared_standby_takes_over_under_load_and_no_device_begins_again() {
    let mut stage = Stage::begin("a_prepared_standby_takes_over_under_load").await;
    let standby = stage.standby(PREPARED).await;
    let status = stage.status().await;
    assert!(codes(&status, "problems").is_empty() && !warns(&status), "{status}");
    let place = &status["database"]["standbys"][0];
    assert_eq!(
        (&place["slot"], &place["active"], &place["waited_for"]),
        (&STANDBY.into(), &true.into(), &true.into())
    );
    let took = stage.fail_over(standby).await;
    report("synchronous standby with a copy of the slot", took);
    let status = stage.status().await;
    assert_eq!(
        (&status["database"]["timeline"], &status["log"]["timeline"]),
        (&2.into(), &2.into()),
        "{status}"
    );
    assert_eq!(status["database"]["epoch_history"].as_array().unwrap().len(), 1, "{status}");
    assert_eq!(stage.ends(Outcome::GoesOn).await, 0, "what was acknowledged is lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_standby_without_a_copy_of_the_slot_takes_over_and_what_changed_is_compared() {
    let mut stage = Stage::begin("a_standby_without_a_copy_of_the_slot").await;
    let standby = stage.standby(Set { keeps_slots: false, waits: false, ..PREPARED }).await;
    assert!(warns(&stage.status().await), "nobody is told");
    let took = stage.fail_over(standby).await;
    report("standby without the slot", took);
    let status = stage.status().await;
    let newest = &status["database"]["epoch_history"][0];
    assert_eq!(newest["reason"], "slot_compared", "{status}");
    assert_eq!(stage.ends(WITHOUT_A_SLOT).await, 0, "what was acknowledged is lost");
}

/// With `synchronized_standby_slots` the ingester decodes nothing that the standby lacks: then a standby that is behind, though it
/// loses commits, takes nothing from a device.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_log_never_gets_ahead_of_a_standby_that_it_waits_for() {
    let mut stage = Stage::begin("the_log_never_gets_ahead_of_a_standby").await;
    let standby = stage.standby(Set { synchronous: false, ..PREPARED }).await;
    standby.link.black_hole(true);
    standby.link.cut_all();
    let has = |sql: &'static str| {
        let standby = &standby;
        async move { standby.session("postgres").await.query_one(sql, &[]).await.unwrap().get::<_, String>(0) }
    };
    // The primary goes on, and the log stands still once it has what the standby has.
    stage.writes(200).await;
    let received: posduif_model::Lsn = has("SELECT pg_last_wal_receive_lsn()::text").await.parse().unwrap();
    let state = stage.site.log.state().await.unwrap().unwrap();
    assert!(
        state.watermark.end <= received && state.top <= received,
        "the log is at {:?}, {STANDBY} at {received}",
        state.watermark
    );
    eventually(PATIENCE, "operators are told why", async || {
        let status = stage.status().await;
        anyhow::ensure!(codes(&status, "problems").contains(&"standby_away".to_owned()), "{status}");
        let url = format!("http://127.0.0.1:{}/readyz", stage.site.ingester_port);
        let ready = Client::builder().no_proxy().build()?.get(url).send().await?.text().await?;
        anyhow::ensure!(ready.contains("synchronized_standby_slots that is away"), "{ready}");
        Ok(Some(()))
    })
    .await;
    let client = stage.session().await;
    let written: String =
        client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.unwrap().get(0);
    assert!(written.parse::<posduif_model::Lsn>().unwrap() > received, "the standby lacks nothing");
    let took = stage.fail_over(standby).await;
    report("asynchronous standby that was waited for", took);
    assert!(stage.ends(Outcome::GoesOn).await > 0, "nothing was lost; the test proves nothing");
}

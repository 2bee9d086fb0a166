//! SIGKILL at random instants, under load, again and again.

use std::time::Duration;

use posduif_testkit::Servers;
use rand::RngExt;

use crate::{
    campaign::{Campaign, WRITERS},
    run::{Run, from_environment},
    tenant::{Settings, insert_lsn},
};

/// The goal for a restarted process is ten seconds; machines are noisy.
const BACK_WITHIN: Duration = Duration::from_secs(20);
/// Comparisons with PostgreSQL are dear; one after so many kills, and one at the end.
const COMPARE_EVERY: u32 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn an_ingester_killed_at_random_instants_is_back_at_once_and_loses_and_doubles_nothing() {
    let run = Run::begin("an_ingester_killed_at_random_instants");
    let kills: u32 = from_environment("POSDUIF_FAULT_KILLS", 20);
    let mut rng = run.rng(100);
    let mut campaign = Campaign::prepare(&run, Servers::shared().await, &Settings::default()).await;
    let client = campaign.tenant.database.connect().await;
    let mut ingester = campaign.tenant.ingester().await;
    campaign.join().await;
    campaign.write(&run, WRITERS, Duration::from_millis(120));
    let mut back = Vec::new();
    for kill in 1..=kills {
        tokio::time::sleep(Duration::from_millis(rng.random_range(20..700))).await;
        ingester.kill9().await;
        ingester.start_again();
        let (state, took) = campaign.tenant.reached(insert_lsn(&client).await).await;
        assert!(
            took < BACK_WITHIN,
            "kill {kill}: it took {took:?} until {} was published",
            state.watermark.end
        );
        back.push(took);
        // The epoch is compared there too: a kill must not open one.
        if kill % COMPARE_EVERY == 0 {
            campaign.compare().await;
        }
    }
    campaign.finish(&run).await;
    back.sort();
    let at = |part: usize| back[(back.len() - 1) * part / 100];
    eprintln!(
        "{kills} kills, back after: p50 {:?}, p90 {:?}, p99 {:?}, max {:?}",
        at(50),
        at(90),
        at(99),
        at(100)
    );
}

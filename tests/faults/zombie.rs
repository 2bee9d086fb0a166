//! A frozen ingester whose successor has taken over, and that wakes up again.

use std::time::Duration;

use posduif_testkit::{Servers, eventually};
use rand::RngExt;

use crate::{
    campaign::{Campaign, WRITERS},
    run::{Run, from_environment},
    tenant::{PATIENCE, Settings, insert_lsn},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_ingester_does_no_harm_when_it_wakes_after_its_successor_took_over() {
    let run = Run::begin("a_frozen_ingester");
    let zombies: u32 = from_environment("POSDUIF_FAULT_ZOMBIES", 1);
    let mut rng = run.rng(100);
    let mut campaign = Campaign::prepare(&run, Servers::shared().await, &Settings::default()).await;
    let client = campaign.tenant.database.connect_superuser().await;
    let mut ingester = campaign.tenant.ingester().await;
    campaign.join().await;
    campaign.write(&run, WRITERS, Duration::from_millis(40));
    for zombie in 1..=zombies {
        tokio::time::sleep(Duration::from_millis(rng.random_range(20..700))).await;
        let held = campaign.tenant.walsender(&client).await;
        ingester.sigstop();
        let mut successor = campaign.tenant.ingester().await;
        // Half of them are cut off, as by a network that knows; of the others the successor ends the walsender.
        if zombie % 2 == 1 {
            client.execute("SELECT pg_terminate_backend($1)", &[&held.unwrap()]).await.unwrap();
        }
        eventually(PATIENCE, "the successor holds the slot", async || {
            Ok(campaign.tenant.walsender(&client).await.filter(|pid| Some(*pid) != held))
        })
        .await;
        campaign.tenant.reached(insert_lsn(&client).await).await;
        let before = ingester.log().len();
        ingester.sigcont();
        // It must have noticed: it cannot be that it is still frozen while its harmlessness is judged.
        eventually(PATIENCE, "the frozen ingester notices", async || {
            let said = &ingester.log()[before..];
            let notices = ["the tenant's session ended", "ending the session; another ingester works"];
            Ok(notices.iter().any(|notice| said.contains(notice)).then_some(()))
        })
        .await;
        campaign.compare().await;
        assert_eq!(successor.try_wait(), None, "the successor ended");
        ingester.kill9().await;
        campaign.compare().await;
        ingester = successor;
    }
    campaign.finish(&run).await;
}

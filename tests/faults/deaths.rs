//! Two ingesters that share four tenants under load: one of them killed or frozen again and again.

use std::time::Duration;

use posduif_testkit::{Servers, eventually};
use rand::RngExt;

use crate::{
    fleet::{Fleet, spread},
    run::{Run, from_environment},
    tenant::{PATIENCE, Settings},
};

const TENANTS: usize = 4;
const WRITERS: i32 = 2;
const PAUSE: Duration = Duration::from_millis(300);
/// The goal is 10 s; the machine of the tests is busy with them.
const BACK_WITHIN: Duration = Duration::from_secs(20);
/// Comparisons with PostgreSQL are dear; one after so many faults, and one at the end.
const COMPARE_EVERY: u32 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn the_tenants_of_a_killed_ingester_are_followed_again_at_once_and_lose_and_double_nothing() {
    let run = Run::begin("the_tenants_of_a_killed_ingester");
    let deaths: u32 = from_environment("POSDUIF_FAULT_DEATHS", 2);
    let mut rng = run.rng(100);
    let settings = vec![Settings::default(); TENANTS];
    let mut fleet = Fleet::prepare(&run, Servers::shared().await, &settings).await;
    let mut pair = [fleet.ingester().await, fleet.ingester().await];
    fleet.write(&run, WRITERS, PAUSE).await;
    let mut back = Vec::new();
    for death in 1..=deaths {
        fleet.shared_by(&[&pair[0], &pair[1]]).await;
        tokio::time::sleep(Duration::from_millis(rng.random_range(20..700))).await;
        let victim = rng.random_range(0..2usize);
        let orphans = fleet.held_by(&pair[victim]).await;
        assert_eq!(orphans.len(), TENANTS / 2);
        pair[victim].process.kill9().await;
        let took = fleet.back().await;
        assert!(took.iter().all(|took| *took < BACK_WITHIN), "death {death}: {took:?}");
        back.extend(orphans.iter().map(|place| took[*place]));
        assert_eq!(fleet.held_by(&pair[1 - victim]).await.len(), TENANTS, "somebody else did it");
        pair[victim].process.start_again();
        if death % COMPARE_EVERY == 0 {
            fleet.compare().await;
        }
    }
    fleet.finish(&run).await;
    eprintln!("{deaths} deaths, their tenants were published again after {:?}", spread(back));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tenants_of_a_frozen_ingester_are_followed_again_at_once_and_it_does_no_harm_when_it_wakes() {
    let run = Run::begin("the_tenants_of_a_frozen_ingester");
    let freezes: u32 = from_environment("POSDUIF_FAULT_FREEZES", 1);
    let mut rng = run.rng(100);
    let settings = vec![Settings::default(); TENANTS];
    let mut fleet = Fleet::prepare(&run, Servers::shared().await, &settings).await;
    let mut pair = [fleet.ingester().await, fleet.ingester().await];
    fleet.write(&run, WRITERS, PAUSE).await;
    let mut back = Vec::new();
    for freeze in 1..=freezes {
        fleet.shared_by(&[&pair[0], &pair[1]]).await;
        tokio::time::sleep(Duration::from_millis(rng.random_range(20..700))).await;
        let victim = rng.random_range(0..2usize);
        let orphans = fleet.held_by(&pair[victim]).await;
        assert_eq!(orphans.len(), TENANTS / 2);
        pair[victim].process.sigstop();
        let took = fleet.back().await;
        assert!(took.iter().all(|took| *took < BACK_WITHIN), "freeze {freeze}: {took:?}");
        back.extend(orphans.iter().map(|place| took[*place]));
        let before = pair[victim].process.log().len();
        pair[victim].process.sigcont();
        // It must have noticed: it cannot be that it is still frozen while its harmlessness is judged.
        eventually(PATIENCE, "the frozen ingester notices", async || {
            let said = &pair[victim].process.log()[before..];
            Ok((said.matches("ending the session; another ingester works").count() == orphans.len())
                .then_some(()))
        })
        .await;
        if freeze % COMPARE_EVERY == 0 {
            fleet.compare().await;
        }
    }
    fleet.finish(&run).await;
    eprintln!("{freezes} freezes, their tenants were published again after {:?}", spread(back));
}

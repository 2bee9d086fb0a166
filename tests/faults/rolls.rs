//! Two ingesters restarted one after the other under load, as a deployment does.

use std::time::Duration;

use posduif_testkit::Servers;

use crate::{
    fleet::{Fleet, Gaps, spread},
    run::{Run, from_environment},
    tenant::Settings,
};

const TENANTS: usize = 4;
const WRITERS: i32 = 2;
const PAUSE: Duration = Duration::from_millis(300);
/// What may pass between two publications of a tenant. Without the leases given up it would be as long as one lasts, and
/// without the walsenders ended as long as PostgreSQL waits for a silent one.
const LONGEST_GAP: Duration = Duration::from_secs(10);
const ENDED_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_leaves_no_gap_worth_the_name() {
    let run = Run::begin("a_rolling_restart");
    let rolls: u32 = from_environment("POSDUIF_FAULT_ROLLS", 1);
    let settings = vec![Settings::default(); TENANTS];
    let mut fleet = Fleet::prepare(&run, Servers::shared().await, &settings).await;
    let mut pair = [fleet.ingester().await, fleet.ingester().await];
    fleet.write(&run, WRITERS, PAUSE).await;
    let watched = fleet.watch().await;
    let (mut given, mut returned) = (Vec::new(), Vec::new());
    for _ in 0..rolls {
        for place in 0..2 {
            fleet.shared_by(&[&pair[0], &pair[1]]).await;
            watched.iter().for_each(Gaps::begin);
            let moves = fleet.held_by(&pair[place]).await;
            assert_eq!(pair[place].process.terminate(ENDED_WITHIN).await, 0);
            assert!(fleet.held_by(&pair[place]).await.is_empty(), "it kept its leases");
            fleet.back().await;
            given.extend(moves.iter().map(|tenant| watched[*tenant].longest()));
            watched.iter().for_each(Gaps::begin);
            pair[place].process.start_again();
            fleet.shared_by(&[&pair[0], &pair[1]]).await;
            let moves = fleet.held_by(&pair[place]).await;
            returned.extend(moves.iter().map(|tenant| watched[*tenant].longest()));
        }
    }
    drop(watched);
    fleet.finish(&run).await;
    assert!(given.iter().chain(&returned).all(|gap| *gap < LONGEST_GAP), "{given:?} {returned:?}");
    eprintln!("{rolls} rolling restarts: no publication for {:?} when an ingester ended", spread(given));
    eprintln!("and for {:?} when it was back and got its share", spread(returned));
}

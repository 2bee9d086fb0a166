//! PostgreSQL or Redis stopped, killed and started again under load, with much of the log unconfirmed.

use std::time::{Duration, Instant};

use posduif_testkit::Servers;

use crate::{
    campaign::Campaign,
    run::{Run, from_environment},
    tenant::{Settings, insert_lsn},
};

/// The goals: how long a fast shutdown may take, and how soon the ingester follows a server that is back.
const STOPPED_WITHIN: Duration = Duration::from_secs(15);
const BACK_WITHIN: Duration = Duration::from_secs(10);
const WRITERS: i32 = 4;
/// What is younger than this is not confirmed, so at any stop under load there is a backlog.
const CONFIRM_DELAY: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Fast,
    Immediate,
    Killed,
    RedisKilled,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_shutdown_of_postgresql_does_not_wait_for_the_ingester_and_the_log_goes_on() {
    ends("a_fast_shutdown", Servers::private().await, &[End::Fast]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_postgresql_under_load_costs_no_epoch() {
    let crashes: usize = from_environment("POSDUIF_FAULT_CRASHES", 2);
    let kinds: Vec<End> = [End::Immediate, End::Killed].into_iter().cycle().take(crashes).collect();
    ends("a_crash_of_postgresql", Servers::durable().await, &kinds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_redis_under_load_costs_no_epoch() {
    let crashes: usize = from_environment("POSDUIF_FAULT_CRASHES", 2);
    ends("a_crash_of_redis", Servers::private().await, &vec![End::RedisKilled; crashes]).await;
}

async fn ends(test: &'static str, mut servers: Servers, ends: &[End]) {
    let run = Run::begin(test);
    let settings = Settings { confirm_delay: Some(CONFIRM_DELAY), ..Settings::default() };
    let mut campaign = Campaign::prepare(&run, &servers, &settings).await;
    let mut ingester = campaign.tenant.ingester().await;
    campaign.join().await;
    campaign.write(&run, WRITERS, Duration::from_millis(30));
    for end in ends {
        tokio::time::sleep(Duration::from_secs(1)).await;
        campaign.assert_backlog().await;
        let begun = Instant::now();
        match end {
            End::Fast => servers.postgres_mut().stop().await.unwrap(),
            End::Immediate => servers.postgres_mut().stop_immediately().await.unwrap(),
            End::Killed => servers.postgres_mut().kill9().await,
            End::RedisKilled => servers.redis_mut().kill9().await,
        }
        let stopped = begun.elapsed();
        assert!(stopped < STOPPED_WITHIN, "{end:?}: the server took {stopped:?} to stop");
        match end {
            End::RedisKilled => servers.redis_mut().restart().await.unwrap(),
            _ => servers.postgres_mut().restart().await.unwrap(),
        }
        let client = campaign.tenant.database.connect().await;
        let (_, back) = campaign.tenant.reached(insert_lsn(&client).await).await;
        eprintln!("seed {}: {end:?} took {stopped:?}, back after {back:?}", run.seed);
        assert!(back < BACK_WITHIN, "{end:?}: the ingester took {back:?} to come back");
        // The epoch is compared there too.
        campaign.compare().await;
    }
    assert_eq!(ingester.try_wait(), None, "the ingester ended");
    campaign.finish(&run).await;
}

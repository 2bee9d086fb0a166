//! A Redis that stops answering for longer than PostgreSQL waits for a silent client.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use posduif_testkit::{Servers, chaos::Proxy};
use tokio::time::Instant;

use crate::{
    campaign::Campaign,
    run::{Run, from_environment},
    tenant::{Settings, insert_lsn},
};

/// `wal_sender_timeout` of the ingester's replication connection, and a margin. The goal is three times as long.
const STALL_SECONDS: u64 = 15 + 2;
const BACK_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn the_replication_connection_survives_a_redis_that_stalls() {
    let run = Run::begin("the_replication_connection_survives");
    let stall = Duration::from_secs(from_environment("POSDUIF_FAULT_STALL", STALL_SECONDS));
    let servers = Servers::shared().await;
    let proxy = Proxy::start((Ipv4Addr::LOCALHOST, servers.redis().port()).into()).await;
    let settings = Settings { redis_port: Some(proxy.address().port()), ..Settings::default() };
    let mut campaign = Campaign::prepare(&run, servers, &settings).await;
    let client = campaign.tenant.database.connect().await;
    let ingester = campaign.tenant.ingester().await;
    campaign.join().await;
    campaign.write(&run, 2, Duration::from_millis(200));
    campaign.compare().await;
    let held = campaign.tenant.walsender(&client).await;
    assert!(held.is_some(), "nobody reads the slot");

    proxy.black_hole(true);
    let end = Instant::now() + stall;
    let mut seen = BTreeSet::new();
    while Instant::now() < end {
        seen.insert(campaign.tenant.walsender(&client).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    proxy.black_hole(false);
    let (_, back) = campaign.tenant.reached(insert_lsn(&client).await).await;
    seen.insert(campaign.tenant.walsender(&client).await);
    eprintln!("seed {}: stalled {stall:?}, back after {back:?}, walsenders {seen:?}", run.seed);
    assert!(back < BACK_WITHIN, "it took {back:?} after Redis was back");
    campaign.finish(&run).await;
    assert_eq!(seen, BTreeSet::from([held]), "the replication connection was made anew");
    drop(ingester);
}

//! A network between the ingester and PostgreSQL that swallows everything for a while.

use std::{net::Ipv4Addr, time::Duration};

use posduif_testkit::{Servers, chaos::Proxy};

use crate::{
    campaign::Campaign,
    run::{Run, from_environment},
    tenant::{Settings, insert_lsn},
};

/// Longer than the ingester's own patience with an answer, so that sessions fail meanwhile.
const OUTAGE_SECONDS: u64 = 16;
/// The goal after the network is back (P9).
const BACK_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_swallowed_everything_is_followed_again_soon_after_it_heals() {
    let run = Run::begin("a_network_that_swallowed");
    let outage = Duration::from_secs(from_environment("POSDUIF_FAULT_OUTAGE", OUTAGE_SECONDS));
    let servers = Servers::shared().await;
    let proxy = Proxy::start((Ipv4Addr::LOCALHOST, servers.postgres().port()).into()).await;
    let settings = Settings { postgres_port: Some(proxy.address().port()), ..Settings::default() };
    let mut campaign = Campaign::prepare(&run, servers, &settings).await;
    let client = campaign.tenant.database.connect().await;
    let ingester = campaign.tenant.ingester().await;
    campaign.join().await;
    // The writers do not go through the proxy: they go on.
    campaign.write(&run, 2, Duration::from_millis(200));
    campaign.compare().await;
    proxy.black_hole(true);
    tokio::time::sleep(outage).await;
    let before = campaign.tenant.ready().await.watermark;
    let target = insert_lsn(&client).await;
    assert!(before.end < target, "nothing was swallowed");
    proxy.black_hole(false);
    let (_, back) = campaign.tenant.reached(target).await;
    eprintln!("seed {}: swallowed for {outage:?}, back after {back:?}", run.seed);
    assert!(back < BACK_WITHIN, "it took {back:?} after the network was back");
    // All connections at once, as when a firewall restarts.
    proxy.cut_all();
    let (_, back) = campaign.tenant.reached(insert_lsn(&client).await).await;
    assert!(back < BACK_WITHIN, "it took {back:?} after the connections were cut");
    campaign.finish(&run).await;
    drop(ingester);
}

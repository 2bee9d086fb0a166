//! Connections to Redis cut at random bytes: requests that arrive in part, answers that are lost.

use std::{net::Ipv4Addr, time::Duration};

use posduif_testkit::{
    Servers,
    chaos::{Direction, Proxy},
};
use rand::RngExt;

use crate::{
    campaign::Campaign,
    run::{Run, from_environment},
    tenant::{Settings, insert_lsn},
};

const COMPARE_EVERY: u32 = 8;
/// The goal after a connection was cut (P9).
const BACK_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_of_redis_and_requests_cut_short_lose_and_double_nothing() {
    let run = Run::begin("lost_answers_of_redis");
    let cuts: u32 = from_environment("POSDUIF_FAULT_CUTS", 15);
    let mut rng = run.rng(100);
    let servers = Servers::shared().await;
    let proxy = Proxy::start((Ipv4Addr::LOCALHOST, servers.redis().port()).into()).await;
    let settings = Settings { redis_port: Some(proxy.address().port()), ..Settings::default() };
    let mut campaign = Campaign::prepare(&run, servers, &settings).await;
    let client = campaign.tenant.database.connect().await;
    let mut ingester = campaign.tenant.ingester().await;
    campaign.join().await;
    campaign.write(&run, 4, Duration::from_millis(60));
    let held = campaign.tenant.walsender(&client).await;
    for cut in 1..=cuts {
        match rng.random_range(0..5) {
            0 => proxy.cut_all(),
            1 | 2 => proxy.cut_after_bytes(rng.random_range(1..300), Direction::ToClient),
            // From a part of one command to somewhere within a chunk of a large transaction.
            _ => proxy.cut_after_bytes(rng.random_range(1..300_000), Direction::ToServer),
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(20..300))).await;
        if rng.random_bool(0.3) {
            campaign.spill().await;
        }
        let (_, back) = campaign.tenant.reached(insert_lsn(&client).await).await;
        assert!(back < BACK_WITHIN, "cut {cut}: it took {back:?}");
        if cut % COMPARE_EVERY == 0 {
            // The epoch is compared there too.
            campaign.compare().await;
        }
    }
    assert_eq!(campaign.tenant.walsender(&client).await, held, "the replication connection was made anew");
    assert_eq!(ingester.try_wait(), None, "the ingester ended");
    assert!(ingester.log().contains("the log cannot be used"), "no cut met a connection in use");
    campaign.finish(&run).await;
}

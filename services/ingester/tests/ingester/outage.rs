//! Redis away for a while: what was decoded is neither lost nor stored twice.

use std::time::Duration;

use posduif_testkit::{INGESTER, Servers, chaos::Proxy};
use tokio_postgres::Client;

use crate::fixture::Tenant;

async fn walsender(client: &Client) -> i32 {
    let sql = "SELECT active_pid FROM pg_replication_slots WHERE database = current_database() AND active";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replication_connection_survives_a_redis_that_hangs_and_one_that_restarts() {
    let mut servers = Servers::private().await;
    let mut tenant = Tenant::create(&servers).await;
    let proxy = Proxy::start(([127, 0, 0, 1], servers.redis().port()).into()).await;
    tenant.session.redis.url = servers.redis_url_at(INGESTER, proxy.address()).parse().unwrap();
    tenant.session.redis.response_timeout = Duration::from_millis(300);
    let _running = tenant.ingest().await;
    let bob = tenant.user("Bob").await;
    let (epoch, pid) = (tenant.caught_up().await.epoch, walsender(&tenant.client).await);
    let mut expected = Vec::new();
    for round in 0..3 {
        match round {
            0 => proxy.black_hole(true),
            1 => proxy.cut_all(),
            _ => servers.redis_mut().stop().await.unwrap(),
        }
        for n in 0..50 {
            expected.push(format!("{round}-{n}"));
            tenant.message(bob, bob, expected.last().unwrap()).await;
        }
        // Several attempts of the ingester long.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        match round {
            0 => proxy.black_hole(false),
            1 => {}
            _ => servers.redis_mut().restart().await.unwrap(),
        }
        assert_eq!(tenant.contents(bob).await, expected, "round {round}");
        assert_eq!(walsender(&tenant.client).await, pid, "round {round}: the connection was given up");
    }
    assert_eq!(tenant.state().await.epoch, epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_after_every_byte_stores_nothing_twice_and_nothing_less() {
    use posduif_testkit::chaos::Direction;

    let servers = Servers::shared().await;
    let mut tenant = Tenant::create(servers).await;
    let proxy = Proxy::start(([127, 0, 0, 1], servers.redis().port()).into()).await;
    tenant.session.redis.url = servers.redis_url_at(INGESTER, proxy.address()).parse().unwrap();
    tenant.session.wal.chunk_bytes = 4_096;
    let _running = tenant.ingest().await;
    let bob = tenant.user("Bob").await;
    let epoch = tenant.caught_up().await.epoch;
    let mut expected = Vec::new();
    for cut in 0..80 {
        // A request is cut anywhere, an answer, which has a few bytes, right after it was given.
        match cut % 2 {
            0 => proxy.cut_after_bytes(1 + cut * 53, Direction::ToServer),
            _ => proxy.cut_after_bytes(1 + cut / 2 % 6, Direction::ToClient),
        }
        for n in 0..2 {
            // Some transactions are larger than a chunk.
            let size = if cut % 3 == n { 6_000 } else { 10 };
            expected.push(format!("{cut}-{n}-{}", "x".repeat(usize::try_from(size).unwrap())));
            tenant.message(bob, bob, expected.last().unwrap()).await;
        }
        tenant.caught_up().await;
    }
    assert_eq!(tenant.contents(bob).await, expected);
    assert_eq!(tenant.state().await.epoch, epoch, "a lost answer cost an epoch");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_was_restarted_is_not_asked_to_end_a_connection_of_its_earlier_life() {
    let mut servers = Servers::private().await;
    let tenant = Tenant::create(&servers).await;
    let mut numbered = Vec::new();
    for _ in 0..50 {
        numbered.push(tenant.redis().await);
    }
    let mut writer = crate::scripts::writer_at(&servers, tenant.id(), 1).await.unwrap();
    let old: i64 = redis::cmd("CLIENT").arg("ID").query_async(writer.connection()).await.unwrap();
    servers.redis_mut().restart().await.unwrap();
    // Somebody else has that number now.
    let mut other = loop {
        let mut connection = tenant.redis().await;
        let id: i64 = redis::cmd("CLIENT").arg("ID").query_async(&mut connection).await.unwrap();
        assert!(id <= old, "the numbers did not begin again");
        if id == old {
            break connection;
        }
    };
    let connection = posduif_changelog::connect::connect(servers.redis_url(), Default::default()).await;
    writer.reconnect(connection.unwrap()).await.unwrap();
    let alive: Result<String, _> = redis::cmd("PING").query_async(&mut other).await;
    assert_eq!(alive.unwrap(), "PONG");
}

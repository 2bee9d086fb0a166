//! The testkit on itself: what other tests rely on.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use anyhow::Result;
use posduif_testkit::chaos::{Direction, Proxy};
use posduif_testkit::{Database, Process, Servers, eventually, eventually_true};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn each_test_gets_a_database_of_its_own_that_its_role_may_fill() {
    let servers = Servers::shared().await;
    let (one, two) = (Database::create(servers).await, Database::create(servers).await);
    one.connect().await.batch_execute("CREATE TABLE t (id int)").await.unwrap();
    assert!(two.connect().await.batch_execute("TABLE t").await.is_err());
    one.drop_now().await;
    two.drop_now().await;
}

#[tokio::test]
async fn a_forgotten_database_is_dropped_with_its_slots() {
    let servers = Servers::shared().await;
    let database = Database::create(servers).await;
    let name = database.name().to_owned();
    let slot = "SELECT pg_create_logical_replication_slot('forgotten', 'pgoutput')";
    let session = database.connect_superuser().await;
    session.execute(slot, &[]).await.unwrap();
    drop(database);
    let sql = "SELECT (SELECT count(*) FROM pg_database WHERE datname = $1) + \
               (SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'forgotten')";
    let left: i64 = servers.superuser().await.query_one(sql, &[&name]).await.unwrap().get(0);
    assert_eq!(left, 0);
}

#[tokio::test]
async fn private_servers_can_crash_without_the_shared_ones() {
    let mut servers = Servers::private().await;
    let database = Database::create(&servers).await;
    database.connect().await.batch_execute("CREATE TABLE t (id int)").await.unwrap();
    servers.postgres_mut().kill9().await;
    servers.redis_mut().kill9().await;
    Servers::shared().await.superuser().await.batch_execute("SELECT 1").await.unwrap();
    servers.postgres_mut().restart().await.unwrap();
    servers.redis_mut().restart().await.unwrap();
    database.connect().await.batch_execute("TABLE t").await.unwrap();
    database.drop_now().await;
}

#[tokio::test]
async fn redis_answers() {
    let client = redis::Client::open(Servers::shared().await.redis_url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let answer: String = redis::cmd("PING").query_async(&mut connection).await.unwrap();
    assert_eq!(answer, "PONG");
}

#[tokio::test]
async fn a_process_can_be_frozen_ended_killed_and_started_again() {
    let script =
        "trap 'echo ended; exit 7' TERM; i=0; while :; do i=$((i + 1)); echo line $i; sleep 0.02; done";
    let mut process = Process::command("/bin/sh").args(["-c", script]).spawn();
    eventually_true(SOON, "it writes", async || Ok(process.log().contains("line 3"))).await;

    process.sigstop();
    let state = format!("/proc/{}/stat", process.pid());
    if cfg!(target_os = "linux") {
        let stopped = async || Ok(std::fs::read_to_string(&state)?.contains(") T "));
        eventually_true(SOON, "it is stopped", stopped).await;
    }
    let before = process.log();
    assert_eq!(process.log(), before);
    process.sigcont();
    eventually_true(SOON, "it goes on", async || Ok(process.log().len() > before.len())).await;

    assert_eq!(process.terminate(SOON).await, 7);
    assert!(process.log().ends_with("ended\n"));
    process.start_again();
    process.kill9().await;
    assert_eq!(process.try_wait(), Some(128 + 9));
}

#[tokio::test]
#[should_panic(expected = "not within 50ms: the impossible (last: so far not)")]
async fn a_condition_that_never_holds_panics_with_the_last_error() {
    eventually(Duration::from_millis(50), "the impossible", async || -> Result<Option<()>> {
        anyhow::bail!("so far not")
    })
    .await;
}

#[tokio::test]
#[should_panic(expected = "not within 50ms: an answer")]
async fn an_attempt_that_hangs_does_not_outlast_the_deadline() {
    eventually_true(Duration::from_millis(50), "an answer", async || std::future::pending().await).await;
}

/// A server that sends back what it gets.
async fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await.ok();
            });
        }
    });
    address
}

async fn exchange(stream: &mut TcpStream, text: &str) -> std::io::Result<String> {
    stream.write_all(text.as_bytes()).await?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn the_proxy_forwards_cuts_and_lets_new_connections_through() {
    let proxy = Proxy::start(echo().await).await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(exchange(&mut stream, "hello").await.unwrap(), "hello");
    proxy.cut_all();
    assert!(exchange(&mut stream, "hello").await.is_err());
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(exchange(&mut stream, "again").await.unwrap(), "again");
}

#[tokio::test]
async fn a_black_hole_holds_bytes_back_and_loses_none() {
    let proxy = Proxy::start(echo().await).await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(exchange(&mut stream, "hello").await.unwrap(), "hello");
    proxy.black_hole(true);
    let held = tokio::time::timeout(Duration::from_millis(100), exchange(&mut stream, "lost?")).await;
    assert!(held.is_err());
    proxy.black_hole(false);
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"lost?");
}

#[tokio::test]
async fn a_connection_is_cut_after_exactly_so_many_bytes() {
    let proxy = Proxy::start(echo().await).await;
    proxy.cut_after_bytes(7, Direction::ToClient);
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    stream.write_all(b"0123456789").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok();
    assert_eq!(answer, b"0123456");
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(exchange(&mut stream, "0123456789").await.unwrap(), "0123456789");
}

//! Real servers, started as `posduif dev` and the tests start them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use posduif_provision::{Postgres, PostgresOptions, ProvisionError, Redis, RedisOptions};
use rustix::process::{Pid, test_kill_process};
use tempfile::TempDir;
use tokio::time::sleep;
use tokio_postgres::NoTls;

/// The user who runs the servers must be able to enter it.
fn folder() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::Builder::new().prefix("posduif-provision-").tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn postgres_in(folder: &Path) -> PostgresOptions {
    PostgresOptions { durable: false, ..PostgresOptions::new(folder.join("postgres"), "p@ss 'word") }
}

fn redis_in(folder: &Path) -> RedisOptions {
    RedisOptions { password: Some("s\"ecret".to_owned()), ..RedisOptions::new(folder.join("redis")) }
}

async fn query(postgres: &Postgres, sql: &str) -> String {
    let (client, connection) = tokio_postgres::connect(&postgres.url("postgres"), NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let rows = client.simple_query(sql).await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
    rows.iter()
        .find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
        .unwrap_or_default()
}

async fn command(redis: &Redis, words: &[&str]) -> String {
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(&mut connection).await.unwrap()
}

fn alive(pid: u32) -> bool {
    Pid::from_raw(pid.cast_signed()).is_some_and(|pid| test_kill_process(pid).is_ok())
}

async fn until_gone(pid: u32) {
    let give_up = Instant::now() + Duration::from_secs(20);
    while alive(pid) {
        assert!(Instant::now() < give_up, "process {pid} is still there");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn postgres_keeps_its_data_over_restarts_and_crashes() {
    let folder = folder();
    let mut postgres = Postgres::start(postgres_in(folder.path())).await.unwrap();
    assert_eq!(query(&postgres, "SHOW wal_level").await, "logical");
    assert_eq!(query(&postgres, "SELECT datcollate || datlocale FROM pg_database LIMIT 1").await, "CC.UTF-8");
    query(&postgres, "CREATE TABLE t AS SELECT 41 + 1 AS answer").await;

    let (port, pid) = (postgres.port(), postgres.pid());
    postgres.restart().await.unwrap();
    assert_eq!(postgres.port(), port);
    assert!(!alive(pid) && alive(postgres.pid()));
    assert_eq!(query(&postgres, "SELECT answer FROM t").await, "42");

    postgres.kill9().await;
    assert!(!postgres.is_running());
    postgres.restart().await.unwrap();
    assert_eq!(query(&postgres, "SELECT answer FROM t").await, "42");

    postgres.stop().await.unwrap();
    drop(postgres);
    let postgres = Postgres::start(postgres_in(folder.path())).await.unwrap();
    assert_eq!(query(&postgres, "SELECT answer FROM t").await, "42");
}

#[tokio::test]
async fn redis_keeps_its_data_over_restarts_and_crashes() {
    let folder = folder();
    let mut redis = Redis::start(redis_in(folder.path())).await.unwrap();
    assert_eq!(command(&redis, &["PING"]).await, "PONG");
    assert_eq!(command(&redis, &["SET", "answer", "42"]).await, "OK");
    redis.restart().await.unwrap();
    assert_eq!(command(&redis, &["GET", "answer"]).await, "42");
    redis.kill9().await;
    assert!(!redis.is_running());
    redis.restart().await.unwrap();
    assert_eq!(command(&redis, &["GET", "answer"]).await, "42");
    let pid = redis.pid();
    drop(redis);
    until_gone(pid).await;
}

#[tokio::test]
async fn passwords_and_data_are_for_the_servers_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let mode = |path: &str| std::fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o777;
    let _redis = Redis::start(redis_in(folder.path())).await.unwrap();
    assert_eq!((mode("redis"), mode("redis/data"), mode("redis/redis.conf")), (0o700, 0o700, 0o600));
    let _postgres = Postgres::start(postgres_in(folder.path())).await.unwrap();
    assert_eq!(
        (mode("postgres"), mode("postgres/data"), mode("postgres/postgres.log")),
        (0o700, 0o700, 0o600)
    );
    assert!(!folder.path().join("postgres/password").exists());
}

#[tokio::test]
async fn a_wanted_port_that_is_taken_is_refused_in_one_sentence() {
    let folder = folder();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let options = RedisOptions { port: Some(port), ..redis_in(folder.path()) };
    let error = Redis::start(options).await.unwrap_err();
    assert!(matches!(error, ProvisionError::PortTaken { port: taken } if taken == port), "{error}");
}

#[tokio::test]
async fn a_server_that_refuses_its_settings_is_quoted() {
    let folder = folder();
    let mut options = postgres_in(folder.path());
    options.settings.push(("no_such_setting".to_owned(), "1".to_owned()));
    let error = Postgres::start(options).await.unwrap_err().to_string();
    assert!(error.contains("configuration file") && error.contains("postgres.log"), "{error}");
}

/// The owner of the next test, run by it as another process.
#[tokio::test]
async fn owner_of_servers() {
    let Some(folder) = std::env::var_os("POSDUIF_TEST_OWNER_FOLDER") else { return };
    // In a task, as a service would own them: starting must be possible there too.
    let own = async move {
        let postgres = Postgres::start(postgres_in(Path::new(&folder))).await.unwrap();
        let redis = Redis::start(redis_in(Path::new(&folder))).await.unwrap();
        println!("servers {} {}", postgres.pid(), redis.pid());
        std::future::pending::<()>().await;
    };
    tokio::spawn(own).await.unwrap();
}

#[tokio::test]
async fn the_servers_of_an_owner_that_is_killed_end() {
    let folder = folder();
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "owner_of_servers", "--nocapture"])
        .env("POSDUIF_TEST_OWNER_FOLDER", folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let line = lines.map(Result::unwrap).find(|line| line.contains("servers ")).unwrap();
    let pids = line.split("servers ").nth(1).unwrap().split(' ').map(|pid| pid.parse().unwrap());
    let pids: Vec<u32> = pids.collect();
    assert!(pids.iter().all(|&pid| alive(pid)), "{pids:?}");
    owner.kill().unwrap();
    owner.wait().unwrap();
    for pid in pids {
        until_gone(pid).await;
    }
}

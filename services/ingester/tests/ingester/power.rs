//! A machine that lost its power: Redis comes back without the last moments of its append-only file.

use std::{fs::OpenOptions, path::PathBuf, time::Duration};

use posduif_model::Bucket;
use posduif_testkit::Servers;

use crate::fixture::{Tenant, content};

/// The part of the append-only file that Redis writes to.
async fn append_only_file(tenant: &Tenant) -> PathBuf {
    let mut redis = tenant.redis().await;
    let ask = redis::cmd("CONFIG").arg(("GET", "dir")).to_owned();
    let (_, folder): (String, String) = ask.query_async(&mut redis).await.unwrap();
    let files = std::fs::read_dir(PathBuf::from(folder).join("appendonlydir")).unwrap();
    let mut paths = files.map(|file| file.unwrap().path());
    paths.find(|path| path.to_string_lossy().ends_with(".incr.aof")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_redis_lost_with_its_power_is_written_again_under_the_same_ids() {
    let mut servers = Servers::private().await;
    let mut tenant = Tenant::create(&servers).await;
    tenant.session.wal.confirm_delay = Duration::from_secs(600);
    let bob = tenant.user("Bob").await;
    let mut running = tenant.ingest().await;
    let epoch = tenant.caught_up().await.epoch;
    let mut expected = Vec::new();
    for (round, lost) in [1, 60, 500, 3_000, 20_000].into_iter().enumerate() {
        for n in 0..10 {
            expected.push(format!("{round}-{n} {}", "x".repeat(200)));
            tenant.message(bob, bob, expected.last().unwrap()).await;
        }
        tenant.caught_up().await;
        let file = append_only_file(&tenant).await;
        servers.redis_mut().kill9().await;
        let size = file.metadata().unwrap().len();
        assert!(size > lost, "there is less to lose than {lost} bytes");
        OpenOptions::new().write(true).open(&file).unwrap().set_len(size - lost).unwrap();
        servers.redis_mut().restart().await.unwrap();
        // It may have held its batch, or found that the log is not what it left; then another session begins.
        let found = tenant.entries_or_end(&mut running, Bucket::User(bob)).await;
        let contents: Vec<String> = found.iter().map(|entry| content(&entry.changes[0].row)).collect();
        assert_eq!(contents, expected, "after {lost} bytes were lost");
        assert_eq!(tenant.state().await.epoch, epoch, "what PostgreSQL still had cost an epoch");
    }
}

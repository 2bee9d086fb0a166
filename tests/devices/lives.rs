//! What happens to phones in the course of their lives: each does the right thing afterwards.

use std::{net::Ipv4Addr, path::Path, time::Duration};

use posduif_changelog::{Keys, connect::connect};
use posduif_model::{Lsn, TenantId, UserId};
use posduif_sdk::{Device, Error, Uuid};
use posduif_testkit::{
    Servers,
    chaos::{Direction, Proxy},
    eventually,
};
use serde_json::json;
use tokio_postgres::Client;

use crate::{
    phone::{agrees, enroll, one, sync},
    shape,
    site::{PATIENCE, Settings, Site, UNHURRIED},
};

/// As little of the log as the configuration allows.
const RETENTION_BYTES: usize = 1 << 20;

async fn site() -> Site {
    let retention = json!({ "max_bytes": RETENTION_BYTES, "interval": "1s" });
    let settings = Settings {
        sql: shape::SQL.to_owned(),
        tables: shape::declarations(),
        batch_size: 10,
        retention: Some(retention),
        ..Settings::default()
    };
    Site::start(Servers::shared().await, settings).await
}

async fn message(client: &Client, from: UserId, to: UserId, content: &str) -> Uuid {
    let sql = "INSERT INTO messages (sender_id, recipient_id, content) VALUES ($1, $2, $3) RETURNING id";
    client.query_one(sql, &[&from.uuid(), &to.uuid(), &content]).await.unwrap().get(0)
}

async fn stored(client: &Client, content: &str) -> i64 {
    let sql = "SELECT count(*) FROM messages WHERE content = $1";
    client.query_one(sql, &[&content]).await.unwrap().get(0)
}

fn contents(device: &Device) -> Vec<String> {
    let connection = device.connection();
    let mut messages = connection.prepare("SELECT content FROM messages ORDER BY content").unwrap();
    messages.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

/// Writes more than the log keeps, seen by others, and waits until the log was trimmed past `past`.
async fn months_pass(site: &Site, client: &Client, past: Lsn) {
    let sql = "INSERT INTO users (username) VALUES ($1) RETURNING id";
    let name = format!("Bystander {}", Uuid::new_v4());
    let bystander: Uuid = client.query_one(sql, &[&name]).await.unwrap().get(0);
    let large = "x".repeat(60_000);
    eventually(PATIENCE, "the log is trimmed", async || {
        let rows = "INSERT INTO messages (sender_id, recipient_id, content) SELECT $1, $1, $2";
        for _ in 0..5 {
            client.execute(rows, &[&bystander, &large]).await?;
        }
        let state = site.log.state().await?;
        Ok(state.filter(|state| state.floor > past))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_restored_from_an_older_copy_gets_all_back_and_doubles_nothing() {
    let site = site().await;
    let client = site.database.connect().await;
    let (web, file) = (site.web.id, site.scratch.join("phone.sqlite"));
    let device = enroll(&site, &file, "Joe", false, None).await;
    device.send_message(web, "1 before the copy").unwrap();
    agrees(&site, &client, &device).await;
    device.send_message(web, "2 unsent in the copy").unwrap();
    let copy = site.scratch.join("copy.sqlite");
    copy_file(&device, &file, &copy);
    message(&client, web, device.user_id(), "3 received after the copy").await;
    agrees(&site, &client, &device).await;
    device.send_message(web, "4 sent after the copy").unwrap();
    agrees(&site, &client, &device).await;
    device.send_message(web, "5 never sent").unwrap();
    drop(device);

    for ending in ["", "-wal", "-shm"] {
        std::fs::remove_file(format!("{}{ending}", file.display())).ok();
    }
    std::fs::copy(&copy, &file).unwrap();
    let restored = Device::open(&file).unwrap();
    assert_eq!(contents(&restored), ["1 before the copy", "2 unsent in the copy"]);
    restored.send_message(web, "6 written after the return").unwrap();
    agrees(&site, &client, &restored).await;
    let expected = [
        "1 before the copy",
        "2 unsent in the copy",
        "3 received after the copy",
        "4 sent after the copy",
        "6 written after the return",
    ];
    assert_eq!(contents(&restored), expected);
    for content in expected {
        assert_eq!(stored(&client, content).await, 1, "{content}");
    }
    assert!(restored.rejected().unwrap().is_empty());
}

/// As a backup of the phone's disk has it.
fn copy_file(device: &Device, file: &Path, copy: &Path) {
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    let busy: i64 = device.connection().query_row(checkpoint, [], |row| row.get(0)).unwrap();
    assert_eq!(busy, 0, "the file is in use");
    std::fs::copy(file, copy).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_whose_file_is_lost_is_enrolled_again_and_has_all_that_was_sent() {
    let site = site().await;
    let client = site.database.connect().await;
    let (web, file) = (site.web.id, site.scratch.join("phone.sqlite"));
    let lost = enroll(&site, &file, "Joe", false, None).await;
    lost.send_message(web, "1 sent").unwrap();
    message(&client, web, lost.user_id(), "2 received").await;
    agrees(&site, &client, &lost).await;
    lost.send_message(web, "3 unsent").unwrap();
    let (user, id) = (lost.user_id(), lost.device_id().clone());
    drop(lost);

    let device = enroll(&site, &site.scratch.join("new.sqlite"), "Joe", true, None).await;
    assert_eq!(device.user_id(), user);
    assert_ne!(*device.device_id(), id, "a file that knows nothing cannot be the same device");
    device.send_message(web, "4 from the new one").unwrap();
    agrees(&site, &client, &device).await;
    assert_eq!(contents(&device), ["1 sent", "2 received", "4 from the new one"]);
    assert_eq!(stored(&client, "3 unsent").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_phones_of_one_user_show_the_same() {
    let site = site().await;
    let client = site.database.connect().await;
    let web = site.web.id;
    let first = enroll(&site, &site.scratch.join("first.sqlite"), "Joe", false, None).await;
    let second = enroll(&site, &site.scratch.join("second.sqlite"), "Joe", true, None).await;
    let received = message(&client, web, first.user_id(), "1 received").await;
    for phone in [&first, &second] {
        agrees(&site, &client, phone).await;
    }
    // Both are offline, and write.
    first.send_message(web, "2 from the first").unwrap();
    second.send_message(web, "3 from the second").unwrap();
    assert!(second.mark_read(received).unwrap());
    for _ in 0..2 {
        for phone in [&first, &second] {
            agrees(&site, &client, phone).await;
        }
    }
    for phone in [&first, &second] {
        assert_eq!(contents(phone), ["1 received", "2 from the first", "3 from the second"]);
        let read = format!("SELECT status FROM messages WHERE id = '{received}'");
        assert_eq!(one::<String>(phone, &read), "read");
        assert!(phone.rejected().unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_was_away_for_longer_than_the_log_keeps_loses_no_unsent_write() {
    let site = site().await;
    let client = site.database.connect().await;
    let web = site.web.id;
    let device = enroll(&site, &site.scratch.join("phone.sqlite"), "Joe", false, None).await;
    let user = device.user_id();
    let deleted = message(&client, web, user, "1 deleted meanwhile").await;
    let read = message(&client, web, user, "2 read offline").await;
    agrees(&site, &client, &device).await;
    let summary = sync(&device).await;
    device.send_message(web, "3 written offline").unwrap();
    assert!(device.mark_read(read).unwrap());
    let task = "INSERT INTO tasks (id, title, done) VALUES (?1, 'made offline', false)";
    device.connection().execute(task, [Uuid::new_v4().to_string()]).unwrap();
    client.execute("DELETE FROM messages WHERE id = $1", &[&deleted]).await.unwrap();
    message(&client, web, user, "4 received meanwhile").await;
    months_pass(&site, &client, summary.lsn.unwrap()).await;

    let back = sync(&device).await;
    assert!(back.snapshot, "the log does not reach back so far, and still no snapshot was taken");
    agrees(&site, &client, &device).await;
    assert_eq!(contents(&device), ["2 read offline", "3 written offline", "4 received meanwhile"]);
    assert_eq!(stored(&client, "3 written offline").await, 1);
    let task = "SELECT count(*) FROM tasks WHERE title = 'made offline' AND owner_id = $1";
    assert_eq!(client.query_one(task, &[&user.uuid()]).await.unwrap().get::<_, i64>(0), 1);
    let status = "SELECT status FROM messages WHERE content = '2 read offline'";
    assert_eq!(client.query_one(status, &[]).await.unwrap().get::<_, String>(0), "read");
    assert!(device.rejected().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_never_comes_back_from_its_snapshot_does_not_hold_the_log_for_ever() {
    let site = site().await;
    let client = site.database.connect().await;
    let proxy = Proxy::start((Ipv4Addr::LOCALHOST, site.port).into()).await;
    let through = format!("http://{}", proxy.address());
    let device = enroll(&site, &site.scratch.join("phone.sqlite"), "Joe", false, Some(&through)).await;
    for n in 0..100 {
        message(&client, site.web.id, device.user_id(), &format!("{n:03}")).await;
    }
    site.settled(&client).await;
    // The link breaks among the first pages.
    proxy.cut_after_bytes(6_000, Direction::ToClient);
    assert!(device.sync().await.is_err());
    assert!(one::<i64>(&device, "SELECT count(*) FROM posduif_staging") > 0, "no snapshot was begun");
    assert_eq!(contents(&device), Vec::<String>::new());

    let tenant: TenantId = site.database.name().parse().unwrap();
    let mut redis = connect(Servers::shared().await.redis_url(), UNHURRIED).await.unwrap();
    let leases: Vec<(String, u64)> = redis::cmd("ZRANGE")
        .arg((Keys::new(&tenant).leases(), 0, -1, "WITHSCORES"))
        .query_async(&mut redis)
        .await
        .unwrap();
    let (name, until) = leases.first().expect("a snapshot under way has a lease");
    assert!(name.ends_with(device.device_id().as_str()), "{leases:?}");
    let now: (u64, u64) = redis::cmd("TIME").query_async(&mut redis).await.unwrap();
    let left = Duration::from_secs(until.saturating_sub(now.0));
    assert!(left <= Duration::from_secs(300), "a phone that went away holds the log for {left:?}");
    // Long before that time it gives way to the log's limit.
    let held: Lsn = Lsn::new(name.split(' ').nth(1).unwrap().parse().unwrap());
    months_pass(&site, &client, held).await;

    let back = sync(&device).await;
    assert!(back.snapshot);
    agrees(&site, &client, &device).await;
    assert_eq!(contents(&device).len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_phone_keeps_its_unsent_writes_until_it_is_enrolled_again() {
    let site = site().await;
    let client = site.database.connect().await;
    let (web, file) = (site.web.id, site.scratch.join("phone.sqlite"));
    let device = enroll(&site, &file, "Joe", false, None).await;
    device.send_message(web, "1 sent").unwrap();
    agrees(&site, &client, &device).await;
    let id = device.device_id().clone();
    site.web.revoke(&id).await;
    device.send_message(web, "2 written while revoked").unwrap();
    for _ in 0..2 {
        assert!(matches!(device.sync().await, Err(Error::Unauthorized(_))));
    }
    assert_eq!(stored(&client, "2 written while revoked").await, 0);
    assert_eq!(contents(&device), ["1 sent", "2 written while revoked"]);
    drop(device);
    message(&client, web, client_user(&client).await, "3 received meanwhile").await;

    let device = enroll(&site, &file, "Joe", true, None).await;
    assert_eq!(*device.device_id(), id, "it is another device now");
    agrees(&site, &client, &device).await;
    assert_eq!(contents(&device), ["1 sent", "2 written while revoked", "3 received meanwhile"]);
    assert_eq!(stored(&client, "2 written while revoked").await, 1);
    assert!(device.rejected().unwrap().is_empty());
}

async fn client_user(client: &Client) -> UserId {
    UserId::new(client.query_one("SELECT id FROM users WHERE username = 'Joe'", &[]).await.unwrap().get(0))
}

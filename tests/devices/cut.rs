//! The link cut after byte k, for every k of an upload and the download after it: of their answers, and of the requests.

use std::net::Ipv4Addr;

use futures::future::join_all;
use posduif_model::UserId;
use posduif_sdk::Device;
use posduif_testkit::{
    Servers,
    chaos::{Direction, Proxy},
    eventually,
};
use tokio_postgres::Client;

use crate::{
    phone::{enroll, is_passing, one, sync},
    run::from_environment,
    site::{PATIENCE, Settings, Site},
};

/// Devices that share the bytes among them.
const LANES: u64 = 4;
/// More than any of these syncs moves; a sweep must not end only because the link is never cut.
const FAR_TOO_MANY: u64 = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_link_cut_after_any_byte_of_the_answers_loses_and_doubles_nothing() {
    let swept = sweep(Direction::ToClient, 1).await;
    assert!(swept > 800, "only {swept} bytes of answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_cut_after_any_byte_of_the_requests_loses_and_doubles_nothing() {
    // What differs from byte to byte is how a request ends, and that is in the server's hands long before.
    let swept = sweep(Direction::ToServer, 11).await;
    assert!(swept > 800, "only {swept} bytes of requests");
}

/// Cuts after every byte, or every `step` of them, and gives how many there are.
async fn sweep(direction: Direction, step: u64) -> u64 {
    let step = from_environment("POSDUIF_DEVICES_CUT_STEP", step);
    let site = Site::start(Servers::shared().await, Settings::default()).await;
    let lanes = (0..LANES).map(|lane| cut_lane(&site, lane, step, direction));
    let swept = join_all(lanes).await.into_iter().max().unwrap();
    eprintln!("{direction:?}: cut after each of {swept} bytes, every {step}");
    swept
}

/// Cuts after bytes `lane`, `lane + LANES`, … until what came down is there in spite of the cut; gives how many bytes
/// that took.
async fn cut_lane(site: &Site, lane: u64, step: u64, direction: Direction) -> u64 {
    let client = site.database.connect().await;
    let server = (Ipv4Addr::LOCALHOST, site.port).into();
    let proxy = Proxy::start(server).await;
    let through = format!("http://{}", proxy.address());
    let name = format!("Joe {lane}");
    let device =
        enroll(site, &site.scratch.join(&format!("{lane}.sqlite")), &name, false, Some(&through)).await;
    sync(&device).await;
    let web = site.web.id;
    let (mut cuts, mut noticed) = (0, 0);
    let mut bytes = lane * step;
    loop {
        let (down, up) = (format!("to {name}, cut after {bytes}"), format!("from {name}, cut after {bytes}"));
        insert(&client, web, device.user_id(), &down).await;
        site.settled(&client).await;
        device.send_message(web, &up).unwrap();
        proxy.cut_after_bytes(bytes, direction);
        let tried = device.sync().await;
        proxy.heal(direction);
        // After the last byte of an answer it goes unnoticed.
        if let Err(error) = tried {
            assert!(is_passing(&error), "cut after {bytes}: {error}");
            noticed += 1;
        }
        let received = |device: &Device| {
            let sql = "SELECT count(*) FROM messages WHERE content = ?1";
            device.connection().query_row(sql, [&down], |row| row.get::<_, i64>(0)).unwrap()
        };
        // Then it fell into the last request of the sync, which only confirms.
        let is_over = received(&device) == 1;
        // What the cut left is finished by the next sync, without a second one.
        device.sync().await.unwrap_or_else(|error| panic!("after the cut after {bytes}: {error}"));
        assert_eq!(device.pending_count().unwrap(), 0, "cut after {bytes}");
        assert_eq!(received(&device), 1, "cut after {bytes}");
        if is_over {
            break;
        }
        cuts += 1;
        bytes += LANES * step;
        assert!(bytes < FAR_TOO_MANY, "the link is never cut");
    }
    eventually(PATIENCE, "all is settled", async || {
        device.sync().await?;
        Ok((one::<i64>(&device, "SELECT count(*) FROM posduif_outbox") == 0).then_some(()))
    })
    .await;
    assert!(noticed * 10 > cuts * 9, "{noticed} of {cuts} cuts were noticed");
    let sent = cuts + 1;
    let user = device.user_id();
    for (way, sender, recipient) in [("from", user, web), ("to", web, user)] {
        let sql = "SELECT count(*), count(DISTINCT content) FROM messages
                    WHERE sender_id = $1 AND recipient_id = $2";
        let row = client.query_one(sql, &[&sender.uuid(), &recipient.uuid()]).await.unwrap();
        let stored: (i64, i64) = (row.get(0), row.get(1));
        assert_eq!(stored, (sent, sent), "messages {way} {name} in PostgreSQL");
        let held = |what| {
            let sql = format!("SELECT count({what}) FROM messages WHERE sender_id = '{sender}'");
            one::<i64>(&device, &sql)
        };
        assert_eq!((held("*"), held("DISTINCT content")), stored, "messages {way} {name} on the device");
    }
    assert!(device.rejected().unwrap().is_empty());
    bytes
}

async fn insert(client: &Client, sender: UserId, recipient: UserId, content: &str) {
    let sql = "INSERT INTO messages (sender_id, recipient_id, content) VALUES ($1, $2, $3)";
    client.execute(sql, &[&sender.uuid(), &recipient.uuid(), &content]).await.unwrap();
}

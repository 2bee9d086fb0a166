//! The link cut after byte k, for every k of a sync: of its requests, and of its answers.
//!
//! A sync is an upload, the download of what is new, and a last request that confirms it.

use std::net::Ipv4Addr;

use futures::future::join_all;
use posduif_model::UserId;
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
    let swept = sweep(Direction::ToClient).await;
    assert!(swept > 800, "only {swept} bytes of answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_cut_after_any_byte_of_the_requests_loses_and_doubles_nothing() {
    let swept = sweep(Direction::ToServer).await;
    assert!(swept > 800, "only {swept} bytes of requests");
}

/// Cuts after every byte, and gives the number of bytes of a whole sync.
async fn sweep(direction: Direction) -> u64 {
    let step = from_environment("POSDUIF_DEVICES_CUT_STEP", 1);
    let site = Site::start(Servers::shared().await, Settings::default()).await;
    let lanes = (0..LANES).map(|lane| cut_lane(&site, lane, step, direction));
    let swept = join_all(lanes).await.into_iter().max().unwrap();
    eprintln!("{direction:?}: cut after each of {swept} bytes, every {step}");
    swept
}

/// Cuts after bytes `lane`, `lane + LANES`, … until a sync moves less; gives how much that is.
async fn cut_lane(site: &Site, lane: u64, step: u64, direction: Direction) -> u64 {
    let client = site.database.connect().await;
    let server = (Ipv4Addr::LOCALHOST, site.port).into();
    let proxy = Proxy::start(server).await;
    let through = format!("http://{}", proxy.address());
    let name = format!("Joe {lane}");
    let device = enroll(site, &site.scratch.join(&format!("{lane}.sqlite")), &name, false, Some(&through)).await;
    sync(&device).await;
    let web = site.web.id;
    let mut cuts = 0;
    let mut bytes = lane * step;
    loop {
        let (down, up) = (format!("to {name}, cut after {bytes}"), format!("from {name}, cut after {bytes}"));
        insert(&client, web, device.user_id(), &down).await;
        site.settled(&client).await;
        device.send_message(web, &up).unwrap();
        proxy.cut_after_bytes(bytes, direction);
        let tried = device.sync().await;
        let is_over = proxy.heal(direction);
        if let Err(error) = &tried {
            assert!(is_passing(error), "cut after {bytes}: {error}");
        }
        // What the cut left is finished by the next sync, without a second one.
        device.sync().await.unwrap_or_else(|error| panic!("after the cut after {bytes}: {error}"));
        assert_eq!(device.pending_count().unwrap(), 0, "cut after {bytes}");
        let quoted = down.replace('\'', "''");
        let received: i64 = one(&device, &format!("SELECT count(*) FROM messages WHERE content = '{quoted}'"));
        assert_eq!(received, 1, "cut after {bytes}");
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

//! Services whose address leads to a standby: they say so, serve nothing wrong, and go on once it is promoted.

use posduif_testkit::eventually;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::{
    site::{PATIENCE, Site, address},
    stage::{Outcome, PREPARED, Stage},
    status::{self, codes},
};

async fn readiness(client: &Client, address: &str, port: u16) -> Option<(StatusCode, String)> {
    let answer = client.get(format!("http://{address}:{port}/readyz")).send().await.ok()?;
    Some((answer.status(), answer.text().await.ok()?))
}

/// A call of a web user that writes, and one that reads.
async fn calls(client: &Client, site: &Site, token: &str) -> [(StatusCode, Value); 2] {
    let message = json!({ "recipient_id": site.web.id, "content": "to nobody" });
    let write = client.post(format!("{}/api/messages", site.api_url)).json(&message);
    let read = client.get(format!("{}/api/messages", site.api_url));
    let mut answers = Vec::new();
    for call in [write, read] {
        let answer = call.bearer_auth(token).send().await.unwrap();
        answers.push((answer.status(), answer.json().await.unwrap()));
    }
    answers.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn services_that_are_led_to_a_standby_say_so_until_it_is_promoted() {
    let mut stage = Stage::begin("services_that_are_led_to_a_standby").await;
    let standby = stage.standby(PREPARED).await;
    let client = Client::builder().no_proxy().build().unwrap();
    let token = stage.site.web.token.clone();
    // The address moves too early: the primary is gone, and nobody was promoted yet.
    stage.servers.postgres_mut().kill9().await;
    let at = ([127, 0, 0, 1], standby.postgres.port()).into();
    stage.servers.address().point_to(at);
    stage.servers.address().cut_all();

    eventually(PATIENCE, "the ingester says where it was led", async || {
        let (status, text) =
            readiness(&client, "127.0.0.1", stage.site.ingester_port).await.unwrap_or_default();
        anyhow::ensure!(status == StatusCode::SERVICE_UNAVAILABLE && text.contains("is a standby"), "{text}");
        Ok(Some(()))
    })
    .await;
    eventually(PATIENCE, "the API says where it was led", async || {
        let (status, text) = readiness(&client, &address(0), stage.site.admin_port).await.unwrap_or_default();
        anyhow::ensure!(status == StatusCode::SERVICE_UNAVAILABLE && text.contains("is a standby"), "{text}");
        Ok(Some(()))
    })
    .await;
    for (status, body) in calls(&client, &stage.site, &token).await {
        assert_eq!(
            (status, &body["error"]["code"]),
            (StatusCode::SERVICE_UNAVAILABLE, &"DATABASE_ERROR".into())
        );
    }
    let report = stage.status().await;
    assert_eq!(codes(&report, "problems")[0], "standby", "{report}");
    let slot = &report["database"]["slot"];
    assert_eq!(
        (&slot["synced"], &slot["temporary"], &slot["failover"]),
        (&true.into(), &false.into(), &true.into())
    );
    let table = status::table(&stage.site).await;
    assert!(table.contains("leads to a standby"), "{table}");

    let promoted = standby.promote().await;
    stage.take(promoted).await;
    assert_eq!(stage.ends(Outcome::GoesOn).await, 0, "what was acknowledged is lost");
}

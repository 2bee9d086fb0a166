//! A phone that asks more than it may: it waits as long as it is told, and loses nothing.

use std::time::Duration;

use posduif_sdk::Device;
use posduif_testkit::eventually;
use serde_json::json;

use crate::{fleet, web::WebUser};

const MESSAGES: usize = 30;
const SOON: Duration = Duration::from_secs(60);

/// How many requests of devices the API refused.
async fn refused(fleet: &fleet::Fleet) -> u64 {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let text = client.get(format!("{}/metrics", fleet.admin_url)).send().await.unwrap().text().await.unwrap();
    let line =
        text.lines().find_map(|line| line.strip_prefix("posduif_api_rate_limited_total{by=\"device\"} "));
    line.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_is_limited_waits_and_gets_everything_through() {
    let limits = json!({ "requests_per_minute": 60, "burst": 2 });
    let fleet = fleet::start(limits, None).await;
    let web = WebUser::log_in(&fleet.api_url, "Web", fleet::PASSWORD).await;
    let url = web.create_enrollment(None).await;
    // It may be repeated after any failure, and its address has as much to spend as a device.
    let file = fleet.scratch.join("joe.sqlite");
    let enrolled = eventually(SOON, "the phone is enrolled", async || {
        Ok(Some(Device::enroll(&file, &url, "Joe", json!({})).await?))
    });
    let phone = enrolled.await;
    let sql = fleet.database.connect().await;
    // Pages of 100: more of them than a sync waits for without getting further.
    sql.execute(
        "INSERT INTO messages (sender_id, recipient_id, content)
         SELECT $1, $2, 'to Joe ' || n FROM generate_series(1, 1000) AS n",
        &[&web.id.uuid(), &phone.user_id().uuid()],
    )
    .await
    .unwrap();
    for n in 0..MESSAGES {
        phone.send_message(web.id, &format!("to the web {n}")).unwrap();
    }
    let summary = phone.sync().await.unwrap();
    assert_eq!((summary.uploaded, summary.rejected), (MESSAGES, 0), "{summary:?}");
    assert!(refused(&fleet).await > 6, "{} refusals", refused(&fleet).await);
    let sent = "SELECT count(*) FROM messages WHERE sender_id = $1";
    let sent: i64 = sql.query_one(sent, &[&phone.user_id().uuid()]).await.unwrap().get(0);
    assert_eq!(usize::try_from(sent).unwrap(), MESSAGES);
    let shown: i64 = phone
        .connection()
        .query_row("SELECT count(*) FROM messages WHERE content LIKE 'to Joe %'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(shown, 1000);
    assert!(phone.rejected().unwrap().is_empty());
}

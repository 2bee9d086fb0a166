//! Bob in the web and Joe on a phone, with everything that `posduif dev` starts.

use std::time::Duration;

use posduif_model::UserId;
use posduif_sdk::Device;
use posduif_testkit::{eventually, logs};
use serde_json::json;

use crate::{installation::Installation, web::WebUser};

const SOON: Duration = Duration::from_secs(30);

/// Syncs until the phone has received exactly these messages, in order and none twice.
async fn receives(phone: &Device, expected: &[&str]) {
    eventually(SOON, "the phone received its messages", async || {
        phone.sync().await?;
        let inbox: Vec<String> = phone.inbox()?.into_iter().filter_map(|message| message.content).collect();
        assert!(inbox.len() <= expected.len(), "the phone received too much: {inbox:?}");
        Ok((inbox == expected).then_some(()))
    })
    .await;
}

/// Syncs until the phone shows this as a user's last message.
async fn shows_last_message(phone: &Device, user: UserId, expected: Option<&str>) {
    eventually(SOON, "the phone shows the last message", async || {
        phone.sync().await?;
        let sql = "SELECT last_message_sent FROM users WHERE id = ?1";
        let shown: Option<String> =
            phone.connection().query_row(sql, [user.to_string()], |row| row.get(0))?;
        Ok((shown.as_deref() == expected).then_some(()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bob_and_joe_talk_while_joe_is_offline_and_the_ingester_dies() {
    let mut installation = Installation::start().await;
    let running = installation.running().await;
    let account = &running.web_users[0];
    ["Are you there?", "On the train", "While all was down"].into_iter().for_each(logs::plant);
    let bob = WebUser::log_in(&running.api_url, &account.username, &account.password).await;
    let url = bob.create_enrollment(None).await;
    let joe = Device::enroll(installation.phone("joe.sqlite"), &url, "Joe", json!({ "model": "test" }))
        .await
        .unwrap();

    bob.send(joe.user_id(), "Hello Joe").await;
    receives(&joe, &["Hello Joe"]).await;
    shows_last_message(&joe, bob.id, Some("Hello Joe")).await;

    installation.kill_ingester().await;
    bob.send(joe.user_id(), "Are you there?").await;
    // Offline: only SQLite is touched.
    joe.send_message(bob.id, "On the train").unwrap();
    joe.send_message(bob.id, "Here \u{1F44B}\u{1F3FD} \"quoted\" \\ \u{202E}reversed").unwrap();
    assert_eq!(joe.pending_count().unwrap(), 2);
    assert_eq!(bob.conversation(joe.user_id()).await, ["Hello Joe", "Are you there?"]);
    installation.kill_ingester().await;

    receives(&joe, &["Hello Joe", "Are you there?"]).await;
    let answers = ["On the train", "Here \u{1F44B}\u{1F3FD} \"quoted\" \\ \u{202E}reversed"];
    let mut expected = vec!["Hello Joe", "Are you there?"];
    expected.extend(answers);
    assert_eq!(bob.conversation(joe.user_id()).await, expected);
    assert_eq!(bob.last_message_of(bob.id).await, "Are you there?");
    assert_eq!(bob.last_message_of(joe.user_id()).await, answers[1]);
    shows_last_message(&joe, bob.id, Some("Are you there?")).await;
    shows_last_message(&joe, joe.user_id(), Some(answers[1])).await;
    eventually(SOON, "the phone's own messages are settled", async || {
        joe.sync().await?;
        Ok((joe.pending_count()? == 0).then_some(()))
    })
    .await;

    installation.stop().await;
    assert!(joe.sync().await.is_err(), "something still answers after the stop");
    joe.send_message(bob.id, "While all was down").unwrap();
    installation.start_again();
    let again = installation.running().await;
    assert_eq!(again.api_url, running.api_url, "a device would not find the API again");
    let summary =
        eventually(SOON, "the phone syncs after the restart", async || Ok(Some(joe.sync().await?))).await;
    assert!(!summary.snapshot, "a restart of everything made the device resync");
    let bob = WebUser::log_in(&again.api_url, &account.username, &account.password).await;
    assert_eq!(bob.conversation(joe.user_id()).await.last().unwrap(), "While all was down");
    receives(&joe, &["Hello Joe", "Are you there?"]).await;
    installation.stop().await;
}

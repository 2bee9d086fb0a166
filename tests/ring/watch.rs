//! A phone that stays connected, as a real process.

use std::time::Duration;

use posduif_sdk::Device;
use posduif_testkit::{Process, binaries, eventually};
use serde_json::{Value, json};

use crate::{installation::Installation, web::WebUser};

/// Less than the interval at which a phone asks where it is not told would prove more, and less than a busy machine needs.
const SOON: Duration = Duration::from_secs(90);

/// The whole lines that the watch has printed, as JSON.
fn lines(watch: &Process) -> Vec<Value> {
    let log = watch.log();
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_phone_shows_messages_as_they_come_and_sends_what_others_write_into_its_file() {
    let mut installation = Installation::start().await;
    let running = installation.running().await;
    let account = &running.web_users[0];
    let bob = WebUser::log_in(&running.api_url, &account.username, &account.password).await;
    let file = installation.phone("watched.sqlite");
    let url = bob.create_enrollment(None).await;
    let joe = Device::enroll(&file, &url, "Joe", json!({ "model": "test" })).await.unwrap();
    joe.sync().await.unwrap();

    let program = binaries::path("posduif").await;
    let mut watch = Process::command(&program).args(["device", "watch", "--json", "--db"]).arg(&file).spawn();
    eventually(SOON, "the phone is up to date", async || {
        assert_eq!(watch.try_wait(), None, "{}", watch.log());
        let up_to_date = |line: &Value| line["status"]["state"] == "live";
        Ok(lines(&watch).iter().any(up_to_date).then_some(()))
    })
    .await;

    bob.send(joe.user_id(), "Are you watching?").await;
    eventually(SOON, "the message is shown", async || {
        let shown = |line: &Value| {
            line["message"]["content"] == "Are you watching?" && line["sender"] == json!(account.username)
        };
        Ok(lines(&watch).iter().any(shown).then_some(()))
    })
    .await;

    // Another process writes into the file and asks for no sync.
    joe.send_message(bob.id, "I am").unwrap();
    eventually(SOON, "the answer arrived", async || {
        Ok((bob.conversation(joe.user_id()).await == ["Are you watching?", "I am"]).then_some(()))
    })
    .await;

    let interrupted = std::process::Command::new("kill").args(["-INT", &watch.pid().to_string()]).status();
    assert!(interrupted.unwrap().success());
    assert_eq!(watch.wait(SOON).await, Some(0), "{}", watch.log());
    installation.stop().await;
}

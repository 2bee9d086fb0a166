//! What an operator does to people and devices, and that a running API heeds it at once.

use std::collections::BTreeSet;

use posduif_sdk::Device;
use posduif_testkit::Servers;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::fixture::Installation;

const PASSWORD: &str = "correct horse battery staple";

async fn installation() -> Installation {
    let installation = Installation::start(Servers::shared().await).await;
    installation.migrate().await;
    installation
}

async fn log_in(at: &Installation, username: &str, password: &str) -> (StatusCode, String) {
    let request = json!({"username": username, "password": password});
    let url = format!("{}/api/auth/login", at.base);
    let answer = reqwest::Client::new().post(url).json(&request).send().await.unwrap();
    let (status, body) = (answer.status(), answer.json::<Value>().await.unwrap());
    (status, body["token"].as_str().unwrap_or_default().to_owned())
}

async fn listed(at: &Installation, jwt: &str) -> StatusCode {
    let url = format!("{}/api/devices", at.base);
    reqwest::Client::new().get(url).bearer_auth(jwt).send().await.unwrap().status()
}

/// The document names every key of a list's entries; a phone's own description is its app's.
fn is_documented(list: &Value) {
    let documented = include_str!("../../../../docs/OPERATING.md");
    let entries = list.as_array().cloned().unwrap_or_else(|| vec![list.clone()]);
    assert!(!entries.is_empty());
    for key in entries.iter().flat_map(|entry| entry.as_object().unwrap().keys()) {
        assert!(documented.contains(&format!("`{key}`")), "docs/OPERATING.md lacks {key}");
    }
}

/// A phone that is enrolled by hand, so that its credential is at hand.
struct Phone {
    id: String,
    token: String,
}

impl Phone {
    /// By `posduif enroll` in Ann's name.
    async fn enroll(at: &Installation, id: &str, username: &str) -> Self {
        let invitation = at.json(&["enroll", "--by", "Ann", "--json"]).await;
        is_documented(&invitation);
        let body = json!({"token": invitation["token"], "device_id": id, "username": username});
        let url = format!("{}/api/enrollment/complete", at.base);
        let answer = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let answer: Value = answer.json().await.unwrap();
        Phone { id: id.to_owned(), token: answer["device_token"].as_str().unwrap().to_owned() }
    }

    async fn calls(&self, at: &Installation) -> StatusCode {
        let request = reqwest::Client::new().get(format!("{}/api/app-instructions", at.base));
        let request = request.header("X-Device-ID", &self.id).bearer_auth(&self.token);
        request.send().await.unwrap().status()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_the_tool_let_in_syncs_and_is_out_at_its_next_request_once_it_is_revoked() {
    let at = installation().await;
    at.web_user("Ann", PASSWORD, &[]).await;
    let (_ingester, _api) = (at.ingester().await, at.api().await);
    let text = at.ok(&["enroll", "--by", "Ann"]).await;
    let url = text.lines().find(|line| line.starts_with("http")).unwrap();
    assert!(
        url.starts_with(&at.base) && text.contains('█') && text.contains(url.rsplit('/').next().unwrap())
    );
    let device = Device::enroll(&at.phone("joe.sqlite"), url, "Joe", json!({})).await.unwrap();
    posduif_testkit::eventually(crate::fixture::SOON, "the first sync", async || {
        Ok(device.sync().await.map(Some)?)
    })
    .await;
    let phone = Phone::enroll(&at, "phone-2", "Eve").await;
    assert_eq!(phone.calls(&at).await, StatusCode::OK);

    let devices = at.json(&["device", "list", "--json"]).await;
    let ids = |devices: &Value| -> BTreeSet<String> {
        devices.as_array().unwrap().iter().map(|device| device["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&devices), BTreeSet::from([device.device_id().to_string(), "phone-2".to_owned()]));
    assert_eq!(
        ids(&at.json(&["device", "list", "--user", "Eve", "--json"]).await),
        ["phone-2".to_owned()].into()
    );
    let table = at.ok(&["device", "list"]).await;
    assert!(
        table.starts_with("TENANT") && table.contains("phone-2") && !table.contains("revoked"),
        "{table}"
    );
    let shown = devices.to_string() + &table;
    assert!(!shown.contains(&phone.token) && !shown.contains("token"), "{shown}");

    at.ok(&["device", "revoke", "phone-2"]).await;
    assert_eq!(phone.calls(&at).await, StatusCode::UNAUTHORIZED);
    at.ok(&["device", "revoke", device.device_id().as_str()]).await;
    assert!(!device.sync().await.unwrap_err().is_temporary());
    assert!(at.ok(&["device", "list"]).await.contains("revoked"));
    at.refused(&["device", "revoke", "phone-9"], "has no device phone-9").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_is_disabled_is_out_at_its_next_request_and_may_come_back() {
    let at = installation().await;
    at.web_user("Ann", PASSWORD, &[]).await;
    let _api = at.api().await;
    let (_, jwt) = log_in(&at, "Ann", PASSWORD).await;
    let phone = Phone::enroll(&at, "phone-1", "Joe").await;
    assert_eq!((listed(&at, &jwt).await, phone.calls(&at).await), (StatusCode::OK, StatusCode::OK));

    assert!(at.ok(&["user", "disable", "Joe"]).await.contains("1 of its devices were revoked"));
    assert_eq!((listed(&at, &jwt).await, phone.calls(&at).await), (StatusCode::OK, StatusCode::UNAUTHORIZED));
    at.ok(&["user", "disable", "Ann"]).await;
    assert_eq!(listed(&at, &jwt).await, StatusCode::UNAUTHORIZED);
    assert_eq!(log_in(&at, "Ann", PASSWORD).await.0, StatusCode::UNAUTHORIZED);
    at.refused(&["enroll", "--by", "Ann"], "posduif user enable Ann").await;
    let table = at.ok(&["user", "list"]).await;
    assert_eq!(table.matches("disabled").count(), 2, "{table}");

    at.ok(&["user", "enable", "Ann"]).await;
    assert_eq!(listed(&at, &jwt).await, StatusCode::UNAUTHORIZED, "a log-in that ended came back");
    assert_eq!(log_in(&at, "Ann", PASSWORD).await.0, StatusCode::OK);
    assert_eq!(phone.calls(&at).await, StatusCode::UNAUTHORIZED);
    at.refused(&["enroll", "--by", "Ann", "--username", "Joe"], "posduif user enable Joe").await;
    at.refused(&["user", "disable", "Nobody"], "has no user Nobody").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_is_made_and_unmade_and_its_role_holds_at_once() {
    let at = installation().await;
    at.web_user("Ann", PASSWORD, &["--admin"]).await;
    let _api = at.api().await;
    let (_, jwt) = log_in(&at, "Ann", PASSWORD).await;
    let bob = at.web_user("Bob", PASSWORD, &[]).await;
    let id = bob.trim().rsplit(' ').next().unwrap();
    let disable = async || {
        let url = format!("{}/api/users/{id}/disable", at.base);
        reqwest::Client::new().post(url).bearer_auth(&jwt).send().await.unwrap().status()
    };
    assert_eq!(disable().await, StatusCode::OK);
    // Without a password: it has one already.
    at.ok(&["user", "add", "--type", "web", "--username", "Ann", "--admin=false"]).await;
    assert_eq!(disable().await, StatusCode::FORBIDDEN);
    let users = at.json(&["user", "list", "--json"]).await;
    is_documented(&users);
    let of = |name: &str| users.as_array().unwrap().iter().find(|user| user["username"] == name).unwrap();
    assert_eq!((&of("Ann")["is_admin"], &of("Ann")["disabled_at"]), (&false.into(), &Value::Null));
    assert!(of("Bob")["disabled_at"].is_string());
    at.refused(&["user", "add", "--type", "web", "--username", "Eve", "--admin"], "--password-stdin").await;
    at.refused(&["user", "add", "--type", "mobile", "--username", "Joe", "--admin"], "only a web user").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_changed_while_redis_cannot_be_told() {
    let mut servers = Servers::private().await;
    let at = Installation::start(&servers).await;
    at.migrate().await;
    at.web_user("Ann", PASSWORD, &[]).await;
    let phone = {
        let _api = at.api().await;
        Phone::enroll(&at, "phone-1", "Joe").await
    };
    servers.redis_mut().stop().await.unwrap();
    at.refused(&["device", "revoke", "phone-1"], "run this again").await;
    at.refused(&["user", "disable", "Joe"], "run this again").await;
    servers.redis_mut().restart().await.unwrap();
    let _api = at.api().await;
    assert_eq!(phone.calls(&at).await, StatusCode::OK);
    at.ok(&["user", "disable", "Joe"]).await;
    assert_eq!(phone.calls(&at).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tenant_is_listed_whether_it_answers_or_not() {
    let at = Installation::start(Servers::shared().await).await;
    let name = at.database.name().to_owned();
    let found = at.json(&["tenant", "list", "--json"]).await;
    assert_eq!((&found[0]["reachable"], found[0].get("users")), (&true.into(), None), "{found}");
    assert!(found[0]["problem"].as_str().unwrap().contains("posduif migrate"), "{found}");
    at.migrate().await;
    at.web_user("Ann", PASSWORD, &[]).await;
    is_documented(&found);
    at.add_tenant("postgres://nobody:hunter2@127.0.0.1:1/gone");
    let found = at.json(&["tenant", "list", "--json"]).await;
    is_documented(&found);
    assert_eq!(
        (&found[0]["database"], &found[0]["users"], &found[0]["devices"], &found[0]["mode"]),
        (&json!(name), &json!(1), &json!(0), &json!("wal")),
        "{found}"
    );
    assert_eq!((&found[1]["tenant_id"], &found[1]["reachable"]), (&json!("gone"), &json!(false)), "{found}");
    assert!(!found.to_string().contains("hunter2"), "{found}");
    let table = at.ok(&["tenant", "list"]).await;
    assert!(table.starts_with("TENANT") && table.contains("gone: cannot connect"), "{table}");
    // With two tenants a command must say which.
    at.refused(&["user", "list"], "--tenant").await;
    assert!(at.ok(&["user", "list", "--tenant", &name]).await.contains("Ann"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_that_are_shipped_are_enough_to_end_a_credential() {
    let servers = Servers::private().await;
    let at = Installation::start(&servers).await;
    at.migrate().await;
    at.web_user("Ann", PASSWORD, &[]).await;
    let api = at.api().await;
    let phones = [Phone::enroll(&at, "phone-1", "Joe").await, Phone::enroll(&at, "phone-2", "Eve").await];
    for phone in &phones {
        assert_eq!(phone.calls(&at).await, StatusCode::OK);
    }
    at.ok(&["device", "revoke", "phone-1"]).await;
    at.ok(&["user", "disable", "Eve"]).await;
    at.web_user("Ann", "another password", &["--admin"]).await;
    for phone in &phones {
        assert_eq!(phone.calls(&at).await, StatusCode::UNAUTHORIZED);
    }
    drop(api);
    let client = redis::Client::open(servers.redis_url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let denied: Vec<redis::Value> = redis::cmd("ACL").arg("LOG").query_async(&mut connection).await.unwrap();
    let denied: Vec<String> = denied.iter().map(|entry| format!("{entry:?}")).collect();
    let denied: Vec<&String> = denied.iter().filter(|entry| !entry.contains("client|setinfo")).collect();
    assert!(denied.is_empty(), "{denied:?}");
}

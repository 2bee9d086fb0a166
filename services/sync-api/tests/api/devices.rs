//! `/api/devices` and the end of a device's credential, on every replica and within five seconds.

use std::time::{Duration, Instant};

use posduif_model::Bucket;
use posduif_testkit::{Servers, eventually_true};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    fixture::{Api, Phone, is, ok, pluck, refused},
    listener::Listener,
    live::message,
};

const SOON: Duration = Duration::from_secs(5);

async fn revoke(api: &Api, jwt: &str, device: &str) -> StatusCode {
    let request = api.request(Method::DELETE, &format!("/api/devices/{device}")).bearer_auth(jwt);
    request.send().await.unwrap().status()
}

#[tokio::test]
async fn a_web_user_sees_and_revokes_the_devices_that_it_let_in() {
    let api = Api::start().await;
    let ((_, bob), (_, jane)) = (api.web_user("bob").await, api.web_user("jane").await);
    let (ann, ben) = (api.phone(&bob, "ann").await, api.phone(&jane, "ben").await);
    let list = async |jwt: &str| -> Value { ok(api.get("/api/devices").bearer_auth(jwt)).await };
    let listed = list(&bob).await;
    assert_eq!((pluck(&listed["devices"], "id"), &listed["total"]), (vec![ann.id.as_str()], &json!(1)));
    let device = &listed["devices"][0];
    assert_eq!((&device["user_id"], &device["username"]), (&json!(ann.user), &json!("ann")));
    assert_eq!((&device["device_info"], &device["revoked_at"]), (&json!({"os": "x"}), &Value::Null));
    assert_eq!(refused(api.get("/api/devices")).await, is(401, "UNAUTHORIZED"));

    for unknown in [ben.id.as_str(), "nobody", "a}b"] {
        assert_eq!(revoke(&api, &bob, unknown).await, 404, "{unknown}");
    }
    assert_eq!(
        ok(api.get("/api/app-instructions").header("X-Device-ID", &ben.id).bearer_auth(&ben.token)).await["tenant_id"],
        json!(api.tenant)
    );
    assert_eq!(revoke(&api, &bob, &ann.id).await, 204);
    let at = list(&bob).await["devices"][0]["revoked_at"].clone();
    assert!(at.is_string(), "{at}");
    assert_eq!(refused(api.incoming(&ann, "start", 1)).await, is(401, "UNAUTHORIZED"));
    assert_eq!(revoke(&api, &bob, &ann.id).await, 204);
    assert_eq!(list(&bob).await["devices"][0]["revoked_at"], at);
}

#[tokio::test]
async fn a_revoked_device_hears_no_more_on_any_replica() {
    let api = Api::start().await;
    let servers = Servers::shared().await;
    let replica = api.replica(servers, "");
    let (bob, jwt) = api.web_user("bob").await;
    let (ann, ben) = (api.phone(&jwt, "ann").await, api.phone(&jwt, "ben").await);
    let mut live = Listener::open(replica.live(&ann)).await;
    let mut other = Listener::open(replica.live(&ben)).await;
    let started = Instant::now();
    assert_eq!(revoke(&api, &jwt, &ann.id).await, 204);
    assert_eq!(live.rest().await, []);
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    assert_eq!(refused(replica.live(&ann)).await, is(401, "UNAUTHORIZED"));
    // Others stay.
    api.commit(None, &[Bucket::User(ben.user)], &[message("m1", bob, ben.user, "pending_sync")]).await;
    other.expect_message("m1").await;
}

#[tokio::test]
async fn a_device_that_is_enrolled_again_ends_what_its_old_token_opened() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let mut live = api.listen(&ann).await;
    let token = api.enrollment_token(&jwt, &json!({"username": "ann"})).await;
    let started = Instant::now();
    let answer = ok(api.complete(&token, &ann.id, "ann")).await;
    let renewed = Phone { token: answer["device_token"].as_str().unwrap().to_owned(), ..ann };
    let _new = api.listen(&renewed).await;
    assert_eq!(live.rest().await, []);
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_revocation_whose_hint_is_lost_is_found_by_looking() {
    let servers = Servers::private().await;
    let api = Api::on(&servers, "").await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let mut live = api.listen(&ann).await;
    let mut redis = api.redis_of(&servers).await;
    // As if the replica that revoked had died before its last word: PostgreSQL knows, the cache does not hold it any more.
    let sql = "UPDATE devices SET revoked_at = now() WHERE id = $1";
    api.sql.execute(sql, &[&ann.id]).await.unwrap();
    let key = format!("posduif:{{{}}}:device:{}", api.tenant, ann.id);
    let started = Instant::now();
    let () = redis::cmd("DEL").arg(key).query_async(&mut redis).await.unwrap();
    assert_eq!(live.rest().await, []);
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_revocation_whose_hint_is_lost_is_found_by_looking_while_redis_has_no_room() {
    let servers = Servers::private().await;
    let api = Api::on(&servers, "").await;
    let (bob, jwt) = api.web_user("bob").await;
    let (ann, ben) = (api.phone(&jwt, "ann").await, api.phone(&jwt, "ben").await);
    let (mut live, mut other) = (api.listen(&ann).await, api.listen(&ben).await);
    let mut redis = api.redis_of(&servers).await;
    let () = redis::cmd("CONFIG").arg(("SET", "maxmemory", 1)).query_async(&mut redis).await.unwrap();
    let sql = "UPDATE devices SET revoked_at = now() WHERE id = $1";
    api.sql.execute(sql, &[&ann.id]).await.unwrap();
    let started = Instant::now();
    // Neither is remembered: the other one cannot be, either.
    for id in [&ben.id, &ann.id] {
        let key = format!("posduif:{{{}}}:device:{id}", api.tenant);
        let () = redis::cmd("DEL").arg(key).query_async(&mut redis).await.unwrap();
    }
    assert_eq!(live.rest().await, []);
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    let () = redis::cmd("CONFIG").arg(("SET", "maxmemory", 0)).query_async(&mut redis).await.unwrap();
    api.commit(None, &[Bucket::User(ben.user)], &[message("m1", bob, ben.user, "pending_sync")]).await;
    other.expect_message("m1").await;
}

#[tokio::test]
async fn who_is_shut_out_while_a_body_arrives_writes_nothing_with_it() {
    let api = Api::start().await;
    let ((bob, jwt), (_, root)) = (api.web_user("bob").await, api.admin("root").await);
    let ann = api.phone(&jwt, "ann").await;
    let id = uuid::Uuid::new_v4();
    let upload = json!({"messages": [{
        "id": id, "recipient_id": bob, "content": "late", "created_at": "2026-11-23T10:44:00Z",
    }]});
    let message = json!({"recipient_id": ann.user, "content": "late"});
    let device = format!("X-Device-ID: {}\r\nAuthorization: Bearer {}", ann.id, ann.token);
    let web = format!("Authorization: Bearer {jwt}");
    let late = [
        ("/api/sync/outgoing", &device, upload.to_string()),
        ("/api/messages", &web, message.to_string()),
        ("/api/enrollment/create", &web, json!({"username": "ann"}).to_string()),
    ];
    let mut open = Vec::new();
    for (path, credential, body) in &late {
        let mut stream = TcpStream::connect(api.base.trim_start_matches("http://")).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
             {credential}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        open.push(stream);
    }
    // Both have proven themselves, since they are remembered.
    let caches = posduif_accounts::Caches::new(&api.redis().await, &api.tenant);
    eventually_true(SOON, "both are let in", async || {
        let account = caches.accounts.get(bob).await?.account;
        Ok(caches.devices.get(&ann.id.parse()?).await?.auth.is_some() && account.is_some())
    })
    .await;
    for user in [bob, ann.user] {
        ok(api.post(&format!("/api/users/{user}/disable"), &json!({})).bearer_auth(&root)).await;
    }
    for (mut stream, (path, _, body)) in open.into_iter().zip(&late) {
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert!(said.starts_with("HTTP/1.1 401 "), "{path}: {said}");
    }
    let sql = "SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM enrollment_tokens WHERE used_at IS NULL)";
    let row = api.sql.query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (0, 0));
}

#[tokio::test]
async fn a_revocation_that_redis_cannot_hear_of_is_refused_and_not_half_done() {
    let mut servers = Servers::private().await;
    let api = Api::on(&servers, "").await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    servers.redis_mut().stop().await.unwrap();
    assert_eq!(revoke(&api, &jwt, &ann.id).await, 503);
    let sql = "SELECT revoked_at IS NULL FROM devices WHERE id = $1";
    assert!(api.sql.query_one(sql, &[&ann.id]).await.unwrap().get::<_, bool>(0));
}

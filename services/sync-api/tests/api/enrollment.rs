//! Enrolment: once, by one device, for one user.

use std::time::Duration;

use futures::future::join_all;
use posduif_changelog::{
    device_auth::{Cached, DeviceAuth, DeviceAuthCache},
    remembered::Until,
};
use posduif_model::TenantId;
use posduif_runtime::config::Config;
use posduif_testkit::{Servers, eventually_true};
use serde_json::json;

use crate::fixture::{Api, By, Phone, SECRET, is, ok, refused, serve};

#[tokio::test]
async fn a_token_tells_what_it_is_for_and_then_enrols_one_phone() {
    let api = Api::start().await;
    let (bob, jwt) = api.web_user("bob").await;
    let created = api.post("/api/enrollment/create", &json!({})).bearer_auth(&jwt).send().await.unwrap();
    assert_eq!(created.status(), 201);
    let created: serde_json::Value = created.json().await.unwrap();
    let token = created["token"].as_str().unwrap();
    let code = &created["qr_code_data"];
    assert_eq!(code["enrollment_url"], format!("http://localhost:8080/api/enrollment/{token}"));
    assert_eq!((&code["token"], &code["tenant_id"]), (&json!(token), &json!(api.tenant)));

    let told = ok(api.get(&format!("/api/enrollment/{token}"))).await;
    assert_eq!(
        (&told["valid"], &told["created_by"], &told["used_at"]),
        (&json!(true), &json!(bob), &json!(null))
    );
    assert_eq!(told["expires_at"], created["expires_at"]);
    let qr = api.get(&format!("/api/enrollment/{token}/qr.svg")).bearer_auth(&jwt).send().await.unwrap();
    assert_eq!(qr.headers()["content-type"], "image/svg+xml");
    assert!(qr.text().await.unwrap().contains("<svg"));

    let enrolled = ok(api.complete(token, "phone-1", "ann")).await;
    assert_eq!((&enrolled["device_id"], &enrolled["tenant_id"]), (&json!("phone-1"), &json!(api.tenant)));
    assert_eq!(enrolled["app_instructions_url"], "http://localhost:8080/api/app-instructions");
    assert_eq!(refused(api.get(&format!("/api/enrollment/{token}"))).await, is(400, "INVALID_TOKEN"));

    let stored = "SELECT u.username, u.user_type, u.device_id, d.device_info->>'os', s.token_hash
                    FROM users u JOIN devices d ON d.user_id = u.id
                    JOIN posduif_engine.device_secrets s ON s.device_id = d.id WHERE d.id = 'phone-1'";
    let row = api.sql.query_one(stored, &[]).await.unwrap();
    let texts: Vec<String> = (0..4).map(|index| row.get(index)).collect();
    assert_eq!(texts, ["ann", "mobile", "phone-1", "x"]);
    assert_ne!(row.get::<_, String>(4), enrolled["device_token"].as_str().unwrap());
}

#[tokio::test]
async fn fifty_phones_with_one_token_make_one_enrolment() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let token = api.enrollment_token(&jwt, &json!({})).await;
    // The pool is full before it matters, else the attempts would queue for connections and not meet.
    join_all((0..50).map(|_| ok(api.get(&format!("/api/enrollment/{token}"))))).await;
    let attempts = (0..50).map(|n| api.complete(&token, &format!("phone-{n}"), &format!("user-{n}")).send());
    let statuses: Vec<u16> =
        join_all(attempts).await.into_iter().map(|response| response.unwrap().status().as_u16()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 400).count(), 49, "{statuses:?}");
    let count =
        "SELECT (SELECT count(*) FROM devices), (SELECT count(*) FROM users WHERE user_type = 'mobile')";
    let row = api.sql.query_one(count, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 1));
}

#[tokio::test]
async fn the_same_phone_may_repeat_and_its_earlier_token_dies() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let token = api.enrollment_token(&jwt, &json!({})).await;
    let attempts = (0..10).map(|_| ok(api.complete(&token, "phone-1", "ann")));
    let answers = join_all(attempts).await;
    assert!(answers.iter().all(|answer| answer["user_id"] == answers[0]["user_id"]));

    let mut phone = api.phone(&jwt, "ben").await;
    ok(api.get("/api/app-instructions").by(&phone)).await;
    let token = api.enrollment_token(&jwt, &json!({"username": "ben"})).await;
    let renewed = ok(api.complete(&token, &phone.id, "ben")).await;
    assert_eq!(renewed["user_id"], json!(phone.user));
    assert_eq!(refused(api.get("/api/app-instructions").by(&phone)).await, is(401, "UNAUTHORIZED"));
    phone.token = renewed["device_token"].as_str().unwrap().to_owned();
    ok(api.get("/api/app-instructions").by(&phone)).await;

    let repeated = ok(api.complete(&token, &phone.id, "ben")).await;
    assert_eq!(refused(api.get("/api/app-instructions").by(&phone)).await, is(401, "UNAUTHORIZED"));
    phone.token = repeated["device_token"].as_str().unwrap().to_owned();
    ok(api.get("/api/app-instructions").by(&phone)).await;
}

#[tokio::test]
async fn a_bound_token_gives_an_existing_user_another_phone() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let token = api.enrollment_token(&jwt, &json!({"username": "ann"})).await;
    assert_eq!(refused(api.complete(&token, "phone-2", "ben")).await, is(409, "CONFLICT"));
    let second = ok(api.complete(&token, "phone-2", "ann")).await;
    assert_eq!(second["user_id"], json!(ann.user));
    ok(api.get("/api/app-instructions").by(&ann)).await;
    let bare = api.request(reqwest::Method::POST, "/api/enrollment/create").bearer_auth(&jwt);
    ok(bare).await;
    for (username, expected) in [("nobody", is(404, "NOT_FOUND")), ("bob", is(404, "NOT_FOUND"))] {
        let create = api.post("/api/enrollment/create", &json!({"username": username})).bearer_auth(&jwt);
        assert_eq!(refused(create).await, expected, "{username}");
    }
}

#[tokio::test]
async fn taken_names_and_devices_are_conflicts_and_leave_the_token_usable() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let token = api.enrollment_token(&jwt, &json!({})).await;
    assert_eq!(refused(api.complete(&token, "phone-2", "ann")).await, is(409, "CONFLICT"));
    assert_eq!(refused(api.complete(&token, "phone-2", "bob")).await, is(409, "CONFLICT"));
    assert_eq!(refused(api.complete(&token, &ann.id, "new")).await, is(409, "CONFLICT"));
    ok(api.get("/api/app-instructions").by(&ann)).await;
    ok(api.complete(&token, "phone-2", "new")).await;
    assert_eq!(refused(api.complete(&token, "phone-3", "newer")).await, is(400, "INVALID_TOKEN"));
}

#[tokio::test]
async fn expired_unknown_and_foreign_tokens_enrol_nobody() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let (_, jane) = api.web_user("jane").await;
    let token = api.enrollment_token(&jwt, &json!({})).await;
    let qr = format!("/api/enrollment/{token}/qr.svg");
    assert_eq!(refused(api.get(&qr).bearer_auth(&jane)).await, is(404, "NOT_FOUND"));
    api.sql.batch_execute("UPDATE enrollment_tokens SET expires_at = now()").await.unwrap();
    assert_eq!(refused(api.complete(&token, "phone-1", "ann")).await, is(400, "INVALID_TOKEN"));
    assert_eq!(refused(api.get(&format!("/api/enrollment/{token}"))).await, is(400, "INVALID_TOKEN"));
    let random = token.split_once('.').unwrap().1;
    for unknown in ["x", "dGVuYW50.AAAA", &format!("b3RoZXI.{random}")] {
        assert_eq!(refused(api.complete(unknown, "phone-1", "ann")).await, is(400, "INVALID_TOKEN"));
        assert_eq!(refused(api.get(&format!("/api/enrollment/{unknown}"))).await, is(404, "NOT_FOUND"));
    }
}

#[tokio::test]
async fn a_revoked_device_is_refused_once_its_cache_is_forgotten() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let path = "/api/app-instructions";
    ok(api.get(path).by(&ann)).await;
    assert_eq!(refused(api.get(path).header("X-Device-ID", &ann.id)).await, is(401, "UNAUTHORIZED"));
    let other = api.phone(&jwt, "ben").await;
    let mixed = api.get(path).header("X-Device-ID", &ann.id).bearer_auth(&other.token);
    assert_eq!(refused(mixed).await, is(401, "UNAUTHORIZED"));

    let token = api.enrollment_token(&jwt, &json!({"username": "ann"})).await;
    ok(api.complete(&token, &ann.id, "ann")).await;
    api.sql.batch_execute("UPDATE devices SET revoked_at = now()").await.unwrap();
    assert_eq!(refused(api.get(path).by(&ann)).await, is(401, "UNAUTHORIZED"));
    assert_eq!(refused(api.complete(&token, &ann.id, "ann")).await, is(400, "INVALID_TOKEN"));
}

#[tokio::test]
async fn fleets_of_older_apps_may_be_known_by_their_device_id_alone() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let redis = Servers::shared().await.redis_url_of(posduif_testkit::API);
    let config = format!(
        "tenants: [{{url: '{}'}}]\nredis: {{url: '{redis}'}}\nauth: {{jwt_secret: '{SECRET}', device_auth: device_id}}",
        api.database.url()
    );
    let (base, shutdown, _) = serve(&Config::from_yaml(&config).unwrap());
    let client = reqwest::Client::new();
    for (id, status) in [(ann.id.as_str(), 200), (ann.id.as_str(), 200), ("phone-of-nobody", 401)] {
        let request = client.get(format!("{base}/api/app-instructions")).header("X-Device-ID", id);
        assert_eq!(request.send().await.unwrap().status(), status, "{id}");
    }
    shutdown.cancel();
}

#[tokio::test]
async fn an_earlier_token_that_is_used_while_the_new_one_is_made_dies_too() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let token = api.enrollment_token(&jwt, &json!({"username": "ann"})).await;
    api.sql.batch_execute("BEGIN; SELECT FROM enrollment_tokens FOR UPDATE").await.unwrap();
    let completion = tokio::spawn(api.complete(&token, &ann.id, "ann").send());
    let observer = api.database.connect_superuser().await;
    let waiting = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually_true(Duration::from_secs(10), "the completion waits for the token", async || {
        Ok(observer.query_one(waiting, &[]).await?.get::<_, i64>(0) > 0)
    })
    .await;
    ok(api.get("/api/app-instructions").by(&ann)).await;
    api.sql.batch_execute("COMMIT").await.unwrap();
    assert_eq!(completion.await.unwrap().unwrap().status(), 200);
    assert_eq!(refused(api.get("/api/app-instructions").by(&ann)).await, is(401, "UNAUTHORIZED"));
}

#[tokio::test]
async fn what_was_read_of_a_credential_before_it_changed_is_not_cached_after() {
    let redis = Servers::shared().await.redis_url_of(posduif_testkit::API);
    let pool = posduif_changelog::pool(redis.as_str(), 2, posduif_changelog::Timeouts::default()).unwrap();
    let tenant: TenantId = "cache_of_credentials".parse().unwrap();
    let cache = DeviceAuthCache::new(pool, &tenant);
    let (device, user) = ("phone".parse().unwrap(), "00000000-0000-0000-0000-000000000001".parse().unwrap());
    let auth = |hash: &str| DeviceAuth { user, token_hash: hash.to_owned() };
    let before = cache.get(&device).await.unwrap();
    assert_eq!(before, Cached::default());
    cache.forget(&device, Until::Committed).await.unwrap();
    cache.put(&device, &auth("old"), &before.generation).await.unwrap();
    let between = cache.get(&device).await.unwrap();
    assert_eq!(between.auth, None);
    // Whoever would say that it was committed may die before.
    cache.put(&device, &auth("old"), &between.generation).await.unwrap();
    assert_eq!(cache.get(&device).await.unwrap(), between);
    cache.forget(&device, Until::Now).await.unwrap();
    cache.put(&device, &auth("old"), &between.generation).await.unwrap();
    let after = cache.get(&device).await.unwrap();
    assert_eq!(after.auth, None);
    cache.put(&device, &auth("new"), &after.generation).await.unwrap();
    assert_eq!(cache.get(&device).await.unwrap().auth, Some(auth("new")));
    cache.forget(&device, Until::Now).await.unwrap();
    assert_eq!(cache.get(&device).await.unwrap().auth, None);
}

#[tokio::test]
async fn nobody_touches_the_cache_of_credentials_without_a_valid_token() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    ok(api.get("/api/app-instructions").by(&ann)).await;
    let redis = Servers::shared().await.redis_url_of(posduif_testkit::API);
    let pool = posduif_changelog::pool(redis.as_str(), 2, posduif_changelog::Timeouts::default()).unwrap();
    let cache = DeviceAuthCache::new(pool, &api.tenant);
    let known = cache.get(&ann.id.parse().unwrap()).await.unwrap();
    assert!(known.auth.is_some());

    let real = api.enrollment_token(&jwt, &json!({})).await;
    let forged = format!("{}.{}", real.split_once('.').unwrap().0, "A".repeat(43));
    let used = api.enrollment_token(&jwt, &json!({})).await;
    ok(api.complete(&used, "phone-2", "ben")).await;
    let bound = api.enrollment_token(&jwt, &json!({"username": "ben"})).await;
    for token in [&forged, &used] {
        for device in [ann.id.as_str(), "phone-of-nobody"] {
            assert_eq!(refused(api.complete(token, device, "ann")).await, is(400, "INVALID_TOKEN"));
        }
    }
    // Names and devices of others are no reason either.
    assert_eq!(refused(api.complete(&real, &ann.id, "new")).await, is(409, "CONFLICT"));
    assert_eq!(refused(api.complete(&bound, &ann.id, "ann")).await, is(409, "CONFLICT"));
    assert_eq!(cache.get(&ann.id.parse().unwrap()).await.unwrap(), known);
    assert_eq!(cache.get(&"phone-of-nobody".parse().unwrap()).await.unwrap(), Cached::default());
}

#[tokio::test]
async fn a_token_of_a_phone_that_was_revoked_is_worth_nothing_once_the_phone_is_enrolled_again() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let first = api.enrollment_token(&jwt, &json!({})).await;
    ok(api.complete(&first, "phone-1", "ann")).await;
    let revoke = api.request(reqwest::Method::DELETE, "/api/devices/phone-1").bearer_auth(&jwt);
    assert_eq!(revoke.send().await.unwrap().status(), 204);
    assert_eq!(refused(api.complete(&first, "phone-1", "ann")).await, is(400, "INVALID_TOKEN"));

    let second = api.enrollment_token(&jwt, &json!({"username": "ann"})).await;
    let answer = ok(api.complete(&second, "phone-1", "ann")).await;
    let user = answer["user_id"].as_str().unwrap().parse().unwrap();
    // Whoever still holds the first token takes over neither the device nor its user.
    assert_eq!(refused(api.complete(&first, "phone-1", "ann")).await, is(400, "INVALID_TOKEN"));
    let token = answer["device_token"].as_str().unwrap().to_owned();
    let phone = Phone { id: "phone-1".to_owned(), token, user };
    ok(api.get("/api/app-instructions").by(&phone)).await;
    ok(api.complete(&second, "phone-1", "ann")).await;
}

//! Wrong requests and absent dependencies: always the one error shape.

use std::{io::Write, time::Duration};

use posduif_changelog::{Keys, connect::connect};
use posduif_runtime::config::Config;
use posduif_sync_api::{app::App, clock::Clock};
use posduif_testkit::{Servers, eventually_true};
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::fixture::{Api, By, PASSWORD, SECRET, is, ok, refused, serve};

#[tokio::test]
async fn every_wrong_request_is_answered_in_the_shape_of_the_contract() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let login = || api.request(Method::POST, "/api/auth/login");
    let json_body = |body: &'static str| login().header("content-type", "application/json").body(body);
    let invalid = is(400, "VALIDATION_ERROR");
    let cases = [
        (api.get("/nowhere"), is(404, "NOT_FOUND")),
        (api.get("/"), is(404, "NOT_FOUND")),
        (api.get("/api/auth/login"), is(405, "METHOD_NOT_ALLOWED")),
        (api.request(Method::DELETE, "/api/messages").bearer_auth(&jwt), is(405, "METHOD_NOT_ALLOWED")),
        (json_body("{"), invalid.clone()),
        (json_body("[]"), invalid.clone()),
        (json_body(r#"{"username": 7, "password": "x"}"#), invalid.clone()),
        (json_body(""), invalid.clone()),
        (login().body("username=bob"), invalid.clone()),
        (login(), invalid.clone()),
        (json_body("{}").header("content-encoding", "gzip"), invalid.clone()),
        (api.get("/api/users/no-uuid").bearer_auth(&jwt), invalid.clone()),
        (api.get("/api/users?status=odd").bearer_auth(&jwt), invalid.clone()),
        (api.get("/api/messages/no-uuid").bearer_auth(&jwt), invalid.clone()),
        (api.get("/api/sync/incoming?since=").by(&ann), invalid.clone()),
        (api.get("/api/sync/incoming?since=start&limit=many").by(&ann), invalid.clone()),
        (api.get("/api/users").header("accept-encoding", "identity;q=0, br;q=0"), invalid.clone()),
        (api.complete("x", "a device", "ann"), invalid.clone()),
        (api.complete("x", "phone", " "), invalid.clone()),
    ];
    for (request, expected) in cases {
        let shown = format!("{request:?}");
        assert_eq!(refused(request).await, expected, "{shown}");
    }
}

#[tokio::test]
async fn bodies_are_limited_as_they_arrive_and_after_decompression() {
    let api = Api::with("api: {max_body_bytes: 2048, max_decoded_body_bytes: 4096}").await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let upload = |spaces: usize| format!("{}{}", " ".repeat(spaces), json!({"messages": []}));
    let send = |body: Vec<u8>| {
        let request = api.request(Method::POST, "/api/sync/outgoing").by(&ann);
        request.header("content-type", "application/json").body(body)
    };
    ok(send(upload(100).into_bytes())).await;
    assert_eq!(refused(send(upload(3000).into_bytes())).await, is(413, "PAYLOAD_TOO_LARGE"));

    let packed = |body: &str| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(body.as_bytes()).unwrap();
        packer.finish().unwrap()
    };
    let gzip = |spaces| send(packed(&upload(spaces))).header("content-encoding", "gzip");
    ok(gzip(3000)).await;
    assert_eq!(refused(gzip(100_000)).await, is(413, "PAYLOAD_TOO_LARGE"));
}

#[tokio::test]
async fn a_harmless_request_id_is_kept() {
    let api = Api::start().await;
    let answer = api.get("/health").header("X-Request-Id", "trace-7").send().await.unwrap();
    assert_eq!(answer.headers()["x-request-id"], "trace-7");
    assert_eq!(answer.text().await.unwrap(), "OK");
}

/// The same requests, sent to a server with these settings.
async fn elsewhere(api: &Api, yaml: &str, requests: Vec<RequestBuilder>) -> Vec<(u16, String)> {
    let (base, shutdown, _) = serve(&Config::from_yaml(yaml).unwrap());
    let mut answers = Vec::new();
    for request in requests {
        let (client, request) = request.build_split();
        let mut request = request.unwrap();
        *request.url_mut() = request.url().as_str().replacen(&api.base, &base, 1).parse().unwrap();
        answers.push(refused(RequestBuilder::from_parts(client, request)).await);
    }
    shutdown.cancel();
    answers
}

#[tokio::test]
async fn a_database_that_is_away_is_told_apart_from_a_broken_one() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let redis = Servers::shared().await.redis_url_of(posduif_testkit::API);
    let away = format!(
        "tenants: [{{id: {}, url: 'postgres://u@127.0.0.1:1/d'}}]\nredis: {{url: '{redis}'}}\nauth: {{jwt_secret: '{SECRET}'}}",
        api.tenant
    );
    let login = api.post("/api/auth/login", &json!({"username": "bob", "password": "x"}));
    let upload = api.outgoing(&ann, &json!({}));
    let requests =
        vec![api.get("/api/users").bearer_auth(&jwt), login, upload, api.incoming(&ann, "start", 1)];
    let answers = elsewhere(&api, &away, requests).await;
    assert!(answers.iter().all(|answer| *answer == is(503, "DATABASE_ERROR")), "{answers:?}");

    api.sql.batch_execute("ALTER TABLE users RENAME TO people").await.unwrap();
    assert_eq!(refused(api.get("/api/users").bearer_auth(&jwt)).await, is(500, "INTERNAL_ERROR"));
}

#[tokio::test]
async fn without_redis_there_are_no_pages_but_uploads_still_work() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let token = api.enrollment_token(&jwt, &json!({})).await;
    let url = api.database.url();
    let away = format!(
        "tenants: [{{url: '{url}'}}]\nredis: {{url: 'redis://127.0.0.1:1'}}\nauth: {{jwt_secret: '{SECRET}'}}"
    );
    let not_an_upload = api.outgoing(&ann, &json!([]));
    let requests =
        vec![api.incoming(&ann, "start", 1), api.complete(&token, "phone-2", "ben"), not_an_upload];
    let answers = elsewhere(&api, &away, requests).await;
    let expected = [is(503, "REDIS_ERROR"), is(503, "REDIS_ERROR"), is(400, "VALIDATION_ERROR")];
    assert_eq!(answers, expected);
    // The device was known without Redis, and the token of the refused enrolment is unused.
    ok(api.complete(&token, "phone-2", "ben")).await;
}

#[tokio::test]
async fn a_log_that_is_missing_is_awaited() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let mut redis =
        connect(Servers::shared().await.redis_url().as_str(), posduif_changelog::Timeouts::default())
            .await
            .unwrap();
    let key = Keys::new(&api.tenant).state();
    let () = redis::cmd("DEL").arg(key).query_async(&mut redis).await.unwrap();
    assert_eq!(refused(api.incoming(&ann, "start", 1)).await, is(503, "SYNC_ERROR"));
}

#[tokio::test]
async fn tenants_of_one_server_do_not_reach_each_other() {
    let (one, two) = (Api::start().await, Api::start().await);
    let ((_, bob), (_, jane)) = (one.web_user("bob").await, two.web_user("jane").await);
    let (ann, ben) = (one.phone(&bob, "ann").await, two.phone(&jane, "ben").await);
    let message = one.message(ann.user, ann.user, "only of one").await;
    let redis = Servers::shared().await.redis_url_of(posduif_testkit::API);
    let (first, second) = (one.database.url(), two.database.url());
    let both = format!(
        "tenants: [{{url: '{first}'}}, {{url: '{second}'}}]\nredis: {{url: '{redis}'}}\nauth: {{jwt_secret: '{SECRET}'}}"
    );
    let nameless = one.post("/api/auth/login", &json!({"username": "bob", "password": PASSWORD}));
    let wrong = json!({"username": "bob", "password": PASSWORD, "tenant_id": two.tenant});
    let requests = vec![
        nameless,
        one.post("/api/auth/login", &wrong),
        one.get(&format!("/api/users/{}", ann.user)).bearer_auth(&jane),
        one.get(&format!("/api/messages/{message}")).bearer_auth(&jane),
        one.get("/api/app-instructions").header("X-Device-ID", &ann.id).bearer_auth(&ben.token),
    ];
    let expected = [
        is(400, "VALIDATION_ERROR"),
        is(401, "UNAUTHORIZED"),
        is(404, "NOT_FOUND"),
        is(404, "NOT_FOUND"),
        is(401, "UNAUTHORIZED"),
    ];
    assert_eq!(elsewhere(&one, &both, requests).await, expected);
}

#[tokio::test]
async fn a_secret_that_is_missing_or_short_stops_the_start_with_advice() {
    for (secret, advice) in [("", "openssl rand"), ("short", "shorter than 32 bytes")] {
        let yaml = format!("tenants: [{{url: 'postgres://u@h/d'}}]\nauth: {{jwt_secret: '{secret}'}}");
        let error = App::new(&Config::from_yaml(&yaml).unwrap(), Clock::system()).err().unwrap().to_string();
        assert!(error.contains(advice), "{error}");
    }
}

#[tokio::test]
async fn a_request_that_has_begun_is_answered_although_the_server_is_asked_to_end() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let page = ok(api.incoming(&ann, "start", 500)).await;
    let waiting = api.incoming(&ann, page["cursor"].as_str().unwrap(), 500).send();
    let waiting = tokio::spawn(waiting);
    let server = api.database.connect_superuser().await;
    let marks = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                    AND query LIKE '%pg_current_wal_insert_lsn%' AND pid <> pg_backend_pid()";
    eventually_true(Duration::from_secs(10), "the request waits for the log", async || {
        Ok(server.query_one(marks, &[]).await?.get::<_, i64>(0) > 0)
    })
    .await;
    api.shutdown.cancel();
    let _following = api.follow().await;
    let answer = waiting.await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["connection"], "close");
    eventually_true(Duration::from_secs(10), "the port is closed", async || {
        Ok(api.get("/health").send().await.is_err())
    })
    .await;
}

#[tokio::test]
async fn the_program_serves_until_it_is_asked_to_end_and_then_drains() {
    let api = Api::start().await;
    let mut program = api.program("").await;
    program.until(200, "the replica is ready").await;
    let get = async |url: String| reqwest::get(url).await.unwrap().text().await.unwrap();
    assert_eq!(get(format!("{}/health", program.base)).await, "OK");
    let metrics = get(format!("{}/metrics", program.admin)).await;
    assert!(
        metrics.contains(r#"posduif_api_requests_total{method="GET",route="/health",status="200"} 1"#),
        "{metrics}"
    );
    // The client's idle connection does not hold the process up.
    assert_eq!(program.process.terminate(Duration::from_secs(10)).await, 0, "{}", program.process.log());
}

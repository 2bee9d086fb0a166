//! A wrong request for every reason to refuse one in, the code that the documents name for it out, always in one shape.

use std::collections::{BTreeMap, BTreeSet};

use posduif_changelog::{Keys, Timeouts, connect::connect};
use posduif_model::Bucket;
use posduif_runtime::config::Config;
use posduif_testkit::Servers;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::fixture::{Api, By, Phone, SECRET, ok, put, serve};

/// What is wrong, the code that says so, and the request.
type Case = (&'static str, &'static str, RequestBuilder);

/// The codes that the documents name, with their statuses.
fn documented() -> BTreeMap<String, u16> {
    let text = include_str!("../../../../docs/PROTOCOL.md");
    let (_, section) = text.split_once("### 1.2 Errors").unwrap();
    let (section, _) = section.split_once("### 1.3").unwrap();
    let mut codes = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let mut columns = line.split('|').skip(1);
        let (names, status) = (columns.next().unwrap(), columns.next().unwrap().trim());
        for name in names.split(',').map(|name| name.trim().trim_matches('`').to_owned()) {
            codes.insert(name, status.parse().unwrap());
        }
    }
    codes
}

/// The codes that the program knows.
fn known() -> BTreeSet<String> {
    let source = include_str!("../../src/code.rs");
    let arms = source.split("=> \"").skip(1).filter_map(|arm| arm.split_once('"'));
    arms.map(|(code, _)| code.to_owned()).collect()
}

/// Asks, and looks whether the answer has the shape of the contract: nothing more and nothing less.
async fn code_of(request: RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: {text:?}"));
    let members = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(members(&body), ["error"], "{text}");
    let error = &body["error"];
    assert_eq!(members(error), ["code", "details", "message", "request_id"], "{text}");
    assert_eq!(error["request_id"], headers["x-request-id"].to_str().unwrap(), "{text}");
    assert!(error["details"].is_object(), "{text}");
    assert!(error["message"].as_str().is_some_and(|message| message.len() > 10), "{text}");
    assert_eq!(headers["content-type"], "application/json");
    let waits = headers.get("retry-after").map(|seconds| seconds.to_str().unwrap().parse::<u64>().unwrap());
    assert_eq!(waits.is_some(), [429, 503].contains(&status.as_u16()), "{text}");
    (status.as_u16(), error["code"].as_str().unwrap().to_owned())
}

async fn check(cases: Vec<Case>) -> BTreeSet<String> {
    let statuses = documented();
    let (mut seen, mut wrong) = (BTreeSet::new(), Vec::new());
    for (what, expected, request) in cases {
        let (status, code) = code_of(request).await;
        if code != expected || statuses.get(&code) != Some(&status) {
            wrong.push(format!("{what}: {status} {code}, not {expected}"));
        }
        seen.insert(code);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    seen
}

fn login(api: &Api, body: impl Into<reqwest::Body>) -> RequestBuilder {
    api.request(Method::POST, "/api/auth/login").header("content-type", "application/json").body(body)
}

/// What extractors refuse, before any handler looks.
fn unreadable(api: &Api, jwt: &str, ann: &Phone) -> Vec<Case> {
    let get = |path: &str| api.get(path).bearer_auth(jwt);
    let send = |body: &'static str| {
        api.request(Method::POST, "/api/messages")
            .bearer_auth(jwt)
            .header("content-type", "application/json")
            .body(body)
    };
    let plain = |kind: &'static str| {
        let request = api.request(Method::POST, "/api/auth/login").header("content-type", kind);
        request.body(r#"{"username":"bob","password":"x"}"#)
    };
    let encoded = |encoding: &'static str| login(api, "{}").header("content-encoding", encoding);
    let invalid = "VALIDATION_ERROR";
    vec![
        ("no JSON", invalid, login(api, "{")),
        ("no body", invalid, login(api, "")),
        ("bad UTF-8", invalid, login(api, b"{\"username\":\"\xff\xfe\",\"password\":\"x\"}".as_slice())),
        ("a lone surrogate", invalid, login(api, r#"{"username":"\ud800","password":"x"}"#)),
        ("UTF-16", invalid, login(api, b"\xff\xfe{\0}\0".as_slice())),
        ("more than one value", invalid, login(api, r#"{"username":"b","password":"x"} {}"#)),
        ("a list for an object", invalid, login(api, "[]")),
        ("null", invalid, login(api, "null")),
        ("a number for a text", invalid, login(api, r#"{"username":7,"password":"x"}"#)),
        ("a member twice", invalid, login(api, r#"{"username":"a","username":"b","password":"x"}"#)),
        ("a missing member", invalid, login(api, r#"{"username":"bob"}"#)),
        ("no number", invalid, login(api, r#"{"username":01,"password":"x"}"#)),
        ("a body without its type", invalid, api.request(Method::POST, "/api/auth/login").body("{}")),
        ("a form", invalid, plain("application/x-www-form-urlencoded")),
        ("a text", invalid, plain("text/plain")),
        ("a type that is none", invalid, plain("json")),
        ("an unknown encoding", invalid, encoded("zstd")),
        ("two encodings", invalid, encoded("gzip, gzip")),
        ("an encoding that is not true", invalid, encoded("gzip")),
        ("a list without its member", invalid, send("[1]")),
        ("a query that is no number", invalid, get("/api/messages?limit=many")),
        ("a number beyond all", invalid, get("/api/messages?limit=99999999999999999999")),
        ("a query that is no UUID", invalid, get("/api/messages?with=bob")),
        ("a member of the query twice", invalid, get("/api/messages?limit=1&limit=2")),
        ("a status that is none", invalid, get("/api/messages?status=odd")),
        ("a path that is no UUID", invalid, get("/api/users/bob")),
        ("a path that is no UUID either", invalid, get("/api/messages/bob")),
        ("a path with U+0000", invalid, get("/api/users/%00")),
        ("a path in bad UTF-8", invalid, get("/api/users/%ff")),
        ("an empty cursor", invalid, api.get("/api/sync/incoming?since=").by(ann)),
        ("a limit in words", invalid, api.get("/api/sync/incoming?since=start&limit=all").by(ann)),
        ("an upload that is a list", invalid, api.outgoing(ann, &json!([]))),
        ("an upload of texts", invalid, api.outgoing(ann, &json!({"messages": "all"}))),
        ("an upload with an odd name", invalid, api.outgoing(ann, &json!({"upload_id": "a b"}))),
        (
            "no encoding that is left",
            invalid,
            get("/api/users").header("accept-encoding", "identity;q=0, br;q=0"),
        ),
    ]
}

/// What handlers refuse.
async fn refused(api: &Api, jwt: &str, ann: &Phone) -> Vec<Case> {
    let web = |method: Method, path: &str| api.request(method, path).bearer_auth(jwt);
    let message = |body: Value| api.post("/api/messages", &body).bearer_auth(jwt);
    let nobody = uuid::Uuid::nil();
    let invitation = api.enrollment_token(jwt, &json!({})).await;
    let upload = json!({"upload_id": "u", "messages": []});
    ok(api.outgoing(ann, &upload)).await;
    let sent = ok(message(json!({"recipient_id": ann.user, "content": "x"}))).await;
    let sent = sent["id"].as_str().unwrap();
    let items = json!({"reads": vec![nobody; 10_001]});
    let large = format!(r#"{{"username":"{}"}}"#, "b".repeat(1 << 20));
    let unpacked = crate::hostile::gzip(format!(r#"{{"username":"{}"}}"#, "b".repeat(9 << 20)).as_bytes());
    vec![
        ("nobody", "UNAUTHORIZED", api.get("/api/messages")),
        ("a wrong password", "UNAUTHORIZED", login(api, r#"{"username":"bob","password":"x"}"#)),
        (
            "a device without its token",
            "UNAUTHORIZED",
            api.get("/api/sync/status").header("X-Device-ID", &ann.id),
        ),
        ("reading one's own message", "FORBIDDEN", web(Method::PUT, &format!("/api/messages/{sent}/read"))),
        ("a path that is not there", "NOT_FOUND", api.get("/nowhere")),
        ("a path with a slash too many", "NOT_FOUND", api.get("/api/users/")),
        ("a way out", "NOT_FOUND", api.get("/api/%2e%2e/%2e%2e/etc/passwd")),
        ("a user that is not there", "NOT_FOUND", web(Method::GET, &format!("/api/users/{nobody}"))),
        ("a message that is not there", "NOT_FOUND", web(Method::GET, &format!("/api/messages/{nobody}"))),
        ("a device that is not there", "NOT_FOUND", web(Method::DELETE, "/api/devices/a%7Db")),
        ("an invitation that is not there", "NOT_FOUND", api.get("/api/enrollment/x")),
        ("another method", "METHOD_NOT_ALLOWED", api.get("/api/auth/login")),
        (
            "an odd method",
            "METHOD_NOT_ALLOWED",
            api.request(Method::from_bytes(b"BREW").unwrap(), "/api/users"),
        ),
        (
            "a method that is refused to devices too",
            "METHOD_NOT_ALLOWED",
            api.request(Method::PATCH, "/api/sync/outgoing").by(ann),
        ),
        ("an invitation that is none", "INVALID_TOKEN", api.complete("x", "phone-x", "x")),
        ("nobody to write to", "INVALID_RECIPIENT", message(json!({"recipient_id": nobody, "content": "x"}))),
        (
            "somebody who cannot be",
            "INVALID_RECIPIENT",
            message(json!({"recipient_id": "bob", "content": "x"})),
        ),
        ("nothing to say", "EMPTY_MESSAGE", message(json!({"recipient_id": ann.user, "content": " "}))),
        (
            "too much to say",
            "VALIDATION_ERROR",
            message(json!({"recipient_id": ann.user, "content": "x".repeat(70_000)})),
        ),
        ("U+0000", "VALIDATION_ERROR", message(json!({"recipient_id": ann.user, "content": "a\u{0}b"}))),
        ("a name that is taken", "CONFLICT", api.complete(&invitation, "phone-x", "bob")),
        ("a device that is taken", "CONFLICT", api.complete(&invitation, &ann.id, "x")),
        (
            "an upload's name that is taken",
            "CONFLICT",
            api.outgoing(ann, &json!({"upload_id": "u", "reads": []})),
        ),
        ("a device id that cannot be", "VALIDATION_ERROR", api.complete(&invitation, "a device", "x")),
        ("an overlong device id", "VALIDATION_ERROR", api.complete(&invitation, &"x".repeat(129), "x")),
        ("a name that cannot be", "VALIDATION_ERROR", api.complete(&invitation, "phone-x", "a\u{7}")),
        (
            "an overlong password",
            "VALIDATION_ERROR",
            api.post("/api/auth/login", &json!({"username": "b", "password": "x".repeat(1025)})),
        ),
        ("a cursor that is none", "CURSOR_EXPIRED", api.incoming(ann, "x", 1)),
        ("an overlong cursor", "CURSOR_EXPIRED", api.incoming(ann, &"x".repeat(20_000), 1)),
        ("too many items", "PAYLOAD_TOO_LARGE", api.outgoing(ann, &items)),
        ("a large body", "PAYLOAD_TOO_LARGE", login(api, large)),
        (
            "a body that is large unpacked",
            "PAYLOAD_TOO_LARGE",
            login(api, unpacked).header("content-encoding", "gzip"),
        ),
    ]
}

/// The same request, sent to a server with these settings.
fn moved(api: &Api, base: &str, request: RequestBuilder) -> RequestBuilder {
    let (client, request) = request.build_split();
    let mut request = request.unwrap();
    *request.url_mut() = request.url().as_str().replacen(&api.base, base, 1).parse().unwrap();
    RequestBuilder::from_parts(client, request)
}

#[tokio::test]
async fn every_code_of_the_documents_is_given_for_its_reasons_in_the_one_shape() {
    let api = Api::start().await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let mut seen = check(unreadable(&api, &jwt, &ann)).await;
    seen.extend(check(refused(&api, &jwt, &ann).await).await);

    // What is away, or not there yet.
    let (database, redis) = (api.database.url(), Servers::shared().await.redis_url_of(posduif_testkit::API));
    let server = |database: &str, redis: &str| {
        let yaml = format!(
            "tenants: [{{id: {}, url: '{database}'}}]\nredis: {{url: '{redis}'}}\nauth: {{jwt_secret: '{SECRET}'}}",
            api.tenant
        );
        serve(&Config::from_yaml(&yaml).unwrap())
    };
    let (no_database, first, _) = server("postgres://u@127.0.0.1:1/d", &redis);
    let (no_redis, second, _) = server(database, "redis://127.0.0.1:1");
    let users = api.get("/api/users").bearer_auth(&jwt);
    let cases = vec![
        ("PostgreSQL is away", "DATABASE_ERROR", moved(&api, &no_database, users)),
        ("Redis is away", "REDIS_ERROR", moved(&api, &no_redis, api.incoming(&ann, "start", 1))),
        (
            "no ticket without Redis",
            "REDIS_ERROR",
            moved(&api, &no_redis, api.post("/api/sse/ticket", &json!({})).bearer_auth(&jwt)),
        ),
    ];
    seen.extend(check(cases).await);
    first.cancel();
    second.cancel();

    let yaml = format!(
        "tenants: [{{id: {}, url: '{database}'}}]\nredis: {{url: '{redis}'}}\nauth: {{jwt_secret: '{SECRET}'}}\n\
         rate_limit: {{requests_per_minute: 1, burst: 1}}",
        api.tenant
    );
    let (busy, third, _) = serve(&Config::from_yaml(&yaml).unwrap());
    ok(moved(&api, &busy, api.get("/api/users").bearer_auth(&jwt))).await;
    let again = moved(&api, &busy, api.get("/api/users").bearer_auth(&jwt));
    seen.extend(check(vec![("too often", "RATE_LIMITED", again)]).await);
    third.cancel();

    // An entry that the ingester never wrote.
    let since = api.snapshot(&ann, 500).await.last().unwrap()["cursor"].as_str().unwrap().to_owned();
    let tester = Servers::shared().await.redis_url();
    let mut connection = connect(tester, Timeouts::default()).await.unwrap();
    let bucket = Bucket::User(ann.user);
    let at = api.commit(None, &[bucket], &[put("messages", json!({"id": bob}), json!({"id": bob}))]).await;
    ok(api.incoming(&ann, &since, 10)).await;
    let epoch = api.log.lock().await.epoch;
    let stream = Keys::new(&api.tenant).bucket(&epoch, &bucket);
    let odd = redis::cmd("XADD").arg((stream, format!("{}-9", at.get()), "odd", "odd")).to_owned();
    let () = odd.query_async(&mut connection).await.unwrap();
    seen.extend(check(vec![("a corrupt log", "INTERNAL_ERROR", api.incoming(&ann, &since, 10))]).await);

    let state = Keys::new(&api.tenant).state();
    let () = redis::cmd("DEL").arg(state).query_async(&mut connection).await.unwrap();
    seen.extend(check(vec![("no log yet", "SYNC_ERROR", api.incoming(&ann, "start", 1))]).await);

    let known = known();
    assert!(known.len() > 10, "{known:?}");
    assert_eq!(seen, known, "a code has no case here, or is not one of the program's");
    assert_eq!(documented().into_keys().collect::<BTreeSet<_>>(), known, "the documents name other codes");
}

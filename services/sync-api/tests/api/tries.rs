//! Who tries to get in: log-ins and enrolment tokens, counted by all replicas together.

use std::time::{Duration, Instant};

use futures::future::join_all;
use posduif_changelog::{
    Timeouts,
    attempts::{Attempts, Counter, Tally},
    pool,
};
use posduif_runtime::config::Config;
use posduif_testkit::Servers;
use reqwest::RequestBuilder;
use serde_json::json;

use crate::fixture::{Api, PASSWORD, SECRET, is, ok, refused, serve};

/// Three failures at once, and another after 20 s. The callers come through a proxy.
const THREE: &str = "api: {trusted_proxies: ['127.0.0.0/8']}\n\
                     rate_limit: {burst: 1000, login_per_minute: 3, enrollment_per_minute: 3}";

trait From {
    fn from(self, address: &str) -> Self;
}

impl From for RequestBuilder {
    fn from(self, address: &str) -> Self {
        self.header("X-Forwarded-For", address)
    }
}

fn login(api: &Api, username: &str, password: &str, from: &str) -> RequestBuilder {
    api.post("/api/auth/login", &json!({"username": username, "password": password})).from(from)
}

/// A name that no other test tries.
fn unique(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::new_v4().simple())
}

/// An address that no other test calls from.
fn address() -> String {
    let bytes = uuid::Uuid::new_v4().into_bytes();
    std::net::Ipv6Addr::from(u128::from_be_bytes(bytes) | 0x2001 << 112).to_string()
}

async fn web_user(api: &Api, name: &str) {
    let user = api.user(name, "web").await;
    let hash = posduif_accounts::password::hash(PASSWORD).unwrap();
    let sql = "INSERT INTO posduif_engine.user_credentials (user_id, password_hash) VALUES ($1, $2)";
    api.sql.execute(sql, &[&user.uuid(), &hash]).await.unwrap();
}

#[tokio::test]
async fn failed_log_ins_of_an_address_are_counted_and_good_ones_not() {
    let api = Api::with(THREE).await;
    web_user(&api, "bob").await;
    let here = address();
    for _ in 0..6 {
        ok(login(&api, "bob", PASSWORD, &here)).await;
    }
    for _ in 0..3 {
        assert_eq!(refused(login(&api, &unique("x"), "wrong", &here)).await, is(401, "UNAUTHORIZED"));
    }
    let response = login(&api, "bob", PASSWORD, &here).send().await.unwrap();
    let header = |name: &str| response.headers()[name].to_str().unwrap().parse::<u64>().unwrap();
    assert_eq!(response.status(), 429);
    assert!((1..=20).contains(&header("retry-after")), "{response:?}");
    assert_eq!((header("x-ratelimit-limit"), header("x-ratelimit-remaining")), (3, 0));
    assert!((41..=60).contains(&header("x-ratelimit-reset")), "{response:?}");
    ok(login(&api, "bob", PASSWORD, &address())).await;
}

#[tokio::test]
async fn a_name_that_is_attacked_from_everywhere_still_gets_in_from_where_it_was_before() {
    let api = Api::with(THREE).await;
    web_user(&api, "bob").await;
    let home = address();
    ok(login(&api, "bob", PASSWORD, &home)).await;
    for _ in 0..3 {
        assert_eq!(refused(login(&api, "bob", "wrong", &address())).await, is(401, "UNAUTHORIZED"));
    }
    for password in ["wrong", PASSWORD] {
        assert_eq!(refused(login(&api, "bob", password, &address())).await, is(429, "RATE_LIMITED"));
    }
    ok(login(&api, "bob", PASSWORD, &home)).await;
    // Others have their own count, and a name that nobody has is counted alike.
    web_user(&api, "jane").await;
    ok(login(&api, "jane", PASSWORD, &address())).await;
    for expected in [401, 401, 401, 429] {
        assert_eq!(refused(login(&api, "nobody", PASSWORD, &address())).await.0, expected);
    }
    let elsewhere = |from: &str| {
        let body = json!({"username": unique("bob"), "password": "x", "tenant_id": "no-such-tenant"});
        api.post("/api/auth/login", &body).from(from)
    };
    assert_eq!(refused(elsewhere(&address())).await, is(401, "UNAUTHORIZED"));
}

#[tokio::test]
async fn guesses_at_the_same_moment_are_counted_one_by_one() {
    let api = Api::with(THREE).await;
    web_user(&api, "bob").await;
    let addresses: Vec<String> = (0..40).map(|_| address()).collect();
    let guesses = addresses.iter().map(|from| refused(login(&api, "bob", "wrong", from)));
    let answers = join_all(guesses).await;
    let looked_at = answers.iter().filter(|answer| answer.0 == 401).count();
    assert!((3..=4).contains(&looked_at), "{looked_at}");
    assert!(answers.iter().all(|answer| [401, 429].contains(&answer.0)), "{answers:?}");
}

#[tokio::test]
async fn all_replicas_count_together() {
    let api = Api::with(THREE).await;
    let redis = Servers::shared().await.redis_url_of(posduif_testkit::API);
    let (url, own) =
        (api.database.url(), format!("redis: {{url: '{redis}'}}\nauth: {{jwt_secret: '{SECRET}'}}"));
    let config = Config::from_yaml(&format!("tenants: [{{url: '{url}'}}]\n{own}\n{THREE}")).unwrap();
    let (base, shutdown, _) = serve(&config);
    let here = address();
    for _ in 0..3 {
        assert_eq!(refused(login(&api, &unique("x"), "wrong", &here)).await, is(401, "UNAUTHORIZED"));
    }
    let there = reqwest::Client::new().post(format!("{base}/api/auth/login"));
    let there = there.json(&json!({"username": unique("x"), "password": "wrong"})).from(&here);
    assert_eq!(refused(there).await, is(429, "RATE_LIMITED"));
    shutdown.cancel();
}

#[tokio::test]
async fn what_is_counted_goes_by_itself_and_names_nobody() {
    let servers = Servers::private().await;
    let api = Api::on(&servers, THREE).await;
    web_user(&api, "canary-of-a-name").await;
    ok(login(&api, "canary-of-a-name", PASSWORD, "203.0.113.77")).await;
    for name in ["canary-of-a-name", "canary-of-nobody"] {
        assert_eq!(refused(login(&api, name, "wrong", "203.0.113.77")).await.0, 401);
    }
    let unknown = posduif_accounts::token::Token::generate(&api.tenant);
    let asked = api.get(&format!("/api/enrollment/{}", unknown.expose())).from("203.0.113.77");
    assert_eq!(refused(asked).await.0, 404);
    let mut redis = api.redis_of(&servers).await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut redis).await.unwrap();
    let counted: Vec<&String> = keys.iter().filter(|key| key.contains(":attempts:")).collect();
    // One for the address, two for the names; for the token one for the address, one for the tenant.
    assert_eq!(counted.len(), 5, "{keys:?}");
    assert_eq!(keys.iter().filter(|key| key.contains(":familiar:")).count(), 1);
    let tenant = format!("posduif:{{{}}}:", api.tenant);
    for key in &keys {
        assert!(key.starts_with(&tenant) || key.starts_with("posduif:{@}:attempts:"), "{key}");
        assert!(!key.contains("canary") && !key.contains("203.0.113"), "{key}");
    }
    for key in counted {
        let left: i64 = redis::cmd("PTTL").arg(key).query_async(&mut redis).await.unwrap();
        assert!((1..=60_000).contains(&left), "{key}: {left}");
    }
}

#[tokio::test]
async fn log_ins_go_on_without_redis_and_each_replica_counts_for_itself() {
    let mut servers = Servers::private().await;
    let api = Api::on(&servers, THREE).await;
    web_user(&api, "bob").await;
    servers.redis_mut().kill9().await;
    let here = address();
    ok(login(&api, "bob", PASSWORD, &here)).await;
    for _ in 0..2 {
        assert_eq!(refused(login(&api, &unique("x"), "wrong", &here)).await, is(401, "UNAUTHORIZED"));
    }
    assert_eq!(refused(login(&api, "bob", PASSWORD, &here)).await, is(429, "RATE_LIMITED"));
    ok(login(&api, "bob", PASSWORD, &address())).await;
}

#[tokio::test]
async fn enrolment_tokens_that_nobody_made_are_counted_and_others_not() {
    let api = Api::with(THREE).await;
    web_user(&api, "bob").await;
    let jwt = ok(login(&api, "bob", PASSWORD, &address())).await["token"].as_str().unwrap().to_owned();
    let token = api.enrollment_token(&jwt, &json!({})).await;
    let here = address();
    let look = |token: &str| api.get(&format!("/api/enrollment/{token}")).from(&here);
    for _ in 0..6 {
        ok(look(&token)).await;
    }
    ok(api.complete(&token, "phone", "ann").from(&here)).await;
    // Used by another device, which is no guess.
    for _ in 0..6 {
        let again = api.complete(&token, "thief", "eve").from(&here);
        assert_eq!(refused(again).await, is(400, "INVALID_TOKEN"));
    }
    let unknown = || posduif_accounts::token::Token::generate(&api.tenant).expose().to_owned();
    assert_eq!(refused(look(&unknown())).await, is(404, "NOT_FOUND"));
    assert_eq!(refused(look("nonsense")).await, is(404, "NOT_FOUND"));
    let guess = api.complete(&unknown(), "thief", "eve").from(&here);
    assert_eq!(refused(guess).await, is(400, "INVALID_TOKEN"));
    assert_eq!(refused(look(&token)).await, is(429, "RATE_LIMITED"));
    let guess = api.complete(&token, "phone", "ann").from(&here);
    assert_eq!(refused(guess).await, is(429, "RATE_LIMITED"));
    ok(api.complete(&token, "phone", "ann").from(&address())).await;
}

#[tokio::test]
async fn a_tenant_that_is_guessed_at_from_everywhere_still_enrols_those_who_do_not_guess() {
    let api = Api::with(THREE).await;
    web_user(&api, "bob").await;
    let jwt = ok(login(&api, "bob", PASSWORD, &address())).await["token"].as_str().unwrap().to_owned();
    let unknown = || posduif_accounts::token::Token::generate(&api.tenant).expose().to_owned();
    let guess = |from: &str| api.get(&format!("/api/enrollment/{}", unknown())).from(from);
    let guesser = address();
    assert_eq!(refused(guess(&guesser)).await.0, 404);
    // The tenant forgets one each two seconds; as many as it holds come at once.
    let crowd: Vec<String> = (0..40).map(|_| address()).collect();
    for answer in join_all(crowd.iter().map(|from| refused(guess(from)))).await {
        assert_eq!(answer.0, 404);
    }
    assert_eq!(refused(guess(&guesser)).await, is(429, "RATE_LIMITED"));
    let token = api.enrollment_token(&jwt, &json!({})).await;
    ok(api.complete(&token, "phone", "ann").from(&address())).await;
}

#[tokio::test]
async fn a_web_user_makes_so_many_tokens() {
    let api = Api::with(THREE).await;
    web_user(&api, "bob").await;
    let jwt = ok(login(&api, "bob", PASSWORD, &address())).await["token"].as_str().unwrap().to_owned();
    for _ in 0..3 {
        api.enrollment_token(&jwt, &json!({})).await;
    }
    let fourth = api.post("/api/enrollment/create", &json!({})).bearer_auth(&jwt);
    assert_eq!(refused(fourth).await, is(429, "RATE_LIMITED"));
}

#[tokio::test]
async fn a_counter_forgets_at_a_steady_rate() {
    let redis = pool(Servers::shared().await.redis_url(), 1, Timeouts::default()).unwrap();
    let attempts = Attempts::new(redis);
    let counter = Counter::of_all(&unique("counter"));
    // One is forgotten each half a second.
    let take = async || attempts.take(&counter, 120).await.unwrap();
    let started = Instant::now();
    for _ in 0..120 {
        assert!(matches!(take().await, Tally::Allowed { .. }));
    }
    let mut more = 0;
    loop {
        match take().await {
            Tally::Allowed { .. } => more += 1,
            Tally::Refused { wait } => {
                assert!(wait <= Duration::from_millis(500), "{wait:?}");
                if started.elapsed() > Duration::from_millis(1_600) {
                    break;
                }
                tokio::time::sleep(wait).await;
            }
        }
    }
    let most = started.elapsed().as_millis() / 500;
    assert!((3..=most).contains(&more), "{more} of {most}");
    attempts.give_back(&counter, 120).await.unwrap();
    assert!(matches!(attempts.look(&counter, 120).await.unwrap(), Tally::Allowed { .. }));
    // What is counted although it is too much keeps nobody out for longer.
    for _ in 0..500 {
        attempts.count(&counter, 120).await.unwrap();
    }
    let Tally::Refused { wait } = attempts.look(&counter, 120).await.unwrap() else { panic!("allowed") };
    assert!(wait <= Duration::from_millis(500), "{wait:?}");
}

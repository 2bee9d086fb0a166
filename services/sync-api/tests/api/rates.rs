//! Who may ask how much of one replica, and who pays for whom.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::json;
use tokio::time::timeout;

use crate::fixture::{Api, By, Phone, is, refused};

/// Five at once, and the next one after a minute.
const FIVE: &str =
    "rate_limit: {requests_per_minute: 1, burst: 5, login_per_minute: 1000, enrollment_per_minute: 1000}";
const SOON: Duration = Duration::from_secs(20);

/// Status, and what the headers say of limit, what remains and when it is full again.
async fn told(request: RequestBuilder) -> (u16, Option<[u64; 3]>) {
    let response = request.send().await.unwrap();
    let number = |name: &str| Some(response.headers().get(name)?.to_str().unwrap().parse::<u64>().unwrap());
    let (limit, left, reset) =
        (number("x-ratelimit-limit"), number("x-ratelimit-remaining"), number("x-ratelimit-reset"));
    if response.status() == 429 {
        assert!(number("retry-after").is_some_and(|seconds| (1..=60).contains(&seconds)));
        assert_eq!(left, Some(0));
    }
    let told = limit.zip(left).zip(reset).map(|((limit, left), reset)| [limit, left, reset]);
    (response.status().as_u16(), told)
}

fn status(api: &Api, phone: &Phone) -> RequestBuilder {
    api.get("/api/sync/status").by(phone)
}

/// A phone whose credential is cached and paid nothing yet.
async fn cached(api: &Api, jwt: &str, name: &str) -> Phone {
    let phone = api.phone(jwt, name).await;
    let cache = posduif_changelog::device_auth::DeviceAuthCache::new(api.redis().await, &api.tenant);
    let id = phone.id.parse().unwrap();
    let generation = cache.get(&id).await.unwrap().generation;
    let hash = posduif_accounts::token::Token::parse(&phone.token).unwrap().hash();
    let auth = posduif_changelog::device_auth::DeviceAuth { user: phone.user, token_hash: hash };
    cache.put(&id, &auth, &generation).await.unwrap();
    phone
}

#[tokio::test]
async fn a_device_that_asks_too_much_is_told_when_to_come_back_and_no_other_pays_for_it() {
    let api = Api::with(FIVE).await;
    let (_, jwt) = api.web_user("bob").await;
    let (ann, joe) = (cached(&api, &jwt, "ann").await, cached(&api, &jwt, "joe").await);
    for left in (0..5).rev() {
        assert_eq!(told(status(&api, &ann)).await, (200, Some([5, left, 60 * (5 - left)])));
    }
    assert_eq!(told(status(&api, &ann)).await, (429, Some([5, 0, 300])));
    assert_eq!(refused(api.outgoing(&ann, &json!({}))).await, is(429, "RATE_LIMITED"));
    // A stream is a request as well.
    assert_eq!(refused(api.get(&format!("/sse/mobile/{}", ann.id)).by(&ann)).await, is(429, "RATE_LIMITED"));
    assert_eq!(told(status(&api, &joe)).await, (200, Some([5, 4, 60])));
}

#[tokio::test]
async fn a_web_user_has_a_limit_of_its_own() {
    let api = Api::with(FIVE).await;
    let ((_, bob), (_, jane)) = (api.web_user("bob").await, api.web_user("jane").await);
    let count = |jwt: &str| api.get("/api/messages/unread-count").bearer_auth(jwt);
    for left in (0..5).rev() {
        assert_eq!(told(count(&bob)).await, (200, Some([5, left, 60 * (5 - left)])));
    }
    assert_eq!(refused(count(&bob)).await, is(429, "RATE_LIMITED"));
    let ticket = api.post("/api/sse/ticket", &json!({})).bearer_auth(&bob);
    assert_eq!(refused(ticket).await, is(429, "RATE_LIMITED"));
    assert_eq!(told(count(&jane)).await.0, 200);
}

#[tokio::test]
async fn who_only_knows_a_devices_id_uses_up_nothing_of_the_device() {
    let api = Api::with(FIVE).await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = cached(&api, &jwt, "ann").await;
    let thief = Phone { token: forged(&ann.token), ..ann.clone() };
    let answers: Vec<u16> = {
        let mut answers = Vec::new();
        for _ in 0..10 {
            answers.push(told(status(&api, &thief)).await.0);
        }
        answers
    };
    assert!(answers.starts_with(&[401]) && answers.ends_with(&[429]), "{answers:?}");
    // The same address, and a limit that is whole.
    assert_eq!(told(status(&api, &ann)).await, (200, Some([5, 4, 60])));
}

/// A well-formed token of the same tenant that is nobody's.
fn forged(token: &str) -> String {
    let flipped = if token.ends_with('A') { "E" } else { "A" };
    format!("{}{flipped}", &token[..token.len() - 1])
}

#[tokio::test]
async fn a_flood_of_bogus_credentials_does_not_reach_postgres() {
    let api = Api::with(FIVE).await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = cached(&api, &jwt, "ann").await;
    let bogus = |n: usize| Phone { id: format!("bogus-{n}"), token: forged(&ann.token), user: ann.user };
    for n in 0..5 {
        told(status(&api, &bogus(n))).await;
    }
    // From here on a look at a credential would take for ever.
    let other = api.database.connect().await;
    let lock = "BEGIN; LOCK TABLE posduif_engine.device_secrets, devices";
    other.batch_execute(lock).await.unwrap();
    for n in 0..50 {
        let answer = timeout(SOON, refused(status(&api, &bogus(n)))).await.unwrap();
        assert_eq!(answer, is(429, "RATE_LIMITED"));
    }
    let answer = timeout(SOON, told(api.incoming(&ann, "start", 1))).await.unwrap();
    assert_ne!(answer.0, 429, "{answer:?}");
    assert_eq!(answer.1, Some([5, 4, 60]));
    other.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test]
async fn a_path_that_is_written_otherwise_asks_the_address_first_as_well() {
    let api = Api::with("rate_limit: {requests_per_minute: 1, burst: 5, login_per_minute: 6}").await;
    let login = |path: &str| told(api.post(path, &json!({"username": "nobody", "password": "x"})));
    for left in (0..5).rev() {
        assert_eq!(login("/api/auth/%6cogin").await, (401, Some([5, left, 60 * (5 - left)])));
    }
    // Had one of these been tried, the next would be refused by the limit of log-ins.
    for path in ["/api/auth/login", "/api/auth/%6cogin", "/%61pi/%61uth/%6Cogin", "/api/auth/log%69n"] {
        assert_eq!(login(path).await, (429, Some([5, 0, 300])), "{path}");
    }
}

#[tokio::test]
async fn paths_for_everybody_are_limited_by_address_whatever_credential_is_claimed() {
    let api = Api::with(FIVE).await;
    let (_, jwt) = api.web_user("bob").await;
    let login = || api.post("/api/auth/login", &json!({"username": "nobody", "password": "x"}));
    // One was the log-in of bob.
    for left in (0..4).rev() {
        let answer = told(login().bearer_auth(&jwt).header("X-Device-ID", "phone")).await;
        assert_eq!(answer, (401, Some([5, left, 60 * (5 - left)])));
    }
    for request in [
        login().bearer_auth(&jwt),
        api.get("/api/enrollment/unknown"),
        api.complete("unknown", "d", "u").bearer_auth(&jwt),
        api.get("/no/such/path"),
        api.request(Method::DELETE, "/api/users"),
        api.get("/api/users"),
        api.get("/sse/web/x?ticket=y"),
    ] {
        assert_eq!(refused(request).await, is(429, "RATE_LIMITED"));
    }
    let healthy = told(api.get("/health")).await;
    assert_eq!(healthy, (200, None));
}

#[tokio::test]
async fn only_a_trusted_proxy_is_believed_about_whom_it_forwards() {
    let unknown = |api: &Api, from: &'static str| api.get("/api/nothing").header("X-Forwarded-For", from);
    let api = Api::with(FIVE).await;
    for from in ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"] {
        assert_eq!(told(unknown(&api, from)).await.0, 404);
    }
    assert_eq!(refused(unknown(&api, "192.0.2.6")).await, is(429, "RATE_LIMITED"));

    let api = Api::with(&format!("api: {{trusted_proxies: ['127.0.0.0/8']}}\n{FIVE}")).await;
    for _ in 0..5 {
        assert_eq!(told(unknown(&api, "198.51.100.1, 192.0.2.1")).await.0, 404);
    }
    // What the caller wrote left of that is nothing that the proxy says.
    assert_eq!(refused(unknown(&api, "203.0.113.5, 192.0.2.1")).await, is(429, "RATE_LIMITED"));
    assert_eq!(told(unknown(&api, "192.0.2.2")).await, (404, Some([5, 4, 60])));
    // All of a /64 is one caller.
    for host in ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4", "2001:db8::5"] {
        assert_eq!(told(unknown(&api, host)).await.0, 404);
    }
    assert_eq!(refused(unknown(&api, "2001:db8::6")).await, is(429, "RATE_LIMITED"));
    assert_eq!(told(unknown(&api, "2001:db8:0:1::1")).await.0, 404);
}

#[tokio::test]
async fn without_limits_nothing_is_said_of_them() {
    let api = Api::start().await;
    for _ in 0..200 {
        assert_eq!(told(api.get("/api/nothing")).await, (404, None));
    }
}

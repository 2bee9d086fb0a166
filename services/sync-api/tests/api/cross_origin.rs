//! Browsers: whose pages may call, and what every answer tells them not to do.

use reqwest::{Method, RequestBuilder, Response};
use serde_json::json;

use crate::{
    fixture::{Api, ok},
    listener::Listener,
};

const APP: &str = "https://app.example";
const SECTIONS: &str = "api: {cors: {allowed_origins: ['https://app.example', 'http://localhost:3000'], max_age: 10m}}\n\
                        rate_limit: {requests_per_minute: 1, burst: 4, login_per_minute: 1000}";

async fn answered(request: RequestBuilder, origin: &str) -> Response {
    request.header("Origin", origin).send().await.unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

fn allowed(response: &Response) -> Option<&str> {
    header(response, "access-control-allow-origin")
}

fn preflight(api: &Api, path: &str, method: &str, headers: &str) -> RequestBuilder {
    let request = api.request(Method::OPTIONS, path).header("Access-Control-Request-Method", method);
    request.header("Access-Control-Request-Headers", headers)
}

/// The members of a list, in one order.
fn members(list: Option<&str>) -> Vec<String> {
    let mut members: Vec<_> = list.unwrap().split(',').map(|part| part.trim().to_lowercase()).collect();
    members.sort();
    members
}

#[tokio::test]
async fn a_preflight_is_answered_before_any_credential_or_limit() {
    let api = Api::with(SECTIONS).await;
    let asked = "authorization, content-type, content-encoding, x-device-id, x-request-id, last-event-id";
    // More than any bucket holds.
    for _ in 0..10 {
        let response = answered(preflight(&api, "/api/sync/outgoing", "POST", asked), APP).await;
        assert_eq!(response.status(), 200);
        assert_eq!(allowed(&response), Some(APP));
        assert_eq!(members(header(&response, "access-control-allow-headers")).len(), 6);
        let methods = members(header(&response, "access-control-allow-methods"));
        assert_eq!(methods, ["delete", "get", "post", "put"]);
        assert_eq!(header(&response, "access-control-max-age"), Some("600"));
        assert_eq!(header(&response, "access-control-allow-credentials"), None);
        assert!(header(&response, "x-request-id").is_some() && header(&response, "vary").is_some());
    }
    for (origin, method, headers) in [
        ("https://evil.example", "GET", "authorization"),
        ("https://app.example.evil.example", "GET", "authorization"),
        ("http://app.example", "GET", "authorization"),
        ("null", "GET", "authorization"),
        (APP, "PATCH", "authorization"),
        (APP, "GET", "x-other"),
    ] {
        let response = answered(preflight(&api, "/api/users", method, headers), origin).await;
        assert_eq!(response.status(), 400, "{origin} {method} {headers}");
        assert!(header(&response, "access-control-allow-methods").is_none());
        assert!(response.text().await.unwrap().contains("VALIDATION_ERROR"));
    }
}

#[tokio::test]
async fn answers_refusals_and_limits_can_be_read_by_allowed_origins_only() {
    let api = Api::with(SECTIONS).await;
    let (_, jwt) = api.web_user("bob").await;
    let users = || api.get("/api/users").bearer_auth(&jwt);
    let exposed =
        ["retry-after", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "x-request-id"];
    let mut seen = Vec::new();
    for request in [users(), api.get("/api/users"), users(), users(), users(), users()] {
        let response = answered(request, APP).await;
        assert_eq!(allowed(&response), Some(APP), "{response:?}");
        assert_eq!(members(header(&response, "access-control-expose-headers")), exposed);
        assert!(header(&response, "x-ratelimit-limit").is_some());
        assert!(members(header(&response, "vary")).contains(&"origin".to_owned()));
        seen.push(response.status().as_u16());
    }
    assert_eq!(seen, [200, 401, 200, 200, 200, 429]);
    // A server to server call, or a page of another origin: the same answer, and no permission.
    let response = answered(api.get("/health"), "https://evil.example").await;
    assert_eq!((response.status().as_u16(), allowed(&response)), (200, None));
    assert_eq!(allowed(&api.get("/health").send().await.unwrap()), None);
}

#[tokio::test]
async fn a_star_allows_everybody_and_an_empty_list_nobody() {
    let api = Api::with("api: {cors: {allowed_origins: '*'}}").await;
    let response = answered(api.get("/health"), "https://anything.example").await;
    assert_eq!(allowed(&response), Some("*"));
    assert_eq!(header(&response, "access-control-allow-credentials"), None);
    let response = answered(preflight(&api, "/api/users", "GET", "authorization"), "https://a.example").await;
    assert_eq!((response.status().as_u16(), allowed(&response)), (200, Some("*")));

    let api = Api::start().await;
    let response = answered(api.get("/health"), APP).await;
    assert_eq!((allowed(&response), header(&response, "vary")), (None, None));
    let response = answered(preflight(&api, "/api/users", "GET", "authorization"), APP).await;
    assert_eq!((response.status().as_u16(), allowed(&response)), (405, None));
}

#[tokio::test]
async fn a_page_of_another_origin_opens_a_stream_with_a_ticket() {
    let api = Api::with("api: {cors: {allowed_origins: ['https://app.example']}}").await;
    let (bob, jwt) = api.web_user("bob").await;
    let ticket = ok(api.post("/api/sse/ticket", &json!({})).bearer_auth(&jwt).header("Origin", APP)).await;
    let path = format!("/sse/web/{bob}?ticket={}", ticket["ticket"].as_str().unwrap());
    let response = answered(api.get(&path), APP).await;
    assert_eq!((response.status().as_u16(), allowed(&response)), (200, Some(APP)));
    drop(response);
    let ticket = ok(api.post("/api/sse/ticket", &json!({})).bearer_auth(&jwt)).await;
    let path = format!("/sse/web/{bob}?ticket={}", ticket["ticket"].as_str().unwrap());
    // The first event is there, so nothing keeps the stream back.
    Listener::open(api.get(&path).header("Origin", APP)).await;
}

#[tokio::test]
async fn every_answer_says_what_a_browser_must_not_do_with_it() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let token = api.enrollment_token(&jwt, &json!({})).await;
    let qr = format!("/api/enrollment/{token}/qr.svg");
    for path in ["/health", "/api/users", "/api/users/no-id", "/api/messages", "/nothing", &qr] {
        for request in [api.get(path), api.get(path).bearer_auth(&jwt)] {
            let response = request.send().await.unwrap();
            assert_eq!(header(&response, "x-content-type-options"), Some("nosniff"), "{path}");
            assert_eq!(header(&response, "referrer-policy"), Some("no-referrer"), "{path}");
            assert_eq!(header(&response, "cache-control"), Some("no-store"), "{path}");
            assert_eq!(header(&response, "strict-transport-security"), None, "{path}");
        }
    }
    let response = api.get(&qr).bearer_auth(&jwt).send().await.unwrap();
    assert_eq!(header(&response, "content-security-policy"), Some("default-src 'none'; sandbox"));
    assert_eq!(header(&response, "content-type"), Some("image/svg+xml"));
    let image = response.text().await.unwrap();
    assert!(image.contains("<svg") && !image.contains("style"), "{image}");
}

//! The OpenAPI document: equal to the committed copy, served beside what it describes, and true of it.

use std::{collections::BTreeSet, path::Path};

use posduif_sync_api::document;
use reqwest::{Method, header::ALLOW};
use serde_json::{Value, json};

use crate::fixture::{Api, By, is, ok, refused};

const METHODS: [&str; 8] = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"];

/// Every path with its methods.
fn operations() -> Vec<(String, BTreeSet<String>)> {
    let document: Value = serde_json::from_str(&document::text().unwrap()).unwrap();
    let paths = document["paths"].as_object().unwrap().iter();
    let methods = |item: &Value| item.as_object().unwrap().keys().map(|name| name.to_uppercase()).collect();
    paths.map(|(path, item)| (path.clone(), methods(item))).collect()
}

/// An address of the path: its variables have a value that names nothing.
fn address(path: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { "none" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

#[test]
fn the_committed_copy_is_the_document() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let committed = std::fs::read_to_string(file).unwrap_or_default();
    let is_equal = committed == document::text().unwrap();
    let write = "cargo run -p posduif-sync-api -- --print-openapi > docs/openapi.json";
    assert!(is_equal, "docs/openapi.json is not what the code says; write it anew: {write}");
}

#[tokio::test]
async fn every_path_is_served_by_the_methods_that_are_documented_and_by_no_other() {
    let api = Api::start().await;
    let operations = operations();
    assert!(operations.len() > 20, "{operations:?}");
    for (path, documented) in operations {
        for name in METHODS {
            let request = api.request(name.parse().unwrap(), &address(&path));
            let answer = request.send().await.unwrap();
            let is_refused = answer.status() == 405;
            assert_ne!(documented.contains(name), is_refused, "{name} {path}: {}", answer.status());
            if is_refused {
                let allowed = answer.headers()[ALLOW].to_str().unwrap().split(", ").map(str::to_owned);
                assert_eq!(allowed.collect::<BTreeSet<_>>(), documented, "{name} {path}");
            }
        }
    }
    let wrong = api.request(Method::PATCH, "/api/messages");
    assert_eq!(refused(wrong).await, is(405, "METHOD_NOT_ALLOWED"));
}

#[tokio::test]
async fn the_document_is_served_and_a_page_that_shows_it_without_anything_from_elsewhere() {
    let api = Api::start().await;
    let served = api.get("/api/openapi.json").send().await.unwrap();
    assert_eq!(served.headers()["content-type"], "application/json");
    assert_eq!(served.text().await.unwrap(), document::text().unwrap());

    let page = api.get("/api/docs/").send().await.unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    let html = page.text().await.unwrap();
    let parts: Vec<&str> = html.split("src=\"").chain(html.split("href=\"")).collect();
    let named: BTreeSet<&str> = parts
        .iter()
        .filter_map(|part| Some(part.split_once('"')?.0))
        .filter(|name| name.contains('.') && !name.contains(['<', '\n']))
        .collect();
    assert!(named.len() >= 5, "{named:?}");
    for name in named {
        assert!(!name.contains("//"), "{name} comes from elsewhere");
        let part = api.get(&format!("/api/docs/{}", name.trim_start_matches("./"))).send().await.unwrap();
        assert_eq!(part.status(), 200, "{name}");
        assert_eq!(part.headers()["content-security-policy"], policy);
    }
    let start = api.get("/api/docs/swagger-initializer.js").send().await.unwrap().text().await.unwrap();
    assert!(start.contains("\"../openapi.json\"") && start.contains("\"validatorUrl\": \"none\""), "{start}");
    assert_eq!(refused(api.get("/api/docs/nothing.js")).await, is(404, "NOT_FOUND"));
}

#[tokio::test]
async fn an_operator_who_turns_the_description_off_serves_none_of_it() {
    let api = Api::with("api: {docs: false}").await;
    for path in ["/api/openapi.json", "/api/docs/", "/api/docs/index.html"] {
        assert_eq!(refused(api.get(path)).await, is(404, "NOT_FOUND"), "{path}");
    }
}

#[tokio::test]
async fn what_the_document_lets_pass_is_not_refused() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let nobody = ok(api.get("/api/users?filter=a%00b").bearer_auth(&jwt)).await;
    assert_eq!((&nobody["users"], &nobody["total"]), (&json!([]), &json!(0)));
    assert!(
        ok(api.post("/api/enrollment/create", &Value::Null).bearer_auth(&jwt)).await["token"].is_string()
    );
    // JSON does not tell a whole number from one with a zero behind its point.
    ok(api.outgoing(&ann, &json!({"pending_outgoing_count": 3.0}))).await;
    assert_eq!(ok(api.get("/api/sync/status").by(&ann)).await["pending_outgoing_count"], 3);
}

//! Bodies that are compressed, in both directions.

use std::io::Write;

use posduif_model::Bucket;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fixture::{Api, By, Phone, is, ok, put, refused};

async fn synced(api: &Api) -> (Phone, String) {
    let (_, jwt) = api.web_user("bob").await;
    let phone = api.phone(&jwt, "ann").await;
    let pages = api.snapshot(&phone, 100).await;
    (phone, pages.last().unwrap()["cursor"].as_str().unwrap().to_owned())
}

/// A client that leaves answers as they are.
fn plain() -> reqwest::Client {
    reqwest::Client::builder().no_gzip().no_brotli().no_zstd().build().unwrap()
}

fn encoding(response: &Response) -> Option<&str> {
    response.headers().get("content-encoding").map(|value| value.to_str().unwrap())
}

async fn answer(api: &Api, ann: &Phone, cursor: &str, accepted: &str) -> Response {
    let url = format!("{}/api/sync/incoming?since={cursor}", api.base);
    plain().get(url).by(ann).header("Accept-Encoding", accepted).send().await.unwrap()
}

#[tokio::test]
async fn long_answers_are_compressed_as_the_device_asks_and_short_ones_are_not() {
    let api = Api::start().await;
    let (ann, cursor) = synced(&api).await;
    for asked in ["gzip", "br", "zstd"] {
        assert_eq!(encoding(&answer(&api, &ann, &cursor, asked).await), None, "{asked}");
    }
    let long = put("messages", json!({"id": "m"}), json!({"id": "m", "content": "x".repeat(50_000)}));
    api.commit(None, &[Bucket::User(ann.user)], &[long]).await;
    for (asked, given) in [
        ("gzip", Some("gzip")),
        ("br", Some("br")),
        ("zstd", Some("zstd")),
        ("deflate;q=0, gzip;q=0.5", Some("gzip")),
        ("identity", None),
        ("lzma, identity", None),
    ] {
        let response = answer(&api, &ann, &cursor, asked).await;
        assert_eq!(encoding(&response), given, "{asked}");
        assert_eq!(response.status(), 200);
        let bytes = response.bytes().await.unwrap();
        assert_eq!(bytes.len() < 5_000, given.is_some(), "{asked}: {} bytes", bytes.len());
    }
    // Whatever the client's library agrees on is the same page.
    let page = ok(api.incoming(&ann, &cursor, 100)).await;
    assert_eq!(page["messages"][0]["content"].as_str().unwrap().len(), 50_000);
}

#[tokio::test]
async fn nothing_is_compressed_where_it_is_switched_off() {
    let api = Api::with("sync: {compression: false}").await;
    let (ann, cursor) = synced(&api).await;
    let long = put("messages", json!({"id": "m"}), json!({"id": "m", "content": "x".repeat(50_000)}));
    api.commit(None, &[Bucket::User(ann.user)], &[long]).await;
    assert_eq!(encoding(&answer(&api, &ann, &cursor, "br, gzip, zstd").await), None);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn upload(api: &Api, ann: &Phone, encoding: &str, body: Vec<u8>) -> RequestBuilder {
    let request = api.request(reqwest::Method::POST, "/api/sync/outgoing").by(ann);
    request.header("Content-Type", "application/json").header("Content-Encoding", encoding).body(body)
}

#[tokio::test]
async fn an_upload_may_be_gzip_within_both_limits() {
    let api = Api::with("api: {max_body_bytes: 20000, max_decoded_body_bytes: 200000}").await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let body = |content: &str| {
        let message = json!({"id": Uuid::new_v4(), "recipient_id": bob, "content": content});
        json!({ "messages": [message] }).to_string().into_bytes()
    };
    let long = "x".repeat(60_000);
    let receipt: Value = ok(upload(&api, &ann, "gzip", gzip(&body(&long)))).await;
    assert_eq!(receipt["synced_count"], 1);
    // Too many bytes as it arrives, whatever it would unpack to.
    assert_eq!(refused(upload(&api, &ann, "identity", body(&long))).await, is(413, "PAYLOAD_TOO_LARGE"));
    // Few bytes that unpack to too many.
    let bomb = gzip(&vec![b' '; 50 << 20]);
    let bombs = [gzip(&body(&"x".repeat(300_000))), bomb.get(..20_000).unwrap_or(&bomb).to_vec()];
    for bomb in bombs {
        assert!(bomb.len() <= 20_000);
        assert_eq!(refused(upload(&api, &ann, "gzip", bomb)).await, is(413, "PAYLOAD_TOO_LARGE"));
    }
    // What is not gzip, and what the server does not take in.
    assert_eq!(refused(upload(&api, &ann, "gzip", body("plain"))).await, is(400, "VALIDATION_ERROR"));
    for other in ["br", "zstd", "gzip, gzip"] {
        assert_eq!(
            refused(upload(&api, &ann, other, body("c"))).await,
            is(400, "VALIDATION_ERROR"),
            "{other}"
        );
    }
    let stored: i64 = api.sql.query_one("SELECT count(*) FROM messages", &[]).await.unwrap().get(0);
    assert_eq!(stored, 1);
}

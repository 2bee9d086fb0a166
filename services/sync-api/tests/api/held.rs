//! Older apps keep no cursor: the server keeps it for them, and moves it when an answer was written completely.

use std::time::Duration;

use posduif_model::Bucket;
use posduif_testkit::eventually;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fixture::{Api, By, Phone, ok, pluck, put};

async fn page(api: &Api, phone: &Phone) -> Value {
    ok(api.get("/api/sync/incoming?limit=2").by(phone)).await
}

/// Pages until the server has no more.
async fn catch_up(api: &Api, phone: &Phone) -> Vec<Value> {
    let _following = api.follow().await;
    let mut pages = vec![page(api, phone).await];
    while pages.last().unwrap()["has_more"] == true {
        let before = pages.last().unwrap()["cursor"].clone();
        // The cursor is kept once the answer was written, which may be a moment after it was read.
        let next = eventually(Duration::from_secs(20), "the next page", async || {
            let next = page(api, phone).await;
            Ok((next["cursor"] != before).then_some(next))
        });
        pages.push(next.await);
        assert!(pages.len() < 100);
    }
    pages
}

fn message(id: &str, content: &str) -> posduif_model::Change {
    put("messages", json!({"id": id}), json!({"id": id, "content": content}))
}

async fn cursor_moves(api: &Api, phone: &Phone, before: &Value) {
    eventually(Duration::from_secs(20), "the cursor to move", async || {
        let next = page(api, phone).await;
        Ok((next["messages"] == json!([]) && next["cursor"] == *before).then_some(()))
    })
    .await;
}

#[tokio::test]
async fn a_device_without_a_cursor_gets_a_snapshot_first_and_then_what_is_new() {
    let api = Api::start().await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let old = api.message(bob, ann.user, "old").await;
    let pages = catch_up(&api, &ann).await;
    assert!(pages.iter().all(|page| page["snapshot"] == true));
    assert_eq!(
        pages.iter().flat_map(|page| pluck(&page["messages"], "id")).collect::<Vec<_>>(),
        [old.to_string()]
    );
    cursor_moves(&api, &ann, &pages.last().unwrap()["cursor"]).await;

    api.commit(None, &[Bucket::User(ann.user)], &[message("m1", "c")]).await;
    let new = page(&api, &ann).await;
    assert_eq!((&new["snapshot"], pluck(&new["messages"], "id")), (&json!(false), vec!["m1"]));
    cursor_moves(&api, &ann, &new["cursor"]).await;
    // Its messages have arrived, as if it had sent the cursor.
    let status: String =
        api.sql.query_one("SELECT status FROM messages WHERE id = $1", &[&old]).await.unwrap().get(0);
    assert_eq!(status, "synced");
}

#[tokio::test]
async fn an_answer_that_broke_off_is_given_again() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let pages = catch_up(&api, &ann).await;
    cursor_moves(&api, &ann, &pages.last().unwrap()["cursor"]).await;
    // More than the sockets on the way can hold.
    let large = "x".repeat(1 << 20);
    for n in 0..24 {
        api.commit(None, &[Bucket::User(ann.user)], &[message(&format!("m{n}"), &large)]).await;
    }
    for _ in 0..3 {
        let mut stream =
            tokio::net::TcpStream::connect(api.base.strip_prefix("http://").unwrap()).await.unwrap();
        let head = format!(
            "GET /api/sync/incoming HTTP/1.1\r\nHost: x\r\nX-Device-ID: {}\r\nAuthorization: Bearer {}\r\n\r\n",
            ann.id, ann.token
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut some = vec![0; 64 * 1024];
        stream.read_exact(&mut some).await.unwrap();
        drop(stream);
    }
    let again = page(&api, &ann).await;
    assert_eq!(pluck(&again["messages"], "id")[0], "m0");
}

#[tokio::test]
async fn a_kept_cursor_that_expired_is_a_snapshot_and_no_error() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let pages = catch_up(&api, &ann).await;
    cursor_moves(&api, &ann, &pages.last().unwrap()["cursor"]).await;
    let rules = posduif_model::rule::RuleSet::new(&[]).unwrap();
    let at = crate::fixture::insert_lsn(&api.sql).await;
    api.log.lock().await.open(3, at, rules.hash().as_str(), None).await;
    assert_eq!(page(&api, &ann).await["snapshot"], true);
}

#[tokio::test]
async fn a_reinstalled_app_begins_with_a_snapshot() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let pages = catch_up(&api, &ann).await;
    cursor_moves(&api, &ann, &pages.last().unwrap()["cursor"]).await;
    let token = api.enrollment_token(&jwt, &json!({"username": "ann"})).await;
    let again = ok(api.complete(&token, &ann.id, "ann")).await;
    let ann = Phone { token: again["device_token"].as_str().unwrap().to_owned(), ..ann };
    assert_eq!(page(&api, &ann).await["snapshot"], true);
}

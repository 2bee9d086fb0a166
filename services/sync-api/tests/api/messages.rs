//! What web users send, list and read, and whom they see.

use reqwest::Method;
use serde_json::{Value, json};

use crate::fixture::{Api, By, is, ok, pluck, refused};

#[tokio::test]
async fn a_sent_message_is_answered_whole_and_waits_for_its_phone() {
    let api = Api::start().await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let request = api.post("/api/messages", &json!({"recipient_id": ann.user, "content": "hello"}));
    let response = request.bearer_auth(&jwt).send().await.unwrap();
    assert_eq!(response.status(), 201);
    let message: Value = response.json().await.unwrap();
    assert_eq!((&message["sender_id"], &message["status"]), (&json!(bob), &json!("pending_sync")));
    let same =
        ok(api.get(&format!("/api/messages/{}", message["id"].as_str().unwrap())).bearer_auth(&jwt)).await;
    assert_eq!(same, message);
    let users = ok(api.get("/api/users?filter=BO").bearer_auth(&jwt)).await;
    assert_eq!(users["users"][0]["last_message_sent"], "hello");
}

#[tokio::test]
async fn messages_that_cannot_be_sent_are_refused() {
    let api = Api::start().await;
    let (bob, jwt) = api.web_user("bob").await;
    for (recipient, content, expected) in [
        (json!("00000000-0000-0000-0000-000000000009"), "x", is(404, "INVALID_RECIPIENT")),
        (json!("no-uuid"), "x", is(404, "INVALID_RECIPIENT")),
        (json!(bob), "", is(400, "EMPTY_MESSAGE")),
        (json!(bob), "  ", is(400, "EMPTY_MESSAGE")),
        (json!(bob), "a\u{0}b", is(400, "VALIDATION_ERROR")),
    ] {
        let request = api.post("/api/messages", &json!({"recipient_id": recipient, "content": content}));
        assert_eq!(refused(request.bearer_auth(&jwt)).await, expected, "{recipient} {content:?}");
    }
    let bare = api.post("/api/messages", &json!({"recipient_id": bob})).bearer_auth(&jwt);
    assert_eq!(refused(bare).await, is(400, "EMPTY_MESSAGE"));
}

#[tokio::test]
async fn a_user_lists_its_own_messages_only() {
    let api = Api::start().await;
    let (bob, jwt) = api.web_user("bob").await;
    let (jane, _) = api.web_user("jane").await;
    let ann = api.user("ann", "mobile").await;
    for n in 0..3 {
        api.message(bob, ann, &format!("b{n}")).await;
        api.message(ann, bob, &format!("a{n}")).await;
        api.message(jane, ann, "not for bob").await;
    }
    let list = async |query: &str| ok(api.get(&format!("/api/messages{query}")).bearer_auth(&jwt)).await;
    let all = list("").await;
    assert_eq!((&all["total"], &all["limit"], &all["offset"]), (&json!(6), &json!(50), &json!(0)));
    assert!(!all.to_string().contains("not for bob"));
    assert_eq!(list(&format!("?with={ann}")).await["total"], 6);
    assert_eq!(list(&format!("?with={jane}")).await["total"], 0);
    assert_eq!(list(&format!("?recipient_id={ann}")).await["total"], 3);
    assert_eq!(list("?status=read").await["total"], 0);
    let page = list("?limit=2&offset=1").await;
    assert_eq!(pluck(&page["messages"], "content"), ["b2", "a1"]);
    assert_eq!(list("?limit=1000").await["limit"], 100);
    for query in ["?limit=x", "?with=x", "?status=lost"] {
        let request = api.get(&format!("/api/messages{query}")).bearer_auth(&jwt);
        assert_eq!(refused(request).await, is(400, "VALIDATION_ERROR"), "{query}");
    }
}

#[tokio::test]
async fn reading_is_for_the_recipient_and_lowers_the_unread_count() {
    let api = Api::start().await;
    let (bob, jwt) = api.web_user("bob").await;
    let (jane, jane_jwt) = api.web_user("jane").await;
    let ann = api.user("ann", "mobile").await;
    let received = api.message(ann, bob, "to bob").await;
    let sent = api.message(bob, ann, "to ann").await;
    let foreign = api.message(ann, jane, "to jane").await;
    let unread = async |jwt: &str| {
        ok(api.get("/api/messages/unread-count").bearer_auth(jwt)).await["unread_count"].clone()
    };
    let read = |id| api.request(Method::PUT, &format!("/api/messages/{id}/read")).bearer_auth(&jwt);
    assert_eq!(unread(&jwt).await, 1);
    for _ in 0..2 {
        let message = ok(read(received)).await;
        assert_eq!(message["status"], "read");
        assert!(message["read_at"].is_string() && message["synced_at"].is_string());
    }
    assert_eq!((unread(&jwt).await, unread(&jane_jwt).await), (json!(0), json!(1)));
    assert_eq!(refused(read(sent)).await, is(403, "FORBIDDEN"));
    assert_eq!(refused(read(foreign)).await, is(404, "NOT_FOUND"));
    let get = api.get(&format!("/api/messages/{foreign}")).bearer_auth(&jwt);
    assert_eq!(refused(get).await, is(404, "NOT_FOUND"));
}

#[tokio::test]
async fn members_see_each_other_without_devices_and_credentials() {
    let api = Api::start().await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    api.sql.batch_execute("UPDATE users SET online_status = true WHERE username = 'ann'").await.unwrap();
    let everyone = ok(api.get("/api/users").by(&ann)).await;
    assert_eq!(pluck(&everyone["users"], "username"), ["ann", "bob"]);
    assert!(!everyone.to_string().contains("device_id") && !everyone.to_string().contains(&ann.id));
    let online = ok(api.get("/api/users?status=online").bearer_auth(&jwt)).await;
    assert_eq!(pluck(&online["users"], "username"), ["ann"]);
    let one = ok(api.get(&format!("/api/users/{bob}")).by(&ann)).await;
    assert_eq!(one["username"], "bob");
    let nobody = api.get("/api/users/00000000-0000-0000-0000-000000000009").by(&ann);
    assert_eq!(refused(nobody).await, is(404, "NOT_FOUND"));
}

#[tokio::test]
async fn a_column_that_the_operator_keeps_back_is_not_shown_either() {
    let api =
        Api::with("sync: {tables: [{table: public.users, buckets: [shared], columns: [id, username]}]}")
            .await;
    let (_, jwt) = api.web_user("bob").await;
    let users = ok(api.get("/api/users").bearer_auth(&jwt)).await;
    let members: Vec<&String> = users["users"][0].as_object().unwrap().keys().collect();
    assert_eq!(members, ["id", "username"]);
}

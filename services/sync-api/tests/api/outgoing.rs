//! Uploads: applied once, each item for itself, as the device's own user.

use posduif_model::UserId;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fixture::{Api, Phone, is, ok, pluck, refused};

async fn start() -> (Api, Phone, UserId) {
    let api = Api::start().await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    (api, ann, bob)
}

fn message(recipient: UserId, content: &str) -> Value {
    json!({"id": Uuid::new_v4(), "recipient_id": recipient, "content": content, "created_at": "2026-01-15T10:00:00Z"})
}

async fn stored(api: &Api) -> Vec<(String, String)> {
    let rows = api.sql.query("SELECT content, status FROM messages ORDER BY content", &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn a_repeated_upload_is_stored_once_and_answered_alike() {
    let (api, ann, bob) = start().await;
    let upload = json!({"messages": [message(bob, "one"), message(ann.user, "two")]});
    for _ in 0..3 {
        let receipt = ok(api.outgoing(&ann, &upload)).await;
        assert_eq!((&receipt["synced_count"], &receipt["failed_count"]), (&json!(2), &json!(0)));
        assert_eq!((&receipt["conflicts"], &receipt["failed_messages"]), (&json!([]), &json!([])));
    }
    // A message to a web user has arrived, one to a phone waits for that phone.
    let expected = [("one".into(), "synced".into()), ("two".into(), "pending_sync".into())];
    assert_eq!(stored(&api).await, expected);
    let sql = "SELECT last_message_at::text FROM users WHERE username = 'ann'";
    let row = api.sql.query_one(sql, &[]).await.unwrap();
    assert!(row.get::<_, String>(0).starts_with("2026-01-15 10:00:00"));
}

#[tokio::test]
async fn concurrent_repeats_of_an_upload_all_succeed() {
    let (api, ann, bob) = start().await;
    let messages: Vec<Value> = (0..10).map(|n| message(bob, &format!("m{n}"))).collect();
    let upload = json!({ "messages": messages });
    let receipts = futures::future::join_all((0..8).map(|_| ok(api.outgoing(&ann, &upload)))).await;
    assert!(receipts.iter().all(|receipt| receipt["synced_count"] == 10), "{receipts:?}");
    assert_eq!(stored(&api).await.len(), 10);
}

#[tokio::test]
async fn bad_items_are_reported_and_the_good_ones_between_them_are_stored() {
    let (api, ann, bob) = start().await;
    let taken = message(bob, "first");
    ok(api.outgoing(&ann, &json!({ "messages": [taken] }))).await;
    let mut other = message(ann.user, "to another");
    other["id"] = taken["id"].clone();
    let mut foreign = message(bob, "as bob");
    foreign["sender_id"] = json!(bob);
    let nobody: UserId = "00000000-0000-0000-0000-000000000009".parse().unwrap();
    let good = [message(bob, "good 1"), message(bob, "good 2"), message(bob, "good 3")];
    let body = format!(
        r#"{{"messages":[{},{{"id":"no-uuid","recipient_id":"{bob}","content":"x"}},{},{},{},{},{},{{"id":"{}","recipient_id":"{bob}","content":"\ud800"}},{}],"users":[{{"id":"{}","user_type":"web"}}],"changes":[{{"table":"public.tasks","op":"upsert","key":{{"id":1}},"row":{{}}}}]}}"#,
        good[0],
        message(bob, "nul \u{0}"),
        other,
        foreign,
        message(nobody, "to nobody"),
        good[1],
        Uuid::nil(),
        good[2],
        ann.user,
    );
    let request = api.outgoing(&ann, &Value::Null).header("content-type", "application/json").body(body);
    let receipt = ok(request).await;
    assert_eq!((&receipt["synced_count"], &receipt["failed_count"]), (&json!(3), &json!(8)));
    let codes = pluck(&receipt["failed_messages"], "code");
    let expected = [
        "VALIDATION_ERROR",
        "VALIDATION_ERROR",
        "CONFLICT",
        "FORBIDDEN",
        "INVALID_RECIPIENT",
        "VALIDATION_ERROR",
    ];
    assert_eq!(codes, expected);
    assert_eq!(receipt["failed_messages"][0]["message_id"], "no-uuid");
    assert_eq!(receipt["failed_messages"][5]["message_id"], Uuid::nil().to_string());
    assert_eq!(pluck(&receipt["failed"], "table"), ["public.users", "public.tasks"]);
    assert_eq!(pluck(&receipt["failed"], "code"), ["FORBIDDEN", "NOT_FOUND"]);
    assert_eq!(receipt["failed"][1]["key"], json!({"id": 1}));
    let contents: Vec<String> = stored(&api).await.into_iter().map(|(content, _)| content).collect();
    assert_eq!(contents, ["first", "good 1", "good 2", "good 3"]);
}

#[tokio::test]
async fn what_the_database_itself_refuses_leaves_the_other_items_alone() {
    let (api, ann, bob) = start().await;
    let check = "ALTER TABLE messages ADD CHECK (content <> 'forbidden')";
    api.sql.batch_execute(check).await.unwrap();
    let upload = json!({"messages": [message(bob, "a"), message(bob, "forbidden"), message(bob, "b")]});
    let receipt = ok(api.outgoing(&ann, &upload)).await;
    assert_eq!((&receipt["synced_count"], &receipt["failed_count"]), (&json!(2), &json!(1)));
    assert_eq!(receipt["failed_messages"][0]["code"], "VALIDATION_ERROR");
    assert_eq!(receipt["failed_messages"][0]["message_id"], upload["messages"][1]["id"]);
}

/// A rule of the application about messages that its database enforces.
async fn with_rule(api: &Api, trigger: &str, error: &str) {
    let sql = format!(
        "CREATE FUNCTION rule() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN IF NEW.content = 'bad' THEN RAISE EXCEPTION 'no' USING ERRCODE = '{error}'; END IF; RETURN NEW; END $$;
         {trigger} ON messages FOR EACH ROW EXECUTE FUNCTION rule()"
    );
    api.sql.batch_execute(&sql).await.unwrap();
}

#[tokio::test]
async fn whatever_the_database_says_of_one_item_leaves_the_other_items_alone() {
    let deferred = "CREATE CONSTRAINT TRIGGER t AFTER INSERT";
    let deferred = format!(
        "{deferred} ON messages DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION rule() --"
    );
    for (trigger, error, code) in [
        ("CREATE TRIGGER t BEFORE INSERT", "insufficient_privilege", "INTERNAL_ERROR"),
        ("CREATE TRIGGER t BEFORE INSERT", "undefined_table", "INTERNAL_ERROR"),
        ("CREATE TRIGGER t BEFORE INSERT", "feature_not_supported", "INTERNAL_ERROR"),
        ("CREATE TRIGGER t BEFORE INSERT", "raise_exception", "VALIDATION_ERROR"),
        ("CREATE TRIGGER t BEFORE INSERT", "unique_violation", "CONFLICT"),
        ("CREATE TRIGGER t BEFORE INSERT", "statement_too_complex", "VALIDATION_ERROR"),
        (deferred.as_str(), "check_violation", "VALIDATION_ERROR"),
        (deferred.as_str(), "insufficient_privilege", "INTERNAL_ERROR"),
    ] {
        let (api, ann, bob) = start().await;
        with_rule(&api, trigger, error).await;
        let upload = json!({"messages": [message(bob, "a"), message(bob, "bad"), message(bob, "b")]});
        let receipt = ok(api.outgoing(&ann, &upload)).await;
        assert_eq!((&receipt["synced_count"], &receipt["failed_count"]), (&json!(2), &json!(1)), "{error}");
        assert_eq!(receipt["failed_messages"][0]["code"], code, "{error}");
        assert_eq!(receipt["failed_messages"][0]["message_id"], upload["messages"][1]["id"]);
        assert_eq!(stored(&api).await.len(), 2, "{error}");
    }
}

#[tokio::test]
async fn a_database_that_cannot_work_now_fails_the_upload_as_a_whole() {
    for error in ["disk_full", "query_canceled", "admin_shutdown", "deadlock_detected"] {
        let (api, ann, bob) = start().await;
        with_rule(&api, "CREATE TRIGGER t BEFORE INSERT", error).await;
        let upload = json!({"messages": [message(bob, "a"), message(bob, "bad")]});
        assert_eq!(refused(api.outgoing(&ann, &upload)).await, is(503, "DATABASE_ERROR"), "{error}");
        assert_eq!(stored(&api).await, []);
    }
}

#[tokio::test]
async fn times_of_the_server_have_milliseconds() {
    let (api, ann, _) = start().await;
    let receipt = ok(api.outgoing(&ann, &json!({}))).await;
    let page = ok(api.incoming(&ann, "start", 1)).await;
    for answer in [receipt, page] {
        let time = answer["sync_timestamp"].as_str().unwrap();
        assert_eq!(time.len(), "2026-01-15T10:45:00.123Z".len(), "{time}");
        assert!(time.ends_with('Z'), "{time}");
    }
}

#[tokio::test]
async fn reading_is_for_the_recipient_and_can_be_repeated() {
    let (api, ann, bob) = start().await;
    let received = api.message(bob, ann.user, "to ann").await;
    let sent = api.message(ann.user, bob, "to bob").await;
    let upload = json!({"reads": [received, sent, Uuid::nil(), "x"]});
    for _ in 0..2 {
        let receipt = ok(api.outgoing(&ann, &upload)).await;
        assert_eq!((&receipt["synced_count"], &receipt["failed_count"]), (&json!(1), &json!(3)));
        assert_eq!(pluck(&receipt["failed"], "code"), ["NOT_FOUND", "NOT_FOUND", "VALIDATION_ERROR"]);
    }
    let expected = [("to ann".into(), "read".into()), ("to bob".into(), "pending_sync".into())];
    assert_eq!(stored(&api).await, expected);
}

#[tokio::test]
async fn the_receipt_lies_at_or_after_the_commit_which_carries_its_origin() {
    let (api, ann, bob) = start().await;
    let admin = api.database.connect_superuser().await;
    let slot = format!("s_{}", api.database.name());
    let create = "SELECT pg_create_logical_replication_slot($1::text::name, 'pgoutput')";
    admin.query_one(create, &[&slot]).await.unwrap();
    let receipt = ok(api.outgoing(&ann, &json!({"messages": [message(bob, "one")]}))).await;

    let peek = "SELECT lsn <= $2::text::pg_lsn, data
                  FROM pg_logical_slot_peek_binary_changes($1::text::name, NULL, NULL, 'proto_version', '1',
                       'publication_names', 'posduif', 'messages', 'true')";
    let rows = admin.query(peek, &[&slot, &receipt["lsn"].as_str().unwrap()]).await.unwrap();
    let messages: Vec<Vec<u8>> = rows.iter().map(|row| row.get(1)).collect();
    let kinds: String = messages
        .iter()
        .map(|message| char::from(message[0]))
        .filter(|kind| "BMIUC".contains(*kind))
        .collect();
    assert_eq!(kinds, "BMIUC");
    let origin = messages.iter().find(|message| message[0] == b'M').unwrap();
    assert!(origin.windows(14).any(|part| part == b"posduif.origin"));
    assert!(origin.ends_with(ann.id.as_bytes()));
    assert!(rows.iter().all(|row| row.get(0)));
}

#[tokio::test]
async fn an_upload_that_is_no_upload_is_refused_as_a_whole() {
    let (api, ann, _) = start().await;
    for body in [json!({"messages": {}}), json!([]), json!("x"), json!({"reads": 7})] {
        assert_eq!(refused(api.outgoing(&ann, &body)).await, is(400, "VALIDATION_ERROR"), "{body}");
    }
    let many = vec![0; 10_001];
    assert_eq!(refused(api.outgoing(&ann, &json!({ "reads": many }))).await, is(413, "PAYLOAD_TOO_LARGE"));
    let receipt = ok(api.outgoing(&ann, &json!({}))).await;
    assert_eq!((&receipt["synced_count"], &receipt["failed_count"]), (&json!(0), &json!(0)));
}

//! Pages of the log: what a device gets, and when it must begin again.

use posduif_model::{Bucket, Change, Op};
use posduif_runtime::config::Config;
use serde_json::json;

use crate::fixture::{Api, By, Phone, delete, insert_lsn, is, ok, pluck, put, refused, serve};

/// A phone that has taken its snapshot, and its cursor.
async fn synced(api: &Api) -> (Phone, String) {
    let (_, jwt) = api.web_user("bob").await;
    let phone = api.phone(&jwt, "ann").await;
    let pages = api.snapshot(&phone, 100).await;
    (phone, pages.last().unwrap()["cursor"].as_str().unwrap().to_owned())
}

fn message(id: &str) -> Change {
    put("messages", json!({"id": id}), json!({"id": id, "content": "c"}))
}

#[tokio::test]
async fn a_page_holds_what_the_buckets_hold_and_flags_the_devices_own_rows() {
    let api = Api::start().await;
    let (ann, cursor) = synced(&api).await;
    let mine = [Bucket::User(ann.user)];
    api.commit(None, &mine, &[message("m1")]).await;
    api.commit(Some(&ann), &mine, &[message("m2")]).await;
    let stranger = Bucket::User("00000000-0000-0000-0000-000000000009".parse().unwrap());
    api.commit(None, &[stranger], &[message("m3")]).await;
    let user = put("users", json!({"id": "u1"}), json!({"id": "u1"}));
    let gone = delete("messages", json!({"id": "m0"}));
    let end = api.commit(None, &[Bucket::Shared], &[user, gone]).await;

    let page = ok(api.incoming(&ann, &cursor, 100)).await;
    let expected = json!([{"id": "m1", "content": "c"}, {"own": true, "content": "c", "id": "m2"}]);
    assert_eq!(page["messages"], expected);
    assert_eq!(page["users"], json!([{"id": "u1"}]));
    assert_eq!(page["deleted"], json!({"messages": ["m0"], "users": []}));
    assert_eq!((&page["has_more"], &page["snapshot"]), (&json!(false), &json!(false)));
    assert_eq!(page["lsn"], end.to_string());
    let again = ok(api.incoming(&ann, &cursor, 100)).await;
    assert_eq!(again["messages"], page["messages"]);
}

#[tokio::test]
async fn a_page_never_splits_a_transaction_and_the_next_one_goes_on() {
    let api = Api::start().await;
    let (ann, cursor) = synced(&api).await;
    let mine = [Bucket::User(ann.user)];
    let first = api.commit(None, &mine, &[message("a1"), message("a2"), message("a3")]).await;
    api.commit(None, &mine, &[message("b1")]).await;
    let page = ok(api.incoming(&ann, &cursor, 2)).await;
    assert_eq!(pluck(&page["messages"], "id"), ["a1", "a2", "a3"]);
    assert_eq!((&page["has_more"], &page["lsn"]), (&json!(true), &json!(first.to_string())));
    let page = ok(api.incoming(&ann, page["cursor"].as_str().unwrap(), 2)).await;
    assert_eq!(pluck(&page["messages"], "id"), ["b1"]);
    assert_eq!(page["has_more"], false);
}

#[tokio::test]
async fn rows_of_other_tables_and_truncates_come_as_changes() {
    let api = Api::start().await;
    let (ann, cursor) = synced(&api).await;
    let truncate = Change {
        op: Op::Truncate,
        table: "messages".parse().unwrap(),
        key: String::new(),
        row: String::new(),
    };
    let task = put("tasks", json!({"id": 1}), json!({"id": 1, "title": "t"}));
    let at = api.commit(Some(&ann), &[Bucket::Shared], &[task, truncate]).await.to_string();
    let page = ok(api.incoming(&ann, &cursor, 100)).await;
    let expected = json!([
        {"table": "public.messages", "op": "truncate", "key": null, "row": null, "lsn": at, "own": true},
        {"table": "public.tasks", "op": "upsert", "key": {"id": 1}, "row": {"id": 1, "title": "t"}, "lsn": at, "own": true},
    ]);
    assert_eq!(page["changes"], expected);
}

#[tokio::test]
async fn nothing_new_is_an_empty_page_with_the_same_cursor_and_without_postgres() {
    let api = Api::start().await;
    let (ann, cursor) = synced(&api).await;
    let server = api.database.connect_superuser().await;
    let activity = async || {
        let sql = "SELECT coalesce(string_agg(pid || ' ' || state_change, ',' ORDER BY pid), '')
                     FROM pg_stat_activity
                    WHERE application_name = 'posduif-sync-api' AND datname = current_database()";
        server.query_one(sql, &[]).await.unwrap().get::<_, String>(0)
    };
    // Also where the last page held a message whose arrival had to be noted.
    let id = api.message(ann.user, ann.user, "to myself").await;
    let row = json!({"id": id, "recipient_id": ann.user, "status": "pending_sync"});
    api.commit(None, &[Bucket::User(ann.user)], &[put("messages", json!({"id": id}), row)]).await;
    let page = ok(api.incoming(&ann, &cursor, 100)).await;
    let cursor = page["cursor"].as_str().unwrap();
    ok(api.incoming(&ann, cursor, 100)).await;
    let before = activity().await;
    assert_ne!(before, "");
    for _ in 0..10 {
        let page = ok(api.incoming(&ann, cursor, 100)).await;
        assert_eq!(page["cursor"], cursor);
        assert_eq!(
            (&page["messages"], &page["users"], &page["changes"]),
            (&json!([]), &json!([]), &json!([]))
        );
        assert_eq!((&page["has_more"], &page["snapshot"]), (&json!(false), &json!(false)));
    }
    assert_eq!(activity().await, before);
    ok(api.get("/api/app-instructions").header("X-Device-ID", &ann.id).bearer_auth(&ann.token)).await;
    assert_ne!(activity().await, before);
}

#[tokio::test]
async fn another_epoch_or_other_rules_end_a_cursor() {
    let api = Api::start().await;
    let (ann, cursor) = synced(&api).await;
    let rules = posduif_model::rule::RuleSet::new(&[]).unwrap();
    let at = insert_lsn(&api.sql).await;
    api.log.lock().await.open(3, at, rules.hash().as_str(), None).await;
    assert_eq!(refused(api.incoming(&ann, &cursor, 100)).await, is(410, "CURSOR_EXPIRED"));
    api.log.lock().await.open(4, at, "other", None).await;
    assert_eq!(refused(api.incoming(&ann, &cursor, 100)).await, is(503, "SYNC_ERROR"));
    assert_eq!(refused(api.incoming(&ann, "start", 100)).await, is(503, "SYNC_ERROR"));
}

#[tokio::test]
async fn a_cursor_that_is_not_this_devices_begins_again() {
    let api = Api::start().await;
    let (ann, cursor) = synced(&api).await;
    let (_, jwt) = api.web_user("jane").await;
    let ben = api.phone(&jwt, "ben").await;
    for since in [cursor.as_str(), "x", "%FF", &"A".repeat(20_000), &cursor[1..]] {
        assert_eq!(refused(api.incoming(&ben, since, 100)).await, is(410, "CURSOR_EXPIRED"), "{since:.80}");
    }
    assert_eq!(refused(api.incoming(&ben, "", 100)).await, is(400, "VALIDATION_ERROR"));
    ok(api.incoming(&ann, &cursor, 100)).await;
}

#[tokio::test]
async fn a_device_that_was_given_to_another_user_begins_again() {
    let api = Api::start().await;
    let (ann, cursor) = synced(&api).await;
    let ben = api.user("ben", "mobile").await;
    api.sql.execute("UPDATE devices SET user_id = $1 WHERE id = $2", &[&ben.uuid(), &ann.id]).await.unwrap();
    let (_, jwt) = api.web_user("jane").await;
    let token = api.enrollment_token(&jwt, &json!({"username": "ben"})).await;
    let renewed = ok(api.complete(&token, &ann.id, "ben")).await;
    assert_eq!(renewed["user_id"], json!(ben));
    let phone = Phone { token: renewed["device_token"].as_str().unwrap().to_owned(), user: ben, ..ann };
    assert_eq!(refused(api.incoming(&phone, &cursor, 100)).await, is(410, "CURSOR_EXPIRED"));
}

#[tokio::test]
async fn a_new_secret_of_the_installation_begins_again() {
    let api = Api::start().await;
    let (ann, cursor) = synced(&api).await;
    let redis = posduif_testkit::Servers::shared().await.redis_url_of(posduif_testkit::API);
    let yaml = format!(
        "tenants: [{{url: '{}'}}]\nredis: {{url: '{redis}'}}\nauth: {{jwt_secret: 'another secret of the tests, 32 bytes'}}",
        api.database.url()
    );
    let (base, shutdown, _) = serve(&Config::from_yaml(&yaml).unwrap());
    let client = reqwest::Client::new();
    let incoming = |since: &str| client.get(format!("{base}/api/sync/incoming?since={since}")).by(&ann);
    assert_eq!(refused(incoming(&cursor)).await, is(410, "CURSOR_EXPIRED"));
    ok(incoming("start")).await;
    shutdown.cancel();
}

#[tokio::test]
async fn a_limit_is_a_wish_between_one_and_five_hundred() {
    let api = Api::start().await;
    let (ann, cursor) = synced(&api).await;
    for commit in ["a", "b"] {
        api.commit(None, &[Bucket::User(ann.user)], &[message(commit)]).await;
    }
    let page = ok(api.incoming(&ann, &cursor, 0)).await;
    assert_eq!(pluck(&page["messages"], "id"), ["a"]);
    let page = ok(api.incoming(&ann, &cursor, 1_000_000)).await;
    assert_eq!(pluck(&page["messages"], "id"), ["a", "b"]);
}

#[tokio::test]
async fn a_device_that_is_slower_than_those_who_write_comes_to_an_end() {
    let api = Api::start().await;
    let (ann, cursor) = synced(&api).await;
    let mine = [Bucket::User(ann.user)];
    for n in 0..4 {
        api.commit(None, &mine, &[message(&format!("before {n}"))]).await;
    }
    let (mut since, mut got) = (cursor, Vec::new());
    loop {
        let page = ok(api.incoming(&ann, &since, 1)).await;
        got.extend(pluck(&page["messages"], "id").into_iter().map(str::to_owned));
        since = page["cursor"].as_str().unwrap().to_owned();
        if page["has_more"] == false {
            break;
        }
        assert!(got.len() < 20, "the catch-up grows with the log");
        api.commit(None, &mine, &[message(&format!("meanwhile {}", got.len()))]).await;
    }
    assert_eq!(got.len(), 4, "{got:?}");
    // What came meanwhile is the next catch-up, and nothing of it is skipped.
    let mut rest = Vec::new();
    while rest.len() < 3 {
        let page = ok(api.incoming(&ann, &since, 1)).await;
        rest.extend(pluck(&page["messages"], "id").into_iter().map(str::to_owned));
        since = page["cursor"].as_str().unwrap().to_owned();
    }
    assert_eq!(rest, ["meanwhile 1", "meanwhile 2", "meanwhile 3"]);
    assert_eq!(ok(api.incoming(&ann, &since, 1)).await["has_more"], false);
}

#[tokio::test]
async fn a_replay_ends_where_its_first_page_found_the_log() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let mine = [Bucket::User(ann.user)];
    let mut page = ok(api.incoming(&ann, "start", 500)).await;
    for n in 0..4 {
        api.commit(None, &mine, &[message(&format!("before {n}"))]).await;
    }
    let _following = api.follow().await;
    let mut pages = 0;
    while page["has_more"] == true {
        page = ok(api.incoming(&ann, page["cursor"].as_str().unwrap(), 1)).await;
        assert_eq!(page["snapshot"], true);
        api.commit(None, &mine, &[message("meanwhile")]).await;
        pages += 1;
        assert!(pages < 20, "the replay grows with the log");
    }
    assert_eq!(pages, 4);
}

//! Snapshots: every stage, and nobody else's rows in any of them.

use std::collections::BTreeSet;

use posduif_model::{Bucket, rule::RuleSet};
use posduif_testkit::Servers;
use serde_json::{Value, json};

use crate::fixture::{Api, By, insert_lsn, is, ok, pluck, put, refused};

fn ids(pages: &[Value], list: &str) -> BTreeSet<String> {
    pages.iter().flat_map(|page| pluck(&page[list], "id")).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_snapshot_in_small_pages_holds_all_of_the_devices_rows_and_none_of_others() {
    let api = Api::start().await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let ben = api.phone(&jwt, "ben").await;
    let mut mine = BTreeSet::new();
    for n in 0..7 {
        mine.insert(api.message(ann.user, bob, &format!("sent {n}")).await.to_string());
        mine.insert(api.message(bob, ann.user, &format!("received {n}")).await.to_string());
        api.message(ben.user, bob, "secret of ben").await;
        api.message(bob, ben.user, "secret of bob").await;
    }
    for limit in [1, 3, 500] {
        let pages = api.snapshot(&ann, limit).await;
        assert_eq!(ids(&pages, "messages"), mine, "limit {limit}");
        assert_eq!(ids(&pages, "users").len(), 3, "limit {limit}");
        assert!(pages.iter().all(|page| page["snapshot"] == true), "limit {limit}");
        let text = pages.iter().map(Value::to_string).collect::<String>();
        for hidden in [api.database.name(), &ben.token, &ben.id, "token_hash", "device_id"] {
            assert!(!text.contains(hidden), "limit {limit} shows {hidden}");
        }
        // What ben said last is visible to the tenant in its user row, and nowhere else.
        for page in &pages {
            assert!(!page["messages"].to_string().contains("secret of"), "limit {limit}");
        }
        let rows = |page: &Value| {
            page["messages"].as_array().unwrap().len() + page["users"].as_array().unwrap().len()
        };
        assert!(pages.iter().all(|page| rows(page) <= limit), "limit {limit}");
    }
}

#[tokio::test]
async fn what_is_committed_while_the_tables_are_read_is_replayed() {
    let api = Api::start().await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let first = api.message(bob, ann.user, "first").await.to_string();
    let page = ok(api.incoming(&ann, "start", 1)).await;
    assert_eq!(pluck(&page["messages"], "id"), [first.as_str()]);

    let mine = [Bucket::User(ann.user)];
    let edited = put("messages", json!({"id": first}), json!({"id": first, "content": "edited"}));
    api.commit(None, &mine, &[edited]).await;
    let later = put("messages", json!({"id": "later"}), json!({"id": "later"}));
    api.commit(Some(&ann), &mine, &[later]).await;

    let _following = api.follow().await;
    let mut since = page["cursor"].as_str().unwrap().to_owned();
    let mut replayed = Vec::new();
    loop {
        let page = ok(api.incoming(&ann, &since, 1)).await;
        assert_eq!(page["snapshot"], true);
        replayed.extend(page["messages"].as_array().unwrap().clone());
        since = page["cursor"].as_str().unwrap().to_owned();
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!(replayed, [json!({"id": first, "content": "edited"}), json!({"own": true, "id": "later"})]);
    let page = ok(api.incoming(&ann, &since, 1)).await;
    assert_eq!((&page["snapshot"], &page["messages"]), (&json!(false), &json!([])));
}

#[tokio::test]
async fn a_snapshot_does_not_end_before_the_log_holds_what_its_pages_saw() {
    let api = Api::with("api: {snapshot_wait: 300ms}").await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let page = ok(api.incoming(&ann, "start", 500)).await;
    assert_eq!(page["has_more"], true);
    let mark = page["cursor"].as_str().unwrap();
    assert_eq!(refused(api.incoming(&ann, mark, 500)).await, is(503, "SYNC_ERROR"));
    let _following = api.follow().await;
    let page = ok(api.incoming(&ann, mark, 500)).await;
    assert_eq!((&page["has_more"], &page["snapshot"]), (&json!(false), &json!(true)));
}

/// Servers whose commits are not on disk for seconds, unless somebody insists.
async fn lazy_servers() -> Servers {
    let mut servers = Servers::durable().await;
    let admin = servers.superuser().await;
    for setting in ["synchronous_commit = off", "wal_writer_delay = '10s'"] {
        admin.batch_execute(&format!("ALTER SYSTEM SET {setting}")).await.unwrap();
    }
    servers.postgres_mut().restart().await.unwrap();
    servers
}

#[tokio::test]
async fn a_page_never_shows_a_row_that_a_crash_of_postgresql_takes_away() {
    let mut servers = lazy_servers().await;
    let api = Api::on(&servers, "").await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    // The next commit is not flushed for seconds.
    api.sql.batch_execute("SELECT pg_logical_emit_message(false, 'test', '', true)").await.unwrap();
    let ghost = api.message(bob, ann.user, "ghost").await;
    let page = ok(api.incoming(&ann, "start", 500)).await;
    assert_eq!(pluck(&page["messages"], "id"), [ghost.to_string()]);
    servers.postgres_mut().kill9().await;
    servers.postgres_mut().restart().await.unwrap();
    let found = api.database.connect().await.query("SELECT FROM messages WHERE id = $1", &[&ghost]).await;
    assert_eq!(found.unwrap().len(), 1, "the device holds a row that PostgreSQL never had");
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_crash_where_commits_do_not_wait_for_the_disk() {
    let mut servers = lazy_servers().await;
    let api = Api::on(&servers, "").await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let message = json!({"recipient_id": ann.user.to_string(), "content": "acknowledged"});
    let stored = ok(api.post("/api/messages", &message).bearer_auth(&jwt)).await;
    servers.postgres_mut().kill9().await;
    servers.postgres_mut().restart().await.unwrap();
    let id: uuid::Uuid = stored["id"].as_str().unwrap().parse().unwrap();
    let found = api.database.connect().await.query("SELECT FROM messages WHERE id = $1", &[&id]).await;
    assert_eq!(found.unwrap().len(), 1, "an acknowledged message is gone");
}

#[tokio::test]
async fn a_new_epoch_ends_a_snapshot_at_every_stage() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let tables = ok(api.incoming(&ann, "start", 1)).await;
    let mark = ok(api.incoming(&ann, "start", 500)).await;
    let rules = RuleSet::new(&[]).unwrap();
    let at = insert_lsn(&api.sql).await;
    api.log.lock().await.open(3, at, rules.hash().as_str(), Some(7)).await;
    for page in [&tables, &mark] {
        let since = page["cursor"].as_str().unwrap();
        assert_eq!(refused(api.incoming(&ann, since, 1)).await, is(410, "CURSOR_EXPIRED"));
    }
    assert_eq!(refused(api.incoming(&ann, "start", 1)).await, is(503, "SYNC_ERROR"));
}

const TASKS: &str = "sync:
  tables:
    - {table: public.tasks, buckets: ['user:{owner_id}'], columns: [id, code], write: {owner: owner_id, columns: [code], version: updated_at}}
    - {table: public.later, buckets: [shared]}
";

#[tokio::test]
async fn declared_tables_come_as_changes_with_their_listed_columns_only() {
    let api = Api::with(TASKS).await;
    api.sql.batch_execute("ALTER TABLE tasks ADD updated_at timestamptz").await.unwrap();
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let ben = api.phone(&jwt, "ben").await;
    for (id, owner) in [(1, &ann), (2, &ben), (10, &ann)] {
        let sql = "INSERT INTO tasks VALUES ($1, $2, 'x''', 'hidden')";
        api.sql.execute(sql, &[&id, &owner.user.uuid()]).await.unwrap();
    }
    let pages = api.snapshot(&ann, 1).await;
    let changes: Vec<&Value> = pages.iter().flat_map(|page| page["changes"].as_array().unwrap()).collect();
    let rows: Vec<&Value> = changes.iter().map(|change| &change["row"]).collect();
    // char(n) keeps its padding, as it does in the WAL.
    assert_eq!(rows, [&json!({"id": 1, "code": "x'  "}), &json!({"id": 10, "code": "x'  "})]);
    assert!(changes.iter().all(|c| c["table"] == "public.tasks" && c["op"] == "upsert" && c["own"] == false));

    let told = ok(api.get("/api/app-instructions").by(&ann)).await;
    let names = pluck(&told["tables"], "name");
    assert_eq!(names, ["public.messages", "public.tasks", "public.users"]);
    let expected = json!({
        "name": "public.tasks", "local_name": "tasks", "list": null, "primary_key": ["id"],
        "columns": [
            {"name": "id", "type": "INTEGER", "nullable": false},
            {"name": "code", "type": "TEXT", "nullable": true},
        ],
        "write": {"columns": ["code"], "owner": "owner_id", "version": "updated_at"},
    });
    assert_eq!(told["tables"][1], expected);
}

#[tokio::test]
async fn the_instructions_describe_the_messenger() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let told = ok(api.get("/api/app-instructions").by(&ann)).await;
    assert_eq!(
        (&told["tenant_id"], &told["base_url"]),
        (&json!(api.tenant), &json!("http://localhost:8080"))
    );
    let config = json!({"batch_size": 100, "compression": true, "sync_interval_seconds": 30});
    assert_eq!(told["sync_config"], config);
    let [messages, users] = [0, 1].map(|index| &told["tables"][index]);
    assert_eq!((&messages["list"], &users["list"]), (&json!("messages"), &json!("users")));
    let write =
        |columns: &[&str], owner: &str| json!({"columns": columns, "owner": owner, "version": "updated_at"});
    assert_eq!(messages["write"], write(&["recipient_id", "content"], "sender_id"));
    assert_eq!(users["write"], write(&["username"], "id"));
    assert!(pluck(&messages["columns"], "name").contains(&"status"));
    assert!(!pluck(&users["columns"], "name").contains(&"device_id"));
}

#[tokio::test]
async fn the_log_is_kept_for_a_snapshot_until_its_last_page() {
    let api = Api::start().await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    api.message(bob, ann.user, "first").await;
    let page = ok(api.incoming(&ann, "start", 100)).await;
    for n in 0..3 {
        let change = put("messages", json!({"id": n}), json!({"id": n}));
        api.commit(None, &[Bucket::User(ann.user)], &[change]).await;
    }
    let _following = api.follow().await;
    let mut since = page["cursor"].as_str().unwrap().to_owned();
    loop {
        // As after a pause that is longer than a lease.
        api.forget_leases().await;
        let page = ok(api.incoming(&ann, &since, 1)).await;
        if page["has_more"] == false {
            break;
        }
        assert!(api.is_leased().await, "the rest may be trimmed before the device asks for it");
        since = page["cursor"].as_str().unwrap().to_owned();
    }
}

/// As if another server of the same cluster had become the one that the log follows; the API's connections lead to timeline 1.
async fn log_is_on(api: &Api, timeline: u32) {
    let keys = posduif_changelog::Keys::new(&api.database.name().parse().unwrap());
    let mut redis = api.redis().await.get().await.unwrap();
    let set = redis::cmd("HSET").arg((keys.state(), "timeline", timeline)).to_owned();
    let () = set.query_async(&mut redis).await.unwrap();
}

#[tokio::test]
async fn no_table_is_read_and_no_upload_taken_at_a_server_that_was_replaced() {
    let api = Api::start().await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    api.message(bob, ann.user, "read before").await;
    let message =
        || json!({ "messages": [{ "id": uuid::Uuid::new_v4(), "recipient_id": bob, "content": "hello" }] });
    // The server is behind the log's: what it holds and takes, nobody follows.
    log_is_on(&api, 2).await;
    assert_eq!(refused(api.incoming(&ann, "start", 100)).await, is(503, "DATABASE_ERROR"));
    assert_eq!(refused(api.outgoing(&ann, &message())).await, is(503, "DATABASE_ERROR"));
    // The server is ahead of the log's: it may be written to, but the log cannot be replayed over its tables yet.
    log_is_on(&api, 0).await;
    assert_eq!(refused(api.incoming(&ann, "start", 100)).await, is(503, "SYNC_ERROR"));
    assert_eq!(ok(api.outgoing(&ann, &message())).await["synced_count"], 1);
    log_is_on(&api, 1).await;
    let page = ok(api.incoming(&ann, "start", 100)).await;
    assert_eq!(page["messages"].as_array().unwrap().len(), 2);
    assert_eq!(ok(api.outgoing(&ann, &message())).await["synced_count"], 1);
}

//! Sending a cursor back confirms what came before it: messages to the user have arrived then, once.

use posduif_model::{Bucket, Change, UserId};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fixture::{Api, Phone, ok, put};

async fn start() -> (Api, Phone, UserId, String) {
    let api = Api::start().await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    (api, ann, bob, jwt)
}

async fn status(api: &Api, message: Uuid) -> (String, bool) {
    let sql = "SELECT status, synced_at IS NOT NULL FROM messages WHERE id = $1";
    let row = api.sql.query_one(sql, &[&message]).await.unwrap();
    (row.get(0), row.get(1))
}

fn pending() -> (String, bool) {
    ("pending_sync".into(), false)
}

fn synced() -> (String, bool) {
    ("synced".into(), true)
}

/// What the ingester would write of a message.
fn logged(id: Uuid, sender: UserId, recipient: UserId) -> Change {
    let row = json!({"id": id, "sender_id": sender, "recipient_id": recipient, "content": "c", "status": "pending_sync"});
    put("messages", json!({"id": id}), row)
}

async fn sent(api: &Api, sender: UserId, recipient: UserId) -> Uuid {
    let id = api.message(sender, recipient, "hello").await;
    let buckets = [Bucket::User(sender), Bucket::User(recipient)];
    api.commit(None, &buckets, &[logged(id, sender, recipient)]).await;
    id
}

fn cursor(page: &Value) -> &str {
    page["cursor"].as_str().unwrap()
}

#[tokio::test]
async fn messages_have_arrived_once_the_cursor_behind_them_comes_back() {
    let (api, ann, bob, _) = start().await;
    let start = api.snapshot(&ann, 100).await.pop().unwrap();
    let [first, second] = [sent(&api, bob, ann.user).await, sent(&api, bob, ann.user).await];
    let own = sent(&api, ann.user, bob).await;

    let page = ok(api.incoming(&ann, cursor(&start), 1)).await;
    assert_eq!(page["messages"][0]["id"], json!(first));
    assert_eq!(status(&api, first).await, pending(), "the answer may have been lost");
    let next = ok(api.incoming(&ann, cursor(&page), 1)).await;
    assert_eq!(status(&api, first).await, synced());
    assert_eq!(status(&api, second).await, pending());
    // Asked with an older cursor, nothing is taken back and nothing more is said to have arrived.
    ok(api.incoming(&ann, cursor(&start), 1)).await;
    assert_eq!(status(&api, second).await, pending());
    let last = ok(api.incoming(&ann, cursor(&next), 100)).await;
    assert_eq!(status(&api, second).await, synced());
    ok(api.incoming(&ann, cursor(&last), 100)).await;
    assert_eq!(status(&api, own).await, pending(), "only its recipient's device confirms a message");
}

#[tokio::test]
async fn a_message_is_noted_once_and_keeps_its_version() {
    let (api, ann, bob, _) = start().await;
    let start = api.snapshot(&ann, 100).await.pop().unwrap();
    let id = sent(&api, bob, ann.user).await;
    let page = ok(api.incoming(&ann, cursor(&start), 100)).await;
    let version = async || {
        let sql = "SELECT xmin::text, updated_at FROM messages WHERE id = $1";
        let row = api.sql.query_one(sql, &[&id]).await.unwrap();
        (row.get::<_, String>(0), row.get::<_, chrono::DateTime<chrono::Utc>>(1))
    };
    let before = version().await;
    ok(api.incoming(&ann, cursor(&page), 100)).await;
    let after = version().await;
    assert_ne!(after.0, before.0);
    assert_eq!(after.1, before.1, "confirmation is no edit");
    for _ in 0..3 {
        assert_eq!(cursor(&ok(api.incoming(&ann, cursor(&page), 100)).await), cursor(&page));
    }
    assert_eq!(version().await, after);
}

#[tokio::test]
async fn a_message_that_was_read_or_deleted_meanwhile_stays_so() {
    let (api, ann, bob, _) = start().await;
    let start = api.snapshot(&ann, 100).await.pop().unwrap();
    let [read, deleted] = [sent(&api, bob, ann.user).await, sent(&api, bob, ann.user).await];
    let page = ok(api.incoming(&ann, cursor(&start), 100)).await;
    ok(api.outgoing(&ann, &json!({ "reads": [read] }))).await;
    api.sql.execute("DELETE FROM messages WHERE id = $1", &[&deleted]).await.unwrap();
    ok(api.incoming(&ann, cursor(&page), 100)).await;
    assert_eq!(status(&api, read).await.0, "read");
    let left: i64 = api.sql.query_one("SELECT count(*) FROM messages", &[]).await.unwrap().get(0);
    assert_eq!(left, 1);
}

#[tokio::test]
async fn a_snapshot_confirms_its_tables_and_its_replay_and_nothing_that_came_later() {
    let (api, ann, bob, _) = start().await;
    let in_tables = api.message(bob, ann.user, "in the tables").await;
    let first = ok(api.incoming(&ann, "start", 100)).await;
    let replayed = sent(&api, bob, ann.user).await;
    // As if it had been committed after the tables were marked and before the log was read.
    let only_in_log = Uuid::new_v4();
    api.commit(None, &[Bucket::User(ann.user)], &[logged(only_in_log, bob, ann.user)]).await;
    let last = {
        let _following = api.follow().await;
        ok(api.incoming(&ann, cursor(&first), 100)).await
    };
    assert_eq!((&last["has_more"], &last["snapshot"]), (&json!(false), &json!(true)));
    // Its id may well lie among those of the tables, and it is visible when the confirmation comes.
    let later = api.message(bob, ann.user, "later").await;
    let sql = "INSERT INTO messages (id, sender_id, recipient_id, content) VALUES ($1, $2, $3, 'c')";
    api.sql.execute(sql, &[&only_in_log, &bob.uuid(), &ann.user.uuid()]).await.unwrap();
    for id in [in_tables, replayed, only_in_log] {
        assert_eq!(status(&api, id).await, pending());
    }
    ok(api.incoming(&ann, cursor(&last), 100)).await;
    for id in [in_tables, replayed, only_in_log] {
        assert_eq!(status(&api, id).await, synced());
    }
    assert_eq!(status(&api, later).await, pending());
}

#[tokio::test]
async fn a_repeated_end_of_a_snapshot_confirms_nothing_that_the_first_one_lacked() {
    let (api, ann, bob, _) = start().await;
    let in_tables = api.message(bob, ann.user, "in the tables").await;
    let tables = ok(api.incoming(&ann, "start", 100)).await;
    let following = api.follow().await;
    let last = ok(api.incoming(&ann, cursor(&tables), 100)).await;
    let later = sent(&api, bob, ann.user).await;
    // Sent twice by the network; the device has the first answer and nobody has this one.
    let repeated = ok(api.incoming(&ann, cursor(&tables), 100)).await;
    assert_eq!(repeated["messages"][0]["id"], json!(later));
    let next = ok(api.incoming(&ann, cursor(&last), 100)).await;
    assert_eq!((status(&api, in_tables).await, status(&api, later).await), (synced(), pending()));
    ok(api.incoming(&ann, cursor(&next), 100)).await;
    assert_eq!(status(&api, later).await, synced());
    drop(following);
}

#[tokio::test]
async fn another_snapshot_of_the_same_device_confirms_anew() {
    let (api, ann, bob, jwt) = start().await;
    let pages = api.snapshot(&ann, 100).await;
    ok(api.incoming(&ann, cursor(pages.last().unwrap()), 100)).await;
    // Nothing is committed in the log between: both snapshots end at the same position.
    let id = api.message(bob, ann.user, "only in PostgreSQL").await;
    let token = api.enrollment_token(&jwt, &json!({"username": "ann"})).await;
    let again = ok(api.complete(&token, &ann.id, "ann")).await;
    let ann = Phone { token: again["device_token"].as_str().unwrap().to_owned(), ..ann };
    let pages = api.snapshot(&ann, 1).await;
    ok(api.incoming(&ann, cursor(pages.last().unwrap()), 100)).await;
    assert_eq!(status(&api, id).await, synced());
}

#[tokio::test]
async fn what_cannot_be_noted_while_postgresql_is_away_is_noted_later() {
    let mut servers = posduif_testkit::Servers::private().await;
    let api = Api::on(&servers, "").await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let start = api.snapshot(&ann, 100).await.pop().unwrap();
    let first = sent(&api, bob, ann.user).await;
    let page = ok(api.incoming(&ann, cursor(&start), 100)).await;
    let second = sent(&api, bob, ann.user).await;
    servers.postgres_mut().kill9().await;
    let next = ok(api.incoming(&ann, cursor(&page), 100)).await;
    assert_eq!(next["messages"][0]["id"], json!(second), "the log goes on without PostgreSQL");
    servers.postgres_mut().restart().await.unwrap();
    let sql = api.database.connect().await;
    let settled = async || {
        let synced = "SELECT FROM messages WHERE status = 'synced' AND id IN ($1, $2)";
        sql.query(synced, &[&first, &second]).await.unwrap().len()
    };
    assert_eq!(settled().await, 0);
    let last = ok(api.incoming(&ann, cursor(&next), 100)).await;
    assert_eq!(settled().await, 2);
    assert_eq!(last["messages"], json!([]));
}

#[tokio::test]
async fn two_devices_of_one_user_confirm_the_same_messages_without_a_quarrel() {
    let (api, ann, bob, jwt) = start().await;
    let token = api.enrollment_token(&jwt, &json!({"username": "ann"})).await;
    let answer = ok(api.complete(&token, "second-phone", "ann")).await;
    let second = Phone {
        id: "second-phone".into(),
        token: answer["device_token"].as_str().unwrap().to_owned(),
        user: ann.user,
    };
    let mut cursors = Vec::new();
    for phone in [&ann, &second] {
        cursors.push(cursor(api.snapshot(phone, 100).await.last().unwrap()).to_owned());
    }
    let mut ids = Vec::new();
    for _ in 0..50 {
        ids.push(sent(&api, bob, ann.user).await);
    }
    let pages = futures::future::join_all(
        [(&ann, &cursors[0]), (&second, &cursors[1])]
            .map(|(phone, since)| ok(api.incoming(phone, since, 500))),
    )
    .await;
    let confirmed = [(&ann, cursor(&pages[0])), (&second, cursor(&pages[1]))];
    futures::future::join_all(confirmed.map(|(phone, since)| ok(api.incoming(phone, since, 500)))).await;
    for id in ids {
        assert_eq!(status(&api, id).await, synced());
    }
}

#[tokio::test]
async fn the_confirmed_position_reaches_sync_metadata_with_it_and_otherwise_within_the_interval() {
    let api = Api::with("api: {last_seen_interval: 100ms}").await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let start = api.snapshot(&ann, 100).await.pop().unwrap();
    sent(&api, bob, ann.user).await;
    let page = ok(api.incoming(&ann, cursor(&start), 100)).await;
    ok(api.incoming(&ann, cursor(&page), 100)).await;
    let sql = "SELECT s.last_synced_lsn::text, s.last_sync_timestamp IS NOT NULL, d.last_seen IS NOT NULL
                 FROM sync_metadata s JOIN devices d ON d.id = s.device_id WHERE d.id = $1";
    let row = api.sql.query_one(sql, &[&ann.id]).await.unwrap();
    let at = row.get::<_, Option<String>>(0).unwrap();
    assert!(row.get::<_, bool>(1) && row.get::<_, bool>(2));

    // A commit without a message is confirmed without a query; the position follows.
    let user = put("users", json!({"id": "u"}), json!({"id": "u"}));
    let end = api.commit(None, &[Bucket::Shared], &[user]).await;
    let page = ok(api.incoming(&ann, cursor(&page), 100)).await;
    ok(api.incoming(&ann, cursor(&page), 100)).await;
    let moved =
        posduif_testkit::eventually(std::time::Duration::from_secs(20), "the position to move", async || {
            let row = api.sql.query_one(sql, &[&ann.id]).await.unwrap();
            let now: String = row.get(0);
            Ok((now != at).then_some(now))
        });
    assert_eq!(moved.await, end.to_string());
    let seen = "SELECT last_seen IS NOT NULL FROM users WHERE username = 'ann'";
    assert!(api.sql.query_one(seen, &[]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test]
async fn a_full_redis_still_serves_what_it_has() {
    let servers = posduif_testkit::Servers::private().await;
    let api = Api::on(&servers, "").await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let start = api.snapshot(&ann, 100).await.pop().unwrap();
    let id = sent(&api, bob, ann.user).await;
    let mut redis =
        posduif_changelog::connect::connect(servers.redis_url(), Default::default()).await.unwrap();
    let mut limit = async |bytes: usize| {
        let mut command = redis::cmd("CONFIG");
        let () = command.arg(("SET", "maxmemory", bytes)).query_async(&mut redis).await.unwrap();
    };
    limit(1).await;
    let page = ok(api.incoming(&ann, cursor(&start), 100)).await;
    assert_eq!(page["messages"][0]["id"], json!(id));
    ok(api.incoming(&ann, cursor(&page), 100)).await;
    assert_eq!(status(&api, id).await, synced());
    limit(0).await;
    ok(api.incoming(&ann, cursor(&page), 100)).await;
}

#[tokio::test]
async fn a_log_that_fell_back_is_no_error_for_a_device_that_is_ahead() {
    let (api, ann, bob, _) = start().await;
    let start = api.snapshot(&ann, 100).await.pop().unwrap();
    let state = {
        let mut log = api.log.lock().await;
        log.state().await
    };
    let id = sent(&api, bob, ann.user).await;
    let page = ok(api.incoming(&ann, cursor(&start), 100)).await;
    api.log.lock().await.fall_back_to(&state).await;
    let waiting = ok(api.incoming(&ann, cursor(&page), 100)).await;
    assert_eq!((&waiting["cursor"], &waiting["messages"]), (&page["cursor"], &json!([])));
    assert_eq!(status(&api, id).await, pending());
}

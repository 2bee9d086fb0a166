//! Several writers of one row: the newest version wins, the loser hears of it, and what was deleted stays so.

use futures::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    changes::{self, KEY, gone, note, stored, synced},
    fixture::{Api, Phone, ok, pluck},
};

fn titled(title: &str, minute: u32) -> Value {
    json!({"title": title, "updated_at": format!("2026-01-15T10:{minute:02}:00Z")})
}

async fn upload(api: &Api, phone: &Phone, changes: &[Value]) -> Value {
    ok(api.outgoing(phone, &json!({ "changes": changes }))).await
}

fn lost_to(receipt: &Value) -> &Value {
    assert_eq!(
        (&receipt["failed_count"], receipt["conflicts"].as_array().unwrap().len()),
        (&json!(0), 1),
        "{receipt}"
    );
    assert_eq!(receipt["conflicts"][0]["table"], "public.notes");
    assert_eq!(receipt["conflicts"][0]["key"], json!({"id": KEY}));
    &receipt["conflicts"][0]["row"]
}

#[tokio::test]
async fn the_newest_version_wins_whenever_it_comes_and_the_loser_gets_it() {
    let (api, [ann, second, _]) = changes::start().await;
    synced(&upload(&api, &ann, &[note(KEY, titled("ten", 10))]).await);
    synced(&upload(&api, &second, &[note(KEY, titled("twelve", 12))]).await);
    let receipt = upload(&api, &ann, &[note(KEY, titled("eleven", 11))]).await;
    assert_eq!(receipt["synced_count"], 1);
    let row = lost_to(&receipt);
    assert_eq!((&row["title"], &row["updated_at"]), (&json!("twelve"), &json!("2026-01-15T10:12:00Z")));
    // As pages have it: the columns that are sent, in that form.
    assert!(row.get("secret").is_none() && row["price"].is_null() && row["id"] == KEY);
    assert_eq!(stored(&api, KEY).await["title"], "twelve");
}

#[tokio::test]
async fn of_two_versions_at_one_time_the_greater_device_wins() {
    for first_is_greater in [true, false] {
        let (api, [ann, second, _]) = changes::start().await;
        assert!(second.id > ann.id);
        let (first, last) = if first_is_greater { (&second, &ann) } else { (&ann, &second) };
        synced(&upload(&api, first, &[note(KEY, titled(&first.id, 10))]).await);
        let receipt = upload(&api, last, &[note(KEY, titled(&last.id, 10))]).await;
        match first_is_greater {
            true => assert_eq!(lost_to(&receipt)["title"], second.id.as_str()),
            false => synced(&receipt),
        }
        assert_eq!(stored(&api, KEY).await["title"], second.id.as_str());
    }
}

#[tokio::test]
async fn a_row_that_sql_changed_has_the_version_in_its_column_and_no_writer() {
    let (api, [ann, second, _]) = changes::start().await;
    synced(&upload(&api, &second, &[note(KEY, titled("a", 30))]).await);
    let sql = "UPDATE notes SET title = 'sql', updated_at = '2026-01-15 10:20Z'";
    api.sql.batch_execute(sql).await.unwrap();
    assert_eq!(lost_to(&upload(&api, &second, &[note(KEY, titled("b", 19))]).await)["title"], "sql");
    // The same time as SQL's: any device is greater than none.
    synced(&upload(&api, &ann, &[note(KEY, titled("c", 20))]).await);
    assert_eq!(stored(&api, KEY).await["title"], "c");
}

#[tokio::test]
async fn a_clock_that_is_years_ahead_wins_for_five_minutes_at_most() {
    let (api, [ann, second, _]) = changes::start().await;
    let ahead = |title: &str| json!({"title": title, "updated_at": "2999-01-01T00:00:00Z"});
    // Within one upload the order decides, and nothing of it is a conflict.
    synced(&upload(&api, &second, &[note(KEY, ahead("a")), note(KEY, ahead("b"))]).await);
    let sql = "SELECT title, updated_at BETWEEN now() + interval '4 minutes' AND now() + interval '5 minutes' FROM notes";
    let row = api.sql.query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get(0), row.get(1)), ("b", true));
    assert_eq!(lost_to(&upload(&api, &ann, &[note(KEY, json!({"title": "now"}))]).await)["title"], "b");
    api.sql.batch_execute("UPDATE notes SET updated_at = updated_at - interval '6 minutes'").await.unwrap();
    synced(&upload(&api, &ann, &[note(KEY, json!({"title": "now"}))]).await);
}

#[tokio::test]
async fn what_was_deleted_stays_deleted_against_older_edits_and_comes_back_with_newer_ones() {
    for by_device in [true, false] {
        let (api, [ann, second, _]) = changes::start().await;
        let edit = note(KEY, titled("edit", 11));
        synced(&upload(&api, &ann, &[note(KEY, titled("first", 10))]).await);
        match by_device {
            true => synced(
                &upload(&api, &second, &[gone(KEY, json!({"updated_at": "2026-01-15T10:12:00Z"}))]).await,
            ),
            false => api.sql.batch_execute("DELETE FROM notes").await.unwrap(),
        }
        assert_eq!(*lost_to(&upload(&api, &ann, std::slice::from_ref(&edit)).await), Value::Null);
        assert_eq!(*lost_to(&upload(&api, &second, &[edit]).await), Value::Null);
        assert_eq!(stored(&api, KEY).await, Value::Null);
        // To delete it again is no conflict; an older time than the tombstone's leaves that as it is.
        synced(&upload(&api, &ann, &[gone(KEY, json!({"updated_at": "2026-01-15T09:00:00Z"}))]).await);
        let newer = match by_device {
            true => titled("newer", 13),
            false => json!({"title": "newer"}),
        };
        synced(&upload(&api, &ann, &[note(KEY, newer)]).await);
        assert_eq!(stored(&api, KEY).await["title"], "newer");
    }
}

#[tokio::test]
async fn a_deletion_by_sql_is_later_than_a_version_of_a_clock_that_is_ahead() {
    let (api, [ann, ..]) = changes::start().await;
    let ahead = note(KEY, json!({"title": "a", "updated_at": "2999-01-01T00:00:00Z"}));
    synced(&upload(&api, &ann, std::slice::from_ref(&ahead)).await);
    let version = stored(&api, KEY).await["updated_at"].clone();
    api.sql.batch_execute("DELETE FROM notes").await.unwrap();
    let receipt = upload(&api, &ann, &[note(KEY, json!({"title": "b", "updated_at": version}))]).await;
    assert_eq!(*lost_to(&receipt), Value::Null);
    assert_eq!(stored(&api, KEY).await, Value::Null);
}

#[tokio::test]
async fn an_older_deletion_loses_against_a_newer_edit() {
    let (api, [ann, second, ben]) = changes::start().await;
    synced(&upload(&api, &ann, &[note(KEY, titled("edit", 11))]).await);
    let receipt = upload(&api, &second, &[gone(KEY, json!({"updated_at": "2026-01-15T10:10:00Z"}))]).await;
    assert_eq!(lost_to(&receipt)["title"], "edit");
    // Without a time it is the server's now.
    synced(&upload(&api, &second, &[gone(KEY, json!({}))]).await);
    assert_eq!(stored(&api, KEY).await, Value::Null);
    // What never was can be deleted by anybody, and keeps nobody from making it, also with an older time.
    let other = "00000000-0000-0000-0000-0000000000b2";
    synced(&upload(&api, &ben, &[gone(other, json!({}))]).await);
    synced(&upload(&api, &ann, &[note(other, titled("made", 10))]).await);
    assert_eq!(stored(&api, other).await["title"], "made");
}

#[tokio::test]
async fn a_row_that_sql_made_again_is_there_again() {
    let (api, [ann, second, _]) = changes::start().await;
    synced(&upload(&api, &ann, &[note(KEY, titled("a", 10))]).await);
    synced(&upload(&api, &ann, &[gone(KEY, json!({"updated_at": "2026-01-15T10:30:00Z"}))]).await);
    let sql = "INSERT INTO notes (id, owner_id, title, updated_at) VALUES ($1::text::uuid, $2, 'sql', '2026-01-15 10:05Z')";
    api.sql.execute(sql, &[&KEY, &ann.user.uuid()]).await.unwrap();
    synced(&upload(&api, &second, &[note(KEY, titled("b", 6))]).await);
    assert_eq!(stored(&api, KEY).await["title"], "b");
}

#[tokio::test]
async fn a_conflict_that_the_same_upload_resolves_is_none() {
    let (api, [ann, second, _]) = changes::start().await;
    synced(&upload(&api, &second, &[note(KEY, titled("a", 10))]).await);
    let receipt = upload(&api, &ann, &[note(KEY, titled("old", 9)), note(KEY, titled("new", 11))]).await;
    synced(&receipt);
    let receipt = upload(&api, &ann, &[note(KEY, titled("older", 8)), note(KEY, titled("old", 9))]).await;
    assert_eq!(lost_to(&receipt)["title"], "new");
}

#[tokio::test]
async fn an_upload_that_loses_all_over_gets_every_winner_in_its_order() {
    let (api, [ann, second, _]) = changes::start().await;
    let keys: Vec<String> = (0..200).map(|_| Uuid::new_v4().to_string()).collect();
    let edits = |minute| keys.iter().map(|key| note(key, titled(key, minute))).collect::<Vec<_>>();
    synced(&upload(&api, &second, &edits(10)).await);
    let receipt = upload(&api, &ann, &edits(9)).await;
    assert_eq!((&receipt["synced_count"], &receipt["failed_count"]), (&json!(200), &json!(0)));
    let conflicts = receipt["conflicts"].as_array().unwrap();
    let titles: Vec<&str> =
        conflicts.iter().map(|conflict| conflict["row"]["title"].as_str().unwrap()).collect();
    assert_eq!(titles, keys);
}

#[tokio::test]
async fn a_users_own_older_rename_loses() {
    let (api, [ann, second, _]) = changes::start().await;
    let rename =
        |name: &str, at: &str| json!({"users": [{"id": ann.user, "username": name, "updated_at": at}]});
    synced(&ok(api.outgoing(&ann, &rename("new", "2999-01-01T00:00:00Z"))).await);
    let receipt = ok(api.outgoing(&second, &rename("old", "2026-01-15T10:00:00Z"))).await;
    let conflict = &receipt["conflicts"][0];
    assert_eq!((&conflict["table"], &conflict["key"]), (&json!("public.users"), &json!({"id": ann.user})));
    assert_eq!((&conflict["row"]["username"], conflict["row"].get("device_id")), (&json!("new"), None));
}

fn message(recipient: &Phone, content: &str, minute: u32) -> Value {
    let at = format!("2026-01-15T10:{minute:02}:00Z");
    json!({"messages": [{"id": KEY, "recipient_id": recipient.user, "content": content,
                         "created_at": "2026-01-15T10:00:00Z", "updated_at": at}]})
}

async fn content(api: &Api) -> Option<String> {
    api.sql.query_opt("SELECT content FROM messages", &[]).await.unwrap().map(|row| row.get(0))
}

#[tokio::test]
async fn a_message_is_edited_by_its_sender_and_its_newest_content_wins() {
    let (api, [ann, second, ben]) = changes::start().await;
    synced(&ok(api.outgoing(&ann, &message(&ben, "ten", 10))).await);
    synced(&ok(api.outgoing(&second, &message(&ben, "twelve", 12))).await);
    let receipt = ok(api.outgoing(&ann, &message(&ben, "eleven", 11))).await;
    let conflict = &receipt["conflicts"][0];
    assert_eq!((&conflict["key"], &conflict["row"]["content"]), (&json!({"id": KEY}), &json!("twelve")));
    // The same time, a lesser device; then a greater one.
    assert_eq!(
        ok(api.outgoing(&ann, &message(&ben, "lesser", 12))).await["conflicts"][0]["row"]["content"],
        "twelve"
    );
    synced(&ok(api.outgoing(&second, &message(&ben, "same", 12))).await);
    assert_eq!(content(&api).await.as_deref(), Some("same"));
    // What says no time and repeats the content does nothing; another content is an edit of now.
    let undated =
        |content: &str| json!({"messages": [{"id": KEY, "recipient_id": ben.user, "content": content}]});
    synced(&ok(api.outgoing(&ann, &undated("same"))).await);
    let sql = "SELECT updated_at::text, created_at::text FROM messages";
    let row = api.sql.query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get(0), row.get(1)), ("2026-01-15 10:12:00+00", "2026-01-15 10:00:00+00"));
    synced(&ok(api.outgoing(&ann, &undated("now"))).await);
    assert_eq!(content(&api).await.as_deref(), Some("now"));
    // Neither another recipient nor another sender.
    for (phone, to) in [(&ann, &ann), (&ben, &ann), (&ben, &ben)] {
        let receipt = ok(api.outgoing(phone, &message(to, "x", 59))).await;
        assert_eq!(pluck(&receipt["failed_messages"], "code"), ["CONFLICT"]);
    }
    let last = "SELECT last_message_sent FROM users WHERE id = $1";
    let last: String = api.sql.query_one(last, &[&ann.user.uuid()]).await.unwrap().get(0);
    assert_eq!(last, "now");
}

#[tokio::test]
async fn a_message_that_was_deleted_never_comes_back() {
    let (api, [ann, second, ben]) = changes::start().await;
    let sent = message(&ben, "x", 10);
    let first = ok(api.outgoing(&ann, &sent)).await;
    api.sql.batch_execute("DELETE FROM messages").await.unwrap();
    // The repetition, the same in another upload, from another phone, and a later edit: applied, as it was at first.
    let mut other = sent.clone();
    other["reads"] = json!([]);
    for (phone, upload) in
        [(&ann, &sent), (&ann, &other), (&second, &sent), (&ann, &message(&ben, "later", 59))]
    {
        let receipt = ok(api.outgoing(phone, upload)).await;
        assert_eq!(receipt["synced_count"], first["synced_count"], "{receipt}");
        synced(&receipt);
        assert_eq!(content(&api).await, None);
    }
    let receipt = ok(api.outgoing(&ben, &message(&ann, "x", 10))).await;
    assert_eq!(pluck(&receipt["failed_messages"], "code"), ["CONFLICT"]);
    assert_eq!(content(&api).await, None);
}

#[tokio::test]
async fn two_phones_of_one_user_write_one_row_at_once_and_the_newest_version_stays() {
    let (api, phones) = changes::start().await;
    for round in 0..10 {
        let key = Uuid::new_v4().to_string();
        let writes = (0..8_usize).map(|n| {
            let (api, key, phone) = (&api, &key, &phones[n % 2]);
            async move {
                let minute = u32::try_from((n * 7 + round) % 8).unwrap();
                synced_or_lost(&upload(api, phone, &[note(key, titled(&format!("{minute}"), minute))]).await)
            }
        });
        join_all(writes).await;
        assert_eq!(stored(&api, &key).await["title"], "7", "round {round}");
    }
}

#[track_caller]
fn synced_or_lost(receipt: &Value) {
    assert_eq!((&receipt["synced_count"], &receipt["failed_count"]), (&json!(1), &json!(0)), "{receipt}");
}

#[tokio::test]
async fn uploads_that_write_the_same_rows_in_opposite_orders_are_all_applied() {
    let (api, [ann, second, _]) = changes::start().await;
    let keys: Vec<String> = (0..20).map(|_| Uuid::new_v4().to_string()).collect();
    let edits = |title: &'static str, backwards: bool| {
        let mut keys = keys.clone();
        if backwards {
            keys.reverse();
        }
        keys.iter().map(|key| note(key, json!({ "title": title }))).collect::<Vec<_>>()
    };
    synced(&upload(&api, &ann, &edits("a", false)).await);
    let (forth, back) = (edits("forth", false), edits("back", true));
    for _ in 0..5 {
        let receipts = [
            upload(&api, &ann, &forth),
            upload(&api, &second, &back),
            upload(&api, &ann, &back),
            upload(&api, &second, &forth),
        ];
        for receipt in join_all(receipts).await {
            assert_eq!((&receipt["synced_count"], &receipt["failed_count"]), (&json!(20), &json!(0)));
        }
    }
}

/// Waits until so many sessions wait for a lock.
async fn until_waiting(api: &Api, sessions: i64) {
    let server = api.database.connect_superuser().await;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    posduif_testkit::eventually_true(std::time::Duration::from_secs(10), "sessions wait", async || {
        Ok(server.query_one(sql, &[]).await?.get::<_, i64>(0) == sessions)
    })
    .await;
}

#[tokio::test]
async fn an_upload_that_a_deadlock_ends_is_run_again_as_a_whole() {
    let (api, [ann, ..]) = changes::start().await;
    let keys = [KEY, "00000000-0000-0000-0000-0000000000b2"];
    synced(&upload(&api, &ann, &keys.map(|key| note(key, titled("a", 10)))).await);
    let admin = api.database.connect_superuser().await;
    // The application never looks for deadlocks, so it is the upload that gives way.
    let sql =
        format!("SET deadlock_timeout = '1h'; BEGIN; UPDATE notes SET done = true WHERE id = '{}'", keys[1]);
    admin.batch_execute(&sql).await.unwrap();
    let edits = api.outgoing(&ann, &json!({"changes": keys.map(|key| note(key, titled("b", 11)))}));
    let uploading = tokio::spawn(edits.send());
    until_waiting(&api, 1).await;
    let sql = format!("UPDATE notes SET done = true WHERE id = '{}'", keys[0]);
    admin.batch_execute(&sql).await.unwrap();
    admin.batch_execute("COMMIT").await.unwrap();
    let receipt: Value = uploading.await.unwrap().unwrap().json().await.unwrap();
    synced(&receipt);
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    posduif_testkit::eventually_true(
        std::time::Duration::from_secs(10),
        "there was a deadlock",
        async || Ok(api.sql.query_one(deadlocks, &[]).await?.get::<_, i64>(0) == 1),
    )
    .await;
    for key in keys {
        let row = stored(&api, key).await;
        assert_eq!((&row["title"], &row["done"]), (&json!("b"), &json!(true)));
    }
}

#[tokio::test]
async fn a_row_that_is_deleted_while_an_older_edit_waits_for_it_stays_deleted() {
    let (api, [ann, ..]) = changes::start().await;
    synced(&upload(&api, &ann, &[note(KEY, titled("a", 10))]).await);
    let other = api.database.connect().await;
    other.batch_execute("BEGIN; DELETE FROM notes").await.unwrap();
    let edit = api.outgoing(&ann, &json!({"changes": [note(KEY, titled("b", 11))]}));
    let waiting = tokio::spawn(edit.send());
    until_waiting(&api, 1).await;
    other.batch_execute("COMMIT").await.unwrap();
    let receipt: Value = waiting.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(*lost_to(&receipt), Value::Null);
    assert_eq!(stored(&api, KEY).await, Value::Null);
}

/// Keeps insertions of rows with this value waiting until the session that it returns ends.
async fn hold_insertions(api: &Api, table: &str, column: &str) -> tokio_postgres::Client {
    let sql = format!(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NEW; END $$;
         CREATE TRIGGER wait BEFORE INSERT ON {table} FOR EACH ROW WHEN (NEW.{column} = 'slow') EXECUTE FUNCTION wait()"
    );
    api.sql.batch_execute(&sql).await.unwrap();
    let holder = api.database.connect().await;
    holder.batch_execute("SELECT pg_advisory_lock(42)").await.unwrap();
    holder
}

#[tokio::test]
async fn a_row_that_came_and_went_while_an_upload_inserts_it_stays_deleted() {
    let (api, [ann, ..]) = changes::start().await;
    let holder = hold_insertions(&api, "notes", "title").await;
    let insert = api.outgoing(&ann, &json!({"changes": [note(KEY, titled("slow", 10))]}));
    let uploading = tokio::spawn(insert.send());
    until_waiting(&api, 1).await;
    let sql = "INSERT INTO notes (id, owner_id) VALUES ($1::text::uuid, $2)";
    api.sql.execute(sql, &[&KEY, &ann.user.uuid()]).await.unwrap();
    api.sql.batch_execute("DELETE FROM notes").await.unwrap();
    holder.batch_execute("SELECT pg_advisory_unlock(42)").await.unwrap();
    let receipt: Value = uploading.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(*lost_to(&receipt), Value::Null);
    assert_eq!(stored(&api, KEY).await, Value::Null);
}

#[tokio::test]
async fn a_message_that_came_and_went_while_an_upload_inserts_it_stays_deleted() {
    let (api, [ann, _, ben]) = changes::start().await;
    let holder = hold_insertions(&api, "messages", "content").await;
    let uploading = tokio::spawn(api.outgoing(&ann, &message(&ben, "slow", 10)).send());
    until_waiting(&api, 1).await;
    let sql = "INSERT INTO messages (id, sender_id, recipient_id, content) VALUES ($1::text::uuid, $2, $3, 'first')";
    api.sql.execute(sql, &[&KEY, &ann.user.uuid(), &ben.user.uuid()]).await.unwrap();
    api.sql.batch_execute("DELETE FROM messages").await.unwrap();
    holder.batch_execute("SELECT pg_advisory_unlock(42)").await.unwrap();
    let receipt: Value = uploading.await.unwrap().unwrap().json().await.unwrap();
    synced(&receipt);
    assert_eq!(content(&api).await, None);
}

#[tokio::test]
async fn a_thousand_lost_edits_of_one_table_are_answered_with_the_rows_that_won() {
    let (api, [ann, second, _]) = changes::start().await;
    let many = |title: &str, minute: u32| -> Vec<Value> {
        let key = |row: u32| format!("00000000-0000-0000-0000-{row:012}");
        (0..1_000).map(|row| note(&key(row), titled(title, minute))).collect()
    };
    synced(&upload(&api, &ann, &many("winner", 12)).await);
    let answer = api.outgoing(&second, &json!({ "changes": many("loser", 11) })).send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert_eq!(status, 200, "{text:.400}");
    assert_eq!(text.matches(r#""title":"winner""#).count(), 1_000, "each column once: {text:.400}");
}

#[tokio::test]
async fn a_column_that_keeps_whole_seconds_lets_the_later_edit_of_the_same_second_win() {
    let (api, [ann, ..]) = changes::start().await;
    let part = |name: &str, time: &str| {
        json!({"table": "parts", "op": "upsert", "key": {"owner_id": ann.user, "number": 1},
               "row": {"name": name, "changed": format!("2026-01-15T10:00:{time}Z")}})
    };
    // PostgreSQL rounds the first version up, beyond the second one.
    for (name, time) in [("first", "00.6"), ("second", "00.9")] {
        synced(&upload(&api, &ann, &[part(name, time)]).await);
        let row = api.sql.query_one("SELECT name, changed::text FROM parts", &[]).await.unwrap();
        assert_eq!((row.get(0), row.get(1)), (name, "2026-01-15 10:00:01"));
    }
    let gone = json!({"table": "parts", "op": "delete", "key": {"owner_id": ann.user, "number": 1},
                      "row": {"changed": "2026-01-15T10:00:00.95Z"}});
    synced(&upload(&api, &ann, &[gone]).await);
    assert!(api.sql.query_opt("SELECT FROM parts", &[]).await.unwrap().is_none());
}

#[tokio::test]
async fn a_lost_edit_of_a_table_that_no_longer_fits_its_declaration_blocks_nothing_else() {
    let rules = "sync:
  tables:
    - table: public.plans
      buckets: ['user:{owner_id}']
      columns: [id, owner_id, title, shown, updated_at]
      write: {owner: owner_id, columns: [title], version: updated_at}
";
    let api = Api::with(rules).await;
    let table = "CREATE TABLE plans (id int PRIMARY KEY, owner_id uuid, title text, shown int, updated_at timestamptz)";
    api.sql.batch_execute(table).await.unwrap();
    api.migrate(rules).await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let plan =
        |minute: u32| json!({"table": "plans", "op": "upsert", "key": {"id": 1}, "row": titled("a", minute)});
    synced(&upload(&api, &ann, &[plan(12)]).await);
    api.sql.batch_execute("ALTER TABLE plans DROP COLUMN shown").await.unwrap();
    let message = json!({"id": Uuid::new_v4(), "recipient_id": bob, "content": "hello"});
    let receipt = ok(api.outgoing(&ann, &json!({"messages": [message], "changes": [plan(11)]}))).await;
    assert_eq!((&receipt["synced_count"], &receipt["failed_count"]), (&json!(1), &json!(1)), "{receipt}");
    assert_eq!(receipt["failed"][0]["code"], "INTERNAL_ERROR");
}

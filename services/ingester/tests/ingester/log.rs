//! What changes of the database look like in the log.

use posduif_model::{Bucket, Op};
use posduif_testkit::Servers;

use crate::fixture::{SOON, Tenant};

const TASKS: &str = "[{table: tasks, buckets: ['user:{owner}'], columns: [id, owner, title]}]";
const TASKS_SQL: &str = "CREATE TABLE tasks (id int PRIMARY KEY, owner uuid, title text, hidden text)";

fn key(id: i32) -> String {
    format!("{{\"id\":{id}}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_goes_to_its_sender_and_its_recipient_and_its_sender_to_all() {
    let tenant = Tenant::create(Servers::shared().await).await;
    let _ingester = tenant.ingest().await;
    let (bob, joe, eve) = (tenant.user("Bob").await, tenant.user("Joe").await, tenant.user("Eve").await);
    tenant.message(bob, joe, "hello \"Joe\"\n").await;
    for (reader, expected) in [(bob, 1), (joe, 1), (eve, 0)] {
        assert_eq!(tenant.operations(Bucket::User(reader)).await.len(), expected);
    }
    let entries = tenant.entries(&[Bucket::User(joe)]).await;
    let row: serde_json::Value = serde_json::from_str(&entries[0].changes[0].row).unwrap();
    assert_eq!(row["content"], "hello \"Joe\"\n");
    assert_eq!(row["status"], "pending_sync");
    assert!(row["created_at"].as_str().unwrap().ends_with('Z'));
    let shared = tenant.entries(&[Bucket::Shared]).await;
    let last = shared.iter().flat_map(|entry| &entry.changes).next_back().unwrap();
    let row: serde_json::Value = serde_json::from_str(&last.row).unwrap();
    assert_eq!((&row["username"], &row["last_message_sent"]), (&"Bob".into(), &"hello \"Joe\"\n".into()));
    assert!(row.get("device_id").is_none(), "a column that is not listed left the server");
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_key_changes_deletes_and_truncates_reach_the_right_readers() {
    let tenant = Tenant::with_tables(Servers::shared().await, TASKS, TASKS_SQL).await;
    let _ingester = tenant.ingest().await;
    let (ann, ben) = (tenant.user("Ann").await, tenant.user("Ben").await);
    let sql = format!(
        "INSERT INTO tasks VALUES (1, '{ann}', 'a', 'h'), (2, '{ann}', 'b', 'h');
         UPDATE tasks SET hidden = 'other';
         UPDATE tasks SET owner = '{ben}' WHERE id = 1;
         UPDATE tasks SET id = 3 WHERE id = 2;
         BEGIN; SAVEPOINT s; INSERT INTO tasks VALUES (9, '{ann}', 'undone', 'h'); ROLLBACK TO s; COMMIT;
         DELETE FROM tasks WHERE id = 1;"
    );
    tenant.client.batch_execute(&sql).await.unwrap();
    assert_eq!(
        tenant.operations(Bucket::User(ann)).await,
        [(Op::Put, key(1)), (Op::Put, key(2)), (Op::Delete, key(1)), (Op::Delete, key(2)), (Op::Put, key(3)),]
    );
    assert_eq!(tenant.operations(Bucket::User(ben)).await, [(Op::Put, key(1)), (Op::Delete, key(1))]);
    tenant.client.batch_execute("TRUNCATE tasks").await.unwrap();
    let shared = tenant.operations(Bucket::Shared).await;
    assert_eq!(shared.last(), Some(&(Op::Truncate, String::new())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_untouched_value_survives_updates_of_its_row() {
    let tenant = Tenant::with_tables(Servers::shared().await, TASKS, TASKS_SQL).await;
    let _ingester = tenant.ingest().await;
    let ann = tenant.user("Ann").await;
    // Random, so that it does not compress and is stored out of line.
    let sql = format!(
        "INSERT INTO tasks SELECT 1, '{ann}', string_agg(gen_random_uuid()::text, ''), 'h' FROM generate_series(1, 3000);
         UPDATE tasks SET owner = NULL; UPDATE tasks SET owner = '{ann}';"
    );
    tenant.client.batch_execute(&sql).await.unwrap();
    let title: String = tenant.client.query_one("SELECT title FROM tasks", &[]).await.unwrap().get(0);
    let entries = tenant.entries(&[Bucket::User(ann)]).await;
    let row: serde_json::Value = serde_json::from_str(&entries.last().unwrap().changes[0].row).unwrap();
    assert_eq!(row["title"], title);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_marks_its_rows_with_the_device_it_came_from() {
    let tenant = Tenant::create(Servers::shared().await).await;
    let _ingester = tenant.ingest().await;
    let bob = tenant.user("Bob").await;
    let sql = format!(
        "BEGIN; SELECT pg_logical_emit_message(true, 'posduif.origin', 'phone-1');
         INSERT INTO messages (sender_id, recipient_id, content) VALUES ('{bob}', '{bob}', 'x'); COMMIT;"
    );
    tenant.client.batch_execute(&sql).await.unwrap();
    tenant.message(bob, bob, "y").await;
    let entries = tenant.entries(&[Bucket::User(bob)]).await;
    let origins: Vec<_> = entries.iter().map(|e| e.origin.as_ref().map(ToString::to_string)).collect();
    assert_eq!(origins, [Some("phone-1".to_owned()), None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_larger_than_a_chunk_becomes_visible_as_a_whole() {
    let tenant = Tenant::with_tables(Servers::shared().await, TASKS, TASKS_SQL).await;
    let _ingester = tenant.ingest().await;
    let ann = tenant.user("Ann").await;
    let sql = format!(
        "INSERT INTO tasks SELECT n, '{ann}', repeat('x', 100), 'h' FROM generate_series(1, 30000) n"
    );
    let before = tenant.caught_up().await.watermark.commit;
    let insert = tenant.client.batch_execute(&sql);
    let watch = async {
        loop {
            let state = tenant.log.state().await.unwrap().unwrap();
            let bucket = [Bucket::User(ann)];
            let upto = state.watermark.commit;
            match tenant.log.read(&state.epoch, &bucket, before, upto, 10).await.unwrap() {
                posduif_changelog::reader::Read::Page(page) => {
                    assert!(
                        [0, 30_000].contains(&page.entries.len()),
                        "a part of {} rows",
                        page.entries.len()
                    );
                    if page.entries.len() == 30_000 {
                        return;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    };
    let both = async { tokio::join!(insert, watch) };
    let (inserted, ()) = tokio::time::timeout(3 * SOON, both).await.expect("the transaction never arrives");
    inserted.unwrap();
}

//! Tenants whose tables are polled.

use posduif_model::{Bucket, Op, Source};
use posduif_testkit::{Servers, eventually};

use crate::fixture::{SOON, Tenant};

const TASKS: &str = "[{table: tasks, buckets: ['user:{owner}']}, {table: notes, buckets: [shared]}]";
const TABLES: &str = "CREATE TABLE tasks (id int PRIMARY KEY, owner uuid, title text, hidden text);
                      CREATE TABLE notes (a text, b numeric, body text, PRIMARY KEY (a, b))";
const ANN: &str = "00000000-0000-0000-0000-00000000000a";
const BOB: &str = "00000000-0000-0000-0000-00000000000b";

async fn polled() -> Tenant {
    let mut tenant = Tenant::with_tables(Servers::shared().await, TASKS, TABLES).await;
    tenant.session.tenant.wal = Some(false);
    tenant
}

fn of(user: &str) -> Bucket {
    Bucket::User(user.parse().unwrap())
}

fn key(id: i32) -> String {
    format!("{{\"id\":{id}}}")
}

#[tokio::test]
async fn what_changes_is_put_where_it_is_and_deleted_where_it_was() {
    let tenant = polled().await;
    let _ingester = tenant.ingest().await;
    let run = async |sql: &str| tenant.client.batch_execute(sql).await.unwrap();
    run(&format!("INSERT INTO tasks VALUES (1, '{ANN}', 'a'), (2, '{ANN}', 'b'), (3, NULL, 'c')")).await;
    assert_eq!(tenant.operations(of(ANN)).await, [(Op::Put, key(1)), (Op::Put, key(2))]);
    run(&format!("UPDATE tasks SET owner = '{BOB}' WHERE id = 1; DELETE FROM tasks WHERE id = 2")).await;
    let (ann, bob) = (tenant.operations(of(ANN)).await, tenant.operations(of(BOB)).await);
    assert_eq!(ann[2..], [(Op::Delete, key(1)), (Op::Delete, key(2))]);
    assert_eq!(bob, [(Op::Put, key(1))]);
    run("UPDATE tasks SET id = 9 WHERE id = 1").await;
    assert_eq!(tenant.operations(of(BOB)).await[1..], [(Op::Delete, key(1)), (Op::Put, key(9))]);
    run(&format!("TRUNCATE tasks; INSERT INTO tasks VALUES (9, '{ANN}', 'new')")).await;
    let shared = tenant.operations(Bucket::Shared).await;
    assert_eq!(shared.last().map(|(op, _)| *op), Some(Op::Truncate));
    assert_eq!(tenant.operations(of(ANN)).await.last(), Some(&(Op::Put, key(9))));
    assert_eq!(tenant.state().await.supply.source, Source::Polling);
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    assert_eq!(tenant.client.query_one(slots, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn a_key_of_several_columns_and_another_text_of_one_value_is_told_apart() {
    let tenant = polled().await;
    let _ingester = tenant.ingest().await;
    let run = async |sql: &str| tenant.client.batch_execute(sql).await.unwrap();
    run("INSERT INTO notes VALUES ('it''s \"x\", {y}', 1.50, 'z')").await;
    let first = tenant.operations(Bucket::Shared).await;
    assert_eq!(first.len(), 1);
    run("UPDATE notes SET b = 1.5").await;
    let both = tenant.operations(Bucket::Shared).await;
    let last = both.last().unwrap();
    assert_eq!(last.0, Op::Put);
    assert_eq!(
        both.iter().filter(|(op, key)| *op == Op::Delete && *key == first[0].1).count(),
        usize::from(first[0].1 != last.1)
    );
}

#[tokio::test]
async fn an_update_of_columns_that_nobody_sees_is_no_news() {
    let listed = "[{table: tasks, buckets: ['user:{owner}'], columns: [id, title]}]";
    let mut tenant = Tenant::with_tables(Servers::shared().await, listed, TABLES).await;
    tenant.session.tenant.wal = Some(false);
    let _ingester = tenant.ingest().await;
    let run = async |sql: &str| tenant.client.batch_execute(sql).await.unwrap();
    run(&format!("INSERT INTO tasks VALUES (1, '{ANN}', 'a')")).await;
    assert_eq!(tenant.operations(of(ANN)).await.len(), 1);
    run("UPDATE tasks SET hidden = 'h'").await;
    assert_eq!(tenant.operations(of(ANN)).await.len(), 1);
    run("UPDATE tasks SET title = 'b'").await;
    assert_eq!(tenant.operations(of(ANN)).await.len(), 2);
}

/// `xid < xmin` alone would tear the older transaction, or lose it.
#[tokio::test]
async fn a_transaction_that_commits_late_is_published_whole_and_once() {
    let tenant = polled().await;
    let _ingester = tenant.ingest().await;
    let mut late = tenant.database.connect().await;
    let late = late.transaction().await.unwrap();
    late.batch_execute(&format!("INSERT INTO tasks VALUES (1, '{ANN}', 'a')")).await.unwrap();
    late.batch_execute(&format!("SAVEPOINT s; INSERT INTO tasks VALUES (2, '{ANN}', 'b'); RELEASE s"))
        .await
        .unwrap();
    let run = async |sql: &str| tenant.client.batch_execute(sql).await.unwrap();
    run(&format!("INSERT INTO tasks VALUES (3, '{BOB}', 'c')")).await;
    assert_eq!(tenant.operations(of(BOB)).await, [(Op::Put, key(3))]);
    assert_eq!(tenant.operations(of(ANN)).await, []);
    late.batch_execute(&format!("INSERT INTO tasks VALUES (4, '{ANN}', 'd')")).await.unwrap();
    late.commit().await.unwrap();
    run(&format!("INSERT INTO tasks VALUES (5, '{BOB}', 'e')")).await;
    assert_eq!(tenant.operations(of(ANN)).await, [1, 2, 4].map(|id| (Op::Put, key(id))));
    let entries = tenant.entries(&[of(ANN)]).await;
    assert!(entries.iter().all(|entry| entry.position.commit == entries[0].position.commit));
    assert_eq!(tenant.operations(of(BOB)).await, [(Op::Put, key(3)), (Op::Put, key(5))]);
}

#[tokio::test]
async fn a_killed_poller_is_gone_on_with_and_doubles_nothing() {
    let tenant = polled().await;
    let run = async |sql: &str| tenant.client.batch_execute(sql).await.unwrap();
    for round in 0..5 {
        let _ingester = tenant.ingest_again().await;
        run(&format!("INSERT INTO tasks VALUES ({round}, '{ANN}', 'a')")).await;
        let expected: Vec<_> = (0..=round).map(|id| (Op::Put, key(id))).collect();
        assert_eq!(tenant.operations(of(ANN)).await, expected);
    }
    let epochs = "SELECT count(*) FROM posduif_engine.epoch_history";
    assert_eq!(tenant.client.query_one(epochs, &[]).await.unwrap().get::<_, i64>(0), 1);
}

#[tokio::test]
async fn what_the_log_has_for_certain_is_thrown_away() {
    let tenant = polled().await;
    let _ingester = tenant.ingest().await;
    tenant.client.batch_execute(&format!("INSERT INTO tasks VALUES (1, '{ANN}', 'a')")).await.unwrap();
    assert_eq!(tenant.operations(of(ANN)).await.len(), 1);
    let kept = "SELECT count(*) FROM posduif_engine.captured";
    eventually(SOON, "the captured row goes", async || {
        Ok((tenant.client.query_one(kept, &[]).await?.get::<_, i64>(0) == 0).then_some(()))
    })
    .await;
    assert_eq!(tenant.operations(of(ANN)).await.len(), 1);
}

#[tokio::test]
async fn a_renamed_column_lets_the_application_write_and_opens_an_epoch() {
    let tenant = polled().await;
    let ingester = tenant.ingest().await;
    let before = tenant.state().await.epoch;
    let run = async |sql: &str| tenant.client.batch_execute(sql).await.unwrap();
    run(&format!("ALTER TABLE tasks RENAME owner TO holder; INSERT INTO tasks VALUES (1, '{ANN}', 'a')"))
        .await;
    let reason = ingester.ended().await;
    assert!(reason.contains("tasks"), "{reason}");
    run("ALTER TABLE tasks RENAME holder TO owner").await;
    let reason = tenant.spawn().ended().await;
    assert!(reason.contains("nobody knows which"), "{reason}");
    let _ingester = tenant.ingest().await;
    assert_ne!(tenant.state().await.epoch, before);
}

#[tokio::test]
async fn two_pollers_of_one_tenant_are_one_too_many() {
    let tenant = polled().await;
    let _first = tenant.ingest().await;
    let reason = tenant.spawn().ended().await;
    assert!(reason.contains("another ingester polls"), "{reason}");
}

//! Tables and publications that change under a running ingester.

use posduif_model::{Bucket, Op, rule::RuleSet};
use posduif_runtime::config::Config;
use posduif_testkit::{Servers, eventually};

use crate::fixture::{SOON, Tenant};

const TASKS: &str = "[{table: tasks, buckets: ['user:{owner}'], columns: [id, owner, title]}]";
const TASKS_SQL: &str = "CREATE TABLE public.tasks (id int PRIMARY KEY, owner uuid, title text, hidden text)";

/// The session ends and the next one opens another epoch.
async fn heals(tenant: &Tenant, change: &[&str]) {
    let running = tenant.ingest().await;
    let epoch = tenant.caught_up().await.epoch;
    // In one transaction: between two of them the ingester would see a table that is missing, and end for that.
    tenant.client.batch_execute(&format!("BEGIN; {}; COMMIT", change.join("; "))).await.unwrap();
    let reason = running.ended().await;
    assert!(reason.contains("altered"), "{reason}");
    let _next = tenant.ingest_again().await;
    assert_ne!(tenant.state().await.epoch, epoch, "what changed without a message would stay on devices");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_left_the_publication_for_a_moment_opens_an_epoch() {
    let tenant = Tenant::with_tables(Servers::shared().await, TASKS, TASKS_SQL).await;
    let change = [
        "ALTER PUBLICATION posduif DROP TABLE tasks",
        "INSERT INTO tasks VALUES (2, NULL, 'nobody heard of it')",
        "ALTER PUBLICATION posduif ADD TABLE tasks",
    ];
    heals(&tenant, &change).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_made_anew_opens_an_epoch() {
    let tenant = Tenant::with_tables(Servers::shared().await, TASKS, TASKS_SQL).await;
    let change = [
        "DROP TABLE tasks",
        TASKS_SQL,
        "ALTER TABLE tasks REPLICA IDENTITY FULL",
        "GRANT SELECT ON tasks TO posduif_ingester",
        "ALTER PUBLICATION posduif ADD TABLE tasks",
    ];
    heals(&tenant, &change).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_no_longer_keeps_its_old_rows_stops_the_stream() {
    let tenant = Tenant::with_tables(Servers::shared().await, TASKS, TASKS_SQL).await;
    let running = tenant.ingest().await;
    let ann = tenant.user("Ann").await;
    let before = tenant.caught_up().await;
    let sql = format!("INSERT INTO tasks VALUES (1, '{ann}', 'a', 'h')");
    tenant.client.batch_execute(&sql).await.unwrap();
    tenant.client.batch_execute("ALTER TABLE tasks REPLICA IDENTITY DEFAULT").await.unwrap();
    tenant.client.batch_execute("DELETE FROM tasks").await.unwrap();
    let reason = running.ended().await;
    assert!(reason.contains("REPLICA IDENTITY FULL"), "{reason}");
    tenant.client.batch_execute("ALTER TABLE tasks REPLICA IDENTITY FULL").await.unwrap();
    // What cannot be routed any more is covered by an epoch: the operator's repair must not end in a loop.
    eventually(SOON, "the tenant goes on after the repair", async || {
        let running = tenant.spawn();
        let ended = tokio::time::timeout(std::time::Duration::from_millis(1_500), running.ended()).await;
        Ok(ended.is_err().then_some(()))
    })
    .await;
    let _next = tenant.ingest_again().await;
    assert_ne!(tenant.caught_up().await.epoch, before.epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_added_and_declared_does_not_wedge_the_tenant() {
    let mut tenant = Tenant::with_tables(Servers::shared().await, TASKS, TASKS_SQL).await;
    tenant.session.wal.confirm_delay = SOON;
    let running = tenant.ingest().await;
    let ann = tenant.user("Ann").await;
    tenant.client.batch_execute(&format!("INSERT INTO tasks VALUES (1, '{ann}', 'a', 'h')")).await.unwrap();
    let before = tenant.caught_up().await;
    drop(running);
    tenant.client.batch_execute("ALTER TABLE tasks ADD COLUMN done bool").await.unwrap();
    let yaml = "{tenants: [{url: 'postgres://u@h/d'}], sync: {tables: [
        {table: tasks, buckets: ['user:{owner}'], columns: [id, owner, title, done]}]}}";
    tenant.session.rules = RuleSet::new(&Config::from_yaml(yaml).unwrap().sync.tables).unwrap();
    let _next = tenant.ingest_again().await;
    tenant
        .client
        .batch_execute(&format!("INSERT INTO tasks VALUES (2, '{ann}', 'b', 'h', true)"))
        .await
        .unwrap();
    assert_eq!(tenant.operations(Bucket::User(ann)).await, [(Op::Put, "{\"id\":2}".to_owned())]);
    assert_ne!(tenant.state().await.epoch, before.epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn set_ups_that_would_lose_changes_are_refused_with_what_to_run() {
    let servers = Servers::shared().await;
    let index = "CREATE TABLE tasks (id int PRIMARY KEY, owner uuid NOT NULL, title text, hidden text);
                 CREATE UNIQUE INDEX by_owner ON tasks (id, owner);
                 ALTER TABLE tasks REPLICA IDENTITY USING INDEX by_owner";
    let tenant = Tenant::with_tables(servers, TASKS, index).await;
    let reason = tenant.spawn().ended().await;
    assert!(reason.contains("run ALTER TABLE \"public\".\"tasks\" REPLICA IDENTITY FULL"), "{reason}");
}

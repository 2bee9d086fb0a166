//! A log at level debug holds no value of a row and no secret, whatever goes wrong.

use posduif_changelog::Keys;
use posduif_testkit::{Servers, chaos::Proxy, eventually};

use crate::{
    fixture::{SOON, Tenant},
    process::Ingester,
};

const TASKS: &str = "[{table: tasks, buckets: ['user:{owner}'], columns: [id, owner, title]}]";
const TASKS_SQL: &str =
    "CREATE TABLE tasks (id int PRIMARY KEY, owner uuid, title text CHECK (title <> ''), hidden text)";

/// Every planted value has this in it, so none is overlooked because it was cut or quoted.
const CANARY: &str = "canary";

#[tokio::test(flavor = "multi_thread")]
async fn the_log_holds_no_row_value_and_no_secret_at_any_trouble() {
    let servers = Servers::private().await;
    let tenant = Tenant::with_tables(&servers, TASKS, TASKS_SQL).await;
    // The roles' names are no secrets, the passwords are.
    let admin = servers.superuser().await;
    let role =
        "CREATE ROLE watched LOGIN REPLICATION PASSWORD 'canary-of-postgresql' IN ROLE posduif_ingester";
    admin.batch_execute(role).await.unwrap();
    let mut redis = tenant.redis().await;
    let user = ["SETUSER", "watched", "on", ">canary-of-redis", "~*", "&*", "+@all"];
    let () = redis::cmd("ACL").arg(&user).query_async(&mut redis).await.unwrap();
    let proxy = Proxy::start(([127, 0, 0, 1], servers.redis().port()).into()).await;
    let (_, server) = tenant.database.url().split_once('@').unwrap();
    let postgres = format!("postgres://watched:canary-of-postgresql@{server}");
    assert!(postgres.contains(CANARY), "{postgres}");
    let redis_url = format!("redis://watched:canary-of-redis@{}/0", proxy.address());
    let ingester = Ingester::start_with(&postgres, &redis_url, TASKS, "debug").await;

    // At work.
    let bob = tenant.user("canary-username").await;
    tenant.message(bob, bob, "canary-content").await;
    let work = format!(
        "INSERT INTO tasks SELECT n, '{bob}', 'canary-title', repeat('canary-toasted', 9000) FROM generate_series(1, 9) n;
         UPDATE messages SET content = 'canary-edited'; UPDATE tasks SET title = 'canary-other' WHERE id = 1;
         DELETE FROM tasks WHERE id = 2; TRUNCATE tasks; DELETE FROM messages"
    );
    tenant.client.batch_execute(&work).await.unwrap();
    tenant.caught_up().await;

    // Redis away.
    proxy.black_hole(true);
    proxy.cut_all();
    tenant.message(bob, bob, "canary-in-the-outage").await;
    // The one line that only level debug has.
    logs(&ingester, "Redis is still away", 1).await;
    proxy.black_hole(false);
    proxy.cut_all();
    tenant.caught_up().await;

    // A table that is altered, and a session whose backends are ended.
    tenant
        .client
        .batch_execute("ALTER TABLE tasks ADD COLUMN more text DEFAULT 'canary-default'")
        .await
        .unwrap();
    tenant.client.batch_execute("ALTER TABLE tasks ALTER COLUMN title TYPE varchar(99)").await.unwrap();
    logs(&ingester, "altered", 1).await;
    logs(&ingester, "took the tenant over", 2).await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'watched'";
    admin.query(end, &[]).await.unwrap();
    logs(&ingester, "took the tenant over", 3).await;

    // A row that cannot be routed, and a table that is refused until it is mended.
    tenant
        .client
        .batch_execute(&format!(
            "INSERT INTO tasks VALUES (7, '{bob}', 'canary-poison', 'canary-hidden');
             ALTER TABLE tasks REPLICA IDENTITY DEFAULT; UPDATE tasks SET title = 'canary-poisoned'; DELETE FROM tasks"
        ))
        .await
        .unwrap();
    logs(&ingester, "REPLICA IDENTITY FULL", 1).await;
    tenant.client.batch_execute("ALTER TABLE tasks REPLICA IDENTITY FULL").await.unwrap();
    logs(&ingester, "took the tenant over", 4).await;

    // A state in Redis that cannot be read, and an epoch.
    let state = Keys::new(tenant.id()).state();
    let () = redis::cmd("HSET").arg((state, "end", "canary-state")).query_async(&mut redis).await.unwrap();
    admin.query(end, &[]).await.unwrap();
    logs(&ingester, "the log's state cannot be read", 1).await;
    logs(&ingester, "took the tenant over", 5).await;
    tenant.message(bob, bob, "canary-at-the-end").await;
    tenant.caught_up().await;

    let log = ingester.process.log();
    assert!(log.contains("\"DEBUG\""), "the level was not debug; the test proves little");
    assert!(
        log.matches("opened a new epoch").count() >= 2 && log.matches("took the tenant over").count() >= 3
    );
    let leaked: Vec<&str> = log.lines().filter(|line| line.contains(CANARY)).collect();
    assert!(leaked.is_empty(), "{leaked:#?}");
    let said = ingester.readiness().await.unwrap().to_string();
    assert!(!said.contains(CANARY), "{said}");
}

/// Waits until the log says so, so many times.
async fn logs(ingester: &Ingester, what: &str, times: usize) {
    eventually(3 * SOON, what, async || {
        Ok((ingester.process.log().matches(what).count() >= times).then_some(()))
    })
    .await;
}

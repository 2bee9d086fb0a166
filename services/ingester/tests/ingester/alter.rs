//! Tables that are altered between two rows: no row goes out in a shape or under a key that is no more.

use std::time::Duration;

use posduif_changelog::{Keys, LogState};
use posduif_model::{Bucket, UserId};
use posduif_testkit::{Servers, eventually};

use crate::fixture::{Running, SOON, Tenant};

const TASKS: &str = "[{table: tasks, buckets: ['user:{owner}'], columns: [id, owner, title]}]";
const ALL_COLUMNS: &str = "[{table: tasks, buckets: ['user:{owner}']}]";
const TASKS_SQL: &str = "CREATE TABLE tasks (id int PRIMARY KEY, owner uuid, title text, hidden text)";

/// A tenant whose guard looks only once, so that nothing but the stream can tell of an ALTER TABLE.
async fn quiet(declared: &str, sql: &str) -> Tenant {
    let mut tenant = Tenant::with_tables(Servers::shared().await, declared, sql).await;
    tenant.session.wal.heartbeat_interval = Duration::from_secs(300);
    tenant
}

/// How many entries of a bucket the log has, readable or not, in an epoch that may have ended.
async fn stored(tenant: &Tenant, state: &LogState, user: UserId) -> usize {
    let key = Keys::new(tenant.id()).bucket(&state.epoch, &Bucket::User(user));
    redis::cmd("XLEN").arg(key).query_async(&mut tenant.redis().await).await.unwrap()
}

/// Makes the change, which ends the session before its row is stored, and opens an epoch; returns the next session.
async fn alters(tenant: &Tenant, running: Running, user: UserId, change: &str) -> Running {
    let state = tenant.caught_up().await;
    let before = stored(tenant, &state, user).await;
    tenant.client.batch_execute(change).await.unwrap_or_else(|error| panic!("{change}: {error:?}"));
    let reason = running.ended().await;
    assert!(reason.contains("altered"), "{change}: {reason}");
    assert_eq!(stored(tenant, &state, user).await, before, "{change}: a row went out in another shape");
    let next = tenant.ingest_again().await;
    assert_ne!(tenant.state().await.epoch, state.epoch, "{change}: devices keep what changed in silence");
    next
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_after_an_alteration_is_never_routed_by_what_was_before() {
    let tenant = quiet(TASKS, TASKS_SQL).await;
    let mut running = tenant.ingest().await;
    let ann = tenant.user("Ann").await;
    let row = |id: i32| format!("INSERT INTO tasks (id, owner, title) VALUES ({id}, '{ann}', '{id}')");
    tenant.client.batch_execute(&row(0)).await.unwrap();
    let changes = [
        "ALTER TABLE tasks DROP CONSTRAINT tasks_pkey, ADD PRIMARY KEY (title)".to_owned(),
        "ALTER TABLE tasks DROP CONSTRAINT tasks_pkey, ADD PRIMARY KEY (id)".to_owned(),
        "ALTER TABLE tasks ALTER title TYPE varchar(50)".to_owned(),
        "ALTER TABLE tasks ALTER title TYPE varchar(60)".to_owned(),
        "ALTER TABLE tasks DROP title; ALTER TABLE tasks ADD title text".to_owned(),
        // Altered and altered back, with nothing in between that could tell.
        "ALTER TABLE tasks ALTER id TYPE bigint; ALTER TABLE tasks ALTER id TYPE int".to_owned(),
        "ALTER TABLE tasks ALTER title TYPE text USING title || '!'".to_owned(),
        "ALTER PUBLICATION posduif DROP TABLE tasks; ALTER PUBLICATION posduif ADD TABLE tasks".to_owned(),
        // Deletes that nobody ever hears of.
        "ALTER PUBLICATION posduif SET (publish = 'insert'); DELETE FROM tasks;
         ALTER PUBLICATION posduif SET (publish = 'insert, update, delete, truncate')"
            .to_owned(),
        format!(
            "BEGIN; DROP TABLE tasks; {TASKS_SQL}; ALTER TABLE tasks REPLICA IDENTITY FULL;
                 GRANT SELECT ON tasks TO posduif_ingester;
                 ALTER PUBLICATION posduif ADD TABLE tasks; COMMIT"
        ),
    ];
    for (number, change) in (1..).zip(changes) {
        running = alters(&tenant, running, ann, &format!("{change}; {}", row(number))).await;
    }
    let before_and_after = format!(
        "BEGIN; {}; ALTER TABLE tasks DROP CONSTRAINT tasks_pkey, ADD PRIMARY KEY (title); {}; COMMIT",
        row(100),
        row(101)
    );
    running = alters(&tenant, running, ann, &before_and_after).await;
    tenant.client.batch_execute(&row(102)).await.unwrap();
    let entries = tenant.entries(&[Bucket::User(ann)]).await;
    assert_eq!(entries[0].changes[0].key, "{\"title\":\"102\"}", "the stream goes on under the new key");
    drop(running);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_reader_sees_may_be_altered_without_an_epoch() {
    let tenant = quiet(TASKS, TASKS_SQL).await;
    let _running = tenant.ingest().await;
    let ann = tenant.user("Ann").await;
    let epoch = tenant.caught_up().await.epoch;
    let changes = [
        "ALTER TABLE tasks ADD more int",
        "ALTER TABLE tasks ADD rewritten float DEFAULT random()",
        "ALTER TABLE tasks RENAME hidden TO concealed",
        "ALTER TABLE tasks ALTER more TYPE text",
        "ALTER TABLE tasks DROP concealed",
        "CREATE INDEX ON tasks (title)",
        "ANALYZE tasks",
        "VACUUM tasks",
        "VACUUM FULL tasks",
        "ALTER TABLE tasks ALTER title SET DEFAULT 'x'",
        "ALTER TABLE tasks ALTER title SET NOT NULL",
        "ALTER TABLE tasks ALTER title SET STATISTICS 500",
        "CLUSTER tasks USING tasks_pkey",
        "REINDEX TABLE tasks",
        "ALTER TABLE tasks ADD CHECK (id >= 0)",
        "COMMENT ON TABLE tasks IS 'x'",
        "BEGIN; SAVEPOINT s; ALTER TABLE tasks DROP title; ROLLBACK TO s; COMMIT",
        "BEGIN; ALTER TABLE tasks DROP CONSTRAINT tasks_pkey; ROLLBACK",
        "ALTER TABLE messages ADD unlisted int",
    ];
    for (number, change) in (1..).zip(changes) {
        tenant.client.batch_execute(change).await.unwrap_or_else(|error| panic!("{change}: {error:?}"));
        let row = format!("INSERT INTO tasks (id, owner, title) VALUES ({number}, '{ann}', 't')");
        tenant.client.batch_execute(&row).await.unwrap();
        assert_eq!(tenant.entries(&[Bucket::User(ann)]).await.len(), number, "{change}");
        assert_eq!(tenant.state().await.epoch, epoch, "{change}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_columns_are_sent_a_new_one_opens_an_epoch() {
    let tenant = quiet(ALL_COLUMNS, TASKS_SQL).await;
    let running = tenant.ingest().await;
    let ann = tenant.user("Ann").await;
    let row = format!("INSERT INTO tasks (id, owner) VALUES (1, '{ann}')");
    let change = format!("ALTER TABLE tasks ADD more int DEFAULT 5; {row}");
    let running = alters(&tenant, running, ann, &change).await;
    tenant.client.batch_execute("UPDATE tasks SET title = 'x'").await.unwrap();
    let entries = tenant.entries(&[Bucket::User(ann)]).await;
    assert!(entries[0].changes[0].row.contains("\"more\":5"), "{entries:?}");
    drop(running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_changes_stops_the_stream_until_it_is_back_and_then_opens_an_epoch() {
    for (away, back, sentence) in [
        (
            "ALTER TABLE tasks DROP title",
            "ALTER TABLE tasks ADD title text",
            "sync.tables[0].columns[2]: public.tasks has no column title",
        ),
        (
            "ALTER TABLE tasks RENAME title TO label",
            "ALTER TABLE tasks RENAME label TO title",
            "sync.tables[0].columns[2]: public.tasks has no column title",
        ),
        (
            "ALTER TABLE tasks RENAME owner TO holder",
            "ALTER TABLE tasks RENAME holder TO owner",
            "sync.tables[0].buckets[0]: public.tasks has no column owner",
        ),
        (
            "ALTER TABLE tasks RENAME TO jobs",
            "ALTER TABLE jobs RENAME TO tasks",
            "sync.tables[0]: public.tasks does not exist yet",
        ),
        (
            "CREATE SCHEMA other; ALTER TABLE tasks SET SCHEMA other",
            "ALTER TABLE other.tasks SET SCHEMA public",
            "sync.tables[0]: public.tasks does not exist yet",
        ),
    ] {
        let tenant = quiet(TASKS, TASKS_SQL).await;
        let running = tenant.ingest().await;
        let ann = tenant.user("Ann").await;
        tenant.client.batch_execute(&format!("INSERT INTO tasks VALUES (1, '{ann}', 'a')")).await.unwrap();
        let before = tenant.caught_up().await;
        let name = match away {
            away if away.contains("jobs") => "jobs",
            away if away.contains("SCHEMA") => "other.tasks",
            _ => "tasks",
        };
        let change = format!("{away}; INSERT INTO {name} VALUES (2, '{ann}', 'b')");
        tenant.client.batch_execute(&change).await.unwrap();
        let reason = running.ended().await;
        assert!(reason.contains(sentence), "{away}: {reason}");
        tenant.client.batch_execute(back).await.unwrap();
        // The catalogue is as it was; only the row's own description says that it was written under another name.
        eventually(SOON, "the tenant goes on in another epoch", async || {
            let running = tenant.ingest_again().await;
            tenant.client.batch_execute("UPDATE tasks SET title = title || 'x'").await?;
            let ended = tokio::time::timeout(Duration::from_millis(500), running.ended()).await;
            let another = tenant.state().await.epoch != before.epoch;
            Ok((ended.is_err() && another).then_some(()))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alteration_that_nobody_sees_yet_is_waited_for() {
    // A cluster of its own: the setting stops every commit that waits.
    let servers = Servers::private().await;
    let mut tenant = Tenant::with_tables(&servers, TASKS, TASKS_SQL).await;
    tenant.session.wal.heartbeat_interval = Duration::from_secs(300);
    let running = tenant.ingest().await;
    let ann = tenant.user("Ann").await;
    tenant.client.batch_execute(&format!("INSERT INTO tasks VALUES (1, '{ann}', 'a')")).await.unwrap();
    let state = tenant.caught_up().await;
    let before = stored(&tenant, &state, ann).await;
    let admin = servers.superuser().await;
    admin.batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    eventually(SOON, "the setting is in force", async || {
        let value: String = tenant.client.query_one("SHOW synchronous_standby_names", &[]).await?.get(0);
        Ok((value == "nobody").then_some(()))
    })
    .await;
    let writer = tenant.database.connect().await;
    let sql = format!(
        "BEGIN; ALTER TABLE tasks DROP CONSTRAINT tasks_pkey, ADD PRIMARY KEY (title);
         INSERT INTO tasks VALUES (2, '{ann}', 'b'); COMMIT"
    );
    let waiting = tokio::spawn(async move { writer.batch_execute(&sql).await });
    let blocked = "SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    eventually(SOON, "the commit waits for the standby", async || Ok(admin.query_opt(blocked, &[]).await?))
        .await;
    // Many looks long: the row has been decoded and its table is not yet seen altered.
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    assert_eq!(stored(&tenant, &state, ann).await, before, "a row went out under the old key");
    admin.batch_execute("ALTER SYSTEM RESET synchronous_standby_names").await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    waiting.await.unwrap().unwrap();
    let reason = running.ended().await;
    assert!(reason.contains("altered"), "{reason}");
    assert_eq!(stored(&tenant, &state, ann).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_harmlessly_at_two_times_is_harmless_without_a_row_between() {
    let mut tenant = quiet(TASKS, TASKS_SQL).await;
    tenant.session.wal.heartbeat_interval = Duration::from_millis(100);
    let _running = tenant.ingest().await;
    let ann = tenant.user("Ann").await;
    let epoch = tenant.caught_up().await.epoch;
    let kept = "SELECT relations FROM posduif_engine.sync_epoch";
    let before: String = tenant.client.query_one(kept, &[]).await.unwrap().get(0);
    tenant.client.batch_execute("ALTER TABLE tasks ALTER title SET DEFAULT 'x'").await.unwrap();
    eventually(SOON, "a heartbeat has looked", async || {
        let now: String = tenant.client.query_one(kept, &[]).await?.get(0);
        Ok((now != before).then_some(()))
    })
    .await;
    tenant.client.batch_execute("VACUUM FULL tasks").await.unwrap();
    let row = format!("INSERT INTO tasks (id, owner, title) VALUES (1, '{ann}', 't')");
    tenant.client.batch_execute(&row).await.unwrap();
    assert_eq!(tenant.entries(&[Bucket::User(ann)]).await.len(), 1);
    assert_eq!(tenant.state().await.epoch, epoch);
}

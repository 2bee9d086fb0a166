//! Migrations on real databases: repeated, at once, and what their triggers keep true.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod rights;

use posduif_migrations::{Report, migrate};
use posduif_model::rule::{RuleSet, TableDeclaration, WriteDeclaration};
use posduif_testkit::{Database, Servers};
use tokio_postgres::Client;
use uuid::Uuid;

fn rules(table: Option<&str>) -> RuleSet {
    let declared = table.map(|table| TableDeclaration {
        table: table.parse().unwrap(),
        buckets: vec!["shared".parse().unwrap()],
        columns: None,
        write: None,
    });
    RuleSet::new(declared.as_slice()).unwrap()
}

async fn fresh() -> (Database, Client) {
    let database = Database::create(Servers::shared().await).await;
    let client = database.connect().await;
    (database, client)
}

async fn published(client: &Client) -> Vec<String> {
    let sql = "SELECT schemaname || '.' || tablename FROM pg_publication_tables WHERE pubname = 'posduif' ORDER BY 1";
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// The files in `sql`.
const MIGRATIONS: usize = 10;

#[tokio::test]
async fn a_migration_can_be_repeated_and_changes_nothing_more() {
    let (_database, mut client) = fresh().await;
    let first = migrate(&mut client, &rules(None), "posduif", None).await.unwrap();
    assert_eq!(first.applied.len(), MIGRATIONS);
    let before: String =
        client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await.unwrap().get(0);
    let publication = "SELECT xmin::text FROM pg_publication";
    let version: String = client.query_one(publication, &[]).await.unwrap().get(0);
    assert_eq!(migrate(&mut client, &rules(None), "posduif", None).await.unwrap(), Report::default());
    let again: String = client.query_one(publication, &[]).await.unwrap().get(0);
    assert_eq!(version, again, "the publication was altered for nothing (after {before})");
    assert_eq!(published(&client).await, ["posduif_engine.heartbeat", "public.messages", "public.users"]);
    let full = "SELECT count(*) FROM pg_class WHERE relname IN ('users', 'messages') AND relreplident = 'f'";
    assert_eq!(client.query_one(full, &[]).await.unwrap().get::<_, i64>(0), 2);
    let lists = "SELECT count(*) FROM pg_publication_rel WHERE prattrs IS NOT NULL";
    assert_eq!(client.query_one(lists, &[]).await.unwrap().get::<_, i64>(0), 0, "column lists break UPDATEs");
}

#[tokio::test]
async fn migrations_at_the_same_time_take_turns() {
    let (database, client) = fresh().await;
    let mut clients = vec![client];
    for _ in 0..7 {
        clients.push(database.connect().await);
    }
    let runs = clients.iter_mut().map(async |client| migrate(client, &rules(None), "posduif", None).await);
    let reports = futures::future::try_join_all(runs).await.unwrap();
    assert_eq!(reports.iter().map(|report| report.applied.len()).sum::<usize>(), MIGRATIONS);
}

#[tokio::test]
async fn a_declared_table_joins_when_it_exists_and_leaves_when_it_is_no_longer_declared() {
    let (_database, mut client) = fresh().await;
    let tasks = rules(Some("tasks"));
    let missing = migrate(&mut client, &tasks, "posduif", None).await.unwrap();
    assert!(
        missing.warnings[0].contains("public.tasks") && missing.warnings[0].contains("does not exist yet")
    );
    client.batch_execute("CREATE TABLE public.tasks (id int PRIMARY KEY, title text)").await.unwrap();
    assert!(migrate(&mut client, &tasks, "posduif", None).await.unwrap().warnings.is_empty());
    assert!(published(&client).await.contains(&"public.tasks".to_owned()));
    client
        .batch_execute("INSERT INTO tasks VALUES (1, 'a'); UPDATE tasks SET title = 'b'; DELETE FROM tasks")
        .await
        .unwrap();
    migrate(&mut client, &rules(None), "posduif", None).await.unwrap();
    assert!(!published(&client).await.contains(&"public.tasks".to_owned()));
}

#[tokio::test]
async fn tables_whose_own_updates_would_break_are_left_out_with_a_reason() {
    for (sql, reason) in [
        (
            "CREATE TABLE public.tasks (id int, title text)",
            "run ALTER TABLE \"public\".\"tasks\" ADD PRIMARY KEY",
        ),
        (
            "CREATE TABLE public.tasks (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) VIRTUAL)",
            "STORED",
        ),
        ("CREATE VIEW public.tasks AS SELECT 1 AS id", "is a view"),
        ("CREATE MATERIALIZED VIEW public.tasks AS SELECT 1 AS id", "is a materialised view"),
        ("CREATE UNLOGGED TABLE public.tasks (id int PRIMARY KEY)", "SET LOGGED"),
        (
            "CREATE TABLE public.all_tasks (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE public.tasks PARTITION OF public.all_tasks DEFAULT",
            "is a partition of all_tasks",
        ),
    ] {
        let (_database, mut client) = fresh().await;
        client.batch_execute(sql).await.unwrap();
        let report = migrate(&mut client, &rules(Some("tasks")), "posduif", None).await.unwrap();
        assert_eq!(report.warnings.len(), 1, "{sql}: {:?}", report.warnings);
        let warning = &report.warnings[0];
        assert!(
            warning.starts_with("sync.tables[0]: public.tasks ") && warning.contains(reason),
            "{sql}: {warning}"
        );
        assert!(!published(&client).await.contains(&"public.tasks".to_owned()));
    }
}

/// The tables of this schema whose old rows are kept whole.
async fn whole(client: &Client) -> Vec<String> {
    let sql = "SELECT relname::text FROM pg_class
                WHERE relreplident = 'f' AND relnamespace = 'public'::regnamespace AND relname LIKE 'tasks%'
                ORDER BY 1";
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn partitions_keep_their_old_rows_like_their_root_and_later_ones_when_it_is_repeated() {
    let (_database, mut client) = fresh().await;
    let sql = "CREATE TABLE tasks (id int PRIMARY KEY) PARTITION BY RANGE (id);
               CREATE TABLE tasks_low PARTITION OF tasks FOR VALUES FROM (0) TO (10);
               CREATE TABLE tasks_high PARTITION OF tasks FOR VALUES FROM (10) TO (99) PARTITION BY RANGE (id);
               CREATE TABLE tasks_high_1 PARTITION OF tasks_high DEFAULT";
    client.batch_execute(sql).await.unwrap();
    let tasks = rules(Some("tasks"));
    assert_eq!(migrate(&mut client, &tasks, "posduif", None).await.unwrap().warnings, [""; 0]);
    assert_eq!(whole(&client).await, ["tasks", "tasks_high", "tasks_high_1", "tasks_low"]);
    assert!(published(&client).await.contains(&"public.tasks".to_owned()), "not as its root");
    client.batch_execute("CREATE TABLE tasks_rest PARTITION OF tasks DEFAULT").await.unwrap();
    assert!(!whole(&client).await.contains(&"tasks_rest".to_owned()));
    assert_eq!(migrate(&mut client, &tasks, "posduif", None).await.unwrap(), Report::default());
    assert!(whole(&client).await.contains(&"tasks_rest".to_owned()));
}

#[tokio::test]
async fn an_index_that_was_chosen_as_identity_stays_and_is_told_where_it_is_not_enough() {
    let (_database, mut client) = fresh().await;
    let sql = "CREATE TABLE tasks (id int PRIMARY KEY, title text);
               ALTER TABLE tasks REPLICA IDENTITY USING INDEX tasks_pkey";
    client.batch_execute(sql).await.unwrap();
    let warnings = migrate(&mut client, &rules(Some("tasks")), "posduif", None).await.unwrap().warnings;
    let expected = "sync.tables[0]: public.tasks does not keep enough of its old rows; run ALTER TABLE \
                    \"public\".\"tasks\" REPLICA IDENTITY FULL";
    assert_eq!(warnings, [expected]);
    assert_eq!(whole(&client).await, [""; 0]);
}

#[tokio::test]
async fn a_publication_for_all_tables_is_refused_and_a_narrow_one_is_widened() {
    let (database, mut client) = fresh().await;
    let admin = database.connect_superuser().await;
    admin.batch_execute("CREATE PUBLICATION everything FOR ALL TABLES").await.unwrap();
    let refused = migrate(&mut client, &rules(None), "everything", None).await.unwrap_err().to_string();
    assert!(refused.contains("everything is FOR ALL TABLES"), "{refused}");
    let narrow = "CREATE TABLE tasks (id int PRIMARY KEY, title text);
                  CREATE PUBLICATION narrow FOR TABLE tasks (id) WHERE (id > 0) WITH (publish = 'insert')";
    client.batch_execute(narrow).await.unwrap();
    let tasks = rules(Some("tasks"));
    assert_eq!(migrate(&mut client, &tasks, "narrow", None).await.unwrap().warnings, [""; 0]);
    let wide = "SELECT pubupdate AND pubviaroot AND NOT EXISTS (
                    SELECT FROM pg_publication_rel WHERE prattrs IS NOT NULL OR prqual IS NOT NULL)
                  FROM pg_publication WHERE pubname = 'narrow'";
    assert!(client.query_one(wide, &[]).await.unwrap().get::<_, bool>(0));
}

/// A migrated tenant with two users.
async fn two_users() -> (Database, Client, Uuid, Uuid) {
    let (database, mut client) = fresh().await;
    migrate(&mut client, &rules(None), "posduif", None).await.unwrap();
    let mut ids = Vec::new();
    for name in ["ann", "ben"] {
        let row = client
            .query_one("INSERT INTO users (username) VALUES ($1) RETURNING id", &[&name])
            .await
            .unwrap();
        ids.push(row.get(0));
    }
    (database, client, ids[0], ids[1])
}

async fn last(client: &Client, user: Uuid) -> Option<String> {
    let sql = "SELECT last_message_sent FROM users WHERE id = $1";
    client.query_one(sql, &[&user]).await.unwrap().get(0)
}

#[tokio::test]
async fn the_last_message_is_the_newest_by_its_own_time_whatever_happens_to_messages() {
    let (_database, client, ann, ben) = two_users().await;
    let send = async |from: Uuid, to: Uuid, content: &str, hour: i32| {
        let sql = "INSERT INTO messages (sender_id, recipient_id, content, created_at)
                   VALUES ($1, $2, $3, '2026-01-01Z'::timestamptz + make_interval(hours => $4))";
        client.execute(sql, &[&from, &to, &content, &hour]).await.unwrap();
    };
    send(ann, ben, "eleven", 11).await;
    // Written offline at ten, uploaded later.
    send(ann, ben, "ten", 10).await;
    assert_eq!(last(&client, ann).await.as_deref(), Some("eleven"));
    client
        .batch_execute("UPDATE messages SET created_at = created_at + interval '2 h' WHERE content = 'ten'")
        .await
        .unwrap();
    assert_eq!(last(&client, ann).await.as_deref(), Some("ten"), "an edited time made it the newest");
    client.batch_execute("UPDATE messages SET content = 'noon' WHERE content = 'ten'").await.unwrap();
    assert_eq!(last(&client, ann).await.as_deref(), Some("noon"));
    client.execute("UPDATE messages SET sender_id = $1 WHERE content = 'noon'", &[&ben]).await.unwrap();
    assert_eq!(last(&client, ann).await.as_deref(), Some("eleven"));
    assert_eq!(last(&client, ben).await.as_deref(), Some("noon"), "the new sender's last message is missing");
    client.batch_execute("DELETE FROM messages WHERE content = 'eleven'").await.unwrap();
    assert_eq!(last(&client, ann).await, None);
    client.batch_execute("TRUNCATE messages").await.unwrap();
    assert_eq!(last(&client, ben).await, None);
}

#[tokio::test]
async fn reading_and_confirming_messages_leaves_users_alone() {
    let (_database, client, ann, ben) = two_users().await;
    let sql = "INSERT INTO messages (sender_id, recipient_id, content) VALUES ($1, $2, 'x')";
    client.execute(sql, &[&ann, &ben]).await.unwrap();
    let versions = "SELECT array_agg(xmin::text ORDER BY id) FROM users";
    let before: Vec<String> = client.query_one(versions, &[]).await.unwrap().get(0);
    client.batch_execute("UPDATE messages SET status = 'read', read_at = now()").await.unwrap();
    let after: Vec<String> = client.query_one(versions, &[]).await.unwrap().get(0);
    assert_eq!(before, after);
}

/// A table of tasks that devices may write.
fn written(owner: &str) -> RuleSet {
    let declared = TableDeclaration {
        table: "tasks".parse().unwrap(),
        buckets: vec!["shared".parse().unwrap()],
        columns: None,
        write: Some(WriteDeclaration {
            owner: owner.into(),
            columns: vec!["title".into()],
            version: "updated_at".into(),
        }),
    };
    RuleSet::new(&[declared]).unwrap()
}

const TASKS: &str = "CREATE TABLE tasks (id numeric, part int, owner_id uuid, title text, updated_at timestamptz,
                                         PRIMARY KEY (part, id));
                     INSERT INTO tasks VALUES (1.50, 7, '00000000-0000-0000-0000-000000000001', 'a', '2999-01-01Z'),
                                              (2, 7, NULL, 'b', NULL), (3, 7, NULL, 'c', NULL)";

async fn triggers(client: &Client) -> Vec<(String, String)> {
    let sql = "SELECT tgrelid::regclass::text, xmin::text FROM pg_trigger WHERE tgname = 'posduif_deleted_rows' ORDER BY 1";
    client.query(sql, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn deleted_rows_of_tables_that_devices_write_leave_tombstones() {
    let (_database, mut client) = fresh().await;
    client.batch_execute(TASKS).await.unwrap();
    migrate(&mut client, &written("owner_id"), "posduif", None).await.unwrap();
    let found = triggers(&client).await;
    let tables: Vec<&str> = found.iter().map(|(table, _)| table.as_str()).collect();
    assert_eq!(tables, ["messages", "tasks", "users"]);
    migrate(&mut client, &written("owner_id"), "posduif", None).await.unwrap();
    assert_eq!(triggers(&client).await, found, "a trigger was made for nothing");

    // Whatever the session makes of a time, a number or bytes, the key is the same.
    client.batch_execute("SET timezone = 'CET'; DELETE FROM tasks WHERE id < 3").await.unwrap();
    let sql = "SELECT version > now() + interval '1 hour', version > '2999-01-01Z', owner::text, deleted, device_id
                 FROM posduif_engine.row_versions
                WHERE table_name = 'public.tasks' AND key = sha256(convert_to(jsonb_build_array(7, $1::text::numeric)::text, 'UTF8'))";
    for (id, in_future, owner) in
        [("1.5", true, Some("00000000-0000-0000-0000-000000000001")), ("2", false, None)]
    {
        let row = client.query_one(sql, &[&id]).await.unwrap();
        let told = (row.get(0), row.get(1), row.get(2), row.get(3), row.get::<_, String>(4));
        assert_eq!(told, (in_future, in_future, owner, true, String::new()), "{id}");
    }
    let count = "SELECT count(*) FROM posduif_engine.row_versions";
    assert_eq!(client.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 2);

    migrate(&mut client, &written("part"), "posduif", None).await.unwrap();
    assert_ne!(triggers(&client).await[1], found[1], "the owner's column is another one");
    migrate(&mut client, &rules(None), "posduif", None).await.unwrap();
    assert_eq!(triggers(&client).await.len(), 2, "tasks are no longer declared");
    client.batch_execute("DELETE FROM tasks").await.unwrap();
    assert_eq!(client.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 2);
}

#[tokio::test]
async fn an_altered_table_never_makes_the_applications_own_delete_fail() {
    for alter in [
        "ALTER TABLE tasks RENAME owner_id TO boss",
        "ALTER TABLE tasks ALTER owner_id TYPE text",
        "ALTER TABLE tasks RENAME id TO number",
        "ALTER TABLE tasks DROP COLUMN updated_at",
        "ALTER TABLE tasks ALTER updated_at TYPE text",
        "ALTER TABLE tasks DROP CONSTRAINT tasks_pkey",
        "ALTER TABLE tasks RENAME TO errands",
        "UPDATE tasks SET updated_at = 'infinity'",
        "UPDATE tasks SET updated_at = '-infinity'",
        "UPDATE tasks SET updated_at = '294276-12-31 23:59:59.999999Z'",
        "ALTER TABLE tasks ALTER part TYPE text USING repeat('x', 2000)",
    ] {
        let (_database, mut client) = fresh().await;
        client.batch_execute(TASKS).await.unwrap();
        migrate(&mut client, &written("owner_id"), "posduif", None).await.unwrap();
        client.batch_execute("DELETE FROM tasks WHERE id = 3").await.unwrap();
        client.batch_execute(alter).await.unwrap();
        let table = if alter.ends_with("errands") { "errands" } else { "tasks" };
        let deleted = client.execute(&format!("DELETE FROM {table}"), &[]).await;
        assert_eq!(deleted.unwrap_or_else(|error| panic!("{alter}: {error:?}")), 2);
    }
}

//! What the roles of the services may do, asked of PostgreSQL itself and compared with what the document lists.

mod script;
mod sight;

use posduif_migrations::{Roles, migrate};
use posduif_model::rule::{RuleSet, TableDeclaration, WriteDeclaration};
use posduif_testkit::{API, Database, INGESTER, Servers};
use tokio_postgres::{Client, NoTls};

use crate::rules;
use sight::{Sight, documented, seen};

const ROLES: Option<Roles<'static>> = Some(Roles { api: API, ingester: INGESTER });

/// A migrated database and a session of its owner.
async fn migrated() -> (Database, Client) {
    let database = Database::create(Servers::shared().await).await;
    let mut client = database.connect().await;
    let report = migrate(&mut client, &rules(None), "posduif", ROLES).await.unwrap();
    assert_eq!(report.warnings, [""; 0]);
    (database, client)
}

async fn session(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// That each statement fails for want of a right, and for nothing else.
async fn refused(client: &Client, statements: &[&str]) {
    for sql in statements {
        let error = match client.batch_execute(sql).await {
            Ok(()) => panic!("allowed: {sql}"),
            Err(error) => error,
        };
        let code = error.code().map(|code| code.code().to_owned());
        assert_eq!(code.as_deref(), Some("42501"), "{sql}: {error:?}");
        client.batch_execute("ROLLBACK").await.unwrap();
    }
}

async fn allowed(client: &Client, statements: &[&str]) {
    for sql in statements {
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
}

#[tokio::test]
async fn each_role_has_exactly_the_rights_that_the_document_lists() {
    let (_database, client) = migrated().await;
    for role in [INGESTER, API] {
        let (listed, found) = (documented(role), seen(&client, role).await);
        assert!(listed.len() > 6, "{listed:?}");
        assert_eq!(found, listed, "{role}");
    }
}

#[tokio::test]
async fn the_api_can_neither_replicate_nor_touch_the_log_nor_make_operators() {
    let (database, client) = migrated().await;
    client.batch_execute("INSERT INTO users (username, user_type) VALUES ('ann', 'web')").await.unwrap();
    let api = session(database.url()).await;
    allowed(&api, &["SELECT FROM posduif_engine.sync_epoch", "UPDATE users SET online_status = true"]).await;
    refused(
        &api,
        &[
            "SELECT pg_create_logical_replication_slot('mine', 'pgoutput')",
            "SELECT pg_logical_slot_peek_binary_changes('any', NULL, NULL)",
            "SELECT pg_drop_replication_slot('any')",
            "UPDATE posduif_engine.sync_epoch SET epoch = 'x'",
            "INSERT INTO posduif_engine.heartbeat (nonce) VALUES (1)",
            "DELETE FROM posduif_engine.epoch_history",
            "SELECT nextval('posduif_engine.fencing_token')",
            "INSERT INTO posduif_engine.accounts (user_id, is_admin) SELECT id, true FROM users",
            "UPDATE posduif_engine.accounts SET is_admin = true",
            "UPDATE posduif_engine.user_credentials SET password_hash = 'x'",
            "INSERT INTO posduif_engine.user_credentials SELECT id, 'x' FROM users",
            "UPDATE users SET user_type = 'web'",
            "UPDATE users SET last_message_sent = 'x'",
            "UPDATE messages SET sender_id = recipient_id",
            "DELETE FROM messages",
            "DELETE FROM users",
            "TRUNCATE messages",
            "DROP TABLE messages",
            "ALTER TABLE messages ADD COLUMN x int",
            "ALTER PUBLICATION posduif DROP TABLE users",
            "CREATE TABLE mine ()",
            "CREATE TEMP TABLE mine ()",
            "CREATE SCHEMA mine",
            "SELECT posduif_engine.recompute_last_messages('{}')",
            "SELECT FROM pg_authid",
            "SELECT FROM posduif_engine.schema_history",
            "SET ROLE posduif_admin",
            "SET ROLE posduif_ingester",
        ],
    )
    .await;
}

#[tokio::test]
async fn the_ingester_can_neither_write_rows_nor_read_what_proves_who_somebody_is() {
    let (database, _client) = migrated().await;
    let ingester = session(database.ingester_url()).await;
    allowed(
        &ingester,
        &[
            "SELECT FROM users",
            "SELECT nextval('posduif_engine.fencing_token'), setval('posduif_engine.fencing_token', 9)",
            "INSERT INTO posduif_engine.heartbeat (nonce) VALUES (1)",
            "UPDATE posduif_engine.sync_epoch SET reason = 'x'",
        ],
    )
    .await;
    refused(
        &ingester,
        &[
            "INSERT INTO users (username) VALUES ('x')",
            "UPDATE users SET online_status = true",
            "DELETE FROM messages",
            "INSERT INTO messages (sender_id, recipient_id, content) VALUES (NULL, NULL, 'x')",
            "SELECT FROM posduif_engine.user_credentials",
            "SELECT FROM posduif_engine.device_secrets",
            "SELECT FROM posduif_engine.accounts",
            "SELECT FROM enrollment_tokens",
            "SELECT FROM devices",
            "UPDATE posduif_engine.heartbeat SET nonce = 2",
            "DROP TABLE messages",
            "ALTER PUBLICATION posduif DROP TABLE users",
            "CREATE TABLE mine ()",
            "SELECT FROM pg_authid",
            "SET ROLE posduif_admin",
        ],
    )
    .await;
}

/// What the document warns of: rights on tables do not bind who replicates, and a publication need not name them.
#[tokio::test]
async fn who_replicates_reads_what_no_publication_names() {
    let (database, client) = migrated().await;
    let ingester = session(database.ingester_url()).await;
    let slot = format!("{}_spy", database.name());
    let made = "SELECT pg_create_logical_replication_slot($1, 'test_decoding', true)";
    ingester.query(made, &[&slot]).await.unwrap();
    let sql = "WITH u AS (INSERT INTO users (username, user_type) VALUES ('ann', 'web') RETURNING id)
               INSERT INTO posduif_engine.user_credentials (user_id, password_hash) SELECT id, 'hunter2' FROM u";
    client.batch_execute(sql).await.unwrap();
    let look = "SELECT string_agg(data, E'\\n') FROM pg_logical_slot_get_changes($1, NULL, NULL)";
    let seen: String = ingester.query_one(look, &[&slot]).await.unwrap().get(0);
    assert!(seen.contains("hunter2"), "the document may say less: {seen}");
}

const TASKS: &str =
    "CREATE TABLE tasks (id int PRIMARY KEY, number serial, owner uuid, title text, hidden text,
                                         updated_at timestamptz)";

fn tasks(write: bool) -> RuleSet {
    let write = write.then(|| WriteDeclaration {
        owner: "owner".into(),
        columns: vec!["title".into(), "id".into()],
        version: "updated_at".into(),
    });
    let declared = TableDeclaration {
        table: "tasks".parse().unwrap(),
        buckets: vec!["user:{owner}".parse().unwrap()],
        columns: None,
        write,
    };
    RuleSet::new(&[declared]).unwrap()
}

async fn on_tasks(client: &Client, role: &str) -> Vec<String> {
    let seen = seen(client, role).await;
    seen.iter()
        .filter(|(object, _)| object.contains("tasks"))
        .flat_map(|(_, rights)| rights.clone())
        .collect()
}

#[tokio::test]
async fn a_declared_table_is_granted_as_far_as_it_is_written_and_taken_away_when_it_is_no_longer_declared() {
    let (database, mut client) = migrated().await;
    client.batch_execute(TASKS).await.unwrap();
    migrate(&mut client, &tasks(true), "posduif", ROLES).await.unwrap();
    let expected = [
        "DELETE",
        "INSERT (id)",
        "INSERT (owner)",
        "INSERT (title)",
        "INSERT (updated_at)",
        "SELECT",
        "UPDATE (title)",
        "UPDATE (updated_at)",
        "USAGE",
    ];
    let mut found = on_tasks(&client, API).await;
    found.sort();
    assert_eq!(found, expected);
    assert_eq!(on_tasks(&client, INGESTER).await, ["SELECT"]);
    // The default of a column that nobody sends draws from a sequence.
    let api = session(database.url()).await;
    allowed(&api, &["INSERT INTO tasks (id, title) VALUES (1, 'a')"]).await;
    refused(&api, &["INSERT INTO tasks (id, hidden) VALUES (2, 'a')", "UPDATE tasks SET owner = NULL"]).await;

    migrate(&mut client, &tasks(false), "posduif", ROLES).await.unwrap();
    assert_eq!(on_tasks(&client, API).await, ["SELECT"]);
    migrate(&mut client, &rules(None), "posduif", ROLES).await.unwrap();
    for role in [API, INGESTER] {
        assert_eq!(on_tasks(&client, role).await, [""; 0], "{role}");
    }
}

#[tokio::test]
async fn a_migration_that_failed_leaves_no_right_behind_on_what_is_no_longer_declared() {
    let (_database, mut client) = migrated().await;
    client.batch_execute(TASKS).await.unwrap();
    migrate(&mut client, &tasks(true), "posduif", ROLES).await.unwrap();
    let nobody = Some(Roles { api: "nobody_here", ingester: INGESTER });
    migrate(&mut client, &rules(None), "posduif", nobody).await.unwrap_err();
    migrate(&mut client, &rules(None), "posduif", ROLES).await.unwrap();
    for role in [API, INGESTER] {
        assert_eq!(on_tasks(&client, role).await, [""; 0], "{role}");
    }
}

#[tokio::test]
async fn what_an_earlier_version_granted_too_much_is_taken_back_and_what_the_operator_granted_elsewhere_stays()
 {
    let (_database, mut client) = migrated().await;
    let before: [Sight; 2] = [seen(&client, INGESTER).await, seen(&client, API).await];
    let rows = "SELECT, INSERT, UPDATE, DELETE";
    let earlier = format!(
        "CREATE TABLE audit (what text);
         GRANT INSERT ON audit TO {API};
         GRANT {rows} ON ALL TABLES IN SCHEMA posduif_engine TO {API}, {INGESTER};
         GRANT {rows} ON users, messages, devices, enrollment_tokens, sync_metadata TO {API}, {INGESTER};
         GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA posduif_engine TO {API}, {INGESTER};
         GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA posduif_engine TO PUBLIC"
    );
    client.batch_execute(&earlier).await.unwrap();
    migrate(&mut client, &rules(None), "posduif", ROLES).await.unwrap();
    assert_eq!(seen(&client, INGESTER).await, before[0]);
    let mut api = seen(&client, API).await;
    assert_eq!(api.remove("table public.audit"), Some(["INSERT".to_owned()].into()));
    assert_eq!(api, before[1]);
}

#[tokio::test]
async fn grants_that_are_there_are_not_granted_again() {
    let (_database, mut client) = migrated().await;
    let versions = "SELECT array_agg(a.xmin::text || c.xmin::text ORDER BY c.oid, a.attnum)
                      FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
                     WHERE c.relnamespace IN ('public'::regnamespace, 'posduif_engine'::regnamespace)";
    let look =
        async |client: &Client| -> Vec<String> { client.query_one(versions, &[]).await.unwrap().get(0) };
    let before = look(&client).await;
    migrate(&mut client, &rules(None), "posduif", ROLES).await.unwrap();
    assert_eq!(look(&client).await, before);
}

#[tokio::test]
async fn one_role_for_both_services_gets_what_both_need() {
    let (_database, mut client) = migrated().await;
    let one = Some(Roles { api: INGESTER, ingester: INGESTER });
    assert_eq!(migrate(&mut client, &rules(None), "posduif", one).await.unwrap().warnings, [""; 0]);
    let mut both = documented(INGESTER);
    for (object, rights) in documented(API) {
        both.entry(object).or_default().extend(rights);
    }
    assert_eq!(seen(&client, INGESTER).await, both);
}

#[tokio::test]
async fn a_role_that_lacks_what_no_migration_grants_is_told() {
    let database = Database::create(Servers::shared().await).await;
    let mut client = database.connect().await;
    let revoke = format!("REVOKE CONNECT ON DATABASE {} FROM {API}", database.name());
    client.batch_execute(&revoke).await.unwrap();
    let swapped = Some(Roles { api: API, ingester: API });
    let warnings = migrate(&mut client, &rules(None), "posduif", swapped).await.unwrap().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("may not enter the database"), "{warnings:?}");
    assert!(warnings[1].contains("may not replicate"), "{warnings:?}");
    let nobody = Some(Roles { api: "nobody_here", ingester: INGESTER });
    let error = migrate(&mut client, &rules(None), "posduif", nobody).await.unwrap_err().to_string();
    assert!(error.contains("role nobody_here does not exist; run deploy/postgres/setup.sql"), "{error}");
}

//! Set-ups that cannot be synced: all of them in one sentence each, with their place in the file and what to run.

use posduif_testkit::{Database, Servers};

use crate::fixture::Tenant;

/// Tables that are wrong as they are: each with its declaration, its SQL and what is said of it.
const WRONG: [(&str, &str, &str); 17] = [
    (
        "{table: missing, buckets: [shared]}",
        "",
        ": public.missing does not exist yet; create it and run posduif migrate",
    ),
    (
        "{table: viewed, buckets: [shared]}",
        "CREATE VIEW viewed AS SELECT 1 AS id",
        ": public.viewed is a view, which has no rows of its own; name the tables that it reads",
    ),
    (
        "{table: materialised, buckets: [shared]}",
        "CREATE MATERIALIZED VIEW materialised AS SELECT 1 AS id",
        ": public.materialised is a materialised view",
    ),
    (
        "{table: unlogged, buckets: [shared]}",
        "CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY)",
        ": public.unlogged is unlogged, and its changes are in no WAL; run ALTER TABLE \"public\".\"unlogged\" SET LOGGED",
    ),
    (
        "{table: keyless, buckets: [shared]}",
        "CREATE TABLE keyless (id int)",
        ": public.keyless has no primary key, by which devices know rows; run ALTER TABLE \"public\".\"keyless\" ADD PRIMARY KEY (…)",
    ),
    (
        "{table: swapping, buckets: [shared]}",
        "CREATE TABLE swapping (id int PRIMARY KEY DEFERRABLE)",
        ": public.swapping has a deferrable primary key: two rows could swap keys",
    ),
    (
        "{table: narrow, buckets: ['user:{owner}'], columns: [id, done]}",
        "CREATE TABLE narrow (id int PRIMARY KEY)",
        ".columns[1]: public.narrow has no column done; name one that it has, or run ALTER TABLE \"public\".\"narrow\" ADD COLUMN",
    ),
    (
        "{table: narrow_2, buckets: ['user:{owner}']}",
        "CREATE TABLE narrow_2 (id int PRIMARY KEY)",
        ".buckets[0]: public.narrow_2 has no column owner",
    ),
    (
        "{table: written, buckets: [shared], write: {owner: o, columns: [id, c], version: v}}",
        "CREATE TABLE written (id int PRIMARY KEY)",
        ".write.owner: public.written has no column o",
    ),
    (
        "{table: written_2, buckets: [shared], write: {owner: id, columns: [id, c], version: v}}",
        "CREATE TABLE written_2 (id int PRIMARY KEY)",
        ".write.columns[1]: public.written_2 has no column c",
    ),
    (
        "{table: written_3, buckets: [shared], write: {owner: id, columns: [id], version: v}}",
        "CREATE TABLE written_3 (id int PRIMARY KEY)",
        ".write.version: public.written_3 has no column v",
    ),
    (
        "{table: named, buckets: ['user:{owner}']}",
        "CREATE TABLE named (id int PRIMARY KEY, owner varchar(40))",
        ".buckets[0]: public.named names its user in column owner, which is character varying(40) and must be of type uuid; run ALTER TABLE \"public\".\"named\" ALTER COLUMN \"owner\" TYPE uuid USING \"owner\"::uuid",
    ),
    (
        "{table: keyed, buckets: [shared], columns: [title]}",
        "CREATE TABLE keyed (id int PRIMARY KEY, title text)",
        ".columns: lacks id, a column of the primary key of public.keyed; add it",
    ),
    (
        "{table: virtual, buckets: [shared], columns: [id]}",
        "CREATE TABLE virtual (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) VIRTUAL)",
        ": public.virtual has a virtual generated column, twice: with whole old rows the application's own UPDATE and DELETE fail",
    ),
    (
        "{table: parent, buckets: [shared]}",
        "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child () INHERITS (parent)",
        ": public.parent has tables that inherit from it",
    ),
    (
        "{table: part, buckets: [shared]}",
        "CREATE TABLE whole (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF whole DEFAULT",
        ": public.part is a partition of whole; declare that table instead",
    ),
    (
        "{table: policed, buckets: [shared]}",
        "CREATE TABLE policed (id int PRIMARY KEY); ALTER TABLE policed ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        ": public.policed has row-level security that hides rows from role \"posduif_ingester\"",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_wrong_is_told_at_once_with_its_place_and_what_to_run() {
    let declared = WRONG.map(|(declared, ..)| declared).join(", ");
    let sql = WRONG.map(|(_, sql, _)| sql).join("; ");
    let tenant = Tenant::with_tables(Servers::shared().await, &format!("[{declared}]"), &sql).await;
    let reason = tenant.spawn().ended().await;
    for (index, (declared, _, sentence)) in WRONG.iter().enumerate() {
        let expected = format!("sync.tables[{index}]{sentence}");
        assert!(reason.contains(&expected), "{declared}: {expected} is not in {reason}");
    }
    let slots = "SELECT FROM pg_replication_slots WHERE database = current_database()";
    assert!(tenant.client.query_opt(slots, &[]).await.unwrap().is_none(), "a slot was made for nothing");
}

const TASKS: &str = "[{table: tasks, buckets: ['user:{owner}'], columns: [id, owner, twice]}]";
const TASKS_SQL: &str = "CREATE TABLE tasks (id int PRIMARY KEY, owner uuid NOT NULL, title text,
                                             twice int GENERATED ALWAYS AS (id * 2) STORED)";

#[tokio::test(flavor = "multi_thread")]
async fn what_was_undone_after_the_migration_is_refused() {
    let servers = Servers::shared().await;
    for (undo, sentence) in [
        (
            "ALTER PUBLICATION posduif DROP TABLE tasks",
            "sync.tables[0]: public.tasks is not in publication posduif; run posduif migrate",
        ),
        (
            "ALTER PUBLICATION posduif SET TABLE messages, users, tasks (id, owner, title)",
            "is published with a column list",
        ),
        (
            "ALTER PUBLICATION posduif SET TABLE messages, users, tasks WHERE (id > 0)",
            "is published with a row filter",
        ),
        (
            "ALTER PUBLICATION posduif SET (publish = 'insert')",
            "sync.wal.publication: publication posduif does not publish insert, update",
        ),
        (
            "ALTER PUBLICATION posduif SET (publish_via_partition_root = false)",
            "does not publish partitions via their root",
        ),
        (
            "ALTER PUBLICATION posduif SET (publish_generated_columns = none)",
            "has a generated column, twice, which publication posduif leaves out",
        ),
        ("DROP PUBLICATION posduif", "publication posduif does not exist; run posduif migrate"),
        (
            "ALTER TABLE tasks REPLICA IDENTITY DEFAULT",
            "run ALTER TABLE \"public\".\"tasks\" REPLICA IDENTITY FULL",
        ),
        (
            "ALTER TABLE tasks REPLICA IDENTITY NOTHING",
            "run ALTER TABLE \"public\".\"tasks\" REPLICA IDENTITY FULL",
        ),
        (
            "CREATE UNIQUE INDEX by_id ON tasks (id); ALTER TABLE tasks REPLICA IDENTITY USING INDEX by_id",
            "public.tasks does not keep enough of its old rows",
        ),
        (
            "ALTER TABLE messages REPLICA IDENTITY NOTHING",
            "sync.tables (built in: public.messages): public.messages does not keep",
        ),
    ] {
        let mut tenant = Tenant::with_tables(servers, TASKS, TASKS_SQL).await;
        tenant.client.batch_execute(undo).await.unwrap_or_else(|error| panic!("{undo}: {error:?}"));
        let reason = tenant.spawn().ended().await;
        assert!(reason.contains(sentence), "{undo}: {reason}");
        if reason.contains("run posduif migrate") {
            let rules = tenant.session.rules.clone();
            let report =
                posduif_migrations::migrate(&mut tenant.client, &rules, "posduif", crate::fixture::ROLES)
                    .await
                    .unwrap();
            assert_eq!(report.warnings, [""; 0], "{undo}");
            drop(tenant.ingest().await);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_over_key_and_buckets_is_identity_enough_where_no_value_can_be_large() {
    let sql = "CREATE TABLE tasks (id int PRIMARY KEY, owner uuid NOT NULL, title text, twice int);
               CREATE UNIQUE INDEX by_owner ON tasks (id, owner);
               ALTER TABLE tasks REPLICA IDENTITY USING INDEX by_owner";
    let tenant = Tenant::with_tables(Servers::shared().await, TASKS, sql).await;
    let _running = tenant.ingest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_read_a_table_is_told_what_to_be_granted() {
    let servers = Servers::shared().await;
    let tenant = Tenant::with_tables(servers, TASKS, TASKS_SQL).await;
    tenant.client.batch_execute("REVOKE ALL ON tasks FROM posduif_ingester").await.unwrap();
    let reason = tenant.spawn().ended().await;
    let expected = "public.tasks cannot be read by role \"posduif_ingester\"; run GRANT USAGE ON SCHEMA \"public\" TO \
                    \"posduif_ingester\" and GRANT SELECT ON \"public\".\"tasks\" TO \"posduif_ingester\"";
    assert!(reason.contains(expected), "{reason}");
    tenant
        .client
        .batch_execute(
            "GRANT SELECT ON tasks TO posduif_ingester; ALTER TABLE tasks ENABLE ROW LEVEL SECURITY",
        )
        .await
        .unwrap();
    let reason = tenant.spawn().ended().await;
    assert!(reason.contains("run ALTER ROLE \"posduif_ingester\" BYPASSRLS"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_lacks_what_the_ingester_writes_is_told_what_it_is_and_makes_no_slot() {
    let mut tenant = Tenant::create(Servers::shared().await).await;
    let revoke = "REVOKE INSERT (nonce) ON posduif_engine.heartbeat FROM posduif_ingester;
                  REVOKE USAGE ON SEQUENCE posduif_engine.fencing_token FROM posduif_ingester";
    tenant.client.batch_execute(revoke).await.unwrap();
    let reason = tenant.spawn().ended().await;
    let expected = "role posduif_ingester lacks INSERT (nonce) on posduif_engine.heartbeat, USAGE on sequence \
                    posduif_engine.fencing_token; run posduif migrate";
    assert!(reason.contains(expected), "{reason}");
    // The API's role is no substitute.
    tenant.session.tenant.url = tenant.database.url().parse().unwrap();
    let reason = tenant.spawn().ended().await;
    assert!(reason.contains("may not replicate; run ALTER ROLE"), "{reason}");
    let slots = "SELECT FROM pg_replication_slots WHERE database = current_database()";
    assert!(tenant.client.query_opt(slots, &[]).await.unwrap().is_none(), "a slot was made for nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_an_older_version_is_told_to_be_migrated() {
    let tenant = Tenant::create(Servers::shared().await).await;
    let older = "DROP TABLE posduif_engine.captured";
    tenant.client.batch_execute(older).await.unwrap();
    let reason = tenant.spawn().ended().await;
    assert!(reason.contains("older than this program; run posduif migrate"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_in_utf8_is_refused_before_anything_is_made() {
    let servers = Servers::shared().await;
    let database = Database::create(servers).await;
    let name = format!("{}_latin", database.name());
    let admin = servers.superuser().await;
    let sql =
        format!("CREATE DATABASE {name} OWNER posduif_admin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
    admin.batch_execute(&sql).await.unwrap();
    let (mut client, connection) =
        tokio_postgres::connect(&servers.admin_url(&name), tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let rules = posduif_model::rule::RuleSet::new(&[]).unwrap();
    let refused = posduif_migrations::migrate(&mut client, &rules, "posduif", None).await.unwrap_err();
    assert!(refused.to_string().contains("LATIN1; create the tenant's database with ENCODING 'UTF8'"));
    let facts = posduif_catalogue::Facts::load(&client, &rules, "posduif", None).await.unwrap();
    let told = posduif_catalogue::judge(&facts, &rules, "posduif", posduif_model::Source::Wal).to_string();
    assert!(told.contains("the database's encoding is LATIN1"), "{told}");
    drop(client);
    connection.await.unwrap().unwrap();
    admin.batch_execute(&format!("DROP DATABASE {name}")).await.unwrap();
}

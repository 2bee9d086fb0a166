//! Partitioned tables: their rows are the root's, and what happens to a partition in silence opens an epoch.

use std::time::Duration;

use posduif_model::{Bucket, Op, UserId};
use posduif_testkit::{Servers, eventually};

use crate::fixture::{Running, SOON, Tenant};

const NOTES: &str = "[{table: notes, buckets: ['user:{owner}'], columns: [id, year, title, owner]}]";
/// Two levels, and a partition whose columns stand in another order than the root's.
const NOTES_SQL: &str = "
    CREATE TABLE notes (id int, year int, owner uuid, title text, hidden text, PRIMARY KEY (id, year))
        PARTITION BY RANGE (year);
    CREATE TABLE notes_old PARTITION OF notes FOR VALUES FROM (2000) TO (2010);
    CREATE TABLE notes_new (title text, gone int, hidden text, owner uuid, year int NOT NULL, id int NOT NULL);
    ALTER TABLE notes_new DROP gone;
    ALTER TABLE notes ATTACH PARTITION notes_new FOR VALUES FROM (2010) TO (2020);
    CREATE TABLE notes_far PARTITION OF notes FOR VALUES FROM (2020) TO (2100) PARTITION BY LIST (id);
    CREATE TABLE notes_far_1 PARTITION OF notes_far DEFAULT";

/// Only the stream and the beginning of a session tell of changes; the guard looks once.
async fn quiet() -> Tenant {
    let mut tenant = Tenant::with_tables(Servers::shared().await, NOTES, NOTES_SQL).await;
    tenant.session.wal.heartbeat_interval = Duration::from_secs(300);
    tenant
}

fn key(id: i32, year: i32) -> String {
    format!("{{\"id\":{id},\"year\":{year}}}")
}

impl Tenant {
    async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    async fn note(&self, id: i32, year: i32, owner: UserId) {
        self.run(&format!("INSERT INTO notes VALUES ({id}, {year}, '{owner}', 't{id}', 'h')")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_every_partition_come_as_rows_of_the_root() {
    let tenant = quiet().await;
    let _running = tenant.ingest().await;
    let (ann, ben) = (tenant.user("Ann").await, tenant.user("Ben").await);
    for (id, year) in [(1, 2005), (2, 2015), (3, 2025)] {
        tenant.note(id, year, ann).await;
    }
    tenant
        .run(&format!(
            "UPDATE notes SET hidden = 'other'; UPDATE notes SET title = 'x'; UPDATE notes SET owner = '{ben}' WHERE id = 2;
             UPDATE notes SET year = 2016 WHERE id = 2; UPDATE notes SET year = 2004 WHERE id = 2; DELETE FROM notes WHERE id = 3"
        ))
        .await;
    let puts = [(1, 2005), (2, 2015), (3, 2025)].map(|(id, year)| (Op::Put, key(id, year)));
    let more = [(Op::Delete, key(2, 2015)), (Op::Delete, key(3, 2025))];
    let expected: Vec<_> = puts.iter().chain(&puts).chain(&more).cloned().collect();
    assert_eq!(tenant.operations(Bucket::User(ann)).await, expected);
    // Within a partition a changed key is one message; from one to another it is a delete and an insert.
    let moved = [
        (Op::Put, key(2, 2015)),
        (Op::Delete, key(2, 2015)),
        (Op::Put, key(2, 2016)),
        (Op::Delete, key(2, 2016)),
        (Op::Put, key(2, 2004)),
    ];
    assert_eq!(tenant.operations(Bucket::User(ben)).await, moved);
    let entries = tenant.entries(&[Bucket::User(ben)]).await;
    let rows: Vec<_> = entries.iter().flat_map(|entry| &entry.changes).filter(|c| c.op == Op::Put).collect();
    for (row, year) in rows.iter().zip([2015, 2016, 2004]) {
        assert_eq!(row.row, format!("{{\"id\":2,\"year\":{year},\"title\":\"x\",\"owner\":\"{ben}\"}}"));
    }
    assert!(rows.iter().all(|row| row.table.to_string() == "public.notes"));
}

/// The next session goes on in the same epoch.
async fn goes_on(tenant: &Tenant, running: Running) -> Running {
    let epoch = tenant.caught_up().await.epoch;
    drop(running);
    let next = tenant.ingest_again().await;
    assert_eq!(tenant.state().await.epoch, epoch);
    next
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_made_empty_is_welcome() {
    let tenant = quiet().await;
    let running = tenant.ingest().await;
    let ann = tenant.user("Ann").await;
    tenant.note(1, 2005, ann).await;
    let epoch = tenant.caught_up().await.epoch;
    // Made and filled in one transaction, in two, and on the second level; with and without a look in between.
    tenant
        .run(&format!(
            "BEGIN; CREATE TABLE notes_a PARTITION OF notes FOR VALUES FROM (1990) TO (2000);
             ALTER TABLE notes_a REPLICA IDENTITY FULL; INSERT INTO notes VALUES (2, 1995, '{ann}'); COMMIT;
             CREATE TABLE notes_b PARTITION OF notes FOR VALUES FROM (1980) TO (1990) PARTITION BY LIST (id);
             CREATE TABLE notes_b3 PARTITION OF notes_b FOR VALUES IN (3);
             ALTER TABLE notes_b3 REPLICA IDENTITY FULL"
        ))
        .await;
    let running = goes_on(&tenant, running).await;
    tenant.note(3, 1985, ann).await;
    tenant
        .run(
            "ALTER TABLE notes ADD unlisted int DEFAULT 5; ALTER TABLE notes ALTER unlisted SET DEFAULT 6;
             CREATE INDEX ON notes (title); ANALYZE notes;
             CREATE TABLE notes_c PARTITION OF notes FOR VALUES FROM (1970) TO (1980);
             ALTER TABLE notes_c REPLICA IDENTITY FULL",
        )
        .await;
    tenant.run("VACUUM notes").await;
    tenant.note(4, 1975, ann).await;
    tenant.run("UPDATE notes SET title = 'x' WHERE id > 1").await;
    let running = goes_on(&tenant, running).await;
    let operations = tenant.operations(Bucket::User(ann)).await;
    let expected = [(1, 2005), (2, 1995), (3, 1985), (4, 1975), (4, 1975), (3, 1985), (2, 1995)];
    assert_eq!(operations.len(), expected.len());
    for (id, year) in expected {
        assert!(operations.contains(&(Op::Put, key(id, year))), "{id}: {operations:?}");
    }
    assert_eq!(tenant.state().await.epoch, epoch);
    drop(running);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_a_partition_without_a_message_opens_an_epoch() {
    for change in [
        "TRUNCATE notes_old",
        "TRUNCATE notes",
        "DROP TABLE notes_old",
        "ALTER TABLE notes DETACH PARTITION notes_old",
        "ALTER TABLE notes_far DETACH PARTITION notes_far_1",
        "DROP TABLE notes_far",
        "ALTER TABLE notes DETACH PARTITION notes_old; DELETE FROM notes_old;
         ALTER TABLE notes ATTACH PARTITION notes_old FOR VALUES FROM (2000) TO (2010)",
        FILLED,
        "BEGIN; CREATE TABLE brief PARTITION OF notes FOR VALUES FROM (1990) TO (2000);
         ALTER TABLE brief REPLICA IDENTITY FULL; INSERT INTO notes VALUES (9, 1995); COMMIT; TRUNCATE brief",
        "VACUUM FULL notes_old",
        "ALTER TABLE notes ALTER title TYPE text USING title || '!'",
    ] {
        let tenant = quiet().await;
        let running = tenant.ingest().await;
        let ann = tenant.user("Ann").await;
        for (id, year) in [(1, 2005), (2, 2015), (3, 2025)] {
            tenant.note(id, year, ann).await;
        }
        let epoch = tenant.caught_up().await.epoch;
        drop(running);
        tenant.run(change).await;
        let _next = tenant.ingest_again().await;
        assert_ne!(tenant.state().await.epoch, epoch, "{change}");
    }
}

/// A partition that comes with a row, and a row that comes later.
const FILLED: &str = "
    CREATE TABLE filled (LIKE notes INCLUDING ALL); INSERT INTO filled VALUES (9, 1995);
    ALTER TABLE filled REPLICA IDENTITY FULL;
    ALTER TABLE notes ATTACH PARTITION filled FOR VALUES FROM (1990) TO (2000)";

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_comes_with_rows_is_noticed_before_its_next_one() {
    let tenant = quiet().await;
    let running = tenant.ingest().await;
    tenant.user("Ann").await;
    tenant.caught_up().await;
    tenant.run(&format!("{FILLED}; INSERT INTO notes VALUES (10, 1995)")).await;
    let reason = running.ended().await;
    assert!(reason.contains("altered (a partition was attached"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_goes_is_noticed_with_the_next_heartbeat() {
    // PostgreSQL describes a partition anew, and its root with it, when that partition is altered, not its neighbour.
    let tenant = Tenant::with_tables(Servers::shared().await, NOTES, NOTES_SQL).await;
    let running = tenant.ingest().await;
    let ann = tenant.user("Ann").await;
    tenant.note(1, 2005, ann).await;
    tenant.caught_up().await;
    tenant.run("DROP TABLE notes_old").await;
    let reason = running.ended().await;
    assert!(reason.contains("altered (a partition was detached or dropped)"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_came_and_went_while_nobody_looked_opens_an_epoch() {
    let tenant = quiet().await;
    let running = tenant.ingest().await;
    let ann = tenant.user("Ann").await;
    tenant.note(1, 2005, ann).await;
    let epoch = tenant.caught_up().await.epoch;
    drop(running);
    let made = "CREATE TABLE brief PARTITION OF notes FOR VALUES FROM (1990) TO (2000); ALTER TABLE brief REPLICA IDENTITY FULL";
    tenant.run(&format!("{made}; INSERT INTO notes VALUES (2, 1995, '{ann}'); DROP TABLE brief")).await;
    // The catalogue looks as it did; that rows came from a table that is no more shows in the stream alone.
    eventually(SOON, "the tenant goes on in another epoch", async || {
        let running = tenant.ingest_again().await;
        let ended = tokio::time::timeout(Duration::from_millis(700), running.ended()).await;
        Ok((ended.is_err() && tenant.state().await.epoch != epoch).then_some(()))
    })
    .await;
    // The same, but the partition goes after its rows were published and before the next session.
    let running = tenant.ingest_again().await;
    tenant.run(&format!("{made}; INSERT INTO notes VALUES (2, 1995, '{ann}')")).await;
    assert_eq!(tenant.operations(Bucket::User(ann)).await, [(Op::Put, key(2, 1995))]);
    let epoch = tenant.state().await.epoch;
    drop(running);
    tenant.run("DROP TABLE brief").await;
    let _next = tenant.ingest_again().await;
    assert_ne!(tenant.state().await.epoch, epoch, "the dropped partition's rows stay on devices");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_does_not_keep_its_old_rows_is_named_and_repaired_by_migrating() {
    let mut tenant = quiet().await;
    let running = tenant.ingest().await;
    let ann = tenant.user("Ann").await;
    tenant.note(1, 2005, ann).await;
    let epoch = tenant.caught_up().await.epoch;
    tenant.run("CREATE TABLE notes_x PARTITION OF notes FOR VALUES FROM (1990) TO (2000)").await;
    tenant.note(2, 1995, ann).await;
    let reason = running.ended().await;
    let expected = "sync.tables[0]: public.notes has a partition, public.notes_x, that does not keep its old rows; \
                    run ALTER TABLE \"public\".\"notes_x\" REPLICA IDENTITY FULL, or posduif migrate";
    assert_eq!(reason, expected);
    // This delete comes as a whole old row with everything but its key NULL: as if nobody had seen the row.
    tenant.run("DELETE FROM notes WHERE id = 2").await;
    let rules = tenant.session.rules.clone();
    let migrated = posduif_migrations::migrate(&mut tenant.client, &rules, "posduif", crate::fixture::ROLES)
        .await
        .unwrap();
    assert_eq!(migrated.warnings, [""; 0]);
    eventually(SOON, "the tenant goes on in another epoch", async || {
        let running = tenant.ingest_again().await;
        let ended = tokio::time::timeout(Duration::from_millis(700), running.ended()).await;
        Ok((ended.is_err() && tenant.state().await.epoch != epoch).then_some(()))
    })
    .await;
}

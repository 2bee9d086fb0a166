//! What a poll could miss: between its snapshot and the WAL, and in the notes that it relies on.

use posduif_ingester::polling::begun;
use posduif_migrations::migrate;
use posduif_model::{Bucket, Op, Source};
use posduif_testkit::{Servers, eventually};

use crate::fixture::{ROLES, SOON, Tenant};

const NOTES: &str = "[{table: notes, buckets: [shared]}]";
const TABLE: &str = "CREATE TABLE notes (id int PRIMARY KEY, body text)";

/// `xmax` of a snapshot is one above the newest transaction that has ended, not above those that have begun.
#[tokio::test]
async fn a_commit_that_is_written_but_not_yet_visible_is_waited_for_however_new_it_is() {
    let servers = Servers::private().await;
    let tenant = Tenant::with_tables(&servers, NOTES, TABLE).await;
    let open = tenant.database.connect().await;
    open.batch_execute("BEGIN; INSERT INTO notes VALUES (1, 'a')").await.unwrap();
    let newest: String = open.query_one("SELECT pg_current_xact_id()::text", &[]).await.unwrap().get(0);
    let newest: u64 = newest.parse().unwrap();
    assert!(
        begun(&tenant.client).await.unwrap() > newest,
        "its commit could lie below the turn, unseen by the last poll"
    );
    open.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test]
async fn triggers_that_are_made_anew_under_a_poller_cost_it_no_row() {
    let mut tenant = Tenant::with_tables(Servers::shared().await, NOTES, TABLE).await;
    tenant.session.tenant.wal = Some(false);
    let ingester = tenant.ingest().await;
    let before = tenant.state().await.epoch;
    tenant.client.batch_execute("DROP TRIGGER posduif_moved_rows ON notes").await.unwrap();
    let mut client = tenant.database.connect().await;
    let (rules, publication) = (&tenant.session.rules, &tenant.session.wal.publication);
    migrate(&mut client, rules, publication, ROLES).await.unwrap();
    tenant.client.batch_execute("INSERT INTO notes VALUES (1, 'a')").await.unwrap();
    let reason = ingester.ended().await;
    assert!(reason.contains("triggers"), "{reason}");
    let _next = tenant.ingest().await;
    assert_ne!(tenant.state().await.epoch, before, "nobody noted the row");
}

#[tokio::test]
async fn notes_of_another_server_in_a_restored_dump_are_no_changes() {
    let tenant = Tenant::with_tables(Servers::shared().await, NOTES, TABLE).await;
    let foreign = "INSERT INTO posduif_engine.captured (xid, table_name, kind)
                   VALUES ('9000000000', 'public.notes', 't')";
    tenant.client.batch_execute(foreign).await.unwrap();
    drop(tenant.ingest().await);
    tenant.slot_is_free().await;
    eventually(SOON, "the log has a snapshot", async || {
        let _ingester = tenant.ingest_again().await;
        tenant
            .client
            .batch_execute("INSERT INTO notes SELECT coalesce(max(id), 0) + 1, 'a' FROM notes")
            .await?;
        tenant.caught_up().await;
        Ok(tenant.state().await.supply.seen.map(drop))
    })
    .await;
    tenant.slot_is_free().await;
    let drop_slot = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                      WHERE database = current_database()";
    tenant.database.connect_superuser().await.query(drop_slot, &[]).await.unwrap();
    let _ingester = tenant.ingest().await;
    eventually(SOON, "the WAL is followed again", async || {
        let compared = "SELECT FROM posduif_engine.epoch_history WHERE reason = 'slot_compared'";
        let compared = tenant.client.query_opt(compared, &[]).await?.is_some();
        Ok((compared && tenant.state().await.supply.source == Source::Wal).then_some(()))
    })
    .await;
    let operations = tenant.operations(Bucket::Shared).await;
    assert!(!operations.iter().any(|(op, _)| *op == Op::Truncate), "{operations:?}");
}

#[tokio::test]
async fn a_trigger_that_is_switched_off_by_hand_costs_no_row() {
    let mut tenant = Tenant::with_tables(Servers::shared().await, NOTES, TABLE).await;
    tenant.session.tenant.wal = Some(false);
    let ingester = tenant.ingest().await;
    let epoch = tenant.state().await.epoch;
    let off = "ALTER TABLE notes DISABLE TRIGGER posduif_changed_rows; INSERT INTO notes VALUES (1, 'a')";
    tenant.client.batch_execute(off).await.unwrap();
    let reason = ingester.ended().await;
    assert!(reason.contains("switched off"), "{reason}");
    let _next = tenant.ingest().await;
    assert_eq!(tenant.operations(Bucket::Shared).await, [(Op::Put, "{\"id\":1}".to_owned())]);
    tenant.client.batch_execute("INSERT INTO notes VALUES (2, 'b')").await.unwrap();
    assert_eq!(tenant.operations(Bucket::Shared).await.len(), 2);
    assert_eq!(tenant.state().await.epoch, epoch, "what is there can be compared");
}

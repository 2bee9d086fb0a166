//! Transactions that are larger than the log takes.

use posduif_changelog::reader::Read;
use posduif_model::Bucket;
use posduif_testkit::Servers;

use crate::fixture::Tenant;

const TASKS: &str = "[{table: tasks, buckets: ['user:{owner}']}]";
const TASKS_SQL: &str = "CREATE TABLE tasks (id int PRIMARY KEY, owner uuid, title text)";

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_over_the_cap_is_left_out_and_everyone_below_it_is_told() {
    let mut tenant = Tenant::with_tables(Servers::shared().await, TASKS, TASKS_SQL).await;
    tenant.session.wal.transaction_cap_bytes = 200_000;
    tenant.session.wal.chunk_bytes = 20_000;
    let running = tenant.ingest().await;
    let ann = tenant.user("Ann").await;
    let before = tenant.caught_up().await;
    let insert = |from: u32, to: u32| {
        format!("INSERT INTO tasks SELECT n, '{ann}', repeat('x', 100) FROM generate_series({from}, {to}) n")
    };
    tenant.client.batch_execute(&insert(1, 10_000)).await.unwrap();
    let after = tenant.caught_up().await;
    assert_eq!(after.epoch, before.epoch);
    let read = async |from, upto| {
        tenant.log.read(&after.epoch, &[Bucket::User(ann)], from, upto, 100_000).await.unwrap()
    };
    assert_eq!(read(before.watermark.commit, after.watermark.commit).await, Read::Expired);
    let left_out = after.floor;
    assert!(left_out > before.watermark.commit && left_out <= after.watermark.commit);

    // Whoever has a snapshot from there on goes on as ever, over a restart too.
    tenant.client.batch_execute(&insert(10_001, 10_100)).await.unwrap();
    drop(running);
    let _next = tenant.ingest_again().await;
    tenant.client.batch_execute(&insert(10_101, 10_200)).await.unwrap();
    let state = tenant.caught_up().await;
    assert_eq!((state.epoch, state.floor), (after.epoch, left_out));
    match read(left_out, state.watermark.commit).await {
        Read::Page(page) => assert_eq!(page.entries.len(), 200),
        other => panic!("{other:?}"),
    }
}

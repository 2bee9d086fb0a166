//! Rows that are too large for anybody.

use posduif_model::{Bucket, Lsn, Op};
use posduif_testkit::Servers;

use crate::fixture::Tenant;

const TASKS: &str = "[{table: tasks, buckets: ['user:{owner}'], columns: [id, owner, title]}]";
const TASKS_SQL: &str = "CREATE TABLE tasks (id text PRIMARY KEY, owner uuid, title text, hidden text)";

fn key(id: &str) -> String {
    format!("{{\"id\":\"{id}\"}}")
}

/// A tenant whose rows may have 64 KiB, with a user.
async fn tenant() -> (Tenant, posduif_model::UserId) {
    let mut tenant = Tenant::with_tables(Servers::shared().await, TASKS, TASKS_SQL).await;
    tenant.session.rules = tenant.session.rules.clone().with_max_row_bytes(64 << 10);
    let ann = tenant.user("Ann").await;
    (tenant, ann)
}

fn counted(tenant: &Tenant, reason: &str) -> u64 {
    let labels = [tenant.id().as_str(), "public.tasks", reason];
    tenant.session.metrics.rows_left_out.with_label_values(&labels).get()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_grows_too_large_is_deleted_and_comes_back_when_it_shrinks() {
    let (tenant, ann) = tenant().await;
    let _ingester = tenant.ingest().await;
    let sql = format!(
        "INSERT INTO tasks VALUES ('a', '{ann}', 'small', 'h');
         UPDATE tasks SET title = repeat('x', 70000) WHERE id = 'a';
         UPDATE tasks SET hidden = 'other' WHERE id = 'a';
         UPDATE tasks SET title = 'small again' WHERE id = 'a';
         INSERT INTO tasks VALUES ('b', '{ann}', repeat(E'\\n', 40000), 'h');
         INSERT INTO tasks VALUES ('c', '{ann}', 'small', repeat('h', 70000));
         INSERT INTO tasks VALUES ('d', NULL, repeat('x', 70000), 'h');"
    );
    tenant.client.batch_execute(&sql).await.unwrap();
    let expected = [(Op::Put, key("a")), (Op::Delete, key("a")), (Op::Put, key("a")), (Op::Put, key("c"))];
    assert_eq!(tenant.operations(Bucket::User(ann)).await, expected);
    // One of them grew and one was born too large; 40,000 line ends are 80,000 bytes of JSON.
    assert_eq!(counted(&tenant, "row_bytes"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_no_cursor_can_hold_goes_nowhere() {
    let (tenant, ann) = tenant().await;
    let _ingester = tenant.ingest().await;
    let sql = format!(
        "INSERT INTO tasks VALUES (repeat('k', 20000), '{ann}', 'small', 'h');
         UPDATE tasks SET title = 'other';
         UPDATE tasks SET id = 'short';
         UPDATE tasks SET id = repeat('k', 20000);
         DELETE FROM tasks;"
    );
    tenant.client.batch_execute(&sql).await.unwrap();
    let expected = [(Op::Put, key("short")), (Op::Delete, key("short"))];
    assert_eq!(tenant.operations(Bucket::User(ann)).await, expected);
    assert_eq!(counted(&tenant, "key_bytes"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_many_megabytes_does_not_stop_the_stream() {
    let (tenant, ann) = tenant().await;
    let _ingester = tenant.ingest().await;
    let sql = format!(
        "INSERT INTO tasks VALUES ('huge', '{ann}', repeat('x', 64 << 20), 'h');
         INSERT INTO tasks VALUES ('next', '{ann}', 'small', 'h');"
    );
    tenant.client.batch_execute(&sql).await.unwrap();
    assert_eq!(tenant.operations(Bucket::User(ann)).await, [(Op::Put, key("next"))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_limit_opens_an_epoch() {
    let (mut tenant, _) = tenant().await;
    let running = tenant.ingest().await;
    let before = tenant.caught_up().await;
    drop(running);
    tenant.session.rules = tenant.session.rules.clone().with_max_row_bytes(128 << 10);
    let _next = tenant.ingest_again().await;
    assert_ne!(
        tenant.caught_up().await.epoch,
        before.epoch,
        "rows that appear by the limit alone would be missed"
    );
}

#[tokio::test]
async fn a_page_of_large_rows_takes_no_more_from_redis_than_it_needs() {
    let servers = Servers::private().await;
    let (tenant, state) = crate::scripts::fresh();
    let mut log = crate::scripts::writer_at(&servers, &tenant, 1).await.unwrap();
    log.open(&state).await.unwrap();
    for commit in 20..220_u64 {
        let mut batch = posduif_changelog::Batch::new(log.keys().clone(), state.epoch);
        let change = posduif_model::Change {
            op: Op::Put,
            table: "t".parse().unwrap(),
            key: format!("{{\"id\":{commit}}}"),
            row: "x".repeat(500_000),
        };
        let at = format!("{commit}-0").parse().unwrap();
        batch.push(at, &Bucket::Shared, None, &[change]);
        let previous = if commit == 20 { 10 } else { commit - 1 };
        crate::scripts::finish_in(&mut batch, commit, previous, 1);
        log.append(&batch, posduif_changelog::Batch::guard(Lsn::new(previous), None)).await.unwrap();
    }
    let end = posduif_changelog::Watermark { commit: Lsn::new(219), end: Lsn::new(220) };
    log.publish(&state.epoch, end, None, None, None).await.unwrap();
    let pool =
        posduif_changelog::pool(servers.redis_url(), 2, posduif_changelog::Timeouts::default()).unwrap();
    let reader = posduif_changelog::LogReader::new(pool, &tenant);
    let mut sent = async || {
        let info: String = redis::cmd("INFO").arg("stats").query_async(log.connection()).await.unwrap();
        let bytes = info.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:")).unwrap();
        bytes.trim().parse::<u64>().unwrap()
    };
    let before = sent().await;
    let read = reader.read(&state.epoch, &[Bucket::Shared], Lsn::new(10), Lsn::new(219), 500).await.unwrap();
    let posduif_changelog::reader::Read::Page(page) = read else { panic!("{read:?}") };
    assert_eq!((page.entries.len(), page.through), (9, Lsn::new(28)), "a page is about 4 MiB");
    assert!(sent().await - before < 20_000_000, "a page of 4 MiB took {} bytes", sent().await - before);
}

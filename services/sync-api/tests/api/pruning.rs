//! What is kept of uploads goes after a while, and no sooner.

use posduif_runtime::config::Config;
use posduif_sync_api::{app::App, clock::Clock, pruning};

use crate::fixture::{Api, SECRET};

#[tokio::test]
async fn old_receipts_writers_and_tombstones_go_and_younger_ones_stay() {
    let api = Api::start().await;
    let sql = "INSERT INTO posduif_engine.upload_receipts (device_id, upload_id, body_hash, created_at)
               SELECT 'd', n::text, '', now() - make_interval(days => n) FROM generate_series(1, 40) n;
               INSERT INTO posduif_engine.upload_receipts (device_id, upload_id, body_hash, created_at)
               SELECT 'e', n::text, '', now() - interval '1 year' FROM generate_series(1, 2500) n;
               INSERT INTO posduif_engine.row_versions (table_name, key, version, device_id, deleted, written_at)
               SELECT 't', n::text::bytea, '1970-01-01', '', deleted, now() - make_interval(days => n)
                 FROM generate_series(1, 100) n, (VALUES (true), (false)) d (deleted)
                WHERE deleted = (n % 2 = 0)";
    api.sql.batch_execute(sql).await.unwrap();
    let yaml = format!("tenants: [{{url: '{}'}}]\nauth: {{jwt_secret: '{SECRET}'}}", api.database.url());
    let app = App::new(&Config::from_yaml(&yaml).unwrap(), Clock::system()).unwrap();
    let tenant = app.only_tenant().unwrap();
    // Receipts of 30 to 40 days, the old device's, writers of 7 to 99 days, tombstones of 90 to 100 days.
    assert_eq!(pruning::prune_tenant(&tenant).await.unwrap(), 11 + 2500 + 47 + 6);
    assert_eq!(pruning::prune_tenant(&tenant).await.unwrap(), 0);
    let sql = "SELECT (SELECT max(upload_id::int) FROM posduif_engine.upload_receipts),
                      (SELECT max(convert_from(key, 'UTF8')::int) FROM posduif_engine.row_versions WHERE deleted),
                      (SELECT max(convert_from(key, 'UTF8')::int) FROM posduif_engine.row_versions WHERE NOT deleted)";
    let row = api.sql.query_one(sql, &[]).await.unwrap();
    assert_eq!([row.get::<_, i32>(0), row.get(1), row.get(2)], [29, 88, 5]);
}

//! Declared tables that are altered under the feet of a snapshot, or that cannot be served as they are.

use std::time::Duration;

use posduif_model::Bucket;
use posduif_runtime::config::Config;
use posduif_sync_api::{app::App, clock::Clock};
use posduif_testkit::eventually_true;
use serde_json::{Value, json};

use crate::fixture::{Api, By, Phone, SECRET, delete, is, ok, put, refused};

const TASKS: &str = "sync:
  tables:
    - {table: public.tasks, buckets: ['user:{owner_id}'], columns: [id, code]}
";

/// A phone with tasks of its own, numbered from 1.
async fn with_tasks(count: i32) -> (Api, Phone) {
    let api = Api::with(TASKS).await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let sql = "INSERT INTO tasks SELECT n, $2, 'x', 'h' FROM generate_series(1, $1) n";
    api.sql.execute(sql, &[&count, &ann.user.uuid()]).await.unwrap();
    (api, ann)
}

async fn cursor_after(api: &Api, phone: &Phone, rows: usize) -> String {
    let page = ok(api.incoming(phone, "start", rows)).await;
    assert_eq!(page["changes"].as_array().unwrap().len(), rows);
    page["cursor"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_table_that_is_rewritten_while_its_page_is_read_loses_no_row() {
    let (api, ann) = with_tasks(20).await;
    let other = api.database.connect().await;
    other.batch_execute("BEGIN; ALTER TABLE tasks ALTER COLUMN code TYPE char(9)").await.unwrap();
    let page = tokio::spawn(api.incoming(&ann, "start", 500).send());
    let server = api.database.connect_superuser().await;
    let waiting = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually_true(Duration::from_secs(10), "the page waits for the table", async || {
        Ok(server.query_one(waiting, &[]).await?.get::<_, i64>(0) > 0)
    })
    .await;
    other.batch_execute("COMMIT").await.unwrap();
    let page: Value = page.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(page["changes"].as_array().unwrap().len(), 20);
}

#[tokio::test]
async fn columns_that_a_key_only_includes_are_no_part_of_it() {
    let (api, ann) = with_tasks(1).await;
    let include = "ALTER TABLE tasks DROP CONSTRAINT tasks_pkey, ADD PRIMARY KEY (id) INCLUDE (code)";
    api.sql.batch_execute(include).await.unwrap();
    let told = ok(api.get("/api/app-instructions").by(&ann)).await;
    assert_eq!(told["tables"][1]["primary_key"], json!(["id"]));
    assert_eq!(ok(api.incoming(&ann, "start", 500)).await["changes"][0]["key"], json!({"id": 1}));
}

#[tokio::test]
async fn a_key_of_several_columns_keeps_its_own_order() {
    let (api, ann) = with_tasks(1).await;
    let key = "ALTER TABLE tasks DROP CONSTRAINT tasks_pkey, ADD PRIMARY KEY (code, id)";
    api.sql.batch_execute(key).await.unwrap();
    let told = ok(api.get("/api/app-instructions").by(&ann)).await;
    assert_eq!(told["tables"][1]["primary_key"], json!(["code", "id"]));
}

#[tokio::test]
async fn a_key_that_changes_during_a_snapshot_begins_it_again() {
    for change in [
        "ALTER TABLE tasks DROP CONSTRAINT tasks_pkey, ADD PRIMARY KEY (id, code)",
        "ALTER TABLE tasks DROP CONSTRAINT tasks_pkey, ADD PRIMARY KEY (code, id)",
        "ALTER TABLE tasks ALTER id TYPE uuid USING gen_random_uuid()",
        "ALTER TABLE tasks ALTER id TYPE text",
        "ALTER TABLE tasks DROP CONSTRAINT tasks_pkey",
        "DROP TABLE tasks",
    ] {
        let (api, ann) = with_tasks(5).await;
        let cursor = cursor_after(&api, &ann, 2).await;
        api.sql.batch_execute(change).await.unwrap();
        let answer = refused(api.incoming(&ann, &cursor, 2)).await;
        assert_eq!(answer, is(410, "CURSOR_EXPIRED"), "{change}");
    }
}

#[tokio::test]
async fn other_columns_may_change_during_a_snapshot() {
    let (api, ann) = with_tasks(5).await;
    let cursor = cursor_after(&api, &ann, 2).await;
    api.sql.batch_execute("ALTER TABLE tasks ALTER code TYPE text, ADD more int, DROP hidden").await.unwrap();
    let page = ok(api.incoming(&ann, &cursor, 500)).await;
    assert_eq!(page["changes"].as_array().unwrap().len(), 3);
}

/// A phone with tasks of its own, numbered from 1, under a limit of 64 KiB for a row.
async fn with_small_tasks(count: i32) -> (Api, Phone) {
    let api = Api::with(&format!("{TASKS}  max_row_bytes: 65536\n")).await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    api.sql.batch_execute("ALTER TABLE tasks ALTER id TYPE text, ALTER code TYPE text").await.unwrap();
    let sql = "INSERT INTO tasks SELECT n::text, $2, 'x', 'h' FROM generate_series(1, $1) n";
    api.sql.execute(sql, &[&count, &ann.user.uuid()]).await.unwrap();
    (api, ann)
}

/// The ids of all tasks of a snapshot in pages of each of these sizes.
async fn ids_by_pages(api: &Api, phone: &Phone) -> [Vec<String>; 3] {
    let mut found = [const { Vec::new() }; 3];
    for (ids, limit) in found.iter_mut().zip([1, 2, 500]) {
        for page in api.snapshot(phone, limit).await {
            let changes = page["changes"].as_array().unwrap();
            ids.extend(changes.iter().map(|change| change["row"]["id"].as_str().unwrap().to_owned()));
        }
    }
    found
}

#[tokio::test]
async fn a_row_that_is_too_large_is_left_out_of_a_snapshot() {
    let (api, ann) = with_small_tasks(5).await;
    let large = "UPDATE tasks SET code = repeat('x', 70000) WHERE id IN ('1', '3', '5')";
    api.sql.batch_execute(large).await.unwrap();
    for ids in ids_by_pages(&api, &ann).await {
        assert_eq!(ids, ["2", "4"]);
    }
    // Columns that do not leave the server do not count.
    api.sql.batch_execute("UPDATE tasks SET code = 'x', hidden = repeat('x', 70000)").await.unwrap();
    for ids in ids_by_pages(&api, &ann).await {
        assert_eq!(ids, ["1", "2", "3", "4", "5"]);
    }
}

#[tokio::test]
async fn a_page_of_large_rows_ends_before_a_device_cannot_hold_it() {
    let (api, ann) = with_small_tasks(200).await;
    api.sql.batch_execute("UPDATE tasks SET code = repeat('x', 60000)").await.unwrap();
    let pages = api.snapshot(&ann, 500).await;
    let rows: usize = pages.iter().map(|page| page["changes"].as_array().unwrap().len()).sum();
    assert_eq!(rows, 200);
    assert!(pages.iter().all(|page| page.to_string().len() < 5 << 20));
    assert!(pages.len() < 8, "{} pages for 12 MB", pages.len());
}

#[tokio::test]
async fn a_key_too_long_for_a_cursor_is_left_out_and_does_not_end_the_snapshot() {
    let (api, ann) = with_small_tasks(5).await;
    let long = "UPDATE tasks SET id = id || repeat('x', 20000) WHERE id <> '3'";
    api.sql.batch_execute(long).await.unwrap();
    for ids in ids_by_pages(&api, &ann).await {
        assert_eq!(ids, ["3"]);
    }
    api.sql.batch_execute("DELETE FROM tasks WHERE id = '3'").await.unwrap();
    for ids in ids_by_pages(&api, &ann).await {
        assert!(ids.is_empty(), "{ids:?}");
    }
}

#[tokio::test]
async fn composed_types_are_json_in_a_snapshot_and_announced_as_such() {
    let (api, ann) = with_tasks(1).await;
    let change = "CREATE TYPE pair AS (n int8, \"l ist\" int[]);
                  CREATE DOMAIN pairs AS pair[];
                  ALTER TABLE tasks ALTER code TYPE pairs USING ARRAY[ROW(9007199254740993, '[2:3]={1,NULL}')]::pair[]";
    api.sql.batch_execute(change).await.unwrap();
    let row = ok(api.incoming(&ann, "start", 500)).await["changes"][0]["row"].clone();
    assert_eq!(row, json!({"id": 1, "code": [{"n": "9007199254740993", "l ist": [1, null]}]}));
    let told = ok(api.get("/api/app-instructions").by(&ann)).await;
    let code = json!({"name": "code", "type": "TEXT", "nullable": true, "json": true});
    assert_eq!(told["tables"][1]["columns"][1], code);
}

#[tokio::test]
async fn a_table_that_does_not_fit_its_declaration_is_not_served() {
    for change in [
        "ALTER TABLE tasks ALTER owner_id TYPE text",
        "ALTER TABLE tasks DROP owner_id",
        "ALTER TABLE tasks DROP code",
        "ALTER TABLE tasks DROP CONSTRAINT tasks_pkey, ADD PRIMARY KEY (hidden)",
    ] {
        let (api, ann) = with_tasks(1).await;
        api.sql.batch_execute(change).await.unwrap();
        assert_eq!(refused(api.incoming(&ann, "start", 500)).await, is(503, "SYNC_ERROR"), "{change}");
        let instructions = api.get("/api/app-instructions").by(&ann);
        assert_eq!(refused(instructions).await, is(503, "SYNC_ERROR"), "{change}");
    }
}

#[tokio::test]
async fn a_table_that_does_not_fit_its_declaration_is_told_to_the_operator() {
    let (api, _) = with_tasks(1).await;
    let mut program = api.program(TASKS).await;
    program.until(200, "the replica is ready").await;
    api.sql.batch_execute("ALTER TABLE tasks ALTER owner_id TYPE text").await.unwrap();
    let told = program.until(503, "the replica is not ready").await;
    assert!(told.contains("public.tasks: column owner_id is not of type uuid"), "{told}");
    api.sql.batch_execute("ALTER TABLE tasks ALTER owner_id TYPE uuid USING owner_id::uuid").await.unwrap();
    program.until(200, "the replica is ready again").await;
    assert_eq!(program.process.terminate(Duration::from_secs(10)).await, 0, "{}", program.process.log());
}

#[tokio::test]
async fn declarations_that_no_device_can_use_stop_the_start() {
    for (tables, place) in [
        ("{table: users, buckets: [shared]}", "public.users"),
        ("{table: users, buckets: [shared], columns: [id, device_id]}", "column device_id"),
        (
            "{table: users, buckets: [shared], columns: [id, enrollment_token_id]}",
            "column enrollment_token_id",
        ),
        (
            "{table: messages, buckets: [shared], columns: [id, content], write: {owner: sender_id, columns: [content], version: updated_at}}",
            "column sender_id",
        ),
        ("{table: a, buckets: [shared], columns: [id, ID]}", "column ID"),
        ("{table: Messages, buckets: [shared]}", "public.Messages"),
        ("{table: a_b, buckets: [shared]}, {table: a.b, buckets: [shared]}", "a.b"),
        ("{table: SQLite_x, buckets: [shared]}", "public.SQLite_x"),
        ("{table: posduif.x, buckets: [shared]}", "posduif.x"),
    ] {
        let yaml = format!(
            "tenants: [{{url: 'postgres://u@h/d'}}]\nauth: {{jwt_secret: '{SECRET}'}}\nsync: {{tables: [{tables}]}}"
        );
        let started = App::new(&Config::from_yaml(&yaml).unwrap(), Clock::system());
        let error = started.err().expect(tables).to_string();
        assert!(error.contains(place), "{error}");
    }
}

#[tokio::test]
async fn a_partitioned_table_is_one_table_in_snapshot_and_stream() {
    let (api, ann) = with_tasks(0).await;
    // The second partition has its columns in another order, the third is itself partitioned.
    let partitioned = "
        DROP TABLE tasks;
        CREATE TABLE tasks (id int PRIMARY KEY, owner_id uuid, code char(4), hidden text) PARTITION BY RANGE (id);
        CREATE TABLE tasks_low PARTITION OF tasks FOR VALUES FROM (0) TO (10);
        CREATE TABLE tasks_mid (hidden text, code char(4), id int NOT NULL, owner_id uuid);
        ALTER TABLE tasks ATTACH PARTITION tasks_mid FOR VALUES FROM (10) TO (20);
        CREATE TABLE tasks_high PARTITION OF tasks FOR VALUES FROM (20) TO (99) PARTITION BY RANGE (id);
        CREATE TABLE tasks_high_x PARTITION OF tasks_high DEFAULT;
        GRANT SELECT ON tasks TO posduif_api";
    api.sql.batch_execute(partitioned).await.unwrap();
    let sql = "INSERT INTO tasks SELECT n, $1, n::text, 'h' FROM generate_series(1, 30) n";
    api.sql.execute(sql, &[&ann.user.uuid()]).await.unwrap();
    let pages = api.snapshot(&ann, 7).await;
    let changes: Vec<&Value> = pages.iter().flat_map(|page| page["changes"].as_array().unwrap()).collect();
    let ids: Vec<i64> = changes.iter().map(|change| change["row"]["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, (1..=30).collect::<Vec<_>>());
    for change in &changes {
        let id = change["row"]["id"].as_i64().unwrap();
        assert_eq!(change["row"], json!({"id": id, "code": format!("{id:<4}")}));
    }
    let cursor = pages.last().unwrap()["cursor"].as_str().unwrap();
    // A row moves from one partition to another: the log has it as a delete and a put of two messages.
    let row = put("tasks", json!({"id": 25}), json!({"id": 25, "code": "x   "}));
    let bucket = [Bucket::User(ann.user)];
    api.commit(None, &bucket, &[delete("tasks", json!({"id": 5})), row]).await;
    let page = ok(api.incoming(&ann, cursor, 500)).await;
    let ops: Vec<_> =
        page["changes"].as_array().unwrap().iter().map(|c| (&c["op"], &c["key"]["id"])).collect();
    assert_eq!(ops, [(&json!("delete"), &json!(5)), (&json!("upsert"), &json!(25))]);
}

#[tokio::test]
async fn json_columns_are_announced_as_such() {
    let (api, ann) = with_tasks(1).await;
    api.sql.batch_execute("ALTER TABLE tasks ALTER COLUMN code TYPE jsonb USING '{}'").await.unwrap();
    let told = ok(api.get("/api/app-instructions").by(&ann)).await;
    let [id, code] = [0, 1].map(|index| told["tables"][1]["columns"][index].clone());
    assert_eq!(code, json!({"name": "code", "type": "TEXT", "nullable": true, "json": true}));
    assert_eq!(id, json!({"name": "id", "type": "INTEGER", "nullable": false}));
}

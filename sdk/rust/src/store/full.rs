//! A disk that is full at any page: the error says so, nothing is half done, and room heals it.

use rusqlite::{Connection, ErrorCode};

use super::{NextUpload, Store, connect};
use crate::{
    error::{Error, Result},
    instructions::Instructions,
    receipt::Outcome,
    store::Enrollment,
};

const ROOM: i64 = 1 << 20;

fn instructions() -> Instructions {
    let columns = |names: &[&str]| -> Vec<_> {
        names.iter().map(|name| serde_json::json!({"name": name, "type": "TEXT"})).collect()
    };
    let messages = ["id", "sender_id", "recipient_id", "content", "status", "created_at", "updated_at"];
    let body = serde_json::json!({"rules": "r", "tables": [
        {"name": "public.messages", "local_name": "messages", "list": "messages", "primary_key": ["id"],
         "columns": columns(&messages), "write": {"columns": ["recipient_id", "content"]}},
        {"name": "public.users", "local_name": "users", "list": "users", "primary_key": ["id"], "columns": columns(&["id"])}]});
    Instructions::parse(body.to_string().as_bytes()).unwrap()
}

fn page(snapshot: bool) -> Vec<u8> {
    let messages: Vec<_> =
        (0..20).map(|id| serde_json::json!({"id": id.to_string(), "content": "x".repeat(2000)})).collect();
    let page = serde_json::json!({"messages": messages, "cursor": "c1", "lsn": "0/10", "has_more": false, "snapshot": snapshot});
    page.to_string().into_bytes()
}

fn limit(conn: &Connection, extra: i64) {
    let pages: i64 = conn.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    conn.pragma_update_and_check(None, "max_page_count", pages + extra, |_| Ok(())).unwrap();
}

/// Everything in the file, as text.
fn everything(conn: &Connection) -> Vec<String> {
    let mut names = conn.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1").unwrap();
    let names: Vec<String> =
        names.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap();
    let mut all = Vec::new();
    for name in names {
        let mut rows = conn.prepare(&format!("SELECT * FROM \"{name}\" ORDER BY 1")).unwrap();
        let width = rows.column_count();
        let row = |row: &rusqlite::Row<'_>| {
            let values: Vec<_> = (0..width).map(|place| format!("{:?}", row.get_ref(place))).collect();
            Ok(format!("{name}: {values:?}"))
        };
        all.extend(rows.query_map([], row).unwrap().map(rusqlite::Result::unwrap));
    }
    all
}

/// Does one thing with one page more room each time, until it succeeds. Returns how often it failed.
fn with_growing_room<T>(store: &mut Store, mut what: impl FnMut(&mut Store) -> Result<T>) -> (usize, T) {
    let before = everything(&store.conn);
    for extra in 0..1000 {
        limit(&store.conn, extra);
        let result = what(store);
        limit(&store.conn, ROOM);
        match result {
            Ok(done) => return (usize::try_from(extra).unwrap(), done),
            Err(Error::Store(error)) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                assert!(Error::Store(error).to_string().contains("full"));
                assert_eq!(everything(&store.conn), before, "with {extra} pages");
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it never had room enough");
}

#[test]
fn a_full_disk_stops_each_step_as_a_whole_and_room_lets_it_through() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.sqlite");
    let mut store = Store::open_or_create(&path).unwrap();
    let base: url::Url = "http://127.0.0.1:1".parse().unwrap();
    let user = "0e4d7b0c-6a51-4e0e-9d0e-000000000001";
    store
        .enrolled(&Enrollment {
            device_id: "phone-1".parse().unwrap(),
            user_id: user.parse().unwrap(),
            tenant_id: "t".to_owned(),
            username: "joe".to_owned(),
            instructions_url: base.clone(),
            base_url: base,
            device_token: "token".to_owned().into(),
        })
        .unwrap();
    let mut failures = Vec::new();
    failures.push(with_growing_room(&mut store, |store| store.install(&instructions())).0);
    failures.push(with_growing_room(&mut store, |store| store.stage(None, &page(true))?).0);
    failures.push(with_growing_room(&mut store, Store::apply).0);

    // The application's own write, over its own connection.
    let app = connect(&path).unwrap();
    let write = "INSERT INTO messages (id, recipient_id, content) VALUES ('own', 'bob', ?1)";
    let content = "y".repeat(200_000);
    limit(&app, 0);
    let error = app.execute(write, [&content]).unwrap_err();
    assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DiskFull));
    assert_eq!(everything(&app), everything(&store.conn));
    limit(&app, ROOM);
    app.execute(write, [&content]).unwrap();

    let (failed, upload) = with_growing_room(&mut store, |store| store.next_upload(0, 100));
    failures.push(failed);
    let NextUpload::Send(upload) = upload else { panic!("{upload:?}") };
    let refused =
        upload.outcome(br#"{"failed_messages":[{"message_id":"own","code":"EMPTY_MESSAGE"}],"lsn":null}"#);
    let refused: Outcome = refused.unwrap();
    with_growing_room(&mut store, |store| store.record(&refused));
    assert!(failures.iter().all(|failed| *failed > 0), "there was room all along: {failures:?}");
    let count = |sql: &str| store.conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(
        (count("SELECT count(*) FROM messages"), count("SELECT count(*) FROM posduif_rejected")),
        (20, 1)
    );
}

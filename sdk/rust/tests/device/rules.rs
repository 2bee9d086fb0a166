use posduif_sdk::{Device, Error};
use serde_json::{Value, json};

use crate::server::{Answer, INCOMING, INSTRUCTIONS, OUTGOING, Server, column, instructions, tasks};

fn table(name: &str, local_name: &str, columns: &[&str]) -> Value {
    let columns: Vec<_> = columns.iter().map(|name| json!({"name": name, "type": "TEXT"})).collect();
    json!({"name": name, "local_name": local_name, "primary_key": ["id"], "columns": columns})
}

fn with(tables: impl IntoIterator<Item = Value>) -> Answer {
    let mut rules = instructions("r1", tasks());
    rules["tables"].as_array_mut().unwrap().extend(tables);
    Answer::Json(200, rules)
}

fn skipped(device: &Device) -> Vec<String> {
    let sql = "SELECT json_extract(s.value, '$.table') FROM posduif_state t, json_each(t.value) s
               WHERE t.name = 'skipped' ORDER BY 1";
    column(device, sql)
}

#[tokio::test]
async fn a_table_that_cannot_be_kept_is_left_out_with_its_reason_and_the_others_are_synced() {
    let server = Server::start().await;
    server.answer(
        INSTRUCTIONS,
        with([
            table("shop.orders", "shop_orders", &["id", "title"]),
            table("public.shop_orders", "Shop_Orders", &["id", "title"]),
            table("public.a", "tasks", &["id"]),
            table("public.b", "posduif_outbox", &["id"]),
            table("public.c", "SQLITE_c", &["id"]),
            table("public.d", "d", &["id", "Title", "title"]),
            table("public.e", "e", &["id", "Posduif_Present"]),
            table("public.f", "f", &["no_id"]),
            json!({"name": "public.g", "local_name": "g", "primary_key": ["id"],
                   "columns": [{"name": "id", "type": "VECTOR"}]}),
        ]),
    );
    let device = server.device().await;
    let names = ["a", "b", "c", "d", "e", "f", "g", "shop_orders"].map(|name| format!("public.{name}"));
    assert_eq!(skipped(&device), names);
    let orders = |table: &str| json!({"table": table, "op": "upsert", "row": {"id": "1", "title": table}});
    server.page(json!({"changes": [orders("shop.orders"), orders("public.shop_orders"), orders("public.d")],
               "cursor": "s1", "lsn": "0/300", "has_more": false, "snapshot": true}));
    assert_eq!(device.sync().await.unwrap().received, 1);
    assert_eq!(column(&device, "SELECT title FROM shop_orders"), ["shop.orders"]);
    let asked = server.take_requests().into_iter().filter(|request| request.route == INSTRUCTIONS).count();
    assert_eq!(asked, 0, "the rows of a table that was left out are no news");
}

#[tokio::test]
async fn a_table_of_the_application_is_not_taken_over() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    device
        .connection()
        .execute_batch("CREATE TABLE Notes (mine); INSERT INTO Notes VALUES ('mine')")
        .unwrap();
    server.refuse(INCOMING, 410, "CURSOR_EXPIRED");
    server.answer(INSTRUCTIONS, with([table("public.notes", "notes", &["id"])]));
    device.sync().await.unwrap();
    assert_eq!(skipped(&device), ["public.notes"]);
    assert_eq!(column(&device, "SELECT mine FROM notes"), ["mine"]);
    device.connection().execute_batch("DROP TABLE notes").unwrap();
    server.refuse(INCOMING, 410, "CURSOR_EXPIRED");
    server.answer(INSTRUCTIONS, with([table("public.notes", "notes", &["id"])]));
    device.sync().await.unwrap();
    assert_eq!((skipped(&device).len(), column(&device, "SELECT id FROM notes").len()), (0, 0));
}

#[tokio::test]
async fn a_column_that_comes_back_in_another_case_is_the_old_one() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    for name in ["extra", "none", "Extra"] {
        server.refuse(INCOMING, 410, "CURSOR_EXPIRED");
        let mut changed = tasks();
        changed["columns"].as_array_mut().unwrap().push(json!({"name": name, "type": "TEXT"}));
        server.answer(INSTRUCTIONS, Answer::Json(200, instructions(name, changed)));
        let row = json!({"id": 1, name: name});
        server.page(json!({"changes": [{"table": "public.tasks", "op": "upsert", "row": row}],
                           "cursor": "s1", "lsn": "0/300", "has_more": false, "snapshot": true}));
        device.sync().await.unwrap();
    }
    assert_eq!(column(&device, "SELECT extra FROM tasks"), ["Extra"]);
}

#[tokio::test]
async fn a_column_that_comes_back_with_another_type_keeps_what_the_server_sends() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    for (rules, kind) in [("r2", Some("INTEGER")), ("r3", None), ("r4", Some("TEXT"))] {
        server.refuse(INCOMING, 410, "CURSOR_EXPIRED");
        let mut changed = tasks();
        let columns = changed["columns"].as_array_mut().unwrap();
        match kind {
            Some(kind) => columns.push(json!({"name": "code", "type": kind})),
            // Another one goes when it comes back.
            None => columns.push(json!({"name": "passing", "type": "TEXT"})),
        }
        server.answer(INSTRUCTIONS, Answer::Json(200, instructions(rules, changed)));
        let row = json!({"id": 1, "title": "t", "code": "007"});
        server.page(json!({"changes": [{"table": "public.tasks", "op": "upsert", "row": row}],
                           "cursor": "s1", "lsn": "0/300", "has_more": false, "snapshot": true}));
        device.sync().await.unwrap();
    }
    assert_eq!(skipped(&device), Vec::<String>::new());
    assert_eq!(column(&device, "SELECT code FROM tasks"), ["007"]);
    device.connection().execute("UPDATE tasks SET title = 'mine'", []).unwrap();
    assert_eq!(device.pending_count().unwrap(), 1);
}

#[tokio::test]
async fn a_page_that_does_not_fit_the_tables_has_the_device_ask_for_their_new_shape_at_once() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    let page = |snapshot: bool| {
        let row = json!({"id": 1, "title": "t", "photo": "now a text"});
        json!({"changes": [{"table": "public.tasks", "op": "upsert", "row": row}], "cursor": "c2",
               "lsn": "0/300", "has_more": false, "snapshot": snapshot})
    };
    // Whoever altered the column changed no rule.
    let mut altered = tasks();
    altered["columns"][4]["type"] = json!("TEXT");
    server.page(page(false));
    server.answer(INSTRUCTIONS, Answer::Json(200, instructions("r1", altered)));
    server.page(page(true));
    device.sync().await.unwrap();
    assert_eq!(column(&device, "SELECT photo FROM tasks"), ["now a text"]);

    for _ in 0..2 {
        server.page(json!({"messages": [{"content": "no key"}], "cursor": "c3", "has_more": false}));
    }
    assert!(matches!(device.sync().await, Err(Error::Protocol(_))), "asking did not help");
}

#[tokio::test]
async fn an_unusable_table_of_the_messenger_is_a_clear_error() {
    for (index, name) in [(0, "public.messages"), (1, "public.users")] {
        let server = Server::start().await;
        let mut rules = instructions("r1", tasks());
        rules["tables"][index]["columns"].as_array_mut().unwrap().push(json!({"name": "ID", "type": "TEXT"}));
        server.answer(INSTRUCTIONS, Answer::Json(200, rules));
        let error =
            Device::enroll(server.path(), &server.enrollment_url(), "joe", json!({})).await.unwrap_err();
        assert!(matches!(&error, Error::Protocol(why) if why.contains(name)), "{error}");
    }
}

#[tokio::test]
async fn json_is_kept_as_its_text_and_a_lone_surrogate_poisons_nothing() {
    let server = Server::start().await;
    let json = |id: &str| {
        let columns = json!([{"name": "id", "type": "TEXT"}, {"name": "v", "type": "TEXT", "json": true}]);
        json!({"name": format!("public.{id}"), "local_name": id, "primary_key": ["id"], "columns": columns,
               "write": {"columns": ["v"]}})
    };
    server.answer(INSTRUCTIONS, with([json("docs")]));
    let device = server.device().await;
    let texts = [
        r#""quoted""#,
        r#"{"b":1.10,"a":[9007199254740993]}"#,
        "true",
        "5",
        r#""\ud800""#,
        r#"{"\ud800":"\udfff"}"#,
    ];
    let rows: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(id, text)| {
            format!(r#"{{"table":"public.docs","op":"upsert","row":{{"id":"{id}","v":{text}}}}}"#)
        })
        .collect();
    let task = r#"{"table":"public.tasks","op":"upsert","row":{"id":1,"title":"\ud800"}}"#;
    let null = r#"{"table":"public.docs","op":"upsert","row":{"id":"9","v":null}}"#;
    let body = format!(
        r#"{{"changes":[{},{task},{null}],"cursor":"s1","lsn":"0/100","has_more":false,"snapshot":true}}"#,
        rows.join(",")
    );
    server.answer(INCOMING, Answer::Raw(200, "", body));
    device.sync().await.unwrap();
    assert_eq!(column(&device, "SELECT v FROM docs WHERE v IS NOT NULL ORDER BY id"), texts);
    assert_eq!(column(&device, "SELECT id FROM docs WHERE v IS NULL"), ["9"]);
    assert_eq!(column(&device, "SELECT title FROM tasks"), [r#""\ud800""#]);

    server.take_requests();
    device.connection().execute(r#"UPDATE docs SET v = '{"a":1.10}' WHERE id = '0'"#, []).unwrap();
    device.sync().await.unwrap();
    let upload = server.take_requests().into_iter().find(|request| request.route == OUTGOING).unwrap();
    assert_eq!(upload.body["changes"][0]["row"]["v"], r#"{"a":1.10}"#);
}

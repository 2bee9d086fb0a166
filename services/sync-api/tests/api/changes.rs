//! Uploads of `changes` and `users`: any declared table, only what is granted, only rows of the device's own user.

use serde_json::{Value, json};

use crate::fixture::{Api, By, Phone, ok, pluck};

/// A table with a column of every kind of value that is not written as it is read.
const TABLES: &str = "
    CREATE TYPE public.point3 AS (x int8, raw bytea);
    CREATE DOMAIN public.amount AS numeric(10, 2) NOT NULL DEFAULT 0;
    CREATE TABLE public.notes (
        id uuid PRIMARY KEY, owner_id uuid NOT NULL, title text NOT NULL DEFAULT 'untitled' CHECK (title <> 'bad'),
        code char(4) UNIQUE, big int8, raw bytea, doc jsonb, plain json, tags text[], grid int8[], place point3,
        cost amount, price numeric, done boolean NOT NULL DEFAULT false, ratio float8, at timestamptz,
        secret text DEFAULT 'hidden', guard amount, updated_at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE public.parts (
        owner_id uuid, number numeric, name text, boss uuid, changed timestamp(0), PRIMARY KEY (owner_id, number));
    CREATE TABLE public.sliced (id int PRIMARY KEY, owner_id uuid, name text, v timestamptz) PARTITION BY RANGE (id);
    CREATE TABLE public.sliced_low PARTITION OF public.sliced FOR VALUES FROM (0) TO (10);
    CREATE TABLE public.sliced_mid (v timestamptz, name text, owner_id uuid, id int NOT NULL);
    ALTER TABLE public.sliced ATTACH PARTITION public.sliced_mid FOR VALUES FROM (10) TO (20);
    CREATE TABLE public.shown (id int PRIMARY KEY, owner_id uuid, to_id uuid, v timestamptz);";

pub const RULES: &str = "sync:
  tables:
    - table: public.notes
      buckets: ['user:{owner_id}']
      columns: [id, owner_id, title, code, big, raw, doc, plain, tags, grid, place, cost, price, done, ratio, at, updated_at]
      write: {owner: owner_id, version: updated_at,
              columns: [title, code, big, raw, doc, plain, tags, grid, place, cost, price, done, ratio, at]}
    - {table: public.parts, buckets: ['user:{owner_id}'], write: {owner: owner_id, columns: [name], version: changed}}
    - {table: public.shown, buckets: ['user:{to_id}'], write: {owner: owner_id, columns: [], version: v}}
    - {table: public.sliced, buckets: ['user:{owner_id}'], write: {owner: owner_id, columns: [name], version: v}}
    - {table: public.news, buckets: [shared]}
";

/// The tenant with two phones of one user and one of another.
pub async fn start() -> (Api, [Phone; 3]) {
    let api = Api::with(RULES).await;
    api.sql.batch_execute(TABLES).await.unwrap();
    api.migrate(RULES).await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let second = api.second_phone(&jwt, &ann, "zzz-of-ann", "ann").await;
    let ben = api.phone(&jwt, "ben").await;
    (api, [ann, second, ben])
}

pub const KEY: &str = "00000000-0000-0000-0000-0000000000a1";

pub fn note(key: &str, row: Value) -> Value {
    json!({"table": "public.notes", "op": "upsert", "key": {"id": key}, "row": row})
}

pub fn gone(key: &str, row: Value) -> Value {
    json!({"table": "public.notes", "op": "delete", "key": {"id": key}, "row": row})
}

async fn upload(api: &Api, phone: &Phone, changes: &[Value]) -> Value {
    ok(api.outgoing(phone, &json!({ "changes": changes }))).await
}

/// A note as SQL sees it, null if there is none.
pub async fn stored(api: &Api, key: &str) -> Value {
    let sql = "SELECT to_jsonb(n) FROM notes n WHERE id = $1::text::uuid";
    api.sql.query_opt(sql, &[&key]).await.unwrap().map_or(Value::Null, |row| row.get(0))
}

#[track_caller]
pub fn synced(receipt: &Value) {
    assert_eq!(receipt["failed_count"], 0, "{receipt}");
    assert_eq!(receipt["conflicts"], json!([]), "{receipt}");
}

#[tokio::test]
async fn every_type_is_written_as_pages_have_it() {
    let (api, [ann, ..]) = start().await;
    let row = json!({
        "title": "ä\"\\", "code": "ab", "big": "9007199254740993", "raw": "AP8=", "doc": {"a": [1, null]},
        "plain": "[1,  2]", "tags": ["a,b", null, "\"c\""], "grid": [["1", "2"], ["3", null]],
        "place": {"x": "7", "raw": "AA=="}, "cost": "1.005", "price": "12345678901234567890.50", "done": 1,
        "ratio": "NaN", "at": "2026-01-15T10:45:00.123456Z", "updated_at": "2026-01-15T10:45:00Z",
    });
    synced(&upload(&api, &ann, &[note(KEY, row)]).await);
    let sql = "SELECT title, code, big::text, encode(raw, 'hex'), doc::text, plain::text, tags::text, grid::text, place::text,
                      cost::text, price::text, done::text, ratio::text, at::text, secret, guard::text, owner_id::text
                 FROM notes";
    let found = api.sql.query_one(sql, &[]).await.unwrap();
    let found: Vec<&str> = (0..17).map(|index| found.get(index)).collect();
    let owner = ann.user.to_string();
    let expected = [
        "ä\"\\",
        "ab  ",
        "9007199254740993",
        "00ff",
        r#"{"a": [1, null]}"#,
        "[1,  2]",
        r#"{"a,b",NULL,"\"c\""}"#,
        "{{1,2},{3,NULL}}",
        r#"(7,"\\x00")"#,
        "1.01",
        "12345678901234567890.50",
        "true",
        "NaN",
        "2026-01-15 10:45:00.123456+00",
        "hidden",
        "0.00",
        owner.as_str(),
    ];
    assert_eq!(found, expected);

    // And back: what a page shows can be sent again as it stands.
    let pages = api.snapshot(&ann, 100).await;
    let change = pages.iter().flat_map(|page| page["changes"].as_array().unwrap()).next().unwrap().clone();
    let before = stored(&api, KEY).await;
    let mut row = change["row"].clone();
    row["updated_at"] = json!("2026-01-15T10:46:00Z");
    synced(&upload(&api, &ann, &[note(KEY, row)]).await);
    let mut after = stored(&api, KEY).await;
    after["updated_at"] = before["updated_at"].clone();
    assert_eq!(after, before);
}

#[tokio::test]
async fn columns_that_are_left_out_keep_their_value_and_get_their_default() {
    let (api, [ann, ..]) = start().await;
    synced(&upload(&api, &ann, &[note(KEY, json!({"big": "7"}))]).await);
    let row = stored(&api, KEY).await;
    assert_eq!((&row["title"], &row["cost"], &row["done"]), (&json!("untitled"), &json!(0.0), &json!(false)));
    synced(&upload(&api, &ann, &[note(KEY, json!({"title": "t"}))]).await);
    synced(&upload(&api, &ann, &[note(KEY, json!({"tags": null}))]).await);
    let row = stored(&api, KEY).await;
    assert_eq!((&row["title"], &row["big"], &row["secret"]), (&json!("t"), &json!(7), &json!("hidden")));
}

#[tokio::test]
async fn rows_of_others_are_as_good_as_none() {
    let (api, [ann, _, ben]) = start().await;
    synced(&upload(&api, &ann, &[note(KEY, json!({"title": "anns"}))]).await);
    let nobodys = "INSERT INTO shown VALUES (1, $1, $2, NULL), (2, NULL, $1, NULL), (3, $1, $1, NULL)";
    api.sql.execute(nobodys, &[&ann.user.uuid(), &ben.user.uuid()]).await.unwrap();
    let shown = |id: i32, op: &str| json!({"table": "public.shown", "op": op, "key": {"id": id}});
    for (phone, change) in [
        (&ben, note(KEY, json!({"title": "bens"}))),
        (&ben, gone(KEY, json!({}))),
        (
            &ben,
            json!({"table": "public.parts", "op": "upsert", "key": {"owner_id": ann.user, "number": 1}, "row": {}}),
        ),
        // Its own, but shown to another; nobody's, but shown to it.
        (&ann, shown(1, "upsert")),
        (&ann, shown(1, "delete")),
        (&ann, shown(2, "delete")),
    ] {
        let receipt = upload(&api, phone, std::slice::from_ref(&change)).await;
        assert_eq!(pluck(&receipt["failed"], "code"), ["NOT_FOUND"], "{change} {receipt}");
        assert_eq!(receipt["conflicts"], json!([]));
    }
    assert_eq!(stored(&api, KEY).await["title"], "anns");
    synced(&upload(&api, &ann, &[shown(3, "delete")]).await);
    let left: i64 = api.sql.query_one("SELECT count(*) FROM shown", &[]).await.unwrap().get(0);
    assert_eq!(left, 2);
}

#[tokio::test]
async fn each_bad_change_is_told_apart_and_never_blocks_the_others() {
    let (api, [ann, ..]) = start().await;
    synced(
        &upload(&api, &ann, &[note("00000000-0000-0000-0000-0000000000ff", json!({"code": "dup"}))]).await,
    );
    let poison = [
        (note(KEY, json!({"title": "bad"})), "VALIDATION_ERROR"),
        (note(KEY, json!({"title": null})), "VALIDATION_ERROR"),
        (note(KEY, json!({"code": "dup"})), "CONFLICT"),
        (note(KEY, json!({"code": "too long"})), "VALIDATION_ERROR"),
        (note(KEY, json!({"big": "much"})), "VALIDATION_ERROR"),
        (note(KEY, json!({"raw": "no base64"})), "VALIDATION_ERROR"),
        (note(KEY, json!({"doc": "no json"})), "VALIDATION_ERROR"),
        (note(KEY, json!({"title": "a\u{0}b"})), "VALIDATION_ERROR"),
        (note(KEY, json!({"title": {}})), "VALIDATION_ERROR"),
        (
            note(KEY, json!({"doc": format!("{}{}", "[".repeat(50_000), "]".repeat(50_000))})),
            "VALIDATION_ERROR",
        ),
        (note(KEY, json!({"secret": "x"})), "FORBIDDEN"),
        (note(KEY, json!({"owner_id": "00000000-0000-0000-0000-000000000009"})), "FORBIDDEN"),
        (note(KEY, json!({"updated_at": "soon"})), "VALIDATION_ERROR"),
        (note("no uuid", json!({})), "VALIDATION_ERROR"),
        (json!({"table": "public.notes", "op": "upsert", "key": {}, "row": {}}), "VALIDATION_ERROR"),
        (json!({"table": "public.notes", "op": "upsert", "key": {"id": KEY, "big": 1}}), "VALIDATION_ERROR"),
        (json!({"table": "public.parts", "op": "upsert", "key": {"owner_id": ann.user}}), "VALIDATION_ERROR"),
        (
            json!({"table": "public.parts", "op": "upsert", "key": {"owner_id": ann.user, "number": null}}),
            "VALIDATION_ERROR",
        ),
        (json!({"table": "public.news", "op": "upsert", "key": {"id": 1}}), "FORBIDDEN"),
        (json!({"table": "posduif_engine.user_credentials", "op": "delete", "key": {"id": 1}}), "NOT_FOUND"),
        (
            json!({"table": "public.notes\"; DROP TABLE notes; --", "op": "delete", "key": {"id": 1}}),
            "NOT_FOUND",
        ),
        (json!({"table": "public.users", "op": "delete", "key": {"id": ann.user}}), "FORBIDDEN"),
        (json!("poison"), "VALIDATION_ERROR"),
    ];
    let good = |n: usize| note(&format!("00000000-0000-0000-0000-{n:012}"), json!({"title": "good"}));
    for (index, (bad, code)) in poison.iter().enumerate() {
        // At the beginning, in the middle and at the end.
        for place in 0..3 {
            let mut changes: Vec<Value> = (0..2).map(|n| good(index * 10 + place * 2 + n)).collect();
            changes.insert(place, bad.clone());
            let receipt = upload(&api, &ann, &changes).await;
            assert_eq!((&receipt["synced_count"], &receipt["failed_count"]), (&json!(2), &json!(1)), "{bad}");
            let failed = &receipt["failed"][0];
            assert_eq!(failed["code"], *code, "{bad:.200} {receipt}");
            let error = failed["error"].as_str().unwrap();
            assert!(
                ["dup", "much", "soon", "DROP", "no uuid"].iter().all(|value| !error.contains(value)),
                "{error}"
            );
        }
    }
    let count: i64 =
        api.sql.query_one("SELECT count(*) FROM notes WHERE title = 'good'", &[]).await.unwrap().get(0);
    assert_eq!(count, i64::try_from(poison.len() * 6).unwrap());
    assert_eq!(stored(&api, KEY).await, Value::Null);
}

#[tokio::test]
async fn a_row_with_more_bytes_than_anybody_would_see_is_not_taken() {
    let (api, [ann, ..]) = start().await;
    let large = note(KEY, json!({"title": "x".repeat(8 << 20)}));
    let body = json!({ "changes": [large] }).to_string();
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packer, body.as_bytes()).unwrap();
    let request = api.request(reqwest::Method::POST, "/api/sync/outgoing").by(&ann);
    let request = request.header("content-encoding", "gzip").header("content-type", "application/json");
    let status = request.body(packer.finish().unwrap()).send().await.unwrap().status();
    assert_eq!(status, 413, "the body's own limit comes first by default");
    let api = Api::with(&format!("{RULES}  max_row_bytes: 65536\n")).await;
    api.sql.batch_execute(TABLES).await.unwrap();
    api.migrate(RULES).await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let changes =
        [note(KEY, json!({"title": "x".repeat(65_536)})), note(KEY, json!({"title": "x".repeat(65_000)}))];
    let receipt = upload(&api, &ann, &changes).await;
    assert_eq!(pluck(&receipt["failed"], "code"), ["VALIDATION_ERROR"]);
    assert_eq!(stored(&api, KEY).await["title"].as_str().unwrap().len(), 65_000);
}

#[tokio::test]
async fn a_key_of_several_columns_with_the_owner_in_it_is_written_edited_and_deleted() {
    let (api, [ann, ..]) = start().await;
    let part = |number: &str, op: &str, row: Value| json!({"table": "public.parts", "op": op, "key": {"number": number, "owner_id": ann.user}, "row": row});
    let row =
        json!({"name": "a", "changed": "2026-01-15T10:00:00.4", "owner_id": ann.user, "number": "1.50"});
    synced(&upload(&api, &ann, &[part("1.50", "upsert", row)]).await);
    // The same number in another scale is the same key.
    let row = json!({"name": "b", "changed": "2026-01-15T10:00:00.4"});
    synced(&upload(&api, &ann, &[part("1.5", "upsert", row)]).await);
    let sql = "SELECT number::text, name, changed::text FROM parts";
    let found = api.sql.query_one(sql, &[]).await.unwrap();
    assert_eq!([found.get::<_, &str>(0), found.get(1), found.get(2)], ["1.50", "b", "2026-01-15 10:00:00"]);
    api.sql.execute("DELETE FROM parts", &[]).await.unwrap();
    let receipt =
        upload(&api, &ann, &[part("1.500", "upsert", json!({"changed": "2026-01-15T11:00:00"}))]).await;
    assert_eq!(
        (&receipt["synced_count"], &receipt["conflicts"][0]["row"]),
        (&json!(1), &Value::Null),
        "{receipt}"
    );
    assert_eq!(api.sql.query("SELECT FROM parts", &[]).await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_user_changes_its_own_name_and_nothing_else() {
    let (api, [ann, _, ben]) = start().await;
    let name = |user, name: &str| json!({"users": [{"id": user, "username": name}]});
    let receipt = ok(api.outgoing(&ann, &name(ann.user, "Anna"))).await;
    synced(&receipt);
    for (body, code) in [
        (name(ann.user, "ben"), "CONFLICT"),
        (name(ann.user, ""), "VALIDATION_ERROR"),
        (name(ann.user, " Anna"), "VALIDATION_ERROR"),
        (name(ann.user, "An\u{7}na"), "VALIDATION_ERROR"),
        (name(ben.user, "Benno"), "NOT_FOUND"),
        (json!({"users": [{"id": ann.user, "username": 7}]}), "VALIDATION_ERROR"),
        (json!({"users": [{"id": ann.user, "user_type": "web"}]}), "FORBIDDEN"),
        (json!({"users": [{"id": ann.user, "device_id": "x"}]}), "FORBIDDEN"),
        (json!({"users": [{"id": ann.user, "last_message_sent": "x"}]}), "FORBIDDEN"),
    ] {
        let receipt = ok(api.outgoing(&ann, &body)).await;
        assert_eq!(pluck(&receipt["failed"], "code"), [code], "{body} {receipt}");
        assert_eq!(receipt["failed"][0]["table"], "public.users");
    }
    let sql = "SELECT username, user_type FROM users WHERE id = $1";
    let found = api.sql.query_one(sql, &[&ann.user.uuid()]).await.unwrap();
    assert_eq!((found.get::<_, &str>(0), found.get::<_, &str>(1)), ("Anna", "mobile"));
    // The same as a change of the table, by name.
    let change = json!({"table": "public.users", "op": "upsert", "key": {"id": ann.user}, "row": {"username": "Annie"}});
    synced(&upload(&api, &ann, &[change]).await);
}

#[tokio::test]
async fn a_message_among_the_changes_is_a_message() {
    let (api, [ann, _, ben]) = start().await;
    let change =
        |row: Value| json!({"table": "public.messages", "op": "upsert", "key": {"id": KEY}, "row": row});
    synced(&upload(&api, &ann, &[change(json!({"recipient_id": ben.user, "content": "hello"}))]).await);
    let receipt = upload(&api, &ann, &[change(json!({"recipient_id": ben.user, "content": " "}))]).await;
    assert_eq!(receipt["failed"][0]["code"], "EMPTY_MESSAGE");
    assert_eq!(receipt["failed"][0]["key"], json!({"id": KEY}));
    let row: (String, String) = {
        let row = api.sql.query_one("SELECT content, status FROM messages", &[]).await.unwrap();
        (row.get(0), row.get(1))
    };
    assert_eq!(row, ("hello".into(), "pending_sync".into()));
}

#[tokio::test]
async fn what_is_not_declared_as_writable_is_not_written() {
    let rules = "sync:
  tables:
    - {table: messages, buckets: ['user:{sender_id}', 'user:{recipient_id}']}
    - {table: users, buckets: [shared], columns: [id, username]}
";
    let api = Api::with(rules).await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let body = json!({
        "messages": [{"id": KEY, "recipient_id": bob, "content": "x"}], "users": [{"id": ann.user, "username": "x"}],
    });
    let receipt = ok(api.outgoing(&ann, &body)).await;
    assert_eq!(receipt["failed_messages"][0]["code"], "FORBIDDEN");
    assert_eq!(receipt["failed"][0]["code"], "FORBIDDEN");
    assert_eq!(api.sql.query("SELECT FROM messages", &[]).await.unwrap().len(), 0);
}

#[tokio::test]
async fn what_the_application_does_with_a_row_is_its_own_affair() {
    let (api, [ann, ..]) = start().await;
    let sql = "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                   IF TG_OP = 'DELETE' THEN UPDATE notes SET title = 'archived' WHERE id = OLD.id; RETURN NULL; END IF;
                   IF NEW.title = 'drop me' THEN RETURN NULL; END IF;
                   NEW.updated_at := now(); RETURN NEW; END $$;
               CREATE TRIGGER keep BEFORE INSERT OR UPDATE OR DELETE ON notes FOR EACH ROW EXECUTE FUNCTION keep()";
    api.sql.batch_execute(sql).await.unwrap();
    let receipt = upload(&api, &ann, &[note(KEY, json!({"title": "drop me"}))]).await;
    assert_eq!(pluck(&receipt["failed"], "code"), ["VALIDATION_ERROR"]);
    // A trigger that sets the version is newer than the next edit that was made before; that is told as a conflict.
    synced(&upload(&api, &ann, &[note(KEY, json!({"title": "a"}))]).await);
    let receipt =
        upload(&api, &ann, &[note(KEY, json!({"title": "b", "updated_at": "2026-01-15T10:00:00Z"}))]).await;
    assert_eq!(receipt["conflicts"][0]["row"]["title"], "a");
    synced(&upload(&api, &ann, &[gone(KEY, json!({"updated_at": "2999-01-01T00:00:00Z"}))]).await);
    assert_eq!(stored(&api, KEY).await["title"], "archived");
}

#[tokio::test]
async fn rows_of_a_partitioned_table_are_written_through_its_root() {
    let (api, [ann, ..]) = start().await;
    let slice = |id: i32, op: &str, row: Value| json!({"table": "public.sliced", "op": op, "key": {"id": id}, "row": row});
    let at = |minute: u32| json!(format!("2026-01-15T10:{minute:02}:00Z"));
    for id in [5, 15] {
        synced(&upload(&api, &ann, &[slice(id, "upsert", json!({"name": "a", "v": at(10)}))]).await);
        synced(&upload(&api, &ann, &[slice(id, "upsert", json!({"name": "b", "v": at(11)}))]).await);
    }
    let receipt = upload(&api, &ann, &[slice(25, "upsert", json!({"name": "a"}))]).await;
    assert_eq!(pluck(&receipt["failed"], "code"), ["VALIDATION_ERROR"], "there is no partition for it");
    synced(&upload(&api, &ann, &[slice(5, "delete", json!({"v": at(12)}))]).await);
    api.sql.batch_execute("DELETE FROM sliced WHERE id = 15").await.unwrap();
    let older = [5, 15].map(|id| slice(id, "upsert", json!({"name": "c", "v": at(11)})));
    let receipt = upload(&api, &ann, &older).await;
    assert_eq!(pluck(&receipt["conflicts"], "table"), ["public.sliced"; 2], "{receipt}");
    assert_eq!(api.sql.query("SELECT FROM sliced", &[]).await.unwrap().len(), 0);
}

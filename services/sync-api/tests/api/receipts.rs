//! Repeated uploads: the first answer again, byte for byte, whatever happened in between.

use futures::future::join_all;
use serde_json::{Value, json};
use tokio_postgres::types::PgLsn;
use uuid::Uuid;

use crate::{
    changes::{self, KEY, gone, note, stored, synced},
    fixture::{Api, Phone, is, ok, refused},
};

/// The body of an answer as it stands.
async fn raw(api: &Api, phone: &Phone, upload: &Value) -> String {
    let response = api.outgoing(phone, upload).send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.text().await.unwrap()
}

fn named(id: &str, change: &Value) -> Value {
    json!({"upload_id": id, "changes": [change]})
}

async fn receipts(api: &Api) -> i64 {
    let sql = "SELECT count(*) FROM posduif_engine.upload_receipts";
    api.sql.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_repetition_gets_the_first_answer_and_does_nothing() {
    let (api, [ann, second, ben]) = changes::start().await;
    let first = named("u1", &note(KEY, json!({"title": "first"})));
    let message = json!({"messages": [{"id": Uuid::new_v4(), "recipient_id": ben.user, "content": "x"},
                                      {"id": "bad", "recipient_id": ben.user, "content": "y"}],
                         "reads": [Uuid::new_v4()], "pending_outgoing_count": 3});
    let dated = json!({"changes": [gone(KEY, json!({"updated_at": "2001-01-01T00:00:00Z"}))]});
    let mut answers = Vec::new();
    for upload in [&first, &message, &dated] {
        answers.push((upload.clone(), raw(&api, &ann, upload).await));
    }
    // The version of `first` was the server's now, so a second application would win against this.
    synced(&ok(api.outgoing(&second, &named("u1", &note(KEY, json!({"title": "second"}))))).await);
    for round in 0..5 {
        for (upload, answer) in &answers {
            assert_eq!(raw(&api, &ann, upload).await, *answer, "round {round}");
        }
    }
    assert_eq!(stored(&api, KEY).await["title"], "second");
    assert_eq!(receipts(&api).await, 4);
    let other = named("u1", &note(KEY, json!({"title": "other"})));
    assert_eq!(refused(api.outgoing(&ann, &other)).await, is(409, "CONFLICT"));
    assert_eq!(stored(&api, KEY).await["title"], "second");
    for id in ["", "a b", "ü", &"x".repeat(65)] {
        assert_eq!(
            refused(api.outgoing(&ann, &json!({ "upload_id": id }))).await,
            is(400, "VALIDATION_ERROR")
        );
    }
}

#[tokio::test]
async fn an_upload_without_an_identity_is_taken_anew_each_time() {
    let (api, [ann, second, _]) = changes::start().await;
    let undated = json!({"changes": [note(KEY, json!({"title": "mine"}))]});
    synced(&ok(api.outgoing(&ann, &undated)).await);
    synced(&ok(api.outgoing(&second, &json!({"changes": [note(KEY, json!({"title": "other"}))]}))).await);
    synced(&ok(api.outgoing(&ann, &undated)).await);
    assert_eq!(stored(&api, KEY).await["title"], "mine");
    ok(api.outgoing(&ann, &json!({}))).await;
    assert_eq!(receipts(&api).await, 0);
}

#[tokio::test]
async fn concurrent_repetitions_are_applied_once_and_answered_alike() {
    let (api, [ann, ..]) = changes::start().await;
    let sql = "CREATE TABLE applied (); CREATE FUNCTION count_one() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
               $$ BEGIN PERFORM pg_sleep(0.05); INSERT INTO applied DEFAULT VALUES; RETURN NULL; END $$;
               CREATE TRIGGER count_one AFTER INSERT OR UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION count_one()";
    api.sql.batch_execute(sql).await.unwrap();
    for round in 0..5 {
        let upload = named(&format!("u{round}"), &note(KEY, json!({"title": format!("t{round}")})));
        let answers = join_all((0..6).map(|_| raw(&api, &ann, &upload))).await;
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    }
    assert_eq!(api.sql.query("SELECT FROM applied", &[]).await.unwrap().len(), 5);
}

#[tokio::test]
async fn a_receipt_without_a_position_gets_one_after_the_commit() {
    let (api, [ann, ..]) = changes::start().await;
    let upload = named("u1", &note(KEY, json!({"title": "first"})));
    let first: Value = serde_json::from_str(&raw(&api, &ann, &upload).await).unwrap();
    // As if the replica had died between the commit and its answer.
    api.sql.execute("UPDATE posduif_engine.upload_receipts SET lsn = NULL", &[]).await.unwrap();
    let again = raw(&api, &ann, &upload).await;
    let later: Value = serde_json::from_str(&again).unwrap();
    let sql = "SELECT $1::text::pg_lsn <= $2::text::pg_lsn";
    let lsns = [first["lsn"].as_str().unwrap(), later["lsn"].as_str().unwrap()];
    assert!(api.sql.query_one(sql, &[&lsns[0], &lsns[1]]).await.unwrap().get::<_, bool>(0), "{lsns:?}");
    assert_eq!(raw(&api, &ann, &upload).await, again);
}

#[tokio::test]
async fn an_upload_that_did_not_commit_leaves_no_receipt() {
    let (api, [ann, ..]) = changes::start().await;
    let sql = "CREATE FUNCTION full() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'disk_full'; END $$;
               CREATE TRIGGER full BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION full()";
    let sql = sql.replace("full()", "is_full()").replace("TRIGGER full", "TRIGGER is_full");
    api.sql.batch_execute(&sql).await.unwrap();
    let upload = named("u1", &note(KEY, json!({"title": "first"})));
    assert_eq!(refused(api.outgoing(&ann, &upload)).await, is(503, "DATABASE_ERROR"));
    assert_eq!(receipts(&api).await, 0);
    api.sql.batch_execute("DROP TRIGGER is_full ON notes").await.unwrap();
    synced(&ok(api.outgoing(&ann, &upload)).await);
    assert_eq!(stored(&api, KEY).await["title"], "first");
}

#[tokio::test]
async fn a_fault_of_the_server_is_no_answer_for_ever() {
    let (api, [ann, ..]) = changes::start().await;
    api.sql.batch_execute("ALTER TABLE notes RENAME updated_at TO other").await.unwrap();
    let upload = json!({"changes": [note(KEY, json!({"title": "a", "updated_at": "2026-01-15T10:00:00Z"}))]});
    let receipt = ok(api.outgoing(&ann, &upload)).await;
    assert_eq!(receipt["failed"][0]["code"], "INTERNAL_ERROR");
    api.sql.batch_execute("ALTER TABLE notes RENAME other TO updated_at").await.unwrap();
    synced(&ok(api.outgoing(&ann, &upload)).await);
}

#[tokio::test]
async fn what_stays_on_the_device_is_told_to_the_operator() {
    let (api, [ann, ..]) = changes::start().await;
    let told = async || {
        let sql = "SELECT pending_outgoing_count FROM sync_metadata WHERE device_id = $1";
        api.sql.query_one(sql, &[&ann.id]).await.unwrap().get::<_, i32>(0)
    };
    for (upload, expected) in [
        (json!({"pending_outgoing_count": 7}), 7),
        (json!({}), 7),
        (json!({"pending_outgoing_count": 4_000_000_000_u32}), i32::MAX),
        (json!({"pending_outgoing_count": 0}), 0),
    ] {
        ok(api.outgoing(&ann, &upload)).await;
        assert_eq!(told().await, expected, "{upload}");
    }
    for count in [json!(-1), json!("7"), json!(1.5)] {
        let upload = json!({"pending_outgoing_count": count});
        assert_eq!(refused(api.outgoing(&ann, &upload)).await, is(400, "VALIDATION_ERROR"));
    }
}

#[tokio::test]
async fn the_lsn_is_not_before_the_commit_of_changes_either() {
    let (api, [ann, ..]) = changes::start().await;
    let admin = api.database.connect_superuser().await;
    let slot = format!("s_{}", api.database.name());
    let create = "SELECT pg_create_logical_replication_slot($1::text::name, 'pgoutput')";
    admin.query_one(create, &[&slot]).await.unwrap();
    let receipt = ok(api.outgoing(&ann, &named("u1", &note(KEY, json!({"title": "a"}))))).await;
    // Nothing of the receipts and versions is for readers: begin, origin, relation, insert, commit.
    let peek =
        "SELECT lsn, get_byte(data, 0) FROM pg_logical_slot_peek_binary_changes($1::text::name, NULL, NULL,
                       'proto_version', '1', 'publication_names', 'posduif', 'messages', 'true')
                 WHERE get_byte(data, 0) <> ascii('R') AND get_byte(data, 0) <> ascii('Y')";
    let rows = admin.query(peek, &[&slot]).await.unwrap();
    let kinds: String =
        rows.iter().map(|row| char::from(u8::try_from(row.get::<_, i32>(1)).unwrap())).collect();
    assert!(kinds.starts_with("BMIC"), "{kinds}");
    let lsn: PgLsn = receipt["lsn"].as_str().unwrap().parse().unwrap();
    assert!(rows[..4].iter().all(|row| row.get::<_, PgLsn>(0) <= lsn));
}

#[tokio::test]
async fn a_refusal_of_an_upload_without_a_name_is_looked_at_anew_after_a_while() {
    let (api, [ann, ..]) = changes::start().await;
    let later = Uuid::new_v4();
    let unnamed = json!({"messages": [{"id": Uuid::new_v4(), "recipient_id": later, "content": "x"}]});
    let mut named = json!({"upload_id": "n", "messages": [{"id": Uuid::new_v4(), "recipient_id": later, "content": "y"}]});
    let first = [raw(&api, &ann, &unnamed).await, raw(&api, &ann, &named).await];
    let user = "INSERT INTO users (id, username) VALUES ($1, 'later')";
    api.sql.execute(user, &[&later]).await.unwrap();
    assert_eq!(raw(&api, &ann, &unnamed).await, first[0]);
    let age = "UPDATE posduif_engine.upload_receipts SET created_at = created_at - interval '11 minutes'";
    api.sql.execute(age, &[]).await.unwrap();
    let taken = raw(&api, &ann, &unnamed).await;
    assert!(taken.contains(r#""synced_count":1,"failed_count":0"#), "{taken}");
    // A name asks for the first answer, and what was taken is answered alike however old it is.
    assert_eq!(raw(&api, &ann, &named).await, first[1]);
    api.sql.execute(age, &[]).await.unwrap();
    assert_eq!(raw(&api, &ann, &unnamed).await, taken);
    named["upload_id"] = json!("another");
    synced(&ok(api.outgoing(&ann, &named)).await);
}

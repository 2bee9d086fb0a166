//! Many uploads of one user: nobody else has to wait for them.

use std::time::Duration;

use futures::future::join_all;
use posduif_testkit::eventually_true;
use serde_json::json;

use crate::{
    changes::{self, KEY, note, synced},
    fixture::ok,
};

#[tokio::test]
async fn a_phone_that_repeats_a_slow_upload_leaves_connections_to_everybody_else() {
    let (api, [ann, _, ben]) = changes::start().await;
    // An upload of Ann that is at work elsewhere.
    let own = format!("pg_advisory_lock({}, hashtext('{}'))", 0x706f_7364, ann.user);
    api.sql.batch_execute(&format!("SELECT {own}")).await.unwrap();
    let again = json!({"upload_id": "u1", "changes": [note(KEY, json!({"title": "again"}))]});
    let (api, ann, again) = (&api, &ann, &again);
    let repeated =
        join_all((0..20).map(|_| async move { api.outgoing(ann, again).send().await.unwrap().status() }));
    let waiting = async || -> i64 {
        let sql = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                    WHERE d.datname = current_database() AND locktype = 'advisory' AND NOT granted";
        api.sql.query_one(sql, &[]).await.unwrap().get(0)
    };
    let others = async {
        eventually_true(Duration::from_secs(20), "an upload waits", async || Ok(waiting().await > 0)).await;
        for upload in 0..20 {
            let other = format!("00000000-0000-0000-0000-{upload:012}");
            let change = note(&other, json!({"title": "ben's"}));
            synced(&ok(api.outgoing(&ben, &json!({ "changes": [change] }))).await);
            assert!(waiting().await <= 1, "one connection at most is Ann's");
        }
        api.sql.batch_execute(&format!("SELECT {}", own.replace("lock", "unlock"))).await.unwrap();
    };
    let (statuses, ()) = futures::join!(repeated, others);
    assert!(statuses.iter().all(|status| *status == 200 || *status == 503), "{statuses:?}");
    synced(&ok(api.outgoing(ann, again)).await);
}

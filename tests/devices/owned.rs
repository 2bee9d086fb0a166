//! Rows that everybody sees and each user writes, on devices that nobody asks to sync.

use posduif_sdk::{Device, State};
use posduif_testkit::{Servers, eventually};
use serde_json::json;

use crate::{
    phone::{enroll, one},
    site::{PATIENCE, Settings, Site},
};

const TODOS: &str = "CREATE TABLE todos (id text PRIMARY KEY, owner_id uuid NOT NULL, title text NOT NULL, updated_at timestamptz NOT NULL)";

fn settings() -> Settings {
    Settings {
        sql: TODOS.to_owned(),
        tables: json!([{"table": "public.todos", "buckets": ["shared"],
            "write": {"owner": "owner_id", "columns": ["title"], "version": "updated_at"}}]),
        ..Settings::default()
    }
}

async fn shows(device: &Device, sql: &str, expected: &str) {
    eventually(PATIENCE, &format!("{} shows {expected} for {sql}", device.username()), async || {
        Ok((one::<String>(device, sql) == expected).then_some(()))
    })
    .await;
}

async fn until(device: &Device, state: State) {
    let mut changes = device.status();
    let reached = tokio::time::timeout(PATIENCE, async {
        let mut status = changes.current();
        while status.state != state {
            status = changes.next().await.unwrap();
        }
    });
    assert!(
        reached.await.is_ok(),
        "{} never came to {state:?}: {:?}",
        device.username(),
        device.status().current()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_users_write_into_a_shared_table_and_see_each_others_rows_without_asking() {
    let site = Site::start(Servers::shared().await, settings()).await;
    let joe = enroll(&site, &site.scratch.join("joe.sqlite"), "Joe", false, None).await;
    let second = enroll(&site, &site.scratch.join("second.sqlite"), "Joe", true, None).await;
    let ann = enroll(&site, &site.scratch.join("ann.sqlite"), "Ann", false, None).await;
    let all = "SELECT coalesce(group_concat(title, ', '), '') FROM (SELECT title FROM todos ORDER BY id)";
    let body = async {
        for device in [&joe, &second, &ann] {
            until(device, State::Live).await;
        }
        joe.connection().execute("INSERT INTO todos (id, title) VALUES ('j', 'of Joe')", []).unwrap();
        ann.connection().execute("INSERT INTO todos (id, title) VALUES ('a', 'of Ann')", []).unwrap();
        for device in [&joe, &second, &ann] {
            shows(device, all, "of Ann, of Joe").await;
        }
        let error = ann.connection().execute("UPDATE todos SET title = 'x' WHERE id = 'j'", []).unwrap_err();
        assert!(error.to_string().contains("of another user"), "{error}");

        // Both of Joe's devices edit; what the later one writes wins, and the loser is told.
        for device in [&joe, &second] {
            until(device, State::Live).await;
            device.network_changed(false);
            until(device, State::Offline).await;
        }
        joe.connection().execute("UPDATE todos SET title = 'too late' WHERE id = 'j'", []).unwrap();
        let later = "UPDATE todos SET title = 'later', updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+60 seconds') WHERE id = 'j'";
        second.connection().execute(later, []).unwrap();
        second.network_changed(true);
        shows(&ann, all, "of Ann, later").await;
        joe.network_changed(true);
        shows(&joe, all, "of Ann, later").await;
        eventually(PATIENCE, "the loser is listed", async || Ok(joe.rejected()?.pop())).await;
        assert_eq!(joe.rejected().unwrap()[0].code, "CONFLICT");

        ann.connection().execute("DELETE FROM todos WHERE id = 'a'", []).unwrap();
        ann.connection()
            .execute("UPDATE users SET username = 'Anna' WHERE id = ?1", [ann.user_id().to_string()])
            .unwrap();
        shows(&joe, all, "later").await;
        let named = format!("SELECT username FROM users WHERE id = '{}'", ann.user_id());
        shows(&second, &named, "Anna").await;
        for device in [&joe, &second, &ann] {
            eventually(PATIENCE, "nothing waits", async || {
                Ok((one::<i64>(device, "SELECT count(*) FROM posduif_outbox") == 0).then_some(()))
            })
            .await;
        }
        assert_eq!((ann.rejected().unwrap(), second.rejected().unwrap()), (vec![], vec![]));
    };
    let never = std::future::pending::<()>;
    tokio::select! {
        ended = joe.run(never()) => panic!("{ended:?}"),
        ended = second.run(never()) => panic!("{ended:?}"),
        ended = ann.run(never()) => panic!("{ended:?}"),
        () = body => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_runs_finds_a_server_again_that_died() {
    let mut site = Site::start(Servers::shared().await, settings()).await;
    let joe = enroll(&site, &site.scratch.join("joe.sqlite"), "Joe", false, None).await;
    let client = site.database.connect().await;
    let body = async {
        until(&joe, State::Live).await;
        site.replicas[0].kill9().await;
        until(&joe, State::Offline).await;
        joe.connection().execute("INSERT INTO todos (id, title) VALUES ('j', 'meanwhile')", []).unwrap();
        site.start_again(0).await;
        until(&joe, State::Live).await;
        eventually(PATIENCE, "the write arrived", async || {
            Ok(client.query_opt("SELECT 1 FROM todos WHERE title = 'meanwhile'", &[]).await?)
        })
        .await;
    };
    tokio::select! {
        ended = joe.run(std::future::pending()) => panic!("{ended:?}"),
        () = body => {}
    }
}

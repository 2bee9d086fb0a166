use std::{future::Future, time::Duration};

use posduif_sdk::{Device, Error, Problem, State, Status};
use serde_json::{Value, json};

use crate::server::{
    Answer, BOB, COMPLETE, EVENTS, INCOMING, INSTRUCTIONS, ME, OUTGOING, Server, TOKEN, bob, contents,
    instructions, message, tasks,
};

const SOON: Duration = Duration::from_secs(30);
const HINT: &str = "id: c9\nevent: sync_required\ndata: {\"type\":\"sync_required\",\"pending_count\":1}\n\n";

/// Runs the device until the body is through.
async fn running<T>(device: &Device, body: impl Future<Output = T>) -> T {
    tokio::select! {
        ended = device.run(std::future::pending()) => panic!("run ended: {ended:?}"),
        result = body => result,
    }
}

async fn until(device: &Device, what: &str, mut there: impl FnMut(&Status) -> bool) -> Status {
    let mut changes = device.status();
    let mut status = changes.current();
    let waited = tokio::time::timeout(SOON, async {
        while !there(&status) {
            status = changes.next().await.unwrap();
        }
    });
    if waited.await.is_err() {
        panic!("it never came to this: {what}; now {:?}", device.status().current());
    }
    status
}

async fn until_state(device: &Device, state: State) -> Status {
    until(device, &format!("{state:?}"), |status| status.state == state).await
}

/// Waits for something that no status tells.
async fn eventually(what: &str, mut there: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(SOON, async {
        while !there() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "it never came to this: {what}");
}

fn page(id: u128, content: &str) -> Value {
    json!({"messages": [message(id, BOB, ME, content)], "cursor": format!("c{id}"), "lsn": "0/110", "has_more": false})
}

/// The routes of the requests since the last look.
fn routes(server: &Server) -> Vec<String> {
    server.take_requests().into_iter().map(|request| request.route).collect()
}

#[tokio::test]
async fn a_hint_brings_the_message_and_a_local_write_goes_up_by_itself() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    let stream = server.stream("c1");
    assert_eq!(device.status().current().state, State::Offline);
    running(&device, async {
        let live = until_state(&device, State::Live).await;
        assert_eq!((live.pending, live.last_error), (0, None));
        assert!(chrono::Utc::now() - live.last_synced.unwrap() < chrono::Duration::minutes(1));

        server.page(page(2, "hello"));
        stream.send(HINT.to_owned()).unwrap();
        eventually("the message is here", || contents(&device) == ["hello"]).await;

        until_state(&device, State::Live).await;
        server.take_requests();
        device.send_message(bob(), "by the library").unwrap();
        eventually("it was uploaded", || routes(&server).contains(&OUTGOING.to_owned())).await;

        until_state(&device, State::Live).await;
        let orm = posduif_sdk::rusqlite::Connection::open(server.path()).unwrap();
        let sql = "INSERT INTO messages (id, recipient_id, content) VALUES ('m', ?1, 'by an ORM')";
        orm.execute(sql, [BOB]).unwrap();
        eventually("it was uploaded", || routes(&server).contains(&OUTGOING.to_owned())).await;
        until(&device, "nothing waits", |status| status.pending == 0 && status.state == State::Live).await;
    })
    .await;
    assert_eq!(device.status().current().state, State::Offline, "nobody runs it any more");
}

#[tokio::test]
async fn a_stream_that_ends_is_opened_again_with_its_last_id_and_one_sync() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    let first = server.stream("c1");
    running(&device, async {
        until_state(&device, State::Live).await;
        let second = server.stream("c10");
        server.take_requests();
        first.send(HINT.to_owned()).unwrap();
        eventually("the hint was heard", || routes(&server).iter().any(|route| route == INCOMING)).await;
        until_state(&device, State::Live).await;
        server.take_requests();
        drop(first);
        until(&device, "the stream is gone", |status| status.state != State::Live).await;
        until_state(&device, State::Live).await;
        let requests = server.take_requests();
        let opened: Vec<_> = requests.iter().filter(|request| request.route == EVENTS).collect();
        assert_eq!(opened.len(), 1);
        assert_eq!(opened[0].headers["last-event-id"], "c9");
        assert_eq!(opened[0].headers["authorization"], format!("Bearer {TOKEN}"));
        assert_eq!(requests.iter().filter(|request| request.route == INCOMING).count(), 1);

        let _third = server.stream("c11");
        second.send("event: draining\ndata: {\"type\":\"draining\",\"retry_ms\":1}\n\n".to_owned()).unwrap();
        until(&device, "the server drains", |status| status.state != State::Live).await;
        until_state(&device, State::Live).await;
    })
    .await;
}

#[tokio::test]
async fn where_there_is_no_stream_the_device_asks_at_the_servers_interval() {
    let server = Server::start().await;
    let mut rules = instructions("r1", tasks());
    rules["sync_config"]["sync_interval_seconds"] = json!(1);
    server.answer(INSTRUCTIONS, Answer::Json(200, rules));
    let device = server.device_with(json!([]), json!([])).await;
    // A proxy that collects the answer until it ends.
    server.answer(EVENTS, Answer::Hang);
    running(&device, async {
        until_state(&device, State::Polling).await;
        for id in [2, 3] {
            server.page(page(id, "polled"));
            eventually("the message is here", || contents(&device).len() as u128 == id - 1).await;
        }
        until_state(&device, State::Polling).await;
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_away_is_tried_until_it_is_back() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    let device_writes = device.send_message(bob(), "waits").unwrap();
    for _ in 0..3 {
        server.answer(OUTGOING, Answer::Cut);
        server.answer(EVENTS, Answer::Cut);
    }
    running(&device, async {
        let away =
            until(&device, "offline", |status| status.state == State::Offline && status.last_error.is_some());
        let away = away.await;
        assert_eq!(away.pending, 1);
        assert!(away.last_error.unwrap().contains("not reached"));
        let _stream = server.stream("c1");
        let back = until_state(&device, State::Live).await;
        assert_eq!((back.pending, back.last_error), (0, None));
    })
    .await;
    let uploads: Vec<_> =
        server.take_requests().into_iter().filter(|request| request.route == OUTGOING).collect();
    assert_eq!(uploads.len(), 4);
    assert!(
        uploads.iter().all(|upload| upload.bytes == uploads[0].bytes),
        "a repetition is the same, byte for byte"
    );
    assert_eq!(uploads[0].body["messages"][0]["id"], json!(device_writes));
}

#[tokio::test]
async fn a_revoked_device_stops_until_its_file_is_enrolled_again() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    let stream = server.stream("c1");
    running(&device, async {
        until_state(&device, State::Live).await;
        server.refuse(INCOMING, 401, "UNAUTHORIZED");
        stream.send(HINT.to_owned()).unwrap();
        let refused = until_state(&device, State::Error(Problem::Unauthorized)).await;
        assert!(refused.last_error.unwrap().contains("refuses this device"));
        server.take_requests();
        device.send_message(bob(), "unsent").unwrap();
        device.sync_now();
        until(&device, "the write is noticed", |status| status.pending == 1).await;
        assert_eq!(routes(&server), Vec::<String>::new());

        server.refuse(INSTRUCTIONS, 401, "UNAUTHORIZED");
        let id = device.device_id().as_str();
        let renewed = json!({"user_id": ME, "device_id": id, "tenant_id": "t", "device_token": "renewed",
                             "app_instructions_url": "/api/app-instructions"});
        server.answer(COMPLETE, Answer::Json(200, renewed));
        server.page(json!({"cursor": "s1", "lsn": "0/100", "has_more": false, "snapshot": true}));
        let _stream = server.stream("c1");
        let url = server.enrollment_url().replace("token-1", "token-2");
        Device::enroll(server.path(), &url, "joe", json!({})).await.unwrap();
        let back = until_state(&device, State::Live).await;
        assert_eq!((back.pending, back.last_error), (0, None));
        let uploads = server.take_requests().into_iter().filter(|request| request.route == OUTGOING);
        assert!(uploads.map(|upload| upload.headers["authorization"].clone()).eq(["Bearer renewed"]));
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_is_refused_after_the_file_was_enrolled_again_stops_nothing() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    let stream = server.stream("c1");
    running(&device, async {
        until_state(&device, State::Live).await;
        server.refuse(INSTRUCTIONS, 401, "UNAUTHORIZED");
        let id = device.device_id().as_str();
        let renewed = json!({"user_id": ME, "device_id": id, "tenant_id": "t", "device_token": "renewed",
                             "app_instructions_url": "/api/app-instructions"});
        server.answer(COMPLETE, Answer::Json(200, renewed));
        let url = server.enrollment_url().replace("token-1", "token-2");
        Device::enroll(server.path(), &url, "joe", json!({})).await.unwrap();
        // The enrolment was seen together with this, before the stream of the earlier credential is refused.
        let file = posduif_sdk::rusqlite::Connection::open(server.path()).unwrap();
        file.execute("UPDATE posduif_state SET value = 1000 WHERE name = 'synced_at'", []).unwrap();
        let seen = |status: &Status| status.last_synced.is_some_and(|at| at.timestamp() == 1000);
        until(&device, "the file was looked at", seen).await;

        server.take_requests();
        server.refuse(EVENTS, 401, "UNAUTHORIZED");
        let _stream = server.stream("c1");
        drop(stream);
        until(&device, "the stream is gone", |status| status.state != State::Live).await;
        until_state(&device, State::Live).await;
        let opened = server.take_requests().into_iter().filter(|request| request.route == EVENTS);
        let credentials: Vec<_> = opened.map(|request| request.headers["authorization"].clone()).collect();
        assert_eq!(credentials, [format!("Bearer {TOKEN}"), "Bearer renewed".to_owned()]);
    })
    .await;
}

#[tokio::test]
async fn a_pause_closes_the_stream_and_its_end_catches_up() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    let stream = server.stream("c1");
    running(&device, async {
        until_state(&device, State::Live).await;
        for network in [false, true] {
            if network {
                device.pause()
            } else {
                device.network_changed(false)
            }
            until_state(&device, State::Offline).await;
            eventually("the stream is closed", || stream.send(": ping\n\n".to_owned()).is_err()).await;
            server.take_requests();
            device.send_message(bob(), "meanwhile").unwrap();
            device.sync_now();
            let _stream = server.stream("c1");
            assert_eq!(routes(&server), Vec::<String>::new());
            if network {
                device.resume()
            } else {
                device.network_changed(true)
            }
            until(&device, "live", |status| status.state == State::Live && status.pending == 0).await;
        }
    })
    .await;
}

#[tokio::test]
async fn another_network_is_tried_at_once_although_the_one_before_still_holds_a_request() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    let _dead = server.stream("c1");
    server.answer(INCOMING, Answer::Hang);
    running(&device, async {
        server.until_hanging().await;
        let _stream = server.stream("c2");
        let changed = std::time::Instant::now();
        device.network_changed(true);
        until_state(&device, State::Live).await;
        assert!(changed.elapsed() < Duration::from_secs(20), "it waited for the network before");
    })
    .await;
}

#[tokio::test]
async fn one_handle_runs_once_and_a_shutdown_ends_it_also_in_the_middle_of_a_sync() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    server.answer(INCOMING, Answer::Hang);
    let run = device.run(async {
        server.until_hanging().await;
        assert!(matches!(device.run(std::future::pending()).await, Err(Error::Busy)));
        assert!(matches!(device.sync().await, Err(Error::Busy)));
        assert_eq!(device.status().current().state, State::Connecting);
    });
    tokio::time::timeout(SOON, run).await.unwrap().unwrap();
    assert_eq!(device.status().current().state, State::Offline);
    device.sync().await.unwrap();
}

#[tokio::test]
async fn a_problem_of_the_server_is_shown_and_tried_again() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    let _stream = server.stream("c1");
    for _ in 0..2 {
        server.answer(INCOMING, Answer::Raw(200, "", "<html>".to_owned()));
    }
    running(&device, async {
        let problem = until_state(&device, State::Error(Problem::Protocol)).await;
        assert!(problem.last_error.unwrap().contains("breaks the protocol"));
        until_state(&device, State::Live).await;
    })
    .await;
}

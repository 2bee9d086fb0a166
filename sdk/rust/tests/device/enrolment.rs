use posduif_sdk::{Device, Error};
use serde_json::json;

use crate::server::{
    Answer, BOB, COMPLETE, INSTRUCTIONS, ME, OUTGOING, Server, TOKEN, bob, contents, message,
};

#[tokio::test]
async fn a_device_enrols_creates_its_tables_and_can_be_opened_again() {
    let server = Server::start().await;
    let device =
        Device::enroll(server.path(), &server.enrollment_url(), "joe", json!({"os": "x"})).await.unwrap();
    let [complete, instructions] = <[_; 2]>::try_from(server.take_requests()).ok().unwrap();
    assert_eq!(complete.body["token"], "token-1");
    assert_eq!(complete.body["username"], "joe");
    assert_eq!(complete.body["device_info"], json!({"os": "x"}));
    assert_eq!(complete.body["device_id"], device.device_id().as_str());
    assert_eq!(instructions.headers["authorization"], format!("Bearer {TOKEN}"));
    assert_eq!(instructions.headers["x-device-id"], device.device_id().as_str());
    assert_eq!(device.users().unwrap(), []);

    let again = Device::open(server.path()).unwrap();
    assert_eq!(again.device_id(), device.device_id());
    assert_eq!((again.user_id().to_string().as_str(), again.username()), (ME, "joe"));
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_under_the_same_device_id() {
    let server = Server::start().await;
    server.answer(COMPLETE, Answer::Cut);
    let url = server.enrollment_url();
    let enroll = || Device::enroll(server.path(), &url, "joe", json!({}));
    assert!(matches!(enroll().await, Err(Error::Offline(_))));
    assert!(matches!(Device::open(server.path()), Err(Error::Unusable(_))));
    server.answer(INSTRUCTIONS, Answer::Cut);
    assert!(matches!(enroll().await, Err(Error::Offline(_))));
    enroll().await.unwrap();

    let requests = server.take_requests();
    let ids: Vec<_> = requests.iter().filter(|r| r.route == COMPLETE).map(|r| &r.body["device_id"]).collect();
    assert_eq!(ids.len(), 2, "a credential that is already here is not asked for again");
    assert_eq!(ids[0], ids[1]);
    assert!(matches!(enroll().await, Err(Error::Unusable(_))));
}

#[tokio::test]
async fn another_token_gets_another_device_id() {
    let server = Server::start().await;
    server.refuse(COMPLETE, 400, "INVALID_TOKEN");
    let url = server.enrollment_url();
    let refused = Device::enroll(server.path(), &url, "joe", json!({})).await;
    assert!(matches!(refused, Err(Error::Rejected { code, .. }) if code == "INVALID_TOKEN"));
    Device::enroll(server.path(), &url.replace("token-1", "token-2"), "joe", json!({})).await.unwrap();
    let requests = server.take_requests();
    assert_ne!(requests[0].body["device_id"], requests[1].body["device_id"]);
}

#[tokio::test]
async fn the_credential_appears_in_no_debug_output() {
    let server = Server::start().await;
    let device = server.device().await;
    assert!(!format!("{device:?}").contains(TOKEN));
    let url = server.enrollment_url();
    server.answer(COMPLETE, Answer::Raw(200, "", format!(r#"{{"device_token":5,"x":"{TOKEN}"}}"#)));
    let other = server.folder.path().join("other.sqlite");
    let error = Device::enroll(other, &url, "joe", json!({})).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains(TOKEN));
}

#[tokio::test]
async fn a_sync_that_is_already_running_is_not_joined() {
    let server = Server::start().await;
    let device = server.device().await;
    server.answer(crate::server::INCOMING, Answer::Hang);
    let other = Device::open(server.path()).unwrap();
    while_hanging(&server, &device, async {
        assert!(matches!(other.sync().await, Err(Error::Busy)));
    })
    .await;
    other.sync().await.unwrap();
}

#[tokio::test]
async fn a_refused_device_is_enrolled_again_in_place_and_keeps_its_outbox() {
    let server = Server::start().await;
    let device = server.device_with(json!([message(1, BOB, ME, "old")]), json!([])).await;
    let id = device.device_id().clone();
    device.send_message(bob(), "sent").unwrap();
    device.sync().await.unwrap();
    device.send_message(bob(), "unsent").unwrap();
    server.refuse(OUTGOING, 401, "UNAUTHORIZED");
    assert!(matches!(device.sync().await, Err(Error::Unauthorized(_))));
    drop(device);
    server.take_requests();

    let url = server.enrollment_url().replace("token-1", "token-2");
    let enroll = || Device::enroll(server.path(), &url, "joe", json!({}));
    server.refuse(INSTRUCTIONS, 401, "UNAUTHORIZED");
    server.answer(COMPLETE, Answer::Cut);
    assert!(matches!(enroll().await, Err(Error::Offline(_))));
    server.refuse(INSTRUCTIONS, 401, "UNAUTHORIZED");
    let mut renewed = json!({"user_id": ME, "device_id": id.as_str(), "tenant_id": "t", "device_token": "renewed",
                             "app_instructions_url": "/api/app-instructions"});
    server.answer(COMPLETE, Answer::Json(200, renewed.clone()));
    let device = enroll().await.unwrap();
    let completes: Vec<_> = server.take_requests().into_iter().filter(|r| r.route == COMPLETE).collect();
    assert!(completes.iter().all(|r| r.body["device_id"] == id.as_str() && r.body["token"] == "token-2"));
    assert_eq!((device.device_id(), device.pending_count().unwrap(), contents(&device).len()), (&id, 2, 3));

    server.page(json!({"cursor": "s1", "lsn": "0/100", "has_more": false, "snapshot": true}));
    let summary = device.sync().await.unwrap();
    assert_eq!((summary.uploaded, summary.snapshot), (2, true));
    let requests = server.take_requests();
    assert!(requests.iter().all(|r| r.headers["authorization"] == "Bearer renewed"));
    drop(device);

    for (answer, why) in [
        (
            Answer::Json(200, {
                renewed["user_id"] = json!(BOB);
                renewed
            }),
            "another user's",
        ),
        (Answer::Json(409, json!({"error": {"code": "CONFLICT", "message": "taken"}})), "another user's"),
    ] {
        server.refuse(INSTRUCTIONS, 401, "UNAUTHORIZED");
        server.answer(COMPLETE, answer);
        let error = Device::enroll(server.path(), &url, "bob", json!({})).await.unwrap_err();
        assert!(matches!(error, Error::Unusable(_)) && error.to_string().contains(why), "{error}");
        let device = Device::open(server.path()).unwrap();
        assert_eq!((device.user_id().to_string().as_str(), device.username()), (ME, "joe"));
    }
}

#[tokio::test]
async fn a_device_that_the_server_still_knows_is_not_enrolled_again() {
    let server = Server::start().await;
    server.device_with(json!([]), json!([])).await;
    let url = server.enrollment_url().replace("token-1", "token-2");
    let enroll = || Device::enroll(server.path(), &url, "joe", json!({}));
    assert!(matches!(enroll().await, Err(Error::Unusable(why)) if why.contains("already enrolled")));
    server.answer(INSTRUCTIONS, Answer::Cut);
    assert!(matches!(enroll().await, Err(Error::Offline(_))));
    server.answer(INSTRUCTIONS, Answer::Raw(401, "", "<html>".to_owned()));
    assert!(matches!(enroll().await, Err(Error::Retry { .. })));
    assert!(server.take_requests().iter().all(|request| request.route != COMPLETE));
}

/// Starts a sync, waits until the server holds its request, runs the check, then drops the sync.
pub async fn while_hanging(server: &Server, device: &Device, check: impl Future<Output = ()>) {
    let sync = device.sync();
    tokio::pin!(sync);
    tokio::select! {
        result = &mut sync => panic!("the sync ended: {result:?}"),
        () = server.until_hanging() => {}
    }
    check.await;
}

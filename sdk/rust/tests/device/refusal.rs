use posduif_sdk::{Error, Uuid};
use serde_json::json;

use crate::server::{Answer, BOB, INCOMING, ME, OUTGOING, Server, bob, column, contents, message};

#[tokio::test]
async fn a_refusal_of_the_whole_request_throws_no_write_away() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    device.send_message(bob(), "one").unwrap();
    device.send_message(bob(), "two").unwrap();
    for (place, (status, code)) in [
        (404, "NOT_FOUND"),
        (404, "INVALID_RECIPIENT"),
        (409, "CONFLICT"),
        (405, "METHOD_NOT_ALLOWED"),
        (400, "EMPTY_MESSAGE"),
    ]
    .into_iter()
    .enumerate()
    {
        server.refuse(OUTGOING, status, code);
        let came = message(place as u128, BOB, ME, code);
        server.page(json!({"messages": [came], "cursor": "c", "lsn": "0/110", "has_more": false}));
        let error = device.sync().await.unwrap_err();
        assert!(matches!(error, Error::Retry { .. }) && error.is_temporary(), "{code}: {error}");
        assert_eq!((device.pending_count().unwrap(), device.rejected().unwrap().len()), (2, 0), "{code}");
        assert!(contents(&device).contains(&code.to_owned()), "the download goes on");
    }
    assert_eq!(device.sync().await.unwrap().uploaded, 2);
}

#[tokio::test]
async fn a_write_that_cannot_be_read_back_is_listed_with_its_bytes_and_the_rest_goes_on() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    let text = "INSERT INTO messages (id, recipient_id, content) VALUES (?1, ?2, CAST(x'61ff62' AS TEXT))";
    device.connection().execute(text, [&Uuid::from_u128(7).to_string(), BOB]).unwrap();
    let key = "INSERT INTO messages (id, recipient_id, content) VALUES (CAST(x'ff' AS TEXT), ?1, 'x')";
    device.connection().execute(key, [BOB]).unwrap();
    device.send_message(bob(), "good").unwrap();
    server.page(
        json!({"messages": [message(1, BOB, ME, "came")], "cursor": "c2", "lsn": "0/200", "has_more": false}),
    );
    let summary = device.sync().await.unwrap();
    assert_eq!((summary.uploaded, summary.rejected, summary.received), (1, 2, 1));
    let bytes = column(&device, "SELECT hex(coalesce(row, '')) FROM posduif_rejected ORDER BY seq");
    assert!(bytes[0].contains("61FF62"), "{bytes:?}");
    let rejected = device.rejected().unwrap();
    assert!(rejected.iter().all(|write| write.code == "VALIDATION_ERROR"));
    assert!(rejected[0].row.as_ref().unwrap().contains("a\u{fffd}b"));
    assert_eq!((contents(&device), device.pending_count().unwrap()), (vec!["came".to_owned()], 0));
}

#[tokio::test]
async fn an_unreadable_write_of_a_row_leaves_the_readable_one_before_it() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    device.connection().execute("INSERT INTO tasks (id, title) VALUES (1, 'good')", []).unwrap();
    device.connection().execute("UPDATE tasks SET title = CAST(x'ff' AS TEXT)", []).unwrap();
    let summary = device.sync().await.unwrap();
    assert_eq!((summary.uploaded, summary.rejected), (1, 1));
    let upload = server.take_requests().into_iter().find(|request| request.route == OUTGOING).unwrap();
    assert_eq!(upload.body["changes"][0]["row"]["title"], "good");
}

#[tokio::test]
async fn a_blank_message_is_refused_where_it_is_written() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    for content in ["", "  ", "\n\t\u{a0}\u{2003}"] {
        let error = device.send_message(bob(), content).unwrap_err();
        assert!(matches!(&error, Error::Rejected { code, .. } if code == "EMPTY_MESSAGE"), "{error}");
        assert!(!error.to_string().contains("the server"), "{error}");
    }
    assert_eq!((device.pending_count().unwrap(), contents(&device).len()), (0, 0));

    let id = Uuid::from_u128(5).to_string();
    let sql = "INSERT INTO messages (id, recipient_id, content) VALUES (?1, ?2, ' ')";
    device.connection().execute(sql, [id.as_str(), BOB]).unwrap();
    let failed = json!([{"message_id": id, "code": "EMPTY_MESSAGE", "error": "a message needs content"}]);
    server.answer(OUTGOING, Answer::Json(200, json!({"failed_messages": failed, "lsn": "0/200"})));
    device.sync().await.unwrap();
    assert_eq!(device.rejected().unwrap()[0].code, "EMPTY_MESSAGE");
}

#[tokio::test]
async fn a_page_that_promises_more_and_leads_nowhere_ends_the_sync() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    server.handle(|request| {
        let page = || json!({"cursor": request.query["since"], "has_more": true});
        (request.route == INCOMING).then(|| Answer::Json(200, page()))
    });
    let ended = tokio::time::timeout(std::time::Duration::from_secs(30), device.sync()).await;
    assert!(matches!(ended, Ok(Err(Error::Protocol(_)))), "{ended:?}");
}

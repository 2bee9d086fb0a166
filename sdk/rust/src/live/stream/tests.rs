use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::store::Enrollment;

const QUICK: Patience = Patience {
    greeting: Duration::from_millis(300),
    silence: Duration::from_millis(300),
    steady: Duration::from_millis(50),
};
const SLOW: Patience = Patience {
    greeting: Duration::from_secs(60),
    silence: Duration::from_secs(60),
    steady: Duration::from_secs(60),
};
const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n\r\n";
const HELLO: &str = "retry: 1500\nid: c1\nevent: connected\ndata: {\"type\":\"connected\"}\n\n";

/// A server for one request; returns what it was asked.
async fn serve(listener: TcpListener, parts: Vec<&'static str>, then: Then) -> (String, TcpStream) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        asked.push(byte[0]);
    }
    for part in parts {
        stream.write_all(part.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    }
    if let Then::Close = then {
        stream.shutdown().await.unwrap();
    }
    (String::from_utf8(asked).unwrap(), stream)
}

#[derive(Clone, Copy)]
enum Then {
    Close,
    Stay,
}

/// A device of the server that listens there.
fn session(listener: &TcpListener) -> std::sync::Arc<Session> {
    let base: url::Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let session = Session::new(Enrollment {
        device_id: "phone-1".parse().unwrap(),
        user_id: "0e4d7b0c-6a51-4e0e-9d0e-000000000001".parse().unwrap(),
        tenant_id: "t".to_owned(),
        username: "joe".to_owned(),
        instructions_url: base.clone(),
        base_url: base,
        device_token: "token".to_owned().into(),
    });
    session.unwrap().into()
}

/// All that is heard of a server that says these parts.
async fn heard(parts: &[&'static str], then: Then, patience: Patience) -> (Vec<Heard>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let session = session(&listener);
    let server = tokio::spawn(serve(listener, parts.to_vec(), then));
    let stream = listen(session, Some("c0".to_owned()), patience);
    let heard = stream.collect().await;
    (heard, server.await.unwrap().0)
}

#[tokio::test]
async fn a_stream_greets_hints_and_ends() {
    let hints = "id: c2\nevent: message\ndata: {\"type\":\"new_message\"}\n\n\
        id: c3\nevent: sync_required\ndata: {}\n\nevent: resync\ndata: {}\n\nevent: of a newer server\ndata: x\n\n";
    let (heard, asked) = heard(&[HEAD, HELLO, hints], Then::Close, SLOW).await;
    let id = |id: &str| Heard::Id(Some(id.to_owned()));
    let said: Vec<_> = heard.iter().filter(|one| !matches!(one, Heard::Id(_))).cloned().collect();
    let end = Heard::Ended(StreamEnd::Lost { retry: Duration::from_millis(1500) });
    assert_eq!(said, [Heard::Connected, Heard::Hint, Heard::Hint, Heard::Hint, Heard::Hint, end]);
    let ids: Vec<_> = heard.iter().filter(|one| matches!(one, Heard::Id(_))).cloned().collect();
    assert!(ids.ends_with(&[id("c3"), Heard::Id(None)]), "the server cannot go on from c3: {ids:?}");
    let asked = asked.to_ascii_lowercase();
    for line in [
        "get /sse/mobile/phone-1 http/1.1",
        "last-event-id: c0",
        "x-device-id: phone-1",
        "authorization: bearer token",
        "accept: text/event-stream",
    ] {
        assert!(asked.lines().any(|other| other == line), "{line}: {asked}");
    }
    assert!(!asked.contains("accept-encoding"), "compression would hold hints back");
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_given_up() {
    let patience = Patience { silence: QUICK.silence, ..SLOW };
    let (heard, _) = heard(&[HEAD, HELLO], Then::Stay, patience).await;
    let end = Heard::Ended(StreamEnd::PingMissed { retry: Duration::from_millis(1500) });
    assert_eq!(heard.last(), Some(&end));
    assert!(!heard.contains(&Heard::Steady));
}

#[tokio::test]
async fn pings_keep_a_stream_and_make_it_steady() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let session = session(&listener);
    let server = tokio::spawn(serve(listener, vec![HEAD, HELLO], Then::Stay));
    let patience = Patience { steady: QUICK.steady, ..SLOW };
    let mut stream = listen(session, None, patience);
    while stream.next().await != Some(Heard::Connected) {}
    let (_, mut connection) = server.await.unwrap();
    let pings = tokio::spawn(async move {
        while connection.write_all(b": ping\n\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert_eq!(stream.next().await, Some(Heard::Steady));
    drop(stream);
    pings.await.unwrap();
}

#[tokio::test]
async fn whatever_holds_a_stream_back_or_has_none_is_told_from_a_lost_network() {
    let lost = StreamEnd::Lost { retry: Duration::ZERO };
    let refusal = "{\"error\":{\"code\":\"UNAUTHORIZED\",\"message\":\"m\"}}";
    let cases: [(&[&'static str], Then, StreamEnd); 9] = [
        (&[], Then::Stay, StreamEnd::Unusable),
        (&[HEAD], Then::Stay, StreamEnd::Unusable),
        (&[HEAD, ": padding\n\n"], Then::Stay, StreamEnd::Unusable),
        (&["HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n"], Then::Close, StreamEnd::Unusable),
        (&["HTTP/1.1 501 X\r\ncontent-length: 0\r\n\r\n"], Then::Close, StreamEnd::Unusable),
        (
            &["HTTP/1.1 200 X\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi"],
            Then::Close,
            StreamEnd::Unusable,
        ),
        (&[], Then::Close, lost),
        (&["HTTP/1.1 502 X\r\ncontent-length: 0\r\n\r\n"], Then::Close, StreamEnd::Busy { after: None }),
        (
            &["HTTP/1.1 503 X\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n"],
            Then::Close,
            StreamEnd::Busy { after: Some(Duration::from_secs(7)) },
        ),
    ];
    for (parts, then, end) in cases {
        let patience = if let Then::Stay = then { QUICK } else { SLOW };
        assert_eq!(heard(parts, then, patience).await.0, [Heard::Ended(end)], "{parts:?}");
    }
    let head = "HTTP/1.1 401 X\r\ncontent-length: 47\r\n\r\n";
    assert_eq!(refusal.len(), 47);
    let (refused, _) = heard(&[head, refusal], Then::Close, SLOW).await;
    assert_eq!(refused, [Heard::Ended(StreamEnd::Unauthorized)]);
    // The sign-in page of a hotel's network is not the server's word.
    let page = "HTTP/1.1 401 X\r\ncontent-length: 2\r\n\r\nhi";
    assert_eq!(heard(&[page], Then::Close, SLOW).await.0, [Heard::Ended(StreamEnd::Unusable)]);
}

#[tokio::test]
async fn a_draining_server_says_when_to_come_back() {
    let draining = "event: draining\ndata: {\"type\":\"draining\",\"retry_ms\":2500}\n\n";
    let (heard, _) = heard(&[HEAD, HELLO, draining], Then::Stay, SLOW).await;
    let end = StreamEnd::Draining { retry: Duration::from_millis(2500) };
    assert_eq!(heard.last(), Some(&Heard::Ended(end)));
}

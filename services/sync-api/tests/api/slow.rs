//! Callers that take their time, claim too much or say two things at once, byte by byte over TCP.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use posduif_testkit::eventually_true;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use crate::fixture::{Api, By, ok};

const LONG: Duration = Duration::from_secs(60);
const IMPATIENT: &str = "api: {head_timeout: 1s, body_timeout: 1s, write_timeout: 1s}";
const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";

async fn connect(api: &Api) -> TcpStream {
    TcpStream::connect(api.base.trim_start_matches("http://")).await.unwrap()
}

/// All that the server says until it closes the connection, and after how long it did.
async fn rest(stream: &mut TcpStream) -> (String, Duration) {
    let (started, mut said) = (Instant::now(), Vec::new());
    // A reset is an end as well.
    let _ = timeout(LONG, stream.read_to_end(&mut said)).await.expect("the connection stays open");
    (String::from_utf8_lossy(&said).into_owned(), started.elapsed())
}

/// Reads one answer that has a body of two bytes.
async fn healthy(stream: &mut TcpStream) {
    let mut said = Vec::new();
    while !said.ends_with(b"\r\n\r\nOK") {
        let mut byte = [0];
        timeout(LONG, stream.read_exact(&mut byte)).await.unwrap().unwrap();
        said.push(byte[0]);
    }
    assert!(said.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&said));
}

/// Sends a byte each 50 ms until the other side has had enough.
async fn drip(mut half: tokio::net::tcp::OwnedWriteHalf, bytes: &'static [u8]) {
    for byte in bytes.iter().cycle() {
        if half.write_all(&[*byte]).await.is_err() {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_given_up_whether_it_is_the_first_or_not() {
    let api = Api::with(IMPATIENT).await;
    for earlier in [0, 1, 3] {
        let mut stream = connect(&api).await;
        for _ in 0..earlier {
            stream.write_all(HEALTH).await.unwrap();
            healthy(&mut stream).await;
        }
        let (mut reading, writing) = stream.into_split();
        let dripping =
            tokio::spawn(drip(writing, b"GET /health HTTP/1.1\r\nX-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
        let started = Instant::now();
        let mut said = Vec::new();
        let _ = timeout(LONG, reading.read_to_end(&mut said)).await.expect("the connection stays open");
        assert!(started.elapsed() >= Duration::from_millis(900), "{:?}", started.elapsed());
        let said = String::from_utf8_lossy(&said);
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408 "), "{said}");
        dripping.abort();
    }
    // A connection that says nothing between its requests stays.
    let mut stream = connect(&api).await;
    for _ in 0..3 {
        stream.write_all(HEALTH).await.unwrap();
        healthy(&mut stream).await;
        sleep(Duration::from_millis(1_200)).await;
    }
}

#[tokio::test]
async fn a_body_that_comes_byte_by_byte_is_given_up_and_may_be_sent_again() {
    let api = Api::with(IMPATIENT).await;
    for length in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        let mut stream = connect(&api).await;
        let head = format!(
            "POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut reading, writing) = stream.into_split();
        let dripping = tokio::spawn(drip(writing, b"1\r\n \r\n"));
        let mut said = Vec::new();
        let _ = timeout(LONG, reading.read_to_end(&mut said)).await.expect("the connection stays open");
        let said = String::from_utf8_lossy(&said).to_lowercase();
        assert!(said.starts_with("http/1.1 503 ") && said.contains("sync_error"), "{said}");
        assert!(said.contains("retry-after: "), "{said}");
        dripping.abort();
    }
}

/// The slowest of these: a pause between two requests is as long as balancers need it.
#[tokio::test]
async fn a_body_in_chunks_that_nobody_reads_and_that_never_ends_keeps_no_connection() {
    let api = Api::with(IMPATIENT).await;
    let cases =
        [("close", ""), ("close", "1\r\nx\r\n"), ("keep-alive", ""), ("keep-alive", "1\r\nx\r\n")].map(
            async |(connection, begun)| {
                let mut stream = connect(&api).await;
                let request = format!(
                    "GET /health HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\nTransfer-Encoding: chunked\r\n\r\n{begun}"
                );
                stream.write_all(request.as_bytes()).await.unwrap();
                healthy(&mut stream).await;
                let mut said = Vec::new();
                let ended = timeout(Duration::from_secs(120), stream.read_to_end(&mut said)).await;
                assert!(ended.is_ok(), "{connection} {begun:?}: the connection stays open");
            },
        );
    futures::future::join_all(cases).await;
}

#[tokio::test]
async fn an_answer_that_nobody_takes_ends_its_connection() {
    let api = Api::with(&format!("{IMPATIENT}\nsync: {{batch_size: 500, compression: false}}")).await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let fill = "INSERT INTO messages (sender_id, recipient_id, content)
                SELECT $1, $2, repeat('x', 60000) FROM generate_series(1, 400)";
    api.sql.execute(fill, &[&bob.uuid(), &ann.user.uuid()]).await.unwrap();
    let server: SocketAddr = api.base.trim_start_matches("http://").parse().unwrap();
    let open = async || {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(server).await.unwrap();
        let head = format!(
            "GET /api/sync/incoming?since=start&limit=500 HTTP/1.1\r\nHost: x\r\nX-Device-ID: {}\r\nAuthorization: Bearer {}\r\n\r\n",
            ann.id, ann.token
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    };
    // One takes nothing, one a byte at a time.
    let (silent, mut slow) = (open().await, open().await);
    let ports = [silent.local_addr().unwrap().port(), slow.local_addr().unwrap().port()];
    let slow = tokio::spawn(async move {
        let mut byte = [0];
        while let Ok(1) = slow.read(&mut byte).await {
            sleep(Duration::from_millis(20)).await;
        }
    });
    // The server's sides of both, established.
    let open_of = async |ports: [u16; 2]| {
        let table = tokio::fs::read_to_string("/proc/net/tcp").await?;
        let ports = ports.map(|port| format!(":{port:04X}"));
        let is_open = |line: &&str| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let is_served = columns[1].ends_with(&format!(":{:04X}", server.port()));
            is_served && columns[3] == "01" && ports.iter().any(|port| columns[2].ends_with(port))
        };
        Ok::<usize, std::io::Error>(table.lines().filter(is_open).count())
    };
    assert_eq!(open_of(ports).await.unwrap(), 2);
    // Well before the operating system ends what is not acknowledged (45 s).
    eventually_true(Duration::from_secs(20), "both answers are given up", async || {
        Ok(open_of(ports).await? == 0)
    })
    .await;
    drop(silent);
    slow.abort();
    ok(api.get("/api/sync/status").by(&ann)).await;
}

#[tokio::test]
async fn what_is_no_plain_request_is_refused_and_its_connection_closed() {
    let api = Api::start().await;
    let smuggled = "GET /health HTTP/1.1\r\nHost: smuggled\r\n\r\n";
    let long = |text: &str, count: usize| text.repeat(count);
    for (what, request, status) in [
        (
            "both lengths",
            format!(
                "POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
            ),
            400,
        ),
        (
            "two lengths",
            format!(
                "POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 40\r\n\r\n{smuggled}"
            ),
            400,
        ),
        (
            "a signed length",
            format!("POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n{smuggled}"),
            400,
        ),
        (
            "a list of lengths",
            format!("POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 0, 0\r\n\r\n{smuggled}"),
            400,
        ),
        (
            "an unknown coding",
            format!(
                "POST /api/auth/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n{smuggled}"
            ),
            400,
        ),
        (
            "a hidden coding",
            format!(
                "POST /api/auth/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n{smuggled}"
            ),
            400,
        ),
        (
            "two codings",
            format!(
                "POST /api/auth/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{smuggled}"
            ),
            400,
        ),
        (
            "chunks in HTTP/1.0",
            format!("POST /api/auth/login HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
            400,
        ),
        ("a folded header", format!("GET /health HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n{smuggled}"), 400),
        ("no host", format!("GET /health HTTP/1.1\r\n\r\n{smuggled}"), 400),
        ("many headers", format!("GET /health HTTP/1.1\r\nHost: x\r\n{}\r\n", long("X: y\r\n", 200)), 431),
        (
            "a long header",
            format!("GET /health HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", long("y", 1 << 20)),
            431,
        ),
        (
            "a megabyte of headers",
            format!("GET /health HTTP/1.1\r\nHost: x\r\n{}\r\n", long("X: 0123456789\r\n", 1 << 16)),
            431,
        ),
        ("a long path", format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", long("y", 100_000)), 400),
        ("a longer path", format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", long("y", 1 << 20)), 431),
        ("no HTTP", format!("\u{16}\u{3}\u{1}{smuggled}"), 400),
    ] {
        let mut stream = connect(&api).await;
        // The server may have heard enough before all is sent.
        let _ = stream.write_all(request.as_bytes()).await;
        let (said, _) = rest(&mut stream).await;
        let statuses = said.matches("HTTP/1.1 ").count();
        // Closed with bytes unread, an answer may be lost on the way.
        let is_cut = said.is_empty() && request.len() > 1 << 17;
        assert!(is_cut || said.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {said}");
        assert!(statuses <= 1 && !said.contains("OK\r\n\r\n") && !said.ends_with("OK"), "{what}: {said}");
    }
    let mut stream = connect(&api).await;
    stream.write_all(HEALTH).await.unwrap();
    healthy(&mut stream).await;
}

#[tokio::test]
async fn connections_beyond_the_most_wait_for_a_place() {
    let api = Api::with("api: {max_connections: 4, sse: {max_connections: 1}}").await;
    let cores = std::thread::available_parallelism().unwrap().get();
    let most = 4_usize.div_ceil(cores) * cores;
    let mut open = Vec::new();
    for _ in 0..most {
        let mut stream = connect(&api).await;
        stream.write_all(HEALTH).await.unwrap();
        healthy(&mut stream).await;
        open.push(stream);
    }
    let mut next = connect(&api).await;
    next.write_all(HEALTH).await.unwrap();
    let mut byte = [0];
    let early = timeout(Duration::from_secs(1), next.read_exact(&mut byte)).await;
    assert!(early.is_err(), "{early:?}");
    drop(open.pop());
    healthy(&mut next).await;
}

#[tokio::test]
async fn a_large_answer_still_arrives_at_a_caller_that_takes_it_in_pieces() {
    let api = Api::with("api: {write_timeout: 2s}\nsync: {compression: false}").await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let fill = "INSERT INTO messages (sender_id, recipient_id, content)
                SELECT $1, $2, repeat('x', 60000) FROM generate_series(1, 60)";
    api.sql.execute(fill, &[&bob.uuid(), &ann.user.uuid()]).await.unwrap();
    let pages = api.snapshot(&ann, 500).await;
    let messages = pages.iter().map(|page| page["messages"].as_array().unwrap().len()).sum::<usize>();
    assert_eq!(messages, 60, "{}", json!(pages.len()));
}

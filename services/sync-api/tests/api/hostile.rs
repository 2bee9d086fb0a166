//! Bodies and heads that mean harm in, refusals at the limits out, in bounded memory.

use std::{io::Write, time::Duration};

use flate2::{Compress, Compression, FlushCompress, write::GzEncoder};
use futures::future::join_all;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    changes::{self, KEY, RULES},
    fixture::{Api, By, PASSWORD, Phone, Program, is, ok, refused},
};

const PATIENCE: Duration = Duration::from_secs(60);
const MEBIBYTE: usize = 1 << 20;
/// How much more the process may ever have held than after ordinary work.
const GROWTH_KIB: u64 = 20 << 10;
/// Ordinary work that takes no more than this once more has taken what it takes.
const SETTLED_KIB: u64 = 256;

pub fn gzip(body: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(body).unwrap();
    packer.finish().unwrap()
}

/// Zeros that are `mebibytes` MiB once unpacked, without packing them one by one: a block of deflate that ends on a
/// byte can be repeated.
fn bomb(mebibytes: usize) -> Vec<u8> {
    let mut packer = Compress::new(Compression::best(), false);
    let mut block = Vec::with_capacity(8 * 1024);
    packer.compress_vec(&vec![0; MEBIBYTE], &mut block, FlushCompress::Full).unwrap();
    let mut bomb = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    (0..mebibytes).for_each(|_| bomb.extend(&block));
    bomb
}

/// The process under attack.
struct Target {
    ann: Phone,
    program: Program,
    /// Whose tenant it serves.
    _api: Api,
}

impl Target {
    async fn start() -> Self {
        let (api, [ann, ..]) = changes::start().await;
        let program = api.program(RULES).await;
        program.until(200, "the replica is ready").await;
        Target { ann, program, _api: api }
    }

    fn post(&self, path: &str) -> RequestBuilder {
        let request = reqwest::Client::new().post(format!("{}{path}", self.program.base));
        request.header("content-type", "application/json")
    }

    fn get(&self, path: &str) -> RequestBuilder {
        reqwest::Client::new().get(format!("{}{path}", self.program.base))
    }

    fn outgoing(&self, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.post("/api/sync/outgoing").by(&self.ann).body(body)
    }

    /// What the process held at most so far, in KiB.
    fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.program.process.pid())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// The beginning of what comes back to raw bytes.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.program.base.trim_start_matches("http://")).await.unwrap();
        // The server may have said no and gone long before the last byte is sent.
        stream.write_all(bytes).await.ok();
        let mut answer = vec![0; 64 * 1024];
        let mut length = 0;
        while let Ok(Ok(read)) = timeout(PATIENCE, stream.read(&mut answer[length..])).await
            && read > 0
        {
            length += read;
        }
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }
}

/// What is allowed, up to the limits of it, several at a time: the measure of what is not.
async fn ordinary_work(target: &Target) {
    let login = json!({"username": "bob", "password": PASSWORD}).to_string();
    join_all((0..8).map(|_| ok(target.post("/api/auth/login").body(login.clone())))).await;
    ok(target.get("/api/app-instructions").by(&target.ann)).await;
    ok(target.get("/api/sync/incoming?since=start").by(&target.ann)).await;
    let title = "x".repeat(8 * MEBIBYTE - 64 * 1024);
    let note = changes::note(KEY, json!({"title": title, "updated_at": "2026-01-15T10:45:00Z"}));
    let large = gzip(json!({"changes": [note]}).to_string().as_bytes());
    join_all((0..4).map(|_| ok(target.outgoing(large.clone()).header("content-encoding", "gzip")))).await;
    let many = json!({"reads": vec![uuid::Uuid::nil(); 10_000]}).to_string();
    for _ in 0..3 {
        assert_eq!(ok(target.outgoing(many.clone())).await["failed_count"], 10_000);
    }
}

/// The most that ordinary work takes, in KiB: each connection to PostgreSQL keeps a buffer for the largest upload that it has
/// carried, so the work is done again until every one of them has.
async fn after_ordinary_work(target: &Target) -> u64 {
    let mut peak = 0;
    for _ in 0..40 {
        ordinary_work(target).await;
        let next = target.peak();
        if next < peak + SETTLED_KIB {
            return next;
        }
        peak = next;
    }
    panic!("ordinary work takes more and more: {peak} KiB");
}

async fn bombs(target: &Target) {
    let too_large = is(413, "PAYLOAD_TOO_LARGE");
    for packed in [bomb(1_000), bomb(10_000)] {
        assert!(packed.len() > MEBIBYTE / 2);
        for request in [target.post("/api/auth/login"), target.outgoing("")] {
            let chunks = packed.chunks(64 * 1024).map(<[u8]>::to_vec).collect::<Vec<_>>();
            let chunks = futures::stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>));
            let chunked = request.try_clone().unwrap().body(reqwest::Body::wrap_stream(chunks));
            for request in [request.body(packed.clone()), chunked] {
                let (status, code) = refused(request.header("content-encoding", "gzip")).await;
                assert_eq!((status, code), too_large, "{} bytes", packed.len());
            }
        }
    }
    let member = gzip(&vec![0; MEBIBYTE]);
    let nothing = gzip(b"");
    let packed = |body: Vec<u8>| target.outgoing(body).header("content-encoding", "gzip");
    for (name, body) in [
        ("many members", member.repeat(MEBIBYTE / member.len())),
        ("many empty members", nothing.repeat(MEBIBYTE / nothing.len())),
        ("one in another", gzip(&bomb(900))),
        ("one in another in another", gzip(&gzip(&bomb(900)))),
        ("noise", [vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff], vec![0xa5; 500_000]].concat()),
    ] {
        let (status, code) = refused(packed(body)).await;
        assert!([400, 413].contains(&status), "{name}: {status} {code}");
    }
    let deflated = bomb(1_000).split_off(10);
    let zlib = [vec![0x78, 0xda], deflated].concat();
    let (status, _) = refused(target.outgoing(zlib).header("content-encoding", "deflate")).await;
    assert!([400, 413].contains(&status), "{status}");
}

/// Callers who keep their connection open with a body that does not end: each holds what it has brought so far.
async fn patience(target: &Target) {
    let body = gzip(&vec![b' '; 7 * MEBIBYTE]);
    let head = format!(
        "POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n\
         Content-Length: {}\r\n\r\n",
        body.len() + 1
    );
    let mut callers = Vec::new();
    for _ in 0..30 {
        let mut stream = TcpStream::connect(target.program.base.trim_start_matches("http://")).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        let mut answer = vec![0; 12];
        timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(answer, b"HTTP/1.1 413");
        callers.push(stream);
    }
}

/// Lists or objects, one in another.
fn deep(open: &str, inner: &str, close: &str, levels: usize) -> String {
    format!("{}{inner}{}", open.repeat(levels), close.repeat(levels))
}

async fn depths(target: &Target) {
    let invalid = is(400, "VALIDATION_ERROR");
    for value in [deep("[", "", "]", 10_000), deep("{\"a\":", "1", "}", 10_000), "[".repeat(200_000)] {
        let login = target.post("/api/auth/login").body(format!(r#"{{"username":{value},"password":"x"}}"#));
        assert_eq!(refused(login).await, invalid);
        let ignored = target
            .post("/api/auth/login")
            .body(format!(r#"{{"username":"b","password":"x","more":{value}}}"#));
        assert!([400, 401].contains(&refused(ignored).await.0));
        let device = format!(r#"{{"token":"x","device_id":"d","username":"u","device_info":{value}}}"#);
        assert_eq!(refused(target.post("/api/enrollment/complete").body(device)).await, invalid);
        for list in ["messages", "users", "changes", "reads", "more"] {
            let response = target.outgoing(format!(r#"{{"{list}":{value}}}"#)).send().await.unwrap();
            assert!([200, 400].contains(&response.status().as_u16()), "{list}: {}", response.status());
            let response = target.outgoing(format!(r#"{{"{list}":[{value}]}}"#)).send().await.unwrap();
            assert!([200, 400].contains(&response.status().as_u16()), "{list}: {}", response.status());
        }
    }
    // Into columns of jsonb, json, arrays and composites: refused as items, and the others are taken.
    for column in ["doc", "plain", "tags", "grid", "place"] {
        for value in [deep("[", "", "]", 10_000), deep("{\"a\":", "1", "}", 10_000)] {
            let second = "00000000-0000-0000-0000-0000000000b2";
            let row = format!(
                r#"{{"table":"public.notes","op":"upsert","key":{{"id":"{KEY}"}},"row":{{"{column}":{value},"updated_at":"2026-01-15T10:46:00Z"}}}}"#
            );
            let good = changes::note(second, json!({"title": column, "updated_at": "2026-01-15T10:45:00Z"}));
            let answer = ok(target.outgoing(format!(r#"{{"changes":[{row},{good}]}}"#))).await;
            let failed = answer["failed"].as_array().unwrap();
            assert!(failed.len() <= 1, "{answer}");
            assert!(failed.iter().all(|failed| failed["code"] == "VALIDATION_ERROR"), "{column}: {answer}");
        }
    }
}

async fn odd_values(target: &Target) {
    let digits = "9".repeat(100_000);
    for number in [digits.as_str(), "1e400", "-1e400", "1e-400", "9223372036854775808", "1E+99999999999"] {
        let login = target.post("/api/auth/login").body(format!(r#"{{"username":{number},"password":"x"}}"#));
        assert_eq!(refused(login).await, is(400, "VALIDATION_ERROR"));
        for column in ["big", "price", "ratio", "done", "doc"] {
            let row = format!(
                r#"{{"table":"public.notes","op":"upsert","key":{{"id":"{KEY}"}},"row":{{"{column}":{number},"updated_at":"2026-01-15T10:47:00Z"}}}}"#
            );
            let answer = ok(target.outgoing(format!(r#"{{"changes":[{row}]}}"#))).await;
            let failed = answer["failed"].as_array().unwrap();
            assert!(failed.iter().all(|failed| failed["code"] == "VALIDATION_ERROR"), "{column}: {answer}");
        }
        let pending = format!(r#"{{"pending_outgoing_count":{number}}}"#);
        let status = target.outgoing(pending).send().await.unwrap().status().as_u16();
        assert!([200, 400].contains(&status), "{number:.20}: {status}");
        if number.len() < 8_000 {
            let listed = target.get(&format!("/api/users?limit={number}")).by(&target.ann);
            assert_eq!(refused(listed).await, is(400, "VALIDATION_ERROR"), "{number}");
        }
    }
    for text in [r"a\u0000b", r"\ud800", r"\udc00\ud800", &"x".repeat(100_000)] {
        let message = format!(r#"{{"messages":[{{"id":"{text}","recipient_id":"{text}","content":"c"}}]}}"#);
        let change = format!(
            r#"{{"changes":[{{"table":"public.{text}","op":"{text}","key":{{"{text}":"{text}"}},"row":{{"{text}":"{text}"}}}}]}}"#
        );
        for body in [message, change] {
            assert!(is_refused(target, &body).await, "{text:.20}");
        }
        let named = target.outgoing(format!(r#"{{"upload_id":"{text}"}}"#));
        assert_eq!(refused(named).await, is(400, "VALIDATION_ERROR"), "{text:.20}");
        let completion = format!(r#"{{"token":"{text}","device_id":"{text}","username":"{text}"}}"#);
        let (status, _) = refused(target.post("/api/enrollment/complete").body(completion)).await;
        assert!([400, 413].contains(&status), "{text:.20}: {status}");
    }
}

/// Whether an upload of one item is refused, as an item or as a whole, and not by a fault.
async fn is_refused(target: &Target, body: &str) -> bool {
    let response = target.outgoing(body.to_owned()).send().await.unwrap();
    let status = response.status().as_u16();
    let answer: Value = response.json().await.unwrap();
    status == 400 || (status == 200 && answer["failed_count"] == 1)
}

async fn many_items(target: &Target) {
    let numbers = |count: usize| format!(r#"{{"changes":[{}1]}}"#, "1,".repeat(count - 1));
    assert_eq!(ok(target.outgoing(numbers(10_000))).await["failed_count"], 10_000);
    let too_large = is(413, "PAYLOAD_TOO_LARGE");
    assert_eq!(refused(target.outgoing(numbers(10_001))).await, too_large);
    // Four million of them are not kept to be counted.
    let packed = gzip(numbers(4_000_000).as_bytes());
    for _ in 0..4 {
        let request = target.outgoing(packed.clone()).header("content-encoding", "gzip");
        assert_eq!(refused(request).await, too_large);
    }
    let spread = format!(r#"{{"messages":[1],"users":[{}1],"reads":[1]}}"#, "1,".repeat(9_998));
    assert_eq!(refused(target.outgoing(spread)).await, too_large);
}

/// The parser of heads refuses before there is a request, so these answers have no body.
async fn heads(target: &Target) {
    let with = |headers: &str| format!("GET /health HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n");
    for (name, head) in [
        ("a header of 1 MiB", with(&format!("X: {}", "a".repeat(MEBIBYTE)))),
        ("a name of 1 MiB", with(&format!("{}: a", "a".repeat(MEBIBYTE)))),
        ("100,000 headers", with(&(0..100_000).map(|n| format!("X-{n}: a\r\n")).collect::<String>())),
        ("a path of 1 MiB", format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(MEBIBYTE))),
        (
            "a query of 1 MiB",
            format!("GET /api/users?filter={} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(MEBIBYTE)),
        ),
        ("a method of 1 MiB", format!("{} / HTTP/1.1\r\nHost: x\r\n\r\n", "A".repeat(MEBIBYTE))),
        ("no line at all", "\0".repeat(MEBIBYTE)),
    ] {
        let answer = target.raw(head.as_bytes()).await;
        let status = answer.get(9..12).unwrap_or_default();
        assert!(answer.is_empty() || ["400", "414", "431"].contains(&status), "{name}: {answer:.200}");
    }
    // Two lengths, or a length beside chunks, are how one request hides behind another.
    for smuggled in [
        "POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 40\r\n\r\n{}",
        "POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: +2\r\n\r\n{}",
        "POST /api/auth/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        "POST /api/auth/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n",
    ] {
        let answer = target
            .raw(format!("{smuggled}GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
            .await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{smuggled}: {answer}");
        assert!(!answer.contains("\r\n\r\nOK"), "{smuggled}: {answer}");
    }
}

#[tokio::test]
async fn what_means_harm_is_refused_at_the_limits_and_takes_no_memory() {
    let target = Target::start().await;
    let before = after_ordinary_work(&target).await;
    let mut held = before;
    let mut report = Vec::new();
    macro_rules! attack {
        ($name:ident) => {
            $name(&target).await;
            let peak = target.peak();
            report.push(format!("{} +{} KiB", stringify!($name), peak.saturating_sub(held)));
            held = held.max(peak);
        };
    }
    attack!(heads);
    attack!(bombs);
    attack!(patience);
    attack!(depths);
    attack!(odd_values);
    attack!(many_items);
    eprintln!("{before} KiB, then {}", report.join(", "));
    // It still serves, and nothing was its own fault.
    ok(target.get("/api/app-instructions").by(&target.ann)).await;
    let log = target.program.process.log();
    assert!(!log.contains("panicked") && !log.contains("by a fault of the server"), "{log}");
    assert!(held - before < GROWTH_KIB, "{} KiB more than {before}: {}", held - before, report.join(", "));
}

//! A scripted server: answers in the order in which a test queued them, else like a server with nothing new.

use std::{
    collections::{HashMap, VecDeque},
    io::Read,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use flate2::read::GzDecoder;
use posduif_sdk::{Device, UserId};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::{
        Notify,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    },
};

pub const ME: &str = "0e4d7b0c-6a51-4e0e-9d0e-000000000001";
pub const BOB: &str = "0e4d7b0c-6a51-4e0e-9d0e-000000000002";
pub const TOKEN: &str = "device-token-canary";

pub const COMPLETE: &str = "POST /api/enrollment/complete";
pub const INSTRUCTIONS: &str = "GET /api/app-instructions";
pub const INCOMING: &str = "GET /api/sync/incoming";
pub const OUTGOING: &str = "POST /api/sync/outgoing";
/// Without the device's id.
pub const EVENTS: &str = "GET /sse/mobile";

pub enum Answer {
    Json(u16, Value),
    /// Status, headers, body as they are.
    Raw(u16, &'static str, String),
    /// An event stream of these parts; it ends when the sender is dropped.
    Events(UnboundedReceiver<String>),
    /// A good answer with a body in this content coding.
    Coded(&'static str, Vec<u8>),
    /// An answer that says it has so many bytes.
    Sized(u64),
    /// The request is read, then the connection closes without a byte.
    Cut,
    /// The request is read and never answered.
    Hang,
}

pub struct Request {
    pub route: String,
    pub query: HashMap<String, String>,
    pub headers: HashMap<String, String>,
    pub body: Value,
    /// The decoded bytes.
    pub bytes: Vec<u8>,
}

type Handler = Box<dyn FnMut(&Request) -> Option<Answer> + Send>;

#[derive(Default)]
struct Script {
    answers: HashMap<&'static str, VecDeque<Answer>>,
    requests: Vec<Request>,
    handler: Option<Handler>,
}

pub struct Server {
    pub address: String,
    pub folder: TempDir,
    script: Arc<Mutex<Script>>,
    hanging: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let script = Arc::new(Mutex::new(Script::default()));
        let hanging = Arc::new(Notify::new());
        let shared = (Arc::clone(&script), Arc::clone(&hanging));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared.0), Arc::clone(&shared.1)));
            }
        });
        Server { address, folder: tempfile::tempdir().unwrap(), script, hanging, task }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("device.sqlite")
    }

    pub fn enrollment_url(&self) -> String {
        format!("http://{}/api/enrollment/token-1", self.address)
    }

    /// An enrolled device that has not synced yet.
    pub async fn device(&self) -> Device {
        let device = Device::enroll(self.path(), &self.enrollment_url(), "joe", json!({"os": "test"})).await;
        self.take_requests();
        device.unwrap()
    }

    /// A device whose first snapshot brought these rows, at LSN 0/100.
    pub async fn device_with(&self, messages: Value, changes: Value) -> Device {
        let device = self.device().await;
        let users =
            json!([{"id": ME, "username": "joe"}, {"id": BOB, "username": "bob", "user_type": "web"}]);
        self.page(json!({"messages": messages, "users": users, "changes": changes, "cursor": "c1",
                         "lsn": "0/100", "has_more": false, "snapshot": true}));
        device.sync().await.unwrap();
        self.take_requests();
        device
    }

    pub fn answer(&self, route: &'static str, answer: Answer) {
        self.script.lock().unwrap().answers.entry(route).or_default().push_back(answer);
    }

    pub fn page(&self, page: Value) {
        self.answer(INCOMING, Answer::Json(200, page));
    }

    pub fn refuse(&self, route: &'static str, status: u16, code: &str) {
        let error = json!({"error": {"code": code, "message": code, "details": null, "request_id": "r"}});
        self.answer(route, Answer::Json(status, error));
    }

    /// Answers what no test queued an answer for; `None` leaves it to the default.
    pub fn handle(&self, handler: impl FnMut(&Request) -> Option<Answer> + Send + 'static) {
        self.script.lock().unwrap().handler = Some(Box::new(handler));
    }

    /// The next stream that a device opens: greeted already, fed by what is sent here.
    pub fn stream(&self, cursor: &str) -> UnboundedSender<String> {
        let (sender, receiver) = unbounded_channel();
        let greeting =
            format!("retry: 1\nid: {cursor}\nevent: connected\ndata: {{\"type\":\"connected\"}}\n\n");
        sender.send(greeting).unwrap();
        self.answer(EVENTS, Answer::Events(receiver));
        sender
    }

    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.script.lock().unwrap().requests)
    }

    /// The `since` of each page asked for since the last look.
    pub fn cursors(&self) -> Vec<String> {
        let incoming = self.take_requests().into_iter().filter(|request| request.route == INCOMING);
        incoming.map(|request| request.query["since"].clone()).collect()
    }

    /// Returns when a request waits for an answer that will not come.
    pub async fn until_hanging(&self) {
        self.hanging.notified().await;
    }
}

pub fn bob() -> UserId {
    BOB.parse().unwrap()
}

pub fn message(id: u128, from: &str, to: &str, content: &str) -> Value {
    let id = posduif_sdk::Uuid::from_u128(id).to_string();
    json!({"id": id, "sender_id": from, "recipient_id": to, "content": content, "status": "synced",
           "created_at": "2026-01-15T10:00:00Z", "updated_at": "2026-01-15T10:00:00Z", "read_at": null})
}

/// The contents of all local messages in the order of their ids.
pub fn contents(device: &Device) -> Vec<String> {
    column(device, "SELECT content FROM messages ORDER BY id")
}

pub fn column(device: &Device, sql: &str) -> Vec<String> {
    let conn = device.connection();
    let mut statement = conn.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

pub fn instructions(rules: &str, tasks: Value) -> Value {
    let columns = |names: &[&str]| -> Vec<Value> {
        names.iter().map(|name| json!({"name": name, "type": "TEXT", "nullable": true})).collect()
    };
    let message_columns =
        ["id", "sender_id", "recipient_id", "content", "status", "created_at", "updated_at", "read_at"];
    let user_columns = ["id", "username", "user_type", "last_message_sent", "last_message_at"];
    let mut tables = vec![
        json!({"name": "public.messages", "local_name": "messages", "list": "messages", "primary_key": ["id"],
               "columns": columns(&message_columns), "write": {"columns": ["content"]}}),
        json!({"name": "public.users", "local_name": "users", "list": "users", "primary_key": ["id"],
               "columns": columns(&user_columns), "write": null}),
    ];
    if !tasks.is_null() {
        tables.push(tasks);
    }
    json!({"tenant_id": "t", "base_url": "http://elsewhere", "rules": rules, "tables": tables,
           "sync_config": {"batch_size": 100, "compression": true, "sync_interval_seconds": 60}})
}

pub fn tasks() -> Value {
    json!({"name": "public.tasks", "local_name": "tasks", "list": null, "primary_key": ["id"],
           "columns": [{"name": "id", "type": "INTEGER", "nullable": false},
                       {"name": "owner_id", "type": "TEXT", "nullable": true},
                       {"name": "title", "type": "TEXT", "nullable": true},
                       {"name": "weight", "type": "REAL", "nullable": true},
                       {"name": "photo", "type": "BLOB", "nullable": true}],
           "write": {"columns": ["title", "weight", "photo"]}})
}

async fn serve(stream: TcpStream, script: Arc<Mutex<Script>>, hanging: Arc<Notify>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        let mut words = line.split_whitespace();
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = HashMap::new();
        loop {
            let mut header = String::new();
            stream.read_line(&mut header).await.ok()?;
            let Some((name, value)) = header.split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;

        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let bytes = match headers.get("content-encoding").map(String::as_str) {
            None => body,
            Some("gzip") => {
                let mut decoded = Vec::new();
                GzDecoder::new(body.as_slice()).read_to_end(&mut decoded).unwrap();
                decoded
            }
            Some(other) => panic!("a body in {other}"),
        };
        let path = if path.starts_with("/sse/mobile/") { "/sse/mobile" } else { path };
        let request = Request {
            route: format!("{method} {path}"),
            query: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            headers,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            bytes,
        };
        let answer = {
            let mut script = script.lock().unwrap();
            let queued = script.answers.get_mut(request.route.as_str()).and_then(VecDeque::pop_front);
            let handled = || script.handler.as_mut().and_then(|handler| handler(&request));
            let answer = queued.or_else(handled).unwrap_or_else(|| default_answer(&request));
            script.requests.push(request);
            answer
        };
        let (status, extra, body) = match answer {
            Answer::Json(status, body) => (status, "", body.to_string()),
            Answer::Raw(status, headers, body) => (status, headers, body),
            Answer::Sized(length) => {
                let head = format!("HTTP/1.1 200 X\r\ncontent-length: {length}\r\n\r\n");
                return stream.write_all(head.as_bytes()).await.ok();
            }
            Answer::Events(mut parts) => {
                let head = "HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\n\r\n";
                stream.write_all(head.as_bytes()).await.ok()?;
                while let Some(part) = parts.recv().await {
                    stream.write_all(part.as_bytes()).await.ok()?;
                }
                return None;
            }
            Answer::Coded(coding, body) => {
                let head = format!(
                    "HTTP/1.1 200 X\r\ncontent-length: {}\r\ncontent-encoding: {coding}\r\n\r\n",
                    body.len()
                );
                stream.write_all(head.as_bytes()).await.ok()?;
                stream.write_all(&body).await.ok()?;
                continue;
            }
            Answer::Cut => return None,
            Answer::Hang => {
                hanging.notify_one();
                std::future::pending().await
            }
        };
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{extra}\r\n", body.len());
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(body.as_bytes()).await.ok()?;
    }
}

fn default_answer(request: &Request) -> Answer {
    let body = match request.route.as_str() {
        COMPLETE => json!({"user_id": ME, "device_id": request.body["device_id"], "tenant_id": "t",
                           "device_token": TOKEN,
                           "app_instructions_url": "http://elsewhere/api/app-instructions"}),
        INSTRUCTIONS => instructions("r1", tasks()),
        INCOMING => {
            json!({"messages": [], "users": [], "changes": [], "deleted": {"messages": [], "users": []},
                           "cursor": request.query["since"], "has_more": false, "snapshot": false})
        }
        OUTGOING => json!({"synced_count": 0, "failed_count": 0, "failed_messages": [], "failed": [],
                           "conflicts": [], "lsn": "0/200", "sync_timestamp": "2026-01-15T10:45:00Z"}),
        _ => return Answer::Raw(404, "", String::new()),
    };
    Answer::Json(200, body)
}

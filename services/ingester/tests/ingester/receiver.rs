//! An application's back end that behaves as it is told: HTTP calls in, what they said out.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use posduif_runtime::config::Config;
use posduif_testkit::eventually;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
    task::AbortHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::fixture::{SOON, Tenant};

/// How the receiver answers from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    Take,
    /// This status, and these lines of the header.
    Answer(u16, String),
    /// Nothing, ever.
    Hang,
    /// This status, and a body that has no end.
    Endless(u16),
    /// The connection is closed in the middle of the answer's header.
    Break,
}

/// One call as it came.
#[derive(Clone, Debug)]
pub struct Call {
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    pub taken: bool,
    /// The number of its connection.
    pub connection: usize,
}

impl Call {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn commits(&self) -> Vec<Value> {
        self.json()["commits"].as_array().unwrap().clone()
    }
}

#[derive(Default)]
struct Heard {
    calls: Vec<Call>,
    connections: usize,
}

pub struct Receiver {
    address: SocketAddr,
    mode: Arc<Mutex<Mode>>,
    heard: Arc<Mutex<Heard>>,
    listening: Option<AbortHandle>,
    tls: Option<TlsAcceptor>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Receiver {
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// One that speaks TLS if it has something to show.
    pub async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let mut receiver = Receiver {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            mode: Arc::new(Mutex::new(Mode::Take)),
            heard: Arc::default(),
            listening: None,
            tls,
        };
        receiver.start_again().await;
        receiver
    }

    /// Nobody listens any more; open connections end when they are used.
    pub fn stop(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
        }
    }

    /// Listens, where it did before if it did.
    pub async fn start_again(&mut self) {
        let listener =
            eventually(SOON, "the receiver's port", async || Ok(TcpListener::bind(self.address).await.ok()))
                .await;
        self.address = listener.local_addr().unwrap();
        let (mode, heard, tls) = (Arc::clone(&self.mode), Arc::clone(&self.heard), self.tls.clone());
        let listening = async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let number = {
                    let mut heard = heard.lock().unwrap();
                    heard.connections += 1;
                    heard.connections
                };
                let (mode, heard, tls) = (Arc::clone(&mode), Arc::clone(&heard), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(stream, mode, heard, number).await,
                        // Who does not believe what it is shown goes away.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, mode, heard, number).await;
                            }
                        }
                    }
                });
            }
        };
        self.listening = Some(tokio::spawn(listening).abort_handle());
    }

    pub fn url(&self, path: &str) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address)
    }

    pub fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    pub fn calls(&self) -> Vec<Call> {
        self.heard.lock().unwrap().calls.clone()
    }

    /// The calls that were taken, but for those that only say that commits were skipped.
    pub fn taken(&self) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.taken && !call.commits().is_empty()).collect()
    }

    /// Every commit of the calls taken, in the order in which they came.
    pub fn commits(&self) -> Vec<Value> {
        self.taken().iter().flat_map(Call::commits).collect()
    }

    pub async fn until<T>(&self, what: &str, mut found: impl FnMut(&[Call]) -> Option<T>) -> T {
        eventually(3 * SOON, what, async || Ok(found(&self.calls()))).await
    }

    /// Waits for so many commits in calls taken.
    pub async fn has(&self, commits: usize) -> Vec<Value> {
        eventually(3 * SOON, &format!("{commits} commits are told"), async || {
            let told = self.commits();
            anyhow::ensure!(told.len() >= commits, "{} are", told.len());
            Ok(Some(told))
        })
        .await
    }

    /// Waits until the call that begins the telling, or resumes it after a gap, was taken.
    pub async fn skipped(&self, times: usize) {
        self.until("that commits were skipped", |calls| {
            let said = calls.iter().filter(|call| call.taken && call.json()["skipped"] == true);
            (said.count() >= times).then_some(())
        })
        .await;
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    mode: Arc<Mutex<Mode>>,
    heard: Arc<Mutex<Heard>>,
    connection: usize,
) {
    let mut stream = BufReader::new(stream);
    while let Some((path, headers, body)) = read(&mut stream).await {
        let mode = mode.lock().unwrap().clone();
        let taken = matches!(mode, Mode::Take | Mode::Endless(200..=299));
        heard.lock().unwrap().calls.push(Call { path, headers, body, taken, connection });
        let answer = match &mode {
            Mode::Take => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned(),
            Mode::Answer(status, lines) => {
                format!("HTTP/1.1 {status} Whatever\r\n{lines}content-length: 0\r\n\r\n")
            }
            Mode::Hang => std::future::pending().await,
            Mode::Endless(status) => format!("HTTP/1.1 {status} Whatever\r\n\r\n"),
            Mode::Break => "HTTP/1.1 200 O".to_owned(),
        };
        if stream.write_all(answer.as_bytes()).await.is_err() || mode == Mode::Break {
            return;
        }
        while let Mode::Endless(_) = mode {
            if stream.write_all(&[b'x'; 65_536]).await.is_err() {
                return;
            }
        }
    }
}

/// The next request; `None` where the connection ends.
async fn read<S: AsyncRead + Unpin>(
    stream: &mut BufReader<S>,
) -> Option<(String, HashMap<String, String>, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut request = lines.next().unwrap().split(' ');
    assert_eq!(request.next(), Some("POST"));
    let path = request.next().unwrap().to_owned();
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    stream.read_exact(&mut body).await.ok()?;
    Some((path, headers, body))
}

/// The signature as a receiver checks it: HMAC-SHA-256 by its definition (RFC 2104), with nothing of the product.
pub fn signature(secret: &[u8], call: &Call) -> String {
    let padded =
        |with: u8| -> Vec<u8> { (0..64).map(|at| secret.get(at).copied().unwrap_or(0) ^ with).collect() };
    let said = [
        call.headers["webhook-id"].as_bytes(),
        b".",
        call.headers["webhook-timestamp"].as_bytes(),
        b".",
        &call.body,
    ];
    let inner = Sha256::digest([padded(0x36), said.concat()].concat());
    format!("v1,{}", STANDARD.encode(Sha256::digest([padded(0x5c), inner.to_vec()].concat())))
}

pub const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// The section `webhook` for this receiver; `keys` are further ones.
pub fn section(receiver: &Receiver, keys: &str) -> String {
    let secret = format!("whsec_{}", STANDARD.encode(SECRET));
    format!("webhook: {{url: '{}', secret: '{secret}'{keys}}}", receiver.url("/hook"))
}

impl Tenant {
    /// From now on the tenant's ingester calls this receiver.
    pub fn calls(&mut self, receiver: &Receiver, keys: &str) {
        let yaml = format!("tenants: [{{url: 'postgres://u@h/a'}}]\n{}", section(receiver, keys));
        let config = Config::from_yaml(&yaml).unwrap();
        self.session.webhook = posduif_ingester::webhook::Webhook::new(&config.webhook).unwrap();
    }
}

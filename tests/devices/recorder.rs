//! HTTP requests on their way to a server in, the same bytes out, and a note of every upload that arrived whole.

use std::{
    io::Read,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use flate2::read::GzDecoder;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};

/// An upload as a device sent it; one that is repeated is noted again.
#[derive(Clone, Debug)]
pub struct Upload {
    pub device: String,
    pub body: Value,
}

/// A proxy that understands as much of HTTP/1.1 as devices send. It ends when it is dropped.
pub struct Recorder {
    address: SocketAddr,
    uploads: Arc<Mutex<Vec<Upload>>>,
    listening: AbortHandle,
}

impl Recorder {
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let uploads = Arc::default();
        let listening = tokio::spawn(listen(listener, server, Arc::clone(&uploads))).abort_handle();
        Recorder { address, uploads, listening }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has arrived so far, oldest first.
    pub fn uploads(&self) -> Vec<Upload> {
        self.uploads.lock().unwrap().clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(listener: TcpListener, server: SocketAddr, uploads: Arc<Mutex<Vec<Upload>>>) {
    // Ends its connections when this task is aborted.
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { return };
        while connections.try_join_next().is_some() {}
        connections.spawn(forward(client, server, Arc::clone(&uploads)));
    }
}

async fn forward(client: TcpStream, server: SocketAddr, uploads: Arc<Mutex<Vec<Upload>>>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let answers = async { tokio::io::copy(&mut from_server, &mut to_client).await.map(drop) };
    let requests = async {
        let (mut unread, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
        loop {
            let read = from_client.read(&mut buffer).await?;
            if read == 0 {
                return to_server.shutdown().await;
            }
            // Noted before the server can answer.
            unread.extend_from_slice(&buffer[..read]);
            while let Some((upload, length)) = request(&unread) {
                unread.drain(..length);
                uploads.lock().unwrap().extend(upload);
            }
            to_server.write_all(&buffer[..read]).await?;
        }
    };
    // Whichever side ends, the other one learns of it.
    tokio::try_join!(answers, requests).ok();
}

/// The request at the beginning of these bytes if it is whole: what it uploads, if it does, and its length.
fn request(bytes: &[u8]) -> Option<(Option<Upload>, usize)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let header = |name: &str| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim())
    };
    assert!(header("transfer-encoding").is_none(), "a request of unknown length: {head}");
    let length = end + header("content-length").map_or(0, |length| length.parse().unwrap());
    let body = bytes.get(end..length)?;
    if !head.starts_with("POST /api/sync/outgoing ") {
        return Some((None, length));
    }
    let body = match header("content-encoding") {
        None => serde_json::from_slice(body).unwrap(),
        Some("gzip") => {
            let mut text = String::new();
            GzDecoder::new(body).read_to_string(&mut text).unwrap();
            serde_json::from_str(&text).unwrap()
        }
        Some(other) => panic!("an upload in {other}"),
    };
    let device = header("x-device-id").unwrap().to_owned();
    Some((Some(Upload { device, body }), length))
}

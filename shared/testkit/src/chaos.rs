//! Bytes between a client and a server in, the same bytes out until a test cuts or stalls them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

const UNLIMITED: u64 = u64::MAX;

/// What all connections look at.
struct Faults {
    /// Where new connections lead.
    server: Mutex<SocketAddr>,
    /// Goes up by one for each cut; a connection that sees it change ends.
    cuts: watch::Sender<u64>,
    black_hole: watch::Sender<bool>,
    left_to_server: AtomicU64,
    left_to_client: AtomicU64,
}

impl Faults {
    fn left(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::ToServer => &self.left_to_server,
            Direction::ToClient => &self.left_to_client,
        }
    }

    fn cut_all(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// How many of `wanted` bytes may still pass; cuts everything once none may.
    fn take(&self, direction: Direction, wanted: usize) -> usize {
        let wanted = u64::try_from(wanted).expect("a length fits");
        let left = self.left(direction);
        let spend = |left| (left != UNLIMITED).then(|| left - wanted.min(left));
        match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend) {
            Ok(before) => usize::try_from(wanted.min(before)).expect("a length fits"),
            Err(_) => usize::try_from(wanted).expect("a length fits"),
        }
    }
}

/// A TCP proxy in front of one server of this machine. Its connections end when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    faults: Arc<Faults>,
    listening: AbortHandle,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and forwards to `server`.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("listening");
        let address = listener.local_addr().expect("the proxy's address");
        let faults = Arc::new(Faults {
            server: Mutex::new(server),
            cuts: watch::Sender::new(0),
            black_hole: watch::Sender::new(false),
            left_to_server: AtomicU64::new(UNLIMITED),
            left_to_client: AtomicU64::new(UNLIMITED),
        });
        let listening = tokio::spawn(listen(listener, faults.clone())).abort_handle();
        Self { address, faults, listening }
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on new connections are forwarded to another server; those that are open stay where they are.
    pub fn point_to(&self, server: SocketAddr) {
        *self.faults.server.lock().expect("nobody panics while holding it") = server;
    }

    /// Closes all connections; new ones are forwarded.
    pub fn cut_all(&self) {
        self.faults.cut_all();
    }

    /// While on, connections stay open and new ones are accepted, but no byte passes.
    pub fn black_hole(&self, on: bool) {
        self.faults.black_hole.send_replace(on);
    }

    /// Lets `bytes` more pass in this direction over all connections, then closes all of them, once.
    pub fn cut_after_bytes(&self, bytes: u64, direction: Direction) {
        self.faults.left(direction).store(bytes, Ordering::SeqCst);
    }

    /// Takes a cut back that [`Proxy::cut_after_bytes`] announced, if it has not come yet.
    pub fn heal(&self, direction: Direction) {
        self.faults.left(direction).store(UNLIMITED, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(listener: TcpListener, faults: Arc<Faults>) {
    // Ends its connections when this task is aborted.
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { return };
        while connections.try_join_next().is_some() {}
        connections.spawn(forward(client, faults.clone()));
    }
}

async fn forward(client: TcpStream, faults: Arc<Faults>) {
    let server = *faults.server.lock().expect("nobody panics while holding it");
    let mut cuts = faults.cuts.subscribe();
    let connected = async {
        let server = TcpStream::connect(server).await.ok()?;
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        tokio::join!(
            pump(from_client, to_server, Direction::ToServer, &faults),
            pump(from_server, to_client, Direction::ToClient, &faults),
        );
        Some(())
    };
    tokio::select! {
        _ = cuts.changed() => {}
        _ = connected => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    direction: Direction,
    faults: &Faults,
) {
    let mut black_hole = faults.black_hole.subscribe();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        // Also the end of a connection does not pass a black hole.
        if black_hole.wait_for(|on| !on).await.is_err() {
            return;
        }
        if read == 0 {
            to.shutdown().await.ok();
            return;
        }
        let allowed = faults.take(direction, read);
        if to.write_all(&buffer[..allowed]).await.is_err() {
            return;
        }
        if faults.left(direction).load(Ordering::SeqCst) == 0 {
            faults.left(direction).store(UNLIMITED, Ordering::SeqCst);
            to.flush().await.ok();
            faults.cut_all();
        }
    }
}

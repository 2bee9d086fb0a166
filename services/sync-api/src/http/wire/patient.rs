//! A connection in, the same with an end to patience out: for the head of a request that does not arrive, and for an answer that
//! nobody takes.
//!
//! The HTTP library watches the first request of a connection only; whoever sent one could have kept the connection for ever with
//! half of a second one. Nor does it watch a connection whose last request has a body in chunks that was not read to its end.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::activity::Activity;

/// How long a caller may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the head of a request, from its first byte on.
    pub head: Duration,
    /// Without taking anything of its answer.
    pub write: Duration,
    /// Between two requests, whatever is sent meanwhile.
    pub idle: Duration,
}

/// A connection that ends with `TimedOut` when patience does.
#[derive(Debug)]
pub struct Patient<T> {
    io: T,
    activity: Activity,
    patience: Patience,
    /// Bytes came that are no request yet: until when, and how many requests there had been.
    head: Option<(Pin<Box<Sleep>>, u64)>,
    /// The other side takes nothing: until when.
    stalled: Option<Pin<Box<Sleep>>>,
    /// When to look next whether requests have ceased to come.
    look: Option<Pin<Box<Sleep>>>,
}

impl<T> Patient<T> {
    pub fn new(io: T, patience: Patience) -> Self {
        Patient { io, activity: Activity::default(), patience, head: None, stalled: None, look: None }
    }

    pub fn activity(&self) -> Activity {
        self.activity.clone()
    }

    /// Whether the head that is being waited for is late.
    fn is_head_late(&mut self, cx: &mut Context<'_>) -> bool {
        let (is_busy, begun) = (self.activity.is_busy(), self.activity.begun());
        match &mut self.head {
            // It came, as a request.
            Some((_, before)) if is_busy || *before != begun => {
                self.head = None;
                false
            }
            Some((timer, _)) => timer.as_mut().poll(cx).is_ready(),
            None => false,
        }
    }

    /// Whether the next request is late. Who waits for it may not ask again before the timer here does.
    fn is_request_late(&mut self, cx: &mut Context<'_>) -> bool {
        let limit = self.patience.idle;
        loop {
            // The end of an answer may still be on its way.
            let idle = self.activity.idle().filter(|_| self.stalled.is_none());
            if idle.is_some_and(|idle| idle >= limit) {
                return true;
            }
            let timer = self.look.get_or_insert_with(|| Box::pin(sleep(limit)));
            if timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            self.look = Some(Box::pin(sleep(limit.saturating_sub(idle.unwrap_or_default()))));
        }
    }

    /// Starts or ends the wait for the other side to take something.
    fn taken<R>(&mut self, outcome: Poll<io::Result<R>>, cx: &mut Context<'_>) -> Poll<io::Result<R>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let limit = self.patience.write;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(given_up("an answer was not taken"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

fn given_up(why: &'static str) -> io::Error {
    tracing::debug!(why, "a connection is given up");
    io::Error::new(io::ErrorKind::TimedOut, why)
}

impl<T: AsyncRead + Unpin> AsyncRead for Patient<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_head_late(cx) {
            return Poll::Ready(Err(given_up("the head of a request did not arrive")));
        }
        if this.is_request_late(cx) {
            return Poll::Ready(Err(given_up("no further request came")));
        }
        let before = buf.filled().len();
        let outcome = Pin::new(&mut this.io).poll_read(cx, buf);
        let has_read = buf.filled().len() > before;
        if has_read && this.head.is_none() && !this.activity.is_busy() {
            this.head = Some((Box::pin(sleep(this.patience.head)), this.activity.begun()));
        }
        outcome
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Patient<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.io).poll_write(cx, buf);
        this.taken(outcome, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.io).poll_flush(cx);
        this.taken(outcome, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.io).poll_shutdown(cx);
        this.taken(outcome, cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::{Instant, timeout},
    };

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const PATIENCE: Patience = Patience {
        head: Duration::from_secs(10),
        write: Duration::from_secs(60),
        idle: Duration::from_secs(80),
    };

    fn connection(capacity: usize) -> (Patient<DuplexStream>, DuplexStream) {
        let (server, client) = duplex(capacity);
        (Patient::new(server, PATIENCE), client)
    }

    /// Sends a byte a second, for as long as anybody listens.
    fn drip(mut client: DuplexStream) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move {
            while client.write_all(b"x").await.is_ok() {
                sleep(SECOND).await;
            }
        })
    }

    async fn read_for(server: &mut Patient<DuplexStream>, seconds: u64) -> io::Result<()> {
        let mut buffer = [0; 16];
        let reading = async {
            loop {
                let _bytes: usize = server.read(&mut buffer).await?;
            }
        };
        timeout(SECOND * u32::try_from(seconds).unwrap(), reading).await.unwrap_or(Ok(()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_comes_byte_by_byte_is_not_awaited_for_ever() {
        let (mut server, client) = connection(64);
        let started = Instant::now();
        let _dripping = drip(client);
        let error = read_for(&mut server, 600).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(started.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn nor_is_the_second_one_of_a_connection() {
        let (mut server, client) = connection(64);
        let mut buffer = [0; 16];
        let _dripping = drip(client);
        assert_ne!(server.read(&mut buffer).await.unwrap(), 0);
        drop(server.activity().begin());
        let started = Instant::now();
        assert_eq!(read_for(&mut server, 600).await.unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(started.elapsed().as_secs(), 11);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_and_a_pause_between_requests_have_limits_of_their_own() {
        let (mut server, client) = connection(64);
        let _dripping = drip(client);
        let busy = server.activity().begin();
        read_for(&mut server, 600).await.unwrap();
        drop(busy);
        let (mut server, mut client) = connection(64);
        client.write_all(b"GET").await.unwrap();
        let mut buffer = [0; 16];
        assert_ne!(server.read(&mut buffer).await.unwrap(), 0);
        drop(server.activity().begin());
        read_for(&mut server, 70).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_requests_ends_however_the_last_one_did() {
        let (mut server, mut client) = connection(64);
        client.write_all(b"GET").await.unwrap();
        let mut buffer = [0; 16];
        assert_ne!(server.read(&mut buffer).await.unwrap(), 0);
        let busy = server.activity().begin();
        // Longer than a pause may be: this is none.
        read_for(&mut server, 100).await.unwrap();
        let ended = Instant::now();
        drop(busy);
        // One wait, as of a task that nobody else wakes.
        let error = server.read(&mut buffer).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!((80..=160).contains(&ended.elapsed().as_secs()), "{:?}", ended.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_ends_the_connection() {
        let (mut server, _client) = connection(64);
        let started = Instant::now();
        let error = server.write_all(&[0; 100]).await.unwrap_err();
        assert_eq!((error.kind(), started.elapsed().as_secs()), (ErrorKind::TimedOut, 60));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_taken_slowly_arrives() {
        let (mut server, mut client) = connection(64);
        tokio::spawn(async move {
            let mut buffer = [0; 64];
            loop {
                sleep(50 * SECOND).await;
                if client.read(&mut buffer).await.is_err() {
                    return;
                }
            }
        });
        server.write_all(&[0; 1_000]).await.unwrap();
    }
}

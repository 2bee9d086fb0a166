//! The copy stream in, data and keepalives out to a consumer that may be slow.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use posduif_model::Lsn;
use postgres_protocol::message::backend::Message;
use tokio::{
    io::AsyncRead,
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use super::{
    error::WalError,
    frame::{FrameReader, parse, refusal},
};

/// What the stream says.
#[derive(Debug)]
pub enum WalEvent {
    /// A pgoutput message.
    Data(Payload),
    /// Everything before this LSN has been sent.
    Keepalive(Lsn),
}

/// The bytes of a pgoutput message; holds its share of the memory budget until it is dropped.
#[derive(Debug)]
pub struct Payload {
    pub bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

/// Bytes of received messages that may wait for the consumer.
const BUDGET: usize = 16 << 20;
/// Status messages ask for a reply, so a living server is never silent for this long.
const LONGEST_SILENCE: Duration = Duration::from_secs(30);
/// CopyData tag and length, then kind, start, end and clock of XLogData.
const COPY_HEADER: usize = 5;
const DATA_HEADER: usize = 25;

/// Forwards the stream until it ends; a full queue stops reading, and so the server.
///
/// `answer_now` wakes the task that reports positions: the server asked for a reply.
///
/// # Errors
/// Ends only with an error: a stream has no regular end.
pub async fn receive<R: AsyncRead + Unpin>(
    mut reader: FrameReader<R>,
    events: mpsc::Sender<WalEvent>,
    answer_now: Arc<Notify>,
) -> Result<(), WalError> {
    let budget = Arc::new(Semaphore::new(BUDGET));
    let mut urging = Urging::default();
    loop {
        let frame = match timeout(LONGEST_SILENCE, reader.next()).await {
            Ok(frame) => frame?,
            Err(_) => return Err(WalError::Silent(LONGEST_SILENCE.as_secs())),
        };
        let event = match (frame.first(), frame.get(COPY_HEADER)) {
            (Some(b'd'), Some(b'w')) => {
                urging = Urging::default();
                data(frame, &budget).await?
            }
            (Some(b'd'), Some(b'k')) => {
                let (end, reply) = keepalive(&frame)?;
                if reply {
                    answer_now.notify_one();
                }
                if urging.lasts(reply, end, Instant::now()) {
                    return Err(WalError::ShuttingDown);
                }
                WalEvent::Keepalive(end)
            }
            (Some(b'd'), _) => return Err(WalError::Protocol("an unknown kind of copy data")),
            _ => match parse(frame)? {
                Message::ErrorResponse(body) => return Err(refusal(&body)),
                Message::CopyDone => return Err(WalError::Protocol("the server ended the stream")),
                // Notices and parameter changes.
                _ => continue,
            },
        };
        if events.send(event).await.is_err() {
            return Err(WalError::Abandoned);
        }
    }
}

/// How long the server may ask for a position before it is taken to be shutting down.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(3);

/// A server that shuts down asks, as fast as it is answered, for the confirmation of all it has sent, and waits for ever.
///
/// In normal operation it asks only a client that has been silent for half of wal_sender_timeout, which the status timer
/// never is (`WalSndDone` and `WalSndKeepaliveIfNecessary` of PostgreSQL's walsender.c).
#[derive(Debug, Default)]
struct Urging {
    since: Option<(Lsn, Instant)>,
    last: Option<Instant>,
}

/// Requests further apart than this are not one urging.
const URGING_PAUSE: Duration = Duration::from_secs(1);

impl Urging {
    /// Whether the server has asked for the same position for too long.
    fn lasts(&mut self, reply: bool, end: Lsn, now: Instant) -> bool {
        if !reply {
            return false;
        }
        let goes_on = self.last.is_some_and(|last| now.duration_since(last) < URGING_PAUSE);
        self.last = Some(now);
        match self.since {
            Some((same, since)) if goes_on && same == end => now.duration_since(since) > SHUTDOWN_PATIENCE,
            _ => {
                self.since = Some((end, now));
                false
            }
        }
    }
}

async fn data(mut frame: BytesMut, budget: &Arc<Semaphore>) -> Result<WalEvent, WalError> {
    if frame.len() < COPY_HEADER + DATA_HEADER {
        return Err(WalError::Protocol("a short XLogData"));
    }
    let bytes = frame.split_off(COPY_HEADER + DATA_HEADER).freeze();
    // A message larger than the budget takes all of it.
    let share = u32::try_from(bytes.len().min(BUDGET)).unwrap_or(u32::MAX);
    let permit = Arc::clone(budget).acquire_many_owned(share).await;
    let share = permit.map_err(|_| WalError::Protocol("the memory budget is closed"))?;
    Ok(WalEvent::Data(Payload { bytes, _share: share }))
}

/// Primary keepalive: end of the WAL sent, server clock, whether a reply is wanted at once.
fn keepalive(frame: &[u8]) -> Result<(Lsn, bool), WalError> {
    let short = WalError::Protocol("a short keepalive");
    let Some((end, rest)) = frame.get(COPY_HEADER + 1..).and_then(<[u8]>::split_first_chunk::<8>) else {
        return Err(short);
    };
    let reply = rest.get(8).ok_or(short)?;
    Ok((Lsn::new(u64::from_be_bytes(*end)), *reply == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_asks_on_and_on_is_shutting_down() {
        let (start, end) = (Instant::now(), Lsn::new(5));
        let mut urging = Urging::default();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        assert!((0..=6).all(|n| !urging.lasts(true, end, at(n * 500))));
        assert!(urging.lasts(true, end, at(3_100)));
    }

    #[test]
    fn single_requests_and_requests_for_other_positions_are_normal() {
        let start = Instant::now();
        let mut urging = Urging::default();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!((0..=20).all(|n| !urging.lasts(true, Lsn::new(5), at(n * 2))));
        assert!((40..=60).all(|n| !urging.lasts(true, Lsn::new(n), start + Duration::from_millis(n * 900))));
        assert!(!urging.lasts(false, Lsn::new(5), at(200)));
    }
}

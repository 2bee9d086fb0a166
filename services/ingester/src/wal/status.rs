//! Confirmed positions in, standby status updates out, on a timer of their own whatever the consumer does.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::{BufMut, BytesMut};
use posduif_model::Lsn;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::{Notify, watch},
    time::{MissedTickBehavior, interval},
};

use super::error::WalError;

/// What the status task listens to.
#[derive(Clone, Debug)]
pub struct Feedback {
    /// The position up to which PostgreSQL may forget.
    pub confirmed: watch::Receiver<Lsn>,
    /// Woken when the server wants a reply at once.
    pub answer_now: Arc<Notify>,
    /// The longest pause between two updates.
    pub every: Duration,
}

/// Seconds between the Unix epoch and PostgreSQL's, 2000-01-01.
const POSTGRES_EPOCH: Duration = Duration::from_secs(946_684_800);

/// Reports the confirmed position until the connection breaks.
pub async fn report<W: AsyncWrite + Unpin>(mut writer: W, mut feedback: Feedback) -> Result<(), WalError> {
    let mut timer = interval(feedback.every);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Only the timer asks for a reply: asking in answer to the server's question would never end.
        let ask = tokio::select! {
            _ = timer.tick() => true,
            () = feedback.answer_now.notified() => false,
            changed = feedback.confirmed.changed() => match changed {
                Ok(()) => false,
                Err(_) => return Err(WalError::Abandoned),
            },
        };
        let confirmed = *feedback.confirmed.borrow_and_update();
        writer.write_all(&update(confirmed, ask, SystemTime::now())).await?;
        writer.flush().await?;
    }
}

/// Standby status update (manual 54.4): written, flushed and applied position, clock, reply wanted.
fn update(confirmed: Lsn, ask: bool, now: SystemTime) -> BytesMut {
    let clock = now
        .duration_since(SystemTime::UNIX_EPOCH + POSTGRES_EPOCH)
        .map_or(0, |elapsed| i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX));
    let mut out = BytesMut::with_capacity(39);
    out.put_u8(b'd');
    out.put_i32(4 + 1 + 3 * 8 + 8 + 1);
    out.put_u8(b'r');
    for _ in ["written", "flushed", "applied"] {
        out.put_u64(confirmed.get());
    }
    out.put_i64(clock);
    out.put_u8(u8::from(ask));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_carries_the_confirmed_position_three_times() {
        let now = SystemTime::UNIX_EPOCH + POSTGRES_EPOCH + Duration::from_micros(5);
        let bytes = update(Lsn::new(0x0102), true, now);
        let position = [0, 0, 0, 0, 0, 0, 1, 2];
        let expected =
            [b"d\0\0\0\x26r".as_slice(), &position, &position, &position, &[0, 0, 0, 0, 0, 0, 0, 5, 1]];
        assert_eq!(bytes, expected.concat());
    }
}

//! What devices have confirmed in, how far each of them has come out.

use std::collections::HashMap;

use posduif_model::{DeviceId, Epoch, Lsn, UserId};
use redis::AsyncCommands;

use crate::{error::LogError, reader::LogReader, state::LogState};

/// How far a device said it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmed {
    pub epoch: Epoch,
    /// Everything up to and including this commit is on the device.
    pub commit: Lsn,
    pub user: UserId,
    /// When it said so, in milliseconds since 1970-01-01 00:00 UTC by the clock of the replica that it told.
    pub at: i64,
}

impl Confirmed {
    fn stored(&self) -> String {
        format!("{} {} {} {}", self.epoch, self.commit.get(), self.user, self.at)
    }

    /// `None` for what another version wrote: the device will confirm again.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let mut next = || parts.next();
        Some(Confirmed {
            epoch: next()?.parse().ok()?,
            commit: Lsn::new(next()?.parse().ok()?),
            user: next()?.parse().ok()?,
            at: next()?.parse().ok()?,
        })
    }
}

impl LogReader {
    /// The state of the log and what the device has confirmed, in one round trip.
    pub async fn look(&self, device: &DeviceId) -> Result<(Option<LogState>, Option<Confirmed>), LogError> {
        let mut pipeline = redis::pipe();
        pipeline.hgetall(self.keys.state()).hget(self.keys.positions(), device.as_str());
        let (fields, position): (HashMap<String, String>, Option<String>) =
            pipeline.query_async(&mut self.pool.get().await?).await?;
        Ok((LogState::from_fields(&fields)?, position.as_deref().and_then(Confirmed::parse)))
    }

    /// Notes how far the device has come.
    pub async fn confirm(&self, device: &DeviceId, confirmed: &Confirmed) -> Result<(), LogError> {
        let position = confirmed.stored();
        Ok(self.pool.get().await?.hset(self.keys.positions(), device.as_str(), position).await?)
    }

    /// The cursor that is kept for a device which keeps none itself.
    pub async fn held_cursor(&self, device: &DeviceId) -> Result<Option<String>, LogError> {
        Ok(self.pool.get().await?.hget(self.keys.held_cursors(), device.as_str()).await?)
    }

    pub async fn hold_cursor(&self, device: &DeviceId, cursor: &str) -> Result<(), LogError> {
        Ok(self.pool.get().await?.hset(self.keys.held_cursors(), device.as_str(), cursor).await?)
    }

    /// Forgets both: the device begins anew.
    pub async fn forget_position(&self, device: &DeviceId) -> Result<(), LogError> {
        let mut pipeline = redis::pipe();
        pipeline
            .hdel(self.keys.positions(), device.as_str())
            .ignore()
            .hdel(self.keys.held_cursors(), device.as_str())
            .ignore();
        let () = pipeline.query_async(&mut self.pool.get().await?).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_written_and_anything_else_is_none() {
        let user = "00000000-0000-0000-0000-000000000001".parse().unwrap();
        let confirmed =
            Confirmed { epoch: Epoch::from_random(7), commit: Lsn::new(9), user, at: 1_800_000_000_000 };
        assert_eq!(Confirmed::parse(&confirmed.stored()), Some(confirmed));
        for text in ["", "x 9 y 1", "7"] {
            assert_eq!(Confirmed::parse(text), None, "{text:?}");
        }
    }
}

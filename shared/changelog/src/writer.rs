//! The ingester's side of the log: claim the tenant, store batches, move the watermark.

use std::collections::HashMap;

use posduif_model::{Epoch, Lsn, Position, TenantId};
use redis::AsyncCommands;

use crate::{
    batch::{Batch, Guard},
    connect::Connection,
    error::LogError,
    key::Keys,
    record::CommitRecord,
    script::Scripts,
    state::{Heartbeat, LogState, Watermark},
};

type StoredEntry = (String, Vec<(String, Vec<u8>)>);

/// Writes the log of one tenant under one fencing token.
///
/// It owns its connection: order and durability proofs hold per connection, not per server.
#[derive(Debug)]
pub struct LogWriter {
    connection: Connection,
    keys: Keys,
    token: i64,
    scripts: Scripts,
}

impl LogWriter {
    /// Takes the tenant over with a token that PostgreSQL issued to the holder of the slot.
    ///
    /// # Errors
    /// `Fenced` when Redis has seen a higher token.
    pub async fn claim(connection: Connection, tenant: &TenantId, token: i64) -> Result<Self, LogError> {
        let mut writer = LogWriter { connection, keys: Keys::new(tenant), token, scripts: Scripts::new() };
        let claim = &writer.scripts.claim;
        let () = claim.key(writer.keys.token()).arg(token).invoke_async(&mut writer.connection).await?;
        Ok(writer)
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The state of the log, `None` where there is no log.
    pub async fn state(&mut self) -> Result<Option<LogState>, LogError> {
        let fields: HashMap<String, String> = self.connection.hgetall(self.keys.state()).await?;
        LogState::from_fields(&fields)
    }

    /// Replaces the state: a new epoch begins, cursors of earlier ones are refused from now on.
    pub async fn open(&mut self, state: &LogState) -> Result<(), LogError> {
        let mut call = self.scripts.open.key(self.keys.token());
        call.key(self.keys.state()).arg(self.token);
        for (name, value) in state.to_fields() {
            call.arg(name).arg(value);
        }
        Ok(call.invoke_async(&mut self.connection).await?)
    }

    /// The newest commit entry of an epoch, `None` while it has none.
    pub async fn newest_commit(&mut self, epoch: &Epoch) -> Result<Option<Lsn>, LogError> {
        let found: Vec<StoredEntry> = redis::cmd("XREVRANGE")
            .arg((self.keys.commits(epoch), "+", "-", "COUNT", 1))
            .query_async(&mut self.connection)
            .await?;
        match found.first() {
            None => Ok(None),
            Some((id, _)) => {
                let position: Position = id.parse().map_err(|_| LogError::Corrupt(format!("commit {id}")))?;
                Ok(Some(position.commit))
            }
        }
    }

    /// The commits after `after`, oldest first, at most `limit`: what a predecessor stored but did not publish.
    pub async fn commits_after(
        &mut self,
        epoch: &Epoch,
        after: Lsn,
        limit: usize,
    ) -> Result<Vec<CommitRecord>, LogError> {
        let start = format!("({}", Position::last_of(after));
        let found: Vec<StoredEntry> = redis::cmd("XRANGE")
            .arg((self.keys.commits(epoch), start, "+", "COUNT", limit))
            .query_async(&mut self.connection)
            .await?;
        found.iter().map(|(id, fields)| CommitRecord::parse(id, fields)).collect()
    }

    /// Stores a batch as a whole or, when Redis fails in the middle, up to some entry of it.
    ///
    /// Returns the number of entries that were new.
    ///
    /// # Errors
    /// `Fenced`, `Diverged` when the log does not end where `guard` says or holds entries above, `OutOfMemory` with nothing stored;
    /// after `Unavailable` it is unknown what was stored, and the next batch must name its first transaction as
    /// retried.
    pub async fn append(&mut self, batch: &Batch, guard: Guard) -> Result<u64, LogError> {
        let mut call = self.scripts.append.key(self.keys.token());
        call.key(self.keys.state()).key(self.keys.commits(&batch.epoch()));
        for target in batch.targets() {
            call.key(target);
        }
        call.arg(self.token).arg(batch.epoch().to_string()).arg(guard.previous.get());
        call.arg(guard.retried.map(|lsn| lsn.get().to_string()).unwrap_or_default());
        call.arg(batch.highest().get());
        for argument in batch.arguments() {
            call.arg(argument);
        }
        Ok(call.invoke_async(&mut self.connection).await?)
    }

    /// Lets readers see everything up to `watermark`, and remembers the newest heartbeat below it.
    pub async fn publish(
        &mut self,
        epoch: &Epoch,
        watermark: Watermark,
        heartbeat: Option<Heartbeat>,
    ) -> Result<(), LogError> {
        let beat = heartbeat.map(|beat| format!("{} {}", beat.sequence, beat.nonce)).unwrap_or_default();
        let mut call = self.scripts.publish.key(self.keys.token());
        call.key(self.keys.state()).key(self.keys.commits(epoch)).arg(self.token).arg(epoch.to_string());
        call.arg(watermark.commit.get()).arg(watermark.end.get()).arg(beat);
        Ok(call.invoke_async(&mut self.connection).await?)
    }

    /// Lets the API serve snapshots in this epoch.
    pub async fn ready(&mut self, epoch: &Epoch) -> Result<(), LogError> {
        let mut call = self.scripts.ready.key(self.keys.token());
        call.key(self.keys.state()).arg(self.token).arg(epoch.to_string());
        Ok(call.invoke_async(&mut self.connection).await?)
    }

    /// Ends this log: the next session opens an epoch. For changes that can never be written as they came.
    pub async fn give_up(&mut self, epoch: &Epoch, reason: &str) -> Result<(), LogError> {
        let mut call = self.scripts.give_up.key(self.keys.token());
        call.key(self.keys.state()).arg(self.token).arg(epoch.to_string()).arg(reason);
        Ok(call.invoke_async(&mut self.connection).await?)
    }

    /// The highest fencing token that Redis has seen, 0 where it has seen none.
    pub async fn highest_token(connection: &mut Connection, tenant: &TenantId) -> Result<i64, LogError> {
        let held: Option<i64> = connection.get(Keys::new(tenant).token()).await?;
        Ok(held.unwrap_or(0))
    }
}

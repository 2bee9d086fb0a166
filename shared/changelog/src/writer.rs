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
    state::{Heartbeat, LogState, Supply, Watermark},
};

pub(crate) type StoredEntry = (String, Vec<(String, Vec<u8>)>);

/// Writes the log of one tenant under one fencing token.
///
/// It owns its connection: order and durability proofs hold per connection, not per server.
#[derive(Debug)]
pub struct LogWriter {
    pub(crate) connection: Connection,
    pub(crate) keys: Keys,
    pub(crate) token: i64,
    pub(crate) scripts: Scripts,
    client: ClientId,
}

/// A connection as its server knows it. Numbers begin anew when a server does.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ClientId {
    run: String,
    number: i64,
}

impl LogWriter {
    /// Takes the tenant over with a token that PostgreSQL issued to the holder of the slot.
    ///
    /// # Errors
    /// `Fenced` when Redis has seen a higher token.
    pub async fn claim(mut connection: Connection, tenant: &TenantId, token: i64) -> Result<Self, LogError> {
        let (keys, scripts) = (Keys::new(tenant), Scripts::new());
        let () = scripts.claim.key(keys.token()).arg(token).invoke_async(&mut connection).await?;
        let client = client_id(&mut connection).await?;
        Ok(LogWriter { connection, keys, token, scripts, client })
    }

    /// Goes on over another connection, under the same token, after an answer was lost.
    ///
    /// The old connection is ended at the server first: a command of it that is still on its way must not be carried
    /// out after what comes next. The token is not claimed anew: a Redis that lost it lost more than that.
    ///
    /// # Errors
    /// `Unavailable` while Redis cannot be asked.
    pub async fn reconnect(&mut self, mut connection: Connection) -> Result<(), LogError> {
        let client = client_id(&mut connection).await?;
        // Of an earlier run nothing is left, and its numbers belong to others now.
        if client.run == self.client.run {
            // An answer of 0: it has ended already.
            let kill = redis::cmd("CLIENT").arg("KILL").arg("ID").arg(self.client.number).to_owned();
            let _: i64 = kill.query_async(&mut connection).await?;
        }
        (self.connection, self.client) = (connection, client);
        Ok(())
    }

    /// For questions about the server itself.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
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
        call.key(self.keys.state()).key(self.keys.retired()).arg(self.token);
        for (name, value) in state.to_fields() {
            call.arg(name).arg(value);
        }
        Ok(call.invoke_async(&mut self.connection).await?)
    }

    /// The newest commit entry of an epoch, `None` while it has none.
    pub async fn newest_commit(&mut self, epoch: &Epoch) -> Result<Option<CommitRecord>, LogError> {
        let found: Vec<StoredEntry> = redis::cmd("XREVRANGE")
            .arg((self.keys.commits(epoch), "+", "-", "COUNT", 1))
            .query_async(&mut self.connection)
            .await?;
        found.first().map(|(id, fields)| CommitRecord::parse(id, fields)).transpose()
    }

    /// The commits after `after` and up to `upto`, oldest first, at most `limit`.
    pub async fn commits(
        &mut self,
        epoch: &Epoch,
        after: Lsn,
        upto: Lsn,
        limit: usize,
    ) -> Result<Vec<CommitRecord>, LogError> {
        let (first, last) = (format!("({}", Position::last_of(after)), Position::last_of(upto).to_string());
        let found: Vec<StoredEntry> = redis::cmd("XRANGE")
            .arg((self.keys.commits(epoch), first, last, "COUNT", limit))
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

    /// Lets readers see everything up to `watermark`, and remembers the newest heartbeat below it. Repeating it changes
    /// nothing.
    ///
    /// `floor` is the newest commit at or below the watermark whose rows were left out: readers below it need a snapshot.
    /// `supply` is what the log is fed from as of this watermark, where that is news.
    pub async fn publish(
        &mut self,
        epoch: &Epoch,
        watermark: Watermark,
        heartbeat: Option<Heartbeat>,
        floor: Option<Lsn>,
        supply: Option<&Supply>,
    ) -> Result<(), LogError> {
        let beat = heartbeat.map(|beat| format!("{} {}", beat.sequence, beat.nonce)).unwrap_or_default();
        let mut call = self.scripts.publish.key(self.keys.token());
        call.key(self.keys.state()).key(self.keys.commits(epoch)).arg(self.token).arg(epoch.to_string());
        call.arg(watermark.commit.get()).arg(watermark.end.get()).arg(beat);
        call.arg(floor.map(|lsn| lsn.get().to_string()).unwrap_or_default()).arg(self.keys.wake());
        for (name, value) in supply.into_iter().flat_map(Supply::to_fields) {
            call.arg(name).arg(value);
        }
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

async fn client_id(connection: &mut Connection) -> Result<ClientId, LogError> {
    let info: String = redis::cmd("INFO").arg("server").query_async(connection).await?;
    let run = info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default();
    let number = redis::cmd("CLIENT").arg("ID").query_async(connection).await?;
    Ok(ClientId { run: run.trim().to_owned(), number })
}

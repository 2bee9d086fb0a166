//! What Redis says of itself in, how safe the log is out.

use std::time::Duration;

use posduif_model::{Epoch, Lsn};

use crate::{connect::Connection, error::LogError, writer::LogWriter};

/// What a server says of the durability of what was written so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// In the append-only files of this server and of as many replicas as asked for.
    OnDisk,
    /// Not within the time given.
    NotYet,
    /// The server cannot tell: older than Redis 7.2, or without an append-only file.
    Unsupported,
}

impl LogWriter {
    /// Asks for a log that still has everything up to a published watermark with this end.
    ///
    /// # Errors
    /// `Diverged` when it has not: Redis came back without its last moments.
    pub async fn reaches(&mut self, epoch: &Epoch, end: Lsn) -> Result<(), LogError> {
        let mut call = self.scripts.prove.key(self.keys.token());
        call.key(self.keys.state()).arg(self.token).arg(epoch.to_string()).arg(end.get());
        Ok(call.invoke_async(&mut self.connection).await?)
    }

    /// Whether everything up to a published watermark with this end is on disk here and on `replicas` replicas.
    ///
    /// WAITAOF vouches for the writes of its own connection and for all before them, so a note of `end` is written first
    /// (Redis manual, "WAITAOF").
    ///
    /// # Errors
    /// `Diverged` when the log is no longer this writer's: what is on disk then is not what it wrote.
    pub async fn prove(
        &mut self,
        epoch: &Epoch,
        end: Lsn,
        replicas: u32,
        patience: Duration,
    ) -> Result<Proof, LogError> {
        self.reaches(epoch, end).await?;
        let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let asked = redis::cmd("WAITAOF")
            .arg((1, replicas, patience))
            .query_async::<(u32, u32)>(&mut self.connection)
            .await;
        match asked {
            Ok((here, there)) if here >= 1 && there >= replicas => Ok(Proof::OnDisk),
            Ok(_) => Ok(Proof::NotYet),
            // An unknown command, no append-only file, or a user that may not ask.
            Err(error) if matches!(error.code(), Some("ERR" | "NOPERM")) => Ok(Proof::Unsupported),
            Err(error) => Err(error.into()),
        }
    }
}

/// Sentences about settings that put the log at risk; none for a server that is set up as it should be.
///
/// They come from INFO, which needs no right to read the configuration.
///
/// # Errors
/// `Evicting` for a server that may drop any part of the log when its memory is full: no reader would notice.
pub async fn concerns(connection: &mut Connection) -> Result<Vec<String>, LogError> {
    let info: String = redis::cmd("INFO").arg(("memory", "persistence")).query_async(connection).await?;
    judge(&info)
}

fn judge(info: &str) -> Result<Vec<String>, LogError> {
    let field =
        |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let policy = field("maxmemory_policy").unwrap_or("noeviction");
    let is_limited = field("maxmemory").is_some_and(|bytes| bytes != "0");
    if policy.starts_with("allkeys") && is_limited {
        return Err(LogError::Evicting(policy.to_owned()));
    }
    let mut concerns = Vec::new();
    if policy.starts_with("allkeys") {
        concerns.push(format!(
            "Redis would evict the log if it had a memory limit ({policy}); set maxmemory-policy noeviction"
        ));
    }
    if field("aof_enabled") == Some("0") {
        concerns.push(
            "Redis forgets the log when it restarts, and devices resync; set appendonly yes".to_owned(),
        );
    }
    let bytes = |name| field(name).and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
    let (used, most) = (bytes("used_memory"), bytes("maxmemory"));
    if most > 0 && used.saturating_mul(10) > most.saturating_mul(9) {
        concerns.push(format!(
            "Redis uses {used} of {most} bytes; raise maxmemory or lower sync.retention.max_bytes"
        ));
    }
    Ok(concerns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(info: &str) -> usize {
        judge(info).unwrap().len()
    }

    #[test]
    fn a_server_that_may_lose_the_log_is_reported() {
        let good = "# Memory\r\nmaxmemory_policy:noeviction\r\n# Persistence\r\naof_enabled:1\r\n";
        assert_eq!(judged(good), 0);
        assert_eq!(judged("maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\naof_enabled:0\r\n"), 2);
        assert_eq!(judged("used_memory:91\r\nmaxmemory:100\r\n"), 1);
        assert_eq!(judged("used_memory:89\r\nmaxmemory:100\r\n"), 0);
        assert_eq!(judged("used_memory:91\r\nmaxmemory:0\r\n"), 0);
    }

    #[test]
    fn a_server_that_may_drop_a_part_of_the_log_is_refused() {
        let evicts = judge("maxmemory:100\r\nmaxmemory_policy:allkeys-lfu\r\n");
        assert!(matches!(evicts, Err(LogError::Evicting(policy)) if policy == "allkeys-lfu"));
        // Only what expires anyway may go: credentials and leases.
        assert_eq!(judged("maxmemory:100\r\nmaxmemory_policy:volatile-lru\r\n"), 0);
    }
}

//! Snapshots under way in, how much of the log they still need out.

use posduif_model::{DeviceId, Epoch, Lsn};

use crate::{error::LogError, reader::LogReader, script, writer::LogWriter};

/// How long a page of a snapshot keeps the log for the next one, in seconds.
const LIFETIME: u64 = 300;

impl LogReader {
    /// Keeps the log after `from` for a device that will replay it over its snapshot; to be renewed with every page.
    pub async fn lease(&self, epoch: &Epoch, from: Lsn, device: &DeviceId) -> Result<(), LogError> {
        let script = script::lease();
        let mut call = script.key(self.keys.leases());
        call.arg(format!("{epoch} {} {device}", from.get())).arg(LIFETIME);
        Ok(call.invoke_async(&mut self.pool.get().await?).await?)
    }
}

impl LogWriter {
    /// The lowest commit from which a snapshot of this epoch will replay, if there is one under way.
    pub async fn leased(&mut self, epoch: &Epoch) -> Result<Option<Lsn>, LogError> {
        let held: Vec<String> =
            self.scripts.held.key(self.keys.leases()).invoke_async(&mut self.connection).await?;
        let epoch = epoch.to_string();
        let from = |lease: &String| {
            let mut parts = lease.split(' ');
            let of_epoch = parts.next() == Some(&epoch);
            parts.next().filter(|_| of_epoch)?.parse().ok().map(Lsn::new)
        };
        Ok(held.iter().filter_map(from).min())
    }
}

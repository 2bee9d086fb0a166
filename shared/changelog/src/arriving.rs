//! The messages of a snapshot's tables in, the same ones out once the device has the snapshot.

use posduif_model::{DeviceId, Epoch};
use redis::AsyncCommands;
use uuid::Uuid;

use crate::{error::LogError, reader::LogReader};

/// How long a device may take to come back after its snapshot, in seconds: longer than a log is kept.
const LIFETIME: u64 = 30 * 86_400;

const ID_BYTES: usize = 16;

impl LogReader {
    /// Keeps the ids until the device comes back; they take the place of those of an earlier snapshot.
    pub async fn keep_arriving(
        &self,
        epoch: &Epoch,
        device: &DeviceId,
        messages: &[Uuid],
    ) -> Result<(), LogError> {
        let bytes: Vec<u8> = messages.iter().flat_map(|id| *id.as_bytes()).collect();
        let key = self.keys.arriving(epoch, device);
        Ok(self.pool.get().await?.set_ex(key, bytes, LIFETIME).await?)
    }

    pub async fn arriving(&self, epoch: &Epoch, device: &DeviceId) -> Result<Vec<Uuid>, LogError> {
        let bytes: Option<Vec<u8>> = self.pool.get().await?.get(self.keys.arriving(epoch, device)).await?;
        let (ids, rest) = bytes.as_deref().unwrap_or_default().as_chunks::<ID_BYTES>();
        if !rest.is_empty() {
            return Err(LogError::Corrupt("ids of arriving messages".to_owned()));
        }
        Ok(ids.iter().map(|id| Uuid::from_bytes(*id)).collect())
    }

    pub async fn forget_arriving(&self, epoch: &Epoch, device: &DeviceId) -> Result<(), LogError> {
        Ok(self.pool.get().await?.unlink(self.keys.arriving(epoch, device)).await?)
    }
}

//! Readers and where they are in, how many changes lie before each of them out.

use posduif_model::{Bucket, Epoch, Lsn, Position, UserId};

use crate::{error::LogError, reader::LogReader, script};

/// Readers that one call asks for: each may cost Redis a look at as many entries as are counted.
const AT_ONCE: usize = 50;

impl LogReader {
    /// Entries of each reader's buckets after its commit and up to `upto`, counted up to `most`.
    ///
    /// A guide for people and devices, nothing is decided by it: it does not look whether the log still has all of them.
    pub async fn pending(
        &self,
        epoch: &Epoch,
        readers: &[(UserId, Lsn)],
        upto: Lsn,
        most: usize,
    ) -> Result<Vec<u64>, LogError> {
        let script = script::pending();
        let mut counts = Vec::with_capacity(readers.len());
        for some in readers.chunks(AT_ONCE) {
            let mut call = script.key(self.keys.bucket(epoch, &Bucket::Shared));
            call.arg(Position::last_of(upto).to_string()).arg(most);
            for (user, after) in some {
                call.key(self.keys.bucket(epoch, &Bucket::User(*user)));
                call.arg(format!("({}", Position::last_of(*after)));
            }
            let found: Vec<u64> = call.invoke_async(&mut self.pool.get().await?).await?;
            counts.extend(found);
        }
        Ok(counts)
    }
}

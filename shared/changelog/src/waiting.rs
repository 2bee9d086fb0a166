//! A stretch of the log in, how many entries of some buckets lie in it out; no row is read over the network.

use posduif_model::{Bucket, Epoch, Lsn, Position};

use crate::{error::LogError, reader::LogReader};

/// KEYS: buckets. ARGV: first and last id, the most that are counted.
const COUNT: &str = r"#!lua flags=no-writes
local found = 0
for i = 1, #KEYS do
  if found >= tonumber(ARGV[3]) then break end
  found = found + #redis.call('XRANGE', KEYS[i], ARGV[1], ARGV[2], 'COUNT', ARGV[3] - found)
end
return found
";

impl LogReader {
    /// How many entries the buckets have after the commit `after`, up to `upto`; counting ends at `most`.
    pub async fn waiting(
        &self,
        epoch: &Epoch,
        buckets: &[Bucket],
        after: Lsn,
        upto: Lsn,
        most: usize,
    ) -> Result<usize, LogError> {
        let script = redis::Script::new(COUNT);
        let mut call = script.prepare_invoke();
        for bucket in buckets {
            call.key(self.keys.bucket(epoch, bucket));
        }
        call.arg(format!("({}", Position::last_of(after))).arg(Position::last_of(upto).to_string()).arg(most);
        Ok(call.invoke_async(&mut self.pool.get().await?).await?)
    }
}

//! Changes and commits gathered for one call of the append script, in the order in which they are to be stored.

use std::collections::HashMap;

use posduif_model::{Bucket, Change, DeviceId, Epoch, Lsn, Position};

use crate::{
    entry,
    key::Keys,
    record::{CommitRecord, MOST_BUCKETS_INLINE},
};

/// Commands for the append script: some entries, then the commit entry of their transaction, and so on.
///
/// A batch may begin and end in the middle of a transaction; the commit entry always follows the last row.
#[derive(Debug)]
pub struct Batch {
    keys: Keys,
    epoch: Epoch,
    targets: Vec<String>,
    index: HashMap<String, usize>,
    arguments: Vec<Vec<u8>>,
    /// Commit and first argument of every command, in order.
    commands: Vec<(Lsn, usize)>,
    bytes: usize,
    /// The commits of which the batch holds the commit entry.
    finished: Vec<Lsn>,
}

impl Batch {
    pub fn new(keys: Keys, epoch: Epoch) -> Self {
        Batch {
            keys,
            epoch,
            targets: vec![],
            index: HashMap::new(),
            arguments: vec![],
            commands: vec![],
            bytes: 0,
            finished: vec![],
        }
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Entries and groups of set members in the batch.
    pub fn commands(&self) -> usize {
        self.commands.len()
    }

    /// Payload size in bytes, keys and framing left out.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds what one raw row message means for one bucket; returns the payload bytes it takes.
    pub fn push(
        &mut self,
        at: Position,
        bucket: &Bucket,
        origin: Option<&DeviceId>,
        changes: &[Change],
    ) -> usize {
        let (key, before) = (self.keys.bucket(&self.epoch, bucket), self.bytes);
        self.add(key, at, entry::encode(origin, changes));
        self.bytes - before
    }

    /// Ends a transaction; with too many buckets for the entry itself they go into a set.
    pub fn commit(&mut self, mut record: CommitRecord) {
        if record.buckets.len() > MOST_BUCKETS_INLINE {
            let members = std::mem::take(&mut record.buckets);
            record.buckets_elsewhere = true;
            let key = self.keys.touched(&self.epoch, record.commit);
            let target = self.target(key);
            // A set takes its members in groups: Lua cannot pass more than some thousand arguments at once.
            for group in members.chunks(MOST_BUCKETS_INLINE) {
                self.commands.push((record.commit, self.arguments.len()));
                self.argument("S");
                self.argument(&target.to_string());
                self.argument(&group.len().to_string());
                group.iter().for_each(|bucket| self.argument(&bucket.to_string()));
            }
        }
        let key = self.keys.commits(&self.epoch);
        self.add(key, Position::first_of(record.commit), record.fields());
        self.finished.push(record.commit);
    }

    /// The highest commit of which the batch holds anything.
    pub(crate) fn highest(&self) -> Lsn {
        self.commands.last().map_or(Lsn::ZERO, |(commit, _)| *commit)
    }

    /// The commit of the first entry.
    pub fn first(&self) -> Option<Lsn> {
        self.commands.first().map(|(commit, _)| *commit)
    }

    /// Whether the batch has the commit entry of this transaction.
    pub fn finishes(&self, commit: Lsn) -> bool {
        self.finished.contains(&commit)
    }

    /// Forgets every transaction up to `stored`: an attempt whose answer was lost has stored them.
    pub fn skip_through(&mut self, stored: Lsn) {
        let done = self.commands.partition_point(|(commit, _)| *commit <= stored);
        let start = self.commands.get(done).map_or(self.arguments.len(), |(_, start)| *start);
        self.arguments.drain(..start);
        self.commands.drain(..done);
        self.commands.iter_mut().for_each(|(_, place)| *place -= start);
        self.finished.retain(|commit| *commit > stored);
    }

    fn add(&mut self, key: String, at: Position, fields: Vec<(&'static str, Vec<u8>)>) {
        let target = self.target(key);
        self.commands.push((at.commit, self.arguments.len()));
        self.argument("A");
        self.argument(&target.to_string());
        self.argument(&at.to_string());
        self.argument(&(fields.len() * 2).to_string());
        for (name, value) in fields {
            self.argument(name);
            self.bytes += value.len();
            self.arguments.push(value);
        }
    }

    fn argument(&mut self, text: &str) {
        self.bytes += text.len();
        self.arguments.push(text.as_bytes().to_vec());
    }

    /// The place of a key among the script's targets, counted from 1 as Lua does.
    fn target(&mut self, key: String) -> usize {
        if let Some(index) = self.index.get(&key) {
            return *index;
        }
        self.targets.push(key.clone());
        self.index.insert(key, self.targets.len());
        self.targets.len()
    }

    pub(crate) fn targets(&self) -> &[String] {
        &self.targets
    }

    pub(crate) fn arguments(&self) -> &[Vec<u8>] {
        &self.arguments
    }

    /// Empties the batch for the next call.
    pub fn clear(&mut self) {
        let Batch { keys, epoch, .. } = self;
        *self = Batch::new(keys.clone(), *epoch);
    }

    /// What a writer must prove before the batch may be stored.
    pub fn guard(previous: Lsn, retried: Option<Lsn>) -> Guard {
        Guard { previous, retried }
    }
}

/// The state of the log that a batch builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The newest commit entry that the log must have.
    pub previous: Lsn,
    /// The one transaction of which some entries may be stored already; elsewhere a stored id is an error.
    pub retried: Option<Lsn>,
}

#[cfg(test)]
mod tests {
    use posduif_model::Op;

    use super::*;

    fn filled(commits: &[u64]) -> Batch {
        let keys = Keys::new(&"t".parse().unwrap());
        let mut batch = Batch::new(keys, Epoch::from_random(1));
        for commit in commits.iter().copied().map(Lsn::new) {
            let change =
                Change { op: Op::Put, table: "t".parse().unwrap(), key: "{}".into(), row: "{}".into() };
            batch.push(Position::first_of(commit), &Bucket::Shared, None, &[change]);
            batch.commit(CommitRecord {
                commit,
                end: commit,
                previous: Lsn::ZERO,
                xid: 1,
                changes: 1,
                committed_at: 0,
                origin: None,
                buckets: vec![Bucket::Shared; MOST_BUCKETS_INLINE + 1],
                buckets_elsewhere: false,
                written: 0,
                left_out: false,
                seen: None,
            });
        }
        batch
    }

    #[test]
    fn a_batch_without_what_is_stored_is_the_batch_of_the_rest() {
        let (mut all, rest) = (filled(&[3, 5, 9]), filled(&[9]));
        assert!(all.finishes(Lsn::new(5)) && !all.finishes(Lsn::new(4)));
        all.skip_through(Lsn::new(5));
        let ids =
            |batch: &Batch| batch.arguments.iter().filter(|a| a.contains(&b'-')).cloned().collect::<Vec<_>>();
        assert_eq!(ids(&all), ids(&rest));
        assert_eq!(
            (all.arguments.len(), all.commands.clone()),
            (rest.arguments.len(), rest.commands.clone())
        );
        assert_eq!((all.first(), all.finishes(Lsn::new(5))), (Some(Lsn::new(9)), false));
        all.skip_through(Lsn::new(9));
        assert!(all.is_empty() && all.arguments.is_empty());
    }
}

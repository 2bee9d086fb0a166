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
    commands: usize,
    bytes: usize,
    highest: Lsn,
}

impl Batch {
    pub fn new(keys: Keys, epoch: Epoch) -> Self {
        Batch {
            keys,
            epoch,
            targets: vec![],
            index: HashMap::new(),
            arguments: vec![],
            commands: 0,
            bytes: 0,
            highest: Lsn::ZERO,
        }
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub fn is_empty(&self) -> bool {
        self.commands == 0
    }

    /// Entries in the batch.
    pub fn commands(&self) -> usize {
        self.commands
    }

    /// Payload size in bytes, keys and framing left out.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds what one raw row message means for one bucket.
    pub fn push(&mut self, at: Position, bucket: &Bucket, origin: Option<&DeviceId>, changes: &[Change]) {
        let key = self.keys.bucket(&self.epoch, bucket);
        self.add(key, at, entry::encode(origin, changes));
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
                self.argument("S");
                self.argument(&target.to_string());
                self.argument(&group.len().to_string());
                group.iter().for_each(|bucket| self.argument(&bucket.to_string()));
            }
        }
        let key = self.keys.commits(&self.epoch);
        self.add(key, Position::first_of(record.commit), record.fields());
    }

    /// The highest commit of which the batch holds anything.
    pub(crate) fn highest(&self) -> Lsn {
        self.highest
    }

    fn add(&mut self, key: String, at: Position, fields: Vec<(&'static str, Vec<u8>)>) {
        let target = self.target(key);
        self.argument("A");
        self.argument(&target.to_string());
        self.argument(&at.to_string());
        self.argument(&(fields.len() * 2).to_string());
        for (name, value) in fields {
            self.argument(name);
            self.bytes += value.len();
            self.arguments.push(value);
        }
        self.commands += 1;
        self.highest = self.highest.max(at.commit);
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

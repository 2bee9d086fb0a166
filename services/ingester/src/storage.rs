//! Files and partitions of the synced tables in, whether rows may have changed without a message out; no I/O.
//!
//! The fingerprint of the catalogue covers what must stay the same. This covers what may change, but not in every
//! way: VACUUM FULL rewrites a table and leaves its rows alone, ALTER COLUMN … TYPE … USING changes them in silence; a
//! new partition is welcome, one that is gone took its rows along.

use std::{collections::BTreeMap, fmt::Write, str::FromStr};

use posduif_catalogue::TableFacts;
use sha2::{Digest, Sha256};

/// What each table and partition is stored in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    held: BTreeMap<u32, Held>,
    /// Partitions that were made as such and never rewritten; known only of what was just looked at.
    born: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    filenode: u32,
    /// Of a table: the versions of its sent columns' definitions. Of a partition: what attached it.
    version: String,
    partition: bool,
}

impl Storage {
    /// Adds a table with all that is below it; `relevant` says which columns readers see or are routed by.
    pub fn add(&mut self, table: &TableFacts, relevant: impl Fn(&str) -> bool) {
        let mut digest = Sha256::new();
        for column in table.columns.iter().filter(|column| relevant(&column.name)) {
            digest.update(format!("{} {};", column.number, column.version));
        }
        let version = digest.finalize().iter().take(8).fold(String::new(), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        self.held.insert(table.oid, Held { filenode: table.filenode, version, partition: false });
        for partition in &table.partitions {
            let (filenode, version) = (partition.filenode, partition.attached.clone());
            self.held.insert(partition.oid, Held { filenode, version, partition: true });
            if partition.born {
                self.born.push(partition.oid);
            }
        }
    }

    /// Whether every change of rows between an earlier look and this one was a message; else what happened.
    pub fn follows(&self, earlier: &Storage) -> Result<(), &'static str> {
        for (oid, was) in &earlier.held {
            match (self.held.get(oid), was.partition) {
                (None, true) => return Err("a partition was detached or dropped"),
                (Some(now), true) if now.version != was.version => {
                    return Err("a partition was detached and attached again");
                }
                (Some(now), true) if now.filenode != was.filenode => {
                    return Err("a partition was truncated or rewritten");
                }
                // Either alone is harmless: VACUUM FULL, SET DEFAULT.
                (Some(now), false) if now.filenode != was.filenode && now.version != was.version => {
                    return Err("a table was rewritten");
                }
                _ => {}
            }
        }
        let came = |(oid, now): (&u32, &Held)| {
            now.partition && !earlier.held.contains_key(oid) && !self.born.contains(oid)
        };
        match self.held.iter().any(came) {
            true => Err("a partition was attached, or filled and truncated"),
            false => Ok(()),
        }
    }

    /// Whether a look that came later would miss something if it knew only `earlier`.
    pub fn differs(&self, earlier: &Storage) -> bool {
        self.held != earlier.held
    }

    /// For keeping: `<oid>:<filenode>:<version>`, and `:p` after a partition, with spaces between.
    pub fn to_text(&self) -> String {
        let item = |(oid, held): (&u32, &Held)| {
            let mark = if held.partition { ":p" } else { "" };
            format!("{oid}:{}:{}{mark}", held.filenode, held.version)
        };
        self.held.iter().map(item).collect::<Vec<_>>().join(" ")
    }
}

/// The text is not what was kept.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a list of relations")]
pub struct InvalidStorage;

impl FromStr for Storage {
    type Err = InvalidStorage;

    fn from_str(text: &str) -> Result<Self, InvalidStorage> {
        let item = |item: &str| {
            let mut parts = item.split(':');
            let oid = parts.next()?.parse().ok()?;
            let (filenode, version) = (parts.next()?.parse().ok()?, parts.next()?.to_owned());
            let partition = match (parts.next(), parts.next()) {
                (None, _) => false,
                (Some("p"), None) => true,
                _ => return None,
            };
            Some((oid, Held { filenode, version, partition }))
        };
        let held = text.split_whitespace().map(item).collect::<Option<_>>().ok_or(InvalidStorage)?;
        Ok(Storage { held, born: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(text: &str, born: &[u32]) -> Storage {
        Storage { born: born.to_vec(), ..text.parse().unwrap() }
    }

    #[test]
    fn what_was_kept_is_read_back() {
        let kept = "16384:0:abcd 16390:16391:77:p 16400:0:78!:p";
        assert_eq!(storage(kept, &[]).to_text(), kept);
        assert_eq!(storage("", &[]), Storage::default());
        for text in ["1", "1:2", "x:2:3", "1:2:3:q", "1:2:3:p:p"] {
            assert_eq!(text.parse::<Storage>(), Err(InvalidStorage), "{text}");
        }
    }

    #[test]
    fn a_table_may_be_rewritten_or_redefined_but_not_both_at_once() {
        let before = storage("1:10:a", &[]);
        for (now, fine) in [("1:10:a", true), ("1:11:a", true), ("1:10:b", true), ("1:11:b", false)] {
            assert_eq!(storage(now, &[]).follows(&before).is_ok(), fine, "{now}");
        }
    }

    #[test]
    fn partitions_may_come_empty_and_never_go() {
        let before = storage("1:0:a 2:20:5:p", &[]);
        let judged = |now: &str, born: &[u32]| storage(now, born).follows(&before).is_ok();
        assert!(judged("1:0:a 2:20:5:p", &[]));
        assert!(judged("1:0:a 2:20:5:p 3:3:9:p", &[3]));
        assert!(!judged("1:0:a 2:20:5:p 3:3:9:p", &[]), "attached with whatever was in it");
        assert!(!judged("1:0:a", &[]), "dropped or detached");
        assert!(!judged("1:0:a 2:21:5:p", &[2]), "truncated");
        assert!(!judged("1:0:a 2:20:6:p", &[2]), "detached and attached");
    }
}

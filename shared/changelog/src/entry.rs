//! Changes to stream fields and back.
//!
//! One stream entry is what one raw row message means for one bucket. Its fields, in order: at most one `g`
//! (the device whose upload this was), then one field per operation, named `p` (put), `d` (delete) or
//! `t` (truncate). An operation's value is `<table length> <key length>\n<table><key><row>`; lengths are bytes,
//! so a reader finds the JSON without parsing it.

use posduif_model::{Change, DeviceId, Op, Position};

use crate::error::LogError;

/// A stream entry as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub position: Position,
    /// The device whose upload made this change, if one did.
    pub origin: Option<DeviceId>,
    pub changes: Vec<Change>,
}

impl Entry {
    /// Size of its keys and rows.
    pub(crate) fn bytes(&self) -> usize {
        self.changes.iter().map(|change| change.key.len() + change.row.len()).sum()
    }
}

const ORIGIN: &str = "g";

fn field_of(op: Op) -> &'static str {
    match op {
        Op::Put => "p",
        Op::Delete => "d",
        Op::Truncate => "t",
    }
}

/// The fields of an entry, as name and value.
pub fn encode(origin: Option<&DeviceId>, changes: &[Change]) -> Vec<(&'static str, Vec<u8>)> {
    let origin = origin.map(|device| (ORIGIN, device.as_str().as_bytes().to_vec()));
    let operation = |change: &Change| {
        let table = change.table.to_string();
        let mut value = format!("{} {}\n", table.len(), change.key.len()).into_bytes();
        value.reserve(table.len() + change.key.len() + change.row.len());
        value.extend_from_slice(table.as_bytes());
        value.extend_from_slice(change.key.as_bytes());
        value.extend_from_slice(change.row.as_bytes());
        (field_of(change.op), value)
    };
    origin.into_iter().chain(changes.iter().map(operation)).collect()
}

/// Reads an entry back from its id and fields.
///
/// # Errors
/// `Corrupt` for anything that [`encode`] does not write: a skipped change would be a lost one.
pub fn decode(id: &str, fields: &[(String, Vec<u8>)]) -> Result<Entry, LogError> {
    let corrupt = || LogError::Corrupt(format!("entry {id}"));
    let position = id.parse().map_err(|_| corrupt())?;
    let mut entry = Entry { position, origin: None, changes: Vec::with_capacity(fields.len()) };
    for (name, value) in fields {
        let op = match name.as_str() {
            "p" => Op::Put,
            "d" => Op::Delete,
            "t" => Op::Truncate,
            ORIGIN => {
                let device = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                entry.origin = Some(device.ok_or_else(corrupt)?);
                continue;
            }
            _ => return Err(corrupt()),
        };
        entry.changes.push(decode_change(op, value).ok_or_else(corrupt)?);
    }
    Ok(entry)
}

fn decode_change(op: Op, value: &[u8]) -> Option<Change> {
    let (header, body) = std::str::from_utf8(value).ok()?.split_once('\n')?;
    let (table, key) = header.split_once(' ')?;
    let (table, rest) = body.split_at_checked(table.parse().ok()?)?;
    let (key, row) = rest.split_at_checked(key.parse().ok()?)?;
    Some(Change { op, table: table.parse().ok()?, key: key.to_owned(), row: row.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(entry: &Entry) -> Vec<(String, Vec<u8>)> {
        encode(entry.origin.as_ref(), &entry.changes).into_iter().map(|(n, v)| (n.to_owned(), v)).collect()
    }

    proptest::proptest! {
        #[test]
        fn entries_round_trip_whatever_the_rows_hold(key: String, row: String, commit: u64, ordinal: u64) {
            let change = |op, row| Change { op, table: "s.täble".parse().unwrap(), key: key.clone(), row };
            let entry = Entry {
                position: format!("{commit}-{ordinal}").parse().unwrap(),
                origin: Some("phone-1".parse().unwrap()),
                changes: vec![change(Op::Delete, String::new()), change(Op::Put, row)],
            };
            assert_eq!(decode(&entry.position.to_string(), &stored(&entry)).unwrap(), entry);
        }

        #[test]
        fn foreign_bytes_are_an_error_and_never_a_panic(value: Vec<u8>) {
            let _ = decode("1-0", &[("p".to_owned(), value)]);
        }
    }

    #[test]
    fn an_entry_that_nobody_wrote_is_corrupt() {
        for (id, name, value) in
            [("x", "p", "1 1\nab"), ("1-0", "z", ""), ("1-0", "p", "9 9\nab"), ("1-0", "g", " ")]
        {
            let fields = [(name.to_owned(), value.as_bytes().to_vec())];
            assert!(matches!(decode(id, &fields), Err(LogError::Corrupt(_))), "{id} {name} {value}");
        }
    }
}

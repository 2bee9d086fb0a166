//! Commits with the users concerned in, the bytes of one call and the id that belongs to them out; no I/O.

use chrono::{DateTime, Duration, SecondsFormat, Utc};
use posduif_changelog::{CommitRecord, Delivered};
use posduif_model::{DeviceId, Lsn, TenantId, UserId};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// What one call says. Ids and times only, never a value of a row.
#[derive(Debug, Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    tenant_id: &'a TenantId,
    /// Commits before these were not told, whoever they concern.
    skipped: bool,
    /// Everything up to here is told once the call is taken.
    position: String,
    commits: &'a [Told],
}

/// One commit, or a part of one that concerns very many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    id: String,
    lsn: Lsn,
    committed_at: String,
    /// The device whose upload it was.
    origin: Option<DeviceId>,
    users: Vec<UserId>,
    /// It changes what everyone in the tenant sees.
    shared: bool,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    part: Option<Part>,
}

/// Which part of a commit it is, from 0 on, and whether more of the same id follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    pub part: u32,
    pub more: bool,
}

/// The bytes of a call and what names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Made of the content: the same call has the same id, even from another process, and another one never has.
    pub id: String,
    pub body: Vec<u8>,
}

/// Microseconds from 1970 to 2000, where PostgreSQL's times begin.
const FROM_1970: i64 = 946_684_800_000_000;

impl Told {
    /// A commit at its place, whole.
    pub fn new(at: &Delivered, record: &CommitRecord, users: Vec<UserId>, shared: bool) -> Self {
        Told {
            id: position(at),
            lsn: record.commit,
            committed_at: time(record.committed_at),
            origin: record.origin.clone(),
            users,
            shared,
            part: None,
        }
    }

    pub fn in_part(self, part: Part) -> Self {
        Told { part: Some(part), ..self }
    }
}

/// Writes a call down; `upto` is its last commit, or where telling goes on after commits that were skipped.
///
/// # Errors
/// Never for what commits hold; the type comes from the JSON library.
pub fn write(
    tenant: &TenantId,
    skipped: bool,
    upto: &Delivered,
    commits: &[Told],
) -> Result<Message, serde_json::Error> {
    let body = Body { kind: "commits", tenant_id: tenant, skipped, position: position(upto), commits };
    let body = serde_json::to_vec(&body)?;
    let hash: String = Sha256::digest(&body).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Ok(Message { id: format!("msg_{hash}"), body })
}

fn position(at: &Delivered) -> String {
    format!("{}-{}", at.epoch, at.commit.get())
}

/// A time that a server's broken clock puts beyond the calendar is told as the earliest one.
fn time(committed_at: i64) -> String {
    let since_1970 = Duration::microseconds(committed_at.saturating_add(FROM_1970));
    let at = DateTime::<Utc>::UNIX_EPOCH.checked_add_signed(since_1970).unwrap_or(DateTime::<Utc>::MIN_UTC);
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[cfg(test)]
mod tests {
    use posduif_model::Epoch;

    use super::*;

    fn record() -> CommitRecord {
        CommitRecord {
            commit: Lsn::new(0x1_0000_0010),
            end: Lsn::new(0x1_0000_0020),
            previous: Lsn::new(3),
            xid: 7,
            changes: 2,
            committed_at: 852_595_200_123_456,
            origin: Some("phone-1".parse().unwrap()),
            buckets: Vec::new(),
            buckets_elsewhere: false,
            written: 1,
            left_out: false,
            seen: None,
        }
    }

    #[test]
    fn a_call_has_the_documented_members_and_no_others() {
        let at = Delivered { epoch: Epoch::from_random(7), commit: record().commit };
        let users = vec!["00000000-0000-0000-0000-00000000000a".parse().unwrap()];
        let told = Told::new(&at, &record(), users, false);
        let tenant = "tenant_1".parse().unwrap();
        let one = write(&tenant, false, &at, std::slice::from_ref(&told)).unwrap();
        let id = format!("{}-4294967312", at.epoch);
        let expected = format!(
            r#"{{"type":"commits","tenant_id":"tenant_1","skipped":false,"position":"{id}","commits":[{{"id":"{id}","lsn":"1/10","committed_at":"2027-01-07T00:00:00.123456Z","origin":"phone-1","users":["00000000-0000-0000-0000-00000000000a"],"shared":false}}]}}"#
        );
        assert_eq!(String::from_utf8(one.body).unwrap(), expected);
        let part = told.in_part(Part { part: 2, more: true });
        let part = write(&tenant, false, &at, &[part]).unwrap();
        assert!(String::from_utf8(part.body).unwrap().ends_with(r#""shared":false,"part":2,"more":true}]}"#));
        assert_ne!(one.id, part.id);
    }

    #[test]
    fn an_id_belongs_to_what_is_said() {
        let at = |commit| Delivered { epoch: Epoch::from_random(7), commit: Lsn::new(commit) };
        let id = |tenant: &str, skipped, commit| {
            write(&tenant.parse().unwrap(), skipped, &at(commit), &[]).unwrap().id
        };
        assert_eq!(id("a", true, 5), id("a", true, 5));
        for other in [id("b", true, 5), id("a", false, 5), id("a", true, 6)] {
            assert_ne!(other, id("a", true, 5));
        }
        assert!(!id("a", true, 5).contains('.'), "a full stop would end the id in what is signed");
    }

    #[test]
    fn no_time_of_a_broken_clock_is_a_panic() {
        for at in [i64::MIN, i64::MAX, -1, 0] {
            assert!(time(at).contains('T'));
        }
        assert_eq!(time(0), "2000-01-01T00:00:00.000000Z");
    }
}

//! What became of each item of an upload in, the answer to the device out.

use posduif_model::Lsn;
use serde::Serialize;
use serde_json::{Value, value::RawValue};
use utoipa::ToSchema;

use super::upload::{Name, Refusal};
use crate::{code::Code, store::winners::Wanted};

/// What became of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is as the device wants it, now or from an earlier attempt.
    Applied,
    /// A newer version has won, which counts as applied; the device gets that one.
    Lost(Wanted),
    Refused(Refusal),
}

impl Outcome {
    pub fn refused(code: Code, error: impl Into<String>) -> Self {
        Outcome::Refused(Refusal::new(code, error))
    }
}

/// What became of the items of an upload.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Receipt {
    /// Items that are as the device wants them, or lost against a newer version.
    pub synced_count: usize,
    pub failed_count: usize,
    pub failed_messages: Vec<FailedMessage>,
    /// Failed items of the other lists.
    pub failed: Vec<FailedRow>,
    /// The rows that won.
    pub conflicts: Vec<Conflict>,
    #[schema(value_type = DateTime<Utc>)]
    pub sync_timestamp: String,
}

/// What became of each item of an upload, and where the log will show it.
// Written by `positioned`.
#[derive(ToSchema)]
pub struct Answer {
    #[serde(flatten)]
    pub receipt: Receipt,
    /// Once an incoming page's `lsn` is not smaller, the device has read its own writes.
    #[schema(pattern = "^[0-9A-F]{1,8}/[0-9A-F]{1,8}$")]
    pub lsn: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct FailedMessage {
    /// Null where the item has no readable `id`.
    pub message_id: Value,
    pub code: Code,
    pub error: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct FailedRow {
    pub table: Value,
    pub key: Value,
    pub code: Code,
    pub error: String,
}

/// A row that won against an uploaded one; none where it was deleted.
#[derive(Debug, Serialize, ToSchema)]
pub struct Conflict {
    pub table: Value,
    pub key: Value,
    #[schema(value_type = Option<Object>)]
    pub row: Option<Box<RawValue>>,
}

impl Receipt {
    pub fn add(&mut self, name: &Name, outcome: &Outcome) {
        let Outcome::Refused(Refusal { code, error }) = outcome else {
            self.synced_count += 1;
            return;
        };
        self.failed_count += 1;
        let (code, error) = (*code, error.clone());
        match name.clone() {
            Name::Message(message_id) => self.failed_messages.push(FailedMessage { message_id, code, error }),
            Name::Row { table, key } => self.failed.push(FailedRow { table, key, code, error }),
        }
    }

    /// Whether an item may well be taken another time.
    pub fn has_faults(&self) -> bool {
        let codes = self.failed.iter().map(|failed| failed.code);
        codes
            .chain(self.failed_messages.iter().map(|failed| failed.code))
            .any(|code| code == Code::InternalError)
    }
}

/// A receipt's JSON with the position in it.
pub fn positioned(receipt: &str, lsn: Lsn) -> String {
    let open = receipt.strip_suffix('}').unwrap_or(receipt);
    format!("{open},\"lsn\":\"{lsn}\"}}")
}

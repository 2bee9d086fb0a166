//! The items of an upload in, one run of its whole transaction and its answer out.

use deadpool_postgres::{Client, Transaction};
use posduif_model::DeviceId;
use serde_json::{Value, json, value::RawValue};
use tokio_postgres::IsolationLevel;

use super::{
    change::Writer,
    outcome::{Conflict, Outcome, Receipt},
    row::{self, Tables},
    upload::{Action, Item, Name, Refusal},
};
use crate::{
    clock,
    code::Code,
    store::{
        StoreError, messages,
        row_versions::Version,
        sent_messages::{self, Sent},
        sync_metadata,
        upload_receipts::{self, Answer, Claim, UploadKey},
        users, wal,
        winners::{self, Wanted},
    },
};

/// An upload, ready to be applied.
#[derive(Debug)]
pub struct Job<'a> {
    pub device: &'a DeviceId,
    pub writer: Writer<'a>,
    pub items: &'a [Item],
    pub pending: Option<u32>,
    pub key: Option<&'a UploadKey>,
    /// Whether the device gave the key itself, and does not want to hear another answer.
    pub is_named: bool,
}

/// What a run has come to.
#[derive(Debug)]
pub enum Run {
    /// Applied now. `is_kept` says whether the answer will be found by the upload's key.
    Applied { receipt: Receipt, text: String, is_kept: bool },
    /// It was applied before.
    Repeated(Answer),
    /// The key is that of another upload.
    NameTaken,
}

/// How the items of a run are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Not at all, which is fast: the first that the database refuses ends the run.
    Together,
    /// Each under a savepoint of its own.
    OneByOne,
    /// Likewise, with what PostgreSQL checks at the commit checked after each.
    Checked,
}

/// Runs the transaction as carefully as it needs to be run.
///
/// # Errors
/// Only where nothing can be said of the items: the database is not available, or the transaction lost against another.
pub async fn run(client: &mut Client, job: &Job<'_>) -> Result<Run, StoreError> {
    for mode in [Mode::Together, Mode::OneByOne] {
        match attempt(client, job, mode).await {
            Err(error) if is_of_the_data(&error) => {}
            outcome => return outcome,
        }
    }
    attempt(client, job, Mode::Checked).await
}

/// Whether a failure comes from what was to be written; the same data would fail again, other data may not.
fn is_of_the_data(error: &StoreError) -> bool {
    match error {
        StoreError::Rejected(_) | StoreError::Missing(_) | StoreError::Unexpected(_) => true,
        StoreError::Unavailable(_) | StoreError::Contended(_) => false,
    }
}

async fn attempt(client: &mut Client, job: &Job<'_>, mode: Mode) -> Result<Run, StoreError> {
    // Each statement must see what was committed while it waited, whatever the database's own default is.
    let start = client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start();
    let mut transaction = start.await?;
    users::take_turns(&transaction, job.writer.user).await?;
    if let Some(key) = job.key {
        match upload_receipts::claim(&transaction, job.device, key).await? {
            Claim::New => {}
            Claim::Applied(answer) => return Ok(Run::Repeated(answer)),
            Claim::Taken => return Ok(Run::NameTaken),
        }
    }
    wal::emit(&transaction, wal::ORIGIN, job.device.as_str()).await?;
    let rules = job.writer.rules;
    let rows = job.items.iter().filter_map(|item| match &item.action {
        Ok(Action::Write(row)) => Some(row),
        _ => None,
    });
    let tables = row::tables(&transaction, rules, rows).await?;
    let mut outcomes = Vec::with_capacity(job.items.len());
    for item in job.items {
        outcomes.push(match (&item.action, mode) {
            (Err(refusal), _) => Outcome::Refused(refusal.clone()),
            (Ok(action), Mode::Together) => apply(&transaction, &tables, job, action).await?,
            (Ok(action), mode) => guarded(&mut transaction, &tables, job, action, mode).await?,
        });
    }
    let mut receipt = Receipt { sync_timestamp: clock::told(job.writer.now), ..Receipt::default() };
    for (item, outcome) in job.items.iter().zip(&outcomes) {
        receipt.add(&item.name, outcome);
    }
    receipt.conflicts = conflicts(&transaction, job, &outcomes).await?;
    let text = serde_json::to_string(&receipt).map_err(|error| StoreError::Unexpected(error.to_string()))?;
    let is_kept = match job.key {
        // A fault of the server may be mended, and the device sends the same body then.
        Some(key) if receipt.has_faults() && !job.is_named => {
            upload_receipts::release(&transaction, job.device, key).await?;
            false
        }
        Some(key) => {
            upload_receipts::store(&transaction, job.device, key, &text).await?;
            true
        }
        None => false,
    };
    if let Some(pending) = job.pending {
        sync_metadata::note_pending(&transaction, job.device, pending).await?;
    }
    transaction.commit().await?;
    Ok(Run::Applied { receipt, text, is_kept })
}

/// Applies one item under a savepoint, so that PostgreSQL's refusal of it leaves the others alone.
async fn guarded(
    transaction: &mut Transaction<'_>,
    tables: &Tables,
    job: &Job<'_>,
    action: &Action,
    mode: Mode,
) -> Result<Outcome, StoreError> {
    let savepoint = transaction.savepoint("item").await?;
    let mut applied = apply(&savepoint, tables, job, action).await;
    if applied.is_ok() && mode == Mode::Checked {
        let now = "SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED";
        applied = savepoint.batch_execute(now).await.map_err(StoreError::from).and(applied);
    }
    let refusal = match applied {
        Ok(outcome) => {
            savepoint.commit().await?;
            return Ok(outcome);
        }
        Err(StoreError::Rejected(state)) => rejected(&state),
        Err(error) if is_of_the_data(&error) => {
            tracing::error!(%error, "an item of an upload failed by a fault of the server");
            Refusal::new(Code::InternalError, "the server failed at it; its log tells more")
        }
        Err(other) => return Err(other),
    };
    savepoint.rollback().await?;
    Ok(Outcome::Refused(refusal))
}

fn rejected(state: &str) -> Refusal {
    match state {
        "23505" => {
            Refusal::new(Code::Conflict, "another row has a value that must be unique (SQLSTATE 23505)")
        }
        "no row" => Refusal::invalid("the database did not take it"),
        _ => Refusal::invalid(format!("the database refused it (SQLSTATE {state})")),
    }
}

async fn apply(
    transaction: &Transaction<'_>,
    tables: &Tables,
    job: &Job<'_>,
    action: &Action,
) -> Result<Outcome, StoreError> {
    let Writer { user, now, rules } = job.writer;
    match action {
        Action::Send(message) => {
            let version = Version { at: message.updated_at, device: job.device };
            Ok(match sent_messages::put(transaction, user, message, &version).await? {
                Sent::Stored => Outcome::Applied,
                Sent::Lost => Outcome::Lost(Wanted {
                    table: "messages"
                        .parse()
                        .map_err(|_| StoreError::Unexpected("public.messages".to_owned()))?,
                    condition: format!("id = '{}'", message.id),
                }),
                Sent::Taken => Outcome::refused(Code::Conflict, "the id belongs to another message"),
                Sent::UnknownRecipient => {
                    Outcome::refused(Code::InvalidRecipient, "the recipient does not exist")
                }
            })
        }
        Action::Write(write) => {
            let version = Version { at: write.version.unwrap_or(now), device: job.device };
            row::apply(transaction, tables, rules, write, user, &version).await
        }
        Action::MarkRead(id) => Ok(match messages::mark_read(transaction, user, *id).await? {
            true => Outcome::Applied,
            false => Outcome::refused(Code::NotFound, "no such message was received"),
        }),
    }
}

/// The rows that won, as they are at the end; not those that a later item of the upload has won against.
async fn conflicts(
    transaction: &Transaction<'_>,
    job: &Job<'_>,
    outcomes: &[Outcome],
) -> Result<Vec<Conflict>, StoreError> {
    let mut lost: Vec<((Value, Value), &Wanted)> = Vec::new();
    for (item, outcome) in job.items.iter().zip(outcomes) {
        let name = row_of(&item.name);
        match outcome {
            Outcome::Refused(_) => continue,
            Outcome::Applied if matches!(item.action, Ok(Action::MarkRead(_))) => continue,
            Outcome::Applied | Outcome::Lost(_) => lost.retain(|(other, _)| *other != name),
        }
        if let Outcome::Lost(wanted) = outcome {
            lost.push((name, wanted));
        }
    }
    let wanted: Vec<&Wanted> = lost.iter().map(|(_, wanted)| *wanted).collect();
    let rows = winners::find(transaction, job.writer.rules, job.writer.user, &wanted).await?;
    let conflict = |(((table, key), _), row): (((Value, Value), &Wanted), Option<String>)| {
        let row = row.map(RawValue::from_string).transpose();
        Ok(Conflict { table, key, row: row.map_err(|error| StoreError::Unexpected(error.to_string()))? })
    };
    lost.into_iter().zip(rows).map(conflict).collect()
}

fn row_of(name: &Name) -> (Value, Value) {
    match name {
        Name::Message(id) => ("public.messages".into(), json!({ "id": id })),
        Name::Row { table, key } => (table.clone(), key.clone()),
    }
}

//! An upload in, its rows in one transaction and a receipt for the device out.

use chrono::{DateTime, Utc};
use deadpool_postgres::{Client, Transaction};
use posduif_model::{DeviceId, Lsn, UserId};
use serde::Serialize;
use serde_json::Value;

use super::upload::{Action, Item, Name, Refusal, Upload};
use crate::{
    clock,
    code::Code,
    store::{
        StoreError,
        messages::{self, Insertion},
        repeat_while_contended, wal,
    },
    tenant::Tenant,
};

/// What became of an upload.
#[derive(Debug, Serialize)]
pub struct Receipt {
    pub synced_count: usize,
    pub failed_count: usize,
    pub failed_messages: Vec<FailedMessage>,
    pub failed: Vec<FailedRow>,
    /// Rows that won against uploaded ones; only kinds that can be changed have any.
    pub conflicts: Vec<Value>,
    /// At or after the upload's commit.
    pub lsn: Lsn,
    pub sync_timestamp: String,
}

#[derive(Debug, Serialize)]
pub struct FailedMessage {
    pub message_id: Value,
    pub code: Code,
    pub error: String,
}

#[derive(Debug, Serialize)]
pub struct FailedRow {
    pub table: Value,
    pub key: Value,
    pub code: Code,
    pub error: String,
}

/// Applies an upload as its device's user.
///
/// A repeated upload changes nothing and is answered alike, so a device repeats whatever it got no receipt for.
///
/// # Errors
/// Only where nothing can be said of the items: the database is not available, or the transaction lost against
/// others again and again.
pub async fn apply(
    tenant: &Tenant,
    device: &DeviceId,
    user: UserId,
    upload: Upload,
    now: DateTime<Utc>,
) -> Result<Receipt, StoreError> {
    let items = upload.items(user, now);
    let (refusals, lsn) = repeat_while_contended(async || {
        let attempts = tenant.database.run(async |client| {
            match attempt(client, device, user, &items, Checks::AtCommit).await {
                // It was a constraint that PostgreSQL checks at the commit: which item broke it is still to be found.
                Err(error) if is_of_the_data(&error) => {
                    attempt(client, device, user, &items, Checks::PerItem).await
                }
                outcome => outcome,
            }
        });
        attempts.await
    })
    .await?;
    let mut receipt = Receipt {
        synced_count: 0,
        failed_count: 0,
        failed_messages: Vec::new(),
        failed: Vec::new(),
        conflicts: Vec::new(),
        lsn,
        sync_timestamp: clock::told(now),
    };
    for (item, refusal) in items.into_iter().zip(refusals) {
        receipt.add(item.name, refusal);
    }
    Ok(receipt)
}

impl Receipt {
    fn add(&mut self, name: Name, refusal: Option<Refusal>) {
        let Some(Refusal { code, error }) = refusal else {
            self.synced_count += 1;
            return;
        };
        self.failed_count += 1;
        match name {
            Name::Message(message_id) => self.failed_messages.push(FailedMessage { message_id, code, error }),
            Name::Row { table, key } => self.failed.push(FailedRow { table, key, code, error }),
        }
    }
}

/// When deferred constraints are checked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Checks {
    AtCommit,
    PerItem,
}

/// Whether a failure comes from what was to be written; the same data would fail again, other data may not.
fn is_of_the_data(error: &StoreError) -> bool {
    match error {
        StoreError::Rejected(_) | StoreError::Missing(_) | StoreError::Unexpected(_) => true,
        StoreError::Unavailable(_) | StoreError::Contended(_) => false,
    }
}

/// One run of the whole transaction: for each item why it was refused, if it was.
async fn attempt(
    client: &mut Client,
    device: &DeviceId,
    user: UserId,
    items: &[Item],
    checks: Checks,
) -> Result<(Vec<Option<Refusal>>, Lsn), StoreError> {
    let mut transaction = client.transaction().await?;
    wal::emit(&transaction, wal::ORIGIN, device.as_str()).await?;
    let mut refusals = Vec::with_capacity(items.len());
    for item in items {
        let refused = match &item.action {
            Ok(action) => guarded(&mut transaction, user, action, checks).await?.err(),
            Err(refusal) => Some(refusal.clone()),
        };
        refusals.push(refused);
    }
    transaction.commit().await?;
    Ok((refusals, wal::insert_lsn(client).await?))
}

/// Applies one item under a savepoint, so that PostgreSQL's refusal of it leaves the others alone.
async fn guarded(
    transaction: &mut Transaction<'_>,
    user: UserId,
    action: &Action,
    checks: Checks,
) -> Result<Result<(), Refusal>, StoreError> {
    let savepoint = transaction.savepoint("item").await?;
    let mut applied = apply_item(&savepoint, user, action).await;
    if applied.is_ok() && checks == Checks::PerItem {
        let now = "SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED";
        applied = savepoint.batch_execute(now).await.map_err(StoreError::from).and(applied);
    }
    let refusal = match applied {
        Ok(outcome) => {
            savepoint.commit().await?;
            return Ok(outcome);
        }
        Err(StoreError::Rejected(state)) => {
            Refusal::new(Code::ValidationError, format!("the database refused it (SQLSTATE {state})"))
        }
        Err(error) if is_of_the_data(&error) => {
            tracing::error!(%error, "an item of an upload failed by a fault of the server");
            Refusal::new(Code::InternalError, "the server failed at it; its log tells more")
        }
        Err(other) => return Err(other),
    };
    savepoint.rollback().await?;
    Ok(Err(refusal))
}

async fn apply_item(
    savepoint: &Transaction<'_>,
    user: UserId,
    action: &Action,
) -> Result<Result<(), Refusal>, StoreError> {
    let refused = |code, error: &str| Ok(Err(Refusal::new(code, error)));
    match action {
        Action::Send(message) => match messages::insert(savepoint, user, message).await? {
            Insertion::Stored => Ok(Ok(())),
            Insertion::Taken => refused(Code::Conflict, "the id belongs to another message"),
            Insertion::UnknownRecipient => refused(Code::InvalidRecipient, "the recipient does not exist"),
        },
        Action::MarkRead(id) => match messages::mark_read(savepoint, user, *id).await? {
            true => Ok(Ok(())),
            false => refused(Code::NotFound, "no such message was received"),
        },
    }
}

//! An upload in, its rows in one transaction and a receipt for the device out.

use chrono::{DateTime, Utc};
use deadpool_postgres::Transaction;
use posduif_model::{DeviceId, Lsn, UserId};
use serde::Serialize;
use serde_json::Value;

use super::upload::{Action, Item, Name, Refusal, Upload};
use crate::{
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
    pub sync_timestamp: DateTime<Utc>,
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
    let (refusals, lsn) =
        repeat_while_contended(async || attempt(tenant, device, user, &items).await).await?;
    let mut receipt = Receipt {
        synced_count: 0,
        failed_count: 0,
        failed_messages: Vec::new(),
        failed: Vec::new(),
        conflicts: Vec::new(),
        lsn,
        sync_timestamp: now,
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

/// One run of the whole transaction: for each item why it was refused, if it was.
async fn attempt(
    tenant: &Tenant,
    device: &DeviceId,
    user: UserId,
    items: &[Item],
) -> Result<(Vec<Option<Refusal>>, Lsn), StoreError> {
    let mut client = tenant.database.client().await?;
    let mut transaction = client.transaction().await?;
    wal::emit(&transaction, wal::ORIGIN, device.as_str()).await?;
    let mut refusals = Vec::with_capacity(items.len());
    for item in items {
        let refused = match &item.action {
            Ok(action) => guarded(&mut transaction, user, action).await?.err(),
            Err(refusal) => Some(refusal.clone()),
        };
        refusals.push(refused);
    }
    transaction.commit().await?;
    Ok((refusals, wal::insert_lsn(&client).await?))
}

/// Applies one item under a savepoint, so that PostgreSQL's refusal of it leaves the others alone.
async fn guarded(
    transaction: &mut Transaction<'_>,
    user: UserId,
    action: &Action,
) -> Result<Result<(), Refusal>, StoreError> {
    let savepoint = transaction.savepoint("item").await?;
    match apply_item(&savepoint, user, action).await {
        Ok(outcome) => {
            savepoint.commit().await?;
            Ok(outcome)
        }
        Err(StoreError::Rejected(state)) => {
            savepoint.rollback().await?;
            Ok(Err(Refusal::new(
                Code::ValidationError,
                format!("the database refused it (SQLSTATE {state})"),
            )))
        }
        Err(other) => Err(other),
    }
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

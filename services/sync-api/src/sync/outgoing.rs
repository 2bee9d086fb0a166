//! An upload in, its rows in one transaction and an answer for the device out.

use chrono::{DateTime, Utc};
use posduif_model::{DeviceId, Lsn, UserId, rule::RuleSet};

use super::{
    attempt::{self, Job, Run},
    change::Writer,
    outcome::positioned,
    upload::{InvalidUploadId, Upload, taken_at},
};
use crate::{
    store::{StoreError, repeat_while_contended, upload_receipts, wal},
    tenant::Tenant,
};

/// Why nothing can be said of the items.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error("the upload_id was used for another upload; give each one its own")]
    NameTaken,
    #[error(transparent)]
    InvalidId(#[from] InvalidUploadId),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Applies an upload as its device's user; the answer is JSON. `body` is the text that the upload was read from.
///
/// A repeated upload changes nothing and gets the first answer, so a device repeats whatever it got none for.
///
/// # Errors
/// `Store` where the database is not available, or the transaction lost against others again and again, or the user's
/// other uploads do not come to an end.
pub async fn apply(
    tenant: &Tenant,
    rules: &RuleSet,
    device: &DeviceId,
    user: UserId,
    upload: &Upload<'_>,
    body: &str,
    now: DateTime<Utc>,
) -> Result<String, UploadError> {
    let writer = Writer { user, now: taken_at(now), rules };
    let items = upload.items(&writer);
    let key = upload.key(body, &items)?;
    let job = Job {
        device,
        writer,
        items: &items,
        pending: upload.pending_outgoing_count,
        key: key.as_ref(),
        is_named: upload.is_named(),
    };
    let _turn = tenant.turns.wait(user).await?;
    let (run, lsn) = repeat_while_contended(async || {
        let done = tenant.database.run(async |client| {
            let run = attempt::run(client, &job).await?;
            // After the commit: the position of a statement before it could lie before it, too.
            let lsn = match (&run, job.key) {
                (Run::NameTaken, _) => Lsn::ZERO,
                (Run::Applied { is_kept: true, .. }, Some(key)) => {
                    upload_receipts::settle(client, device, key).await?
                }
                (Run::Repeated(answer), Some(key)) => match answer.lsn {
                    Some(lsn) => lsn,
                    None => upload_receipts::settle(client, device, key).await?,
                },
                _ => wal::insert_lsn(client).await?,
            };
            Ok::<_, StoreError>((run, lsn))
        });
        done.await
    })
    .await?;
    match run {
        Run::Applied { receipt, text, .. } => {
            tracing::debug!(
                tenant = %tenant.id,
                %device,
                synced = receipt.synced_count,
                failed = receipt.failed_count,
                "upload applied"
            );
            Ok(positioned(&text, lsn))
        }
        Run::Repeated(answer) => {
            tracing::debug!(tenant = %tenant.id, %device, "upload repeated");
            Ok(positioned(&answer.text, lsn))
        }
        Run::NameTaken => Err(UploadError::NameTaken),
    }
}

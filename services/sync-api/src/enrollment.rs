//! An enrolment token and a device in, that device's user and its new token out, once.

use deadpool_postgres::{Client, Transaction};
use posduif_accounts::{account, token::Token};
use posduif_changelog::{LogError, remembered::Until};
use posduif_model::{DeviceId, UserId};
use serde_json::Value;

use crate::{
    store::{
        StoreError, devices,
        enrollment_tokens::{self, EnrollmentToken},
        repeat_while_contended, users,
    },
    tenant::Tenant,
};

/// What a device says of itself.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub device: DeviceId,
    pub username: String,
    pub info: Value,
}

/// A completed enrolment.
#[derive(Clone, Debug)]
pub struct Enrolled {
    pub user: UserId,
    /// Shown to the device this once; the server keeps its hash.
    pub device_token: Token,
}

/// Why a device was not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrollmentError {
    #[error("the enrolment token is unknown, expired or used")]
    InvalidToken,
    /// Nobody made it: somebody guesses. The same for whoever presents it.
    #[error("the enrolment token is unknown, expired or used")]
    UnknownToken,
    #[error("the username is taken")]
    UsernameTaken,
    #[error("the enrolment token is bound to another username")]
    BoundToAnother,
    #[error("the device id belongs to another user")]
    DeviceTaken,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// How the transaction ended, apart from the database's own failures.
enum Outcome {
    Enrolled(UserId),
    Refused(EnrollmentError),
}

/// Completes an enrolment; concurrent completions of one token wait for each other on its row.
///
/// The device that used a token may repeat until it expires: its answer may have been lost. Each time it gets a
/// new device token and the earlier one dies, so it is forgotten by the cache before and after the commit. Who has
/// no valid token reaches neither the cache nor what other devices keep there.
pub async fn complete(
    tenant: &Tenant,
    token: &Token,
    candidate: &Candidate,
) -> Result<Enrolled, EnrollmentError> {
    let device_token = Token::generate(&tenant.id);
    let mut may_be_stored = false;
    let outcome = repeat_while_contended(async || {
        let attempt = tenant.database.run(async |client| {
            attempt(client, tenant, token, candidate, &device_token, &mut may_be_stored).await
        });
        attempt.await
    })
    .await;
    if let Ok(Outcome::Refused(refusal)) = outcome {
        return Err(refusal);
    }
    // A commit whose answer was lost may have happened.
    if may_be_stored {
        tenant.caches.devices.forget(&candidate.device, Until::Now).await?;
    }
    match outcome? {
        Outcome::Refused(refusal) => Err(refusal),
        Outcome::Enrolled(user) => Ok(Enrolled { user, device_token }),
    }
}

async fn attempt(
    client: &mut Client,
    tenant: &Tenant,
    token: &Token,
    candidate: &Candidate,
    device_token: &Token,
    may_be_stored: &mut bool,
) -> Result<Outcome, StoreError> {
    let transaction = client.transaction().await?;
    let Some(found) = enrollment_tokens::lock(&transaction, token.expose()).await? else {
        return Ok(Outcome::Refused(EnrollmentError::UnknownToken));
    };
    if found.is_expired || found.is_void {
        return Ok(Outcome::Refused(EnrollmentError::InvalidToken));
    }
    let outcome = match found.used_at {
        Some(_) => repeat(&transaction, &found, candidate).await?,
        None => first(&transaction, &found, candidate).await?,
    };
    if let Outcome::Enrolled(_) = outcome {
        devices::set_token(&transaction, &candidate.device, &device_token.hash()).await?;
        let forgotten = async {
            tenant.caches.devices.forget(&candidate.device, Until::Committed).await?;
            // A reinstalled app has nothing of what the earlier one confirmed.
            tenant.log.forget_position(&candidate.device).await
        };
        if let Err(error) = forgotten.await {
            return Ok(Outcome::Refused(error.into()));
        }
        *may_be_stored = true;
        transaction.commit().await?;
    }
    Ok(outcome)
}

async fn first(
    transaction: &Transaction<'_>,
    token: &EnrollmentToken,
    candidate: &Candidate,
) -> Result<Outcome, StoreError> {
    let Candidate { device, username, info } = candidate;
    let user = match token.bound_user {
        None => match users::create_mobile(transaction, username, device, token.id).await? {
            Some(user) => user,
            None => return Ok(Outcome::Refused(EnrollmentError::UsernameTaken)),
        },
        Some(bound) => match users::find_mobile(transaction, username).await? {
            Some(user) if user == bound => {
                users::note_enrollment(transaction, user, device, token.id).await?;
                // The user's row is locked now: whoever disables the user has done so, or waits.
                if account::disabled_at(&**transaction, user).await?.is_some() {
                    return Ok(Outcome::Refused(EnrollmentError::InvalidToken));
                }
                user
            }
            _ => return Ok(Outcome::Refused(EnrollmentError::BoundToAnother)),
        },
    };
    if !devices::enroll(transaction, device, user, info).await? {
        return Ok(Outcome::Refused(EnrollmentError::DeviceTaken));
    }
    enrollment_tokens::mark_used(transaction, token.id, device).await?;
    Ok(Outcome::Enrolled(user))
}

async fn repeat(
    transaction: &Transaction<'_>,
    token: &EnrollmentToken,
    candidate: &Candidate,
) -> Result<Outcome, StoreError> {
    let device = &candidate.device;
    if token.device.as_deref() != Some(device.as_str()) {
        return Ok(Outcome::Refused(EnrollmentError::InvalidToken));
    }
    match devices::owner(transaction, device).await? {
        // The device's row is locked now: whoever enrols it by another token has done so, or waits.
        Some(user) if !enrollment_tokens::is_superseded(transaction, token.id, device).await? => {
            Ok(Outcome::Enrolled(user))
        }
        _ => Ok(Outcome::Refused(EnrollmentError::InvalidToken)),
    }
}

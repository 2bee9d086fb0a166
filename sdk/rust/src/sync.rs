//! The machine's steps in, their durable effects and events out: the shell that drives one sync.

use std::{sync::Arc, time::Duration};

use crate::{
    device::{Device, lock},
    error::{Error, Result},
    instructions::Instructions,
    lock::SyncLock,
    machine::{Machine, SyncSummary},
    receipt::{Outcome, Refusal},
    session::Session,
    step::{Event, Instruction, Step},
    store::{NextUpload, Staged, Store},
};

impl Device {
    /// Uploads what waits, then fetches and shows what is new.
    ///
    /// May be cut off at any point, by dropping the future or by the death of the process: the next sync goes on
    /// from the last durable step, and the local tables show the state before or after a whole catch-up.
    ///
    /// # Errors
    /// [`Error::is_temporary`] tells whether to just try again. [`Error::Unauthorized`]: the device was revoked.
    pub async fn sync(&self) -> Result<SyncSummary> {
        let _lock = SyncLock::acquire(self.path())?;
        self.renew_session().await?;
        let mut machine = Machine::new();
        let mut event = Event::Started(self.with_store(|store| store.progress()).await?);
        loop {
            event = match machine.on(event) {
                Instruction::Do(step) => {
                    tracing::debug!(?step, device = %self.device_id(), "sync step");
                    self.perform(step).await.unwrap_or_else(Event::Failed)
                }
                Instruction::Wait(duration) => {
                    tokio::time::sleep(duration).await;
                    Event::Waited
                }
                Instruction::Done(summary) => return Ok(summary),
                Instruction::Fail(error) => return Err(error),
            };
        }
    }

    async fn perform(&self, step: Step) -> Result<Event> {
        let session = self.session();
        match step {
            Step::Instruct => {
                let body = session.http.instructions(&session.enrollment).await?;
                let instructions = Instructions::parse(&body)?;
                let changed = self.with_store(move |store| store.install(&instructions)).await?;
                Ok(Event::Instructed { changed })
            }
            Step::Upload { after, limit } => self.upload(&session, after, limit).await,
            Step::Reject { after, code, message } => {
                let upto = self.with_store(move |store| store.first_pending(after)).await?;
                let seqs: Vec<i64> = upto.into_iter().collect();
                let rejected = seqs.len();
                let refusal = Refusal { seqs, code, error: message };
                let outcome = Outcome { rejected: vec![refusal], ..Outcome::default() };
                self.with_store(move |store| store.record(&outcome)).await?;
                Ok(Event::Uploaded { upto, taken: 0, superseded: 0, rejected })
            }
            Step::Fetch { since } => {
                let limit = self.with_store(|store| store.batch_size()).await?;
                let body = session.http.incoming(&session.enrollment, since.as_deref(), limit).await?;
                let staged = self.with_store(move |store| store.stage(since.as_deref(), &body)).await?;
                Ok(match staged {
                    Ok(Staged { cursor, has_more, unknown_table }) => {
                        Event::Staged { cursor, has_more, unknown_table }
                    }
                    Err(unfit) => Event::Unfit(unfit),
                })
            }
            Step::Apply => {
                let applied = self.with_store(Store::apply).await?;
                Ok(Event::Applied {
                    received: applied.received,
                    snapshot: applied.snapshot,
                    lsn: applied.lsn,
                })
            }
            Step::Resync => self.with_store(Store::resync).await.map(|()| Event::Resynced),
        }
    }

    async fn upload(&self, session: &Session, after: i64, limit: usize) -> Result<Event> {
        let looked_at = |upto, rejected| Event::Uploaded { upto, taken: 0, superseded: 0, rejected };
        let upload = match self.with_store(move |store| store.next_upload(after, limit)).await? {
            NextUpload::Nothing => return Ok(looked_at(None, 0)),
            NextUpload::Unreadable(rejected) => return Ok(looked_at(Some(after), rejected)),
            NextUpload::Send(upload) => upload,
        };
        let answer = match session.http.outgoing(&session.enrollment, &upload.body).await {
            Err(error) => {
                if is_refusal_of_upload(&error) {
                    self.with_store(Store::forget_upload).await?;
                }
                return Err(error);
            }
            Ok(answer) => answer,
        };
        let outcome = upload.outcome(&answer)?;
        let uploaded = Event::Uploaded {
            upto: Some(upload.upto),
            taken: outcome.taken,
            superseded: outcome.superseded.len(),
            rejected: outcome.rejected.len(),
        };
        self.with_store(move |store| store.record(&outcome)).await?;
        Ok(uploaded)
    }

    async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = Arc::clone(&self.store);
        let task = tokio::task::spawn_blocking(move || work(&mut lock(&store)));
        task.await.map_err(|error| Error::Unusable(format!("the database task ended: {error}")))?
    }

    /// How often a device asks that is not told.
    pub(crate) async fn poll_interval(&self) -> Result<Duration> {
        self.with_store(|store| store.sync_interval()).await
    }

    /// The newest credential that this handle knows, and the client for it.
    pub(crate) fn session(&self) -> Arc<Session> {
        Arc::clone(&lock(&self.session))
    }

    /// Takes up another credential, if the file was enrolled again meanwhile. Returns whether it was.
    pub(crate) async fn renew_session(&self) -> Result<bool> {
        let enrollment = self.with_store(|store| store.enrollment()).await?;
        let mut session = lock(&self.session);
        if session.is_of(&enrollment) {
            return Ok(false);
        }
        *session = Arc::new(Session::new(enrollment)?);
        Ok(true)
    }
}

/// Whether the server says of this very upload that it will not take it: it is broken or too large, or its id stands
/// for another one, as after a restore of an old file. Its entries then go into other uploads.
fn is_refusal_of_upload(error: &Error) -> bool {
    let codes = ["VALIDATION_ERROR", "PAYLOAD_TOO_LARGE", "CONFLICT"];
    matches!(error, Error::Rejected { code, .. } if codes.contains(&code.as_str()))
}

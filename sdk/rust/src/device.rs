//! The application's handle: local reads and writes at once, and the shell that drives a sync.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{SecondsFormat, Utc};
use posduif_model::{DeviceId, UserId, table::quote_identifier as quoted};
use rusqlite::Connection;
use uuid::Uuid;

use crate::{
    enroll,
    error::{Error, Result},
    http::Http,
    instructions::{Instructions, SkippedTable},
    lock::SyncLock,
    machine::{Machine, SyncSummary},
    messenger::{self, Message, Rejected, User},
    receipt::{Outcome, Refusal},
    step::{Event, Instruction, Step},
    store::{self, Enrollment, Store},
    table::List,
    upload::Batch,
};

/// An enrolled device and its database.
///
/// Everything but `enroll` and `sync` works without a network. Local calls block for one short SQLite statement
/// (a write waits up to 10 s for a catch-up that is being applied); `sync` does its SQLite work on tokio's
/// blocking threads, over a connection of its own.
pub struct Device {
    path: PathBuf,
    app: Mutex<Connection>,
    store: Arc<Mutex<Store>>,
    http: Http,
    enrollment: Enrollment,
}

impl Device {
    /// Opens the database of an enrolled device.
    ///
    /// # Errors
    /// [`Error::Unusable`] if the file is missing, not a device's, or not enrolled.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let store = Store::open(&path)?;
        let enrollment = store.enrollment()?;
        Ok(Device {
            app: Mutex::new(store::connect(&path)?),
            store: Arc::new(Mutex::new(store)),
            http: Http::new(enrollment.base_url.clone())?,
            enrollment,
            path,
        })
    }

    /// Makes this database a device of the user `username`, by the URL of an enrolment QR code.
    ///
    /// The file is created if it is missing. After a failure the call may be repeated with the same URL, also
    /// when the server had already accepted it.
    ///
    /// A device that the server refuses ([`Error::Unauthorized`]) is enrolled again in its own file, by a URL that
    /// was made for its user: it keeps its id and all unsent writes, and takes a snapshot. Close other handles of
    /// the file first; they go on with the refused credential.
    ///
    /// # Errors
    /// [`Error::Rejected`] if the token is used or expired or the username is taken, [`Error::Unusable`] if the
    /// URL is none or the file is another device's, [`Error::Offline`] or [`Error::Retry`] to try again.
    pub async fn enroll(
        path: impl AsRef<Path>,
        enrollment_url: &str,
        username: &str,
        device_info: serde_json::Value,
    ) -> Result<Self> {
        enroll::enroll(path.as_ref(), enrollment_url, username, device_info).await?;
        Self::open(path)
    }

    /// The id under which the server knows this device.
    pub fn device_id(&self) -> &DeviceId {
        &self.enrollment.device_id
    }

    /// The user whose device this is: the sender of its messages.
    pub fn user_id(&self) -> UserId {
        self.enrollment.user_id
    }

    /// The name that the user enrolled under.
    pub fn username(&self) -> &str {
        &self.enrollment.username
    }

    /// The tenant that the device belongs to.
    pub fn tenant_id(&self) -> &str {
        &self.enrollment.tenant_id
    }

    /// The connection for the application's own statements. Writes to synced tables are captured and uploaded.
    ///
    /// Hold the guard for short work: the other local calls of this device wait for it.
    pub fn connection(&self) -> MutexGuard<'_, Connection> {
        lock(&self.app)
    }

    /// Writes a message to another user; it is uploaded by the next sync.
    ///
    /// # Errors
    /// [`Error::Rejected`] with `EMPTY_MESSAGE` if the content is only white space, [`Error::Store`] if the rules
    /// do not let a device write messages.
    pub fn send_message(&self, recipient_id: UserId, content: &str) -> Result<Uuid> {
        if content.trim().is_empty() {
            let (code, message) = ("EMPTY_MESSAGE".to_owned(), "a message needs content".to_owned());
            return Err(Error::Rejected { code, message });
        }
        let id = Uuid::new_v4();
        let now = now();
        let sql = "INSERT INTO {} (id, sender_id, recipient_id, content, status, created_at, updated_at)
                   VALUES (?1, ?2, ?3, ?4, 'pending_sync', ?5, ?5)";
        let (sender, recipient) = (self.user_id().to_string(), recipient_id.to_string());
        let conn = self.connection();
        let sql = sql.replace("{}", &self.messenger_table(List::Messages, &conn)?);
        conn.execute(&sql, (id.to_string(), sender, recipient, content, now))?;
        Ok(id)
    }

    /// Marks a received message as read. Returns whether it was there and unread.
    pub fn mark_read(&self, message_id: Uuid) -> Result<bool> {
        let sql = "UPDATE {} SET status = 'read', read_at = ?3
                   WHERE id = ?1 AND recipient_id = ?2 AND status IS NOT 'read'";
        let conn = self.connection();
        let sql = sql.replace("{}", &self.messenger_table(List::Messages, &conn)?);
        Ok(conn.execute(&sql, (message_id.to_string(), self.user_id().to_string(), now()))? > 0)
    }

    /// All users of the tenant, by name.
    pub fn users(&self) -> Result<Vec<User>> {
        let conn = self.connection();
        let tables = store::tables(&conn)?;
        messenger::users(&conn, messenger::table(&tables, List::Users)?, "ORDER BY t.username", [])
    }

    /// The user of this name, if the device has heard of one.
    pub fn find_user(&self, username: &str) -> Result<Option<User>> {
        let conn = self.connection();
        let tables = store::tables(&conn)?;
        let table = messenger::table(&tables, List::Users)?;
        Ok(messenger::users(&conn, table, "WHERE t.username = ?1", [username])?.pop())
    }

    /// The messages to this device's user, oldest first.
    pub fn inbox(&self) -> Result<Vec<Message>> {
        self.select_messages("t.recipient_id = ?1", [self.user_id().to_string()])
    }

    /// The conversation with another user, oldest first, unsent messages included.
    pub fn messages(&self, with: UserId) -> Result<Vec<Message>> {
        let filter =
            "(t.sender_id = ?1 AND t.recipient_id = ?2) OR (t.sender_id = ?2 AND t.recipient_id = ?1)";
        self.select_messages(filter, [self.user_id().to_string(), with.to_string()])
    }

    /// The number of local writes that wait for their upload.
    pub fn pending_count(&self) -> Result<u32> {
        let sql = "SELECT count(*) FROM posduif_outbox WHERE state = 'pending'";
        Ok(self.connection().query_row(sql, [], |row| row.get(0))?)
    }

    /// Local writes without effect at the server, oldest first.
    pub fn rejected(&self) -> Result<Vec<Rejected>> {
        messenger::rejected(&self.connection())
    }

    /// Tables that the server syncs and this device could not keep, with the reasons.
    pub fn skipped_tables(&self) -> Result<Vec<SkippedTable>> {
        store::skipped(&self.connection())
    }

    /// Uploads what waits, then fetches and shows what is new.
    ///
    /// May be cut off at any point, by dropping the future or by the death of the process: the next sync goes on
    /// from the last durable step, and the local tables show the state before or after a whole catch-up.
    ///
    /// # Errors
    /// [`Error::is_temporary`] tells whether to just try again. [`Error::Unauthorized`]: the device was revoked.
    pub async fn sync(&self) -> Result<SyncSummary> {
        let _lock = SyncLock::acquire(&self.path)?;
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
        match step {
            Step::Instruct => {
                let body = self.http.instructions(&self.enrollment).await?;
                let instructions = Instructions::parse(&body)?;
                let changed = self.with_store(move |store| store.install(&instructions)).await?;
                Ok(Event::Instructed { changed })
            }
            Step::Upload { after, limit } => self.upload(after, limit).await,
            Step::Reject { after, code, message } => {
                let entries = self.with_store(move |store| store.pending(after, 1)).await?;
                let upto = entries.first().map(|entry| entry.seq);
                let seqs: Vec<i64> = upto.into_iter().collect();
                let rejected = seqs.len();
                let refusal = Refusal { seqs, code, error: message };
                let outcome = Outcome { rejected: vec![refusal], ..Outcome::default() };
                self.with_store(move |store| store.record(&outcome)).await?;
                Ok(Event::Uploaded { upto, taken: 0, superseded: 0, rejected })
            }
            Step::Fetch { since } => {
                let limit = self.with_store(|store| store.batch_size()).await?;
                let body = self.http.incoming(&self.enrollment, since.as_deref(), limit).await?;
                let staged = self.with_store(move |store| store.stage(since.as_deref(), &body)).await?;
                Ok(Event::Staged {
                    cursor: staged.cursor,
                    has_more: staged.has_more,
                    unknown_table: staged.unknown_table,
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

    async fn upload(&self, after: i64, limit: usize) -> Result<Event> {
        let (upto, unreadable, batch) = self
            .with_store(move |store| {
                let entries = store.pending(after, limit)?;
                let mut batch = Batch::new(&entries, &store.tables()?)?;
                let rejected = std::mem::take(&mut batch.unreadable);
                let unreadable = rejected.len();
                if unreadable > 0 {
                    store.record(&Outcome { rejected, ..Outcome::default() })?;
                }
                Ok((entries.last().map(|entry| entry.seq), unreadable, batch))
            })
            .await?;
        let looked_at = |upto| Event::Uploaded { upto, taken: 0, superseded: 0, rejected: unreadable };
        if unreadable > 0 {
            // They are out of the way now; the same range is looked at again.
            return Ok(looked_at(Some(after)));
        }
        let Some(upto) = upto else { return Ok(looked_at(None)) };
        let answer = self.http.outgoing(&self.enrollment, batch.body.clone()).await?;
        let outcome = batch.outcome(&answer)?;
        let uploaded = Event::Uploaded {
            upto: Some(upto),
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

    fn messenger_table(&self, list: List, conn: &Connection) -> Result<String> {
        Ok(quoted(&messenger::table(&store::tables(conn)?, list)?.local_name))
    }

    fn select_messages(&self, filter: &str, params: impl rusqlite::Params) -> Result<Vec<Message>> {
        let conn = self.connection();
        let tables = store::tables(&conn)?;
        messenger::messages(&conn, messenger::table(&tables, List::Messages)?, filter, params)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("path", &self.path)
            .field("device_id", &self.enrollment.device_id)
            .field("user_id", &self.enrollment.user_id)
            .finish_non_exhaustive()
    }
}

/// A panic while the lock was held left no half-done transaction: it rolled back.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true)
}

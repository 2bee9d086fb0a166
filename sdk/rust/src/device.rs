//! The application's handle: local reads and writes at once, and the ways to be in step with the server.

use std::{
    fmt,
    future::Future,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{SecondsFormat, Utc};
use posduif_model::{DeviceId, UserId, table::quote_identifier as quoted};
use rusqlite::Connection;
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    enroll,
    error::{Error, Result},
    instructions::SkippedTable,
    live::{self, Status, StatusChanges, Wishes},
    messenger::{self, Message, Rejected, User},
    session::Session,
    store::{self, Enrollment, Store},
    table::List,
};

/// An enrolled device and its database.
///
/// Everything but `enroll`, `sync` and `run` works without a network. Local calls block for one short SQLite
/// statement (a write waits up to 10 s for a catch-up that is being applied); `sync` does its SQLite work on
/// tokio's blocking threads, over a connection of its own.
pub struct Device {
    path: PathBuf,
    app: Mutex<Connection>,
    pub(crate) store: Arc<Mutex<Store>>,
    /// As it was when the file was opened: whose device this is never changes.
    enrollment: Enrollment,
    pub(crate) session: Mutex<Arc<Session>>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) wishes: watch::Sender<Wishes>,
    /// Held by the one `run` there may be.
    pub(crate) turn: tokio::sync::Mutex<()>,
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
            session: Mutex::new(Arc::new(Session::new(enrollment.clone())?)),
            enrollment,
            status: watch::Sender::new(Status::unknown()),
            wishes: watch::Sender::default(),
            turn: tokio::sync::Mutex::new(()),
            path,
        })
    }

    /// Makes this database a device of the user `username`, by the URL of an enrolment QR code.
    ///
    /// The file is created if it is missing. After a failure the call may be repeated with the same URL, also
    /// when the server had already accepted it.
    ///
    /// A device that the server refuses ([`Error::Unauthorized`]) is enrolled again in its own file, by a URL that
    /// was made for its user: it keeps its id and all unsent writes, and takes a snapshot. Other handles of the file
    /// go on with the new credential.
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

    /// The database file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
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
        self.wrote();
        Ok(id)
    }

    /// Marks a received message as read. Returns whether it was there and unread.
    pub fn mark_read(&self, message_id: Uuid) -> Result<bool> {
        let sql = "UPDATE {} SET status = 'read', read_at = ?3
                   WHERE id = ?1 AND recipient_id = ?2 AND status IS NOT 'read'";
        let conn = self.connection();
        let sql = sql.replace("{}", &self.messenger_table(List::Messages, &conn)?);
        let marked = conn.execute(&sql, (message_id.to_string(), self.user_id().to_string(), now()))? > 0;
        if marked {
            self.wrote();
        }
        Ok(marked)
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

    /// Takes a write off the list of [`rejected`](Self::rejected) ones, once the user knows. Returns whether it was
    /// there.
    pub fn dismiss_rejected(&self, seq: i64) -> Result<bool> {
        Ok(self.connection().execute("DELETE FROM posduif_rejected WHERE seq = ?1", [seq])? > 0)
    }

    /// Tables that the server syncs and this device could not keep, with the reasons.
    pub fn skipped_tables(&self) -> Result<Vec<SkippedTable>> {
        store::skipped(&self.connection())
    }

    /// Keeps the device in step until `shutdown` is ready: syncs at once, whenever the server says that there is
    /// something new, whenever a local write waits, and now and then. After a failure it tries again, with growing
    /// waits of random length and never before the server's wish.
    ///
    /// Meanwhile [`status`](Self::status) tells how it stands. May be dropped at any point like `sync`, which may
    /// be called all the same: whichever comes second answers [`Error::Busy`].
    ///
    /// # Errors
    /// [`Error::Busy`] if `run` already runs on this handle; [`Error::Store`] if the file cannot be read. Whatever
    /// else goes wrong is in the status, and `run` goes on: also when the device was revoked, for the file may be
    /// enrolled again meanwhile.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) -> Result<()> {
        live::run(self, shutdown).await
    }

    /// How the device stands with its server, and each change from now on. Outside of [`run`](Self::run) it is
    /// offline.
    pub fn status(&self) -> StatusChanges {
        StatusChanges::new(self.status.subscribe())
    }

    /// Asks a running connection to sync at once, such as when the user pulls the screen down.
    pub fn sync_now(&self) {
        self.wishes.send_modify(|wishes| wishes.syncs = wishes.syncs.wrapping_add(1));
    }

    /// Lets a running connection rest, such as when the application goes into the background.
    pub fn pause(&self) {
        self.wishes.send_if_modified(|wishes| !std::mem::replace(&mut wishes.paused, true));
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.wishes.send_if_modified(|wishes| std::mem::replace(&mut wishes.paused, false));
    }

    /// Passes on what the system says of the network, where it does: without one nothing is tried, and another one
    /// is tried at once. Call it when the network changes and no oftener: requests over the earlier one are given up.
    pub fn network_changed(&self, available: bool) {
        self.wishes.send_modify(|wishes| {
            wishes.network = available;
            wishes.networks = wishes.networks.wrapping_add(1);
        });
    }

    /// A running connection need not look at the file to find this write.
    fn wrote(&self) {
        self.wishes.send_modify(|wishes| wishes.writes = wishes.writes.wrapping_add(1));
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
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true)
}

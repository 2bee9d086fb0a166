//! A path in, a connection to a database that is surely a device's out.

use std::{fs::OpenOptions, io::ErrorKind, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags};

use crate::error::{Error, Result};

/// "posd" in ASCII, in SQLite's header.
const APPLICATION_ID: i32 = 0x706F_7364;
/// The layout of the `posduif_` tables below.
const USER_VERSION: i32 = 1;
/// How long a writer waits for another one, such as a catch-up that is being applied.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

const LAYOUT: &str = r#"
CREATE TABLE posduif_state (
    name TEXT PRIMARY KEY,
    value
) WITHOUT ROWID;
INSERT INTO posduif_state VALUES ('applying', 0);

CREATE TABLE posduif_outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    "table" TEXT NOT NULL,
    op TEXT NOT NULL CHECK (op IN ('put', 'delete', 'read')),
    key TEXT NOT NULL,
    row TEXT,
    state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sent')),
    receipt TEXT
);
CREATE INDEX posduif_outbox_key ON posduif_outbox ("table", key);
CREATE INDEX posduif_outbox_state ON posduif_outbox (state, seq);

CREATE TABLE posduif_rejected (
    seq INTEGER PRIMARY KEY,
    "table" TEXT NOT NULL,
    op TEXT NOT NULL,
    key TEXT NOT NULL,
    row TEXT,
    code TEXT NOT NULL,
    error TEXT NOT NULL,
    at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

CREATE TABLE posduif_staging (
    seq INTEGER PRIMARY KEY,
    cursor TEXT NOT NULL,
    has_more INTEGER NOT NULL,
    body BLOB NOT NULL
);
"#;

/// Opens an existing device database for reading and writing. Refuses any other file, without changing it.
pub(crate) fn connect(path: &Path) -> Result<Connection> {
    let conn = open(path)?;
    match marks(&conn, path)? {
        (APPLICATION_ID, USER_VERSION) => {}
        (APPLICATION_ID, version) => {
            return Err(Error::Unusable(format!(
                "{} has layout {version}, this version of the app knows {USER_VERSION}",
                path.display()
            )));
        }
        _ => return Err(foreign(path)),
    }
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    Ok(conn)
}

/// Lays out a device database in a file that is missing or empty; leaves an existing one as it is.
pub(super) fn create(path: &Path) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    // The file holds the device's credential.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(Error::Unusable(format!("{} cannot be created: {error}", path.display())));
        }
        _ => {}
    }
    let mut conn = open(path)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    if marks(&conn, path)?.0 == APPLICATION_ID {
        return Ok(());
    }
    let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Exclusive)?;
    match marks(&tx, path)? {
        (APPLICATION_ID, _) => return Ok(()),
        (0, 0)
            if tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))? == 0 => {}
        _ => return Err(foreign(path)),
    }
    tx.execute_batch(LAYOUT)?;
    tx.pragma_update(None, "user_version", USER_VERSION)?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.commit()?;
    Ok(())
}

fn open(path: &Path) -> Result<Connection> {
    if !path.is_file() {
        return Err(Error::Unusable(format!("{} does not exist; enrol this device first", path.display())));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(Connection::open_with_flags(path, flags)?)
}

fn marks(conn: &Connection, path: &Path) -> Result<(i32, i32)> {
    let mark = |name| conn.pragma_query_value(None, name, |row| row.get(0));
    let marks = mark("application_id").and_then(|id| Ok((id, mark("user_version")?)));
    marks.map_err(|error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => foreign(path),
        _ => Error::Store(error),
    })
}

fn foreign(path: &Path) -> Error {
    Error::Unusable(format!("{} is not a Posduif device database", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_of_another_program_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.sqlite");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE notes (t)").unwrap();
        let before = std::fs::read(&path).unwrap();
        for result in [create(&path), connect(&path).map(drop)] {
            assert!(result.unwrap_err().to_string().contains("not a Posduif device database"));
        }
        std::fs::write(folder.path().join("text"), "x".repeat(5000)).unwrap();
        assert!(matches!(connect(&folder.path().join("text")), Err(Error::Unusable(_))));
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_missing_file_is_not_created_by_opening_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none.sqlite");
        assert!(matches!(connect(&path), Err(Error::Unusable(_))));
        assert!(!path.exists());
    }

    #[test]
    fn a_newer_layout_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("newer.sqlite");
        create(&path).unwrap();
        connect(&path).unwrap().pragma_update(None, "user_version", USER_VERSION + 1).unwrap();
        assert!(connect(&path).unwrap_err().to_string().contains("layout 2"));
    }

    #[test]
    fn every_commit_is_flushed_and_the_file_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.sqlite");
        create(&path).unwrap();
        create(&path).unwrap();
        let conn = connect(&path).unwrap();
        let pragma =
            |name| conn.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0));
        assert_eq!(pragma("synchronous"), Ok(2.into()));
        assert_eq!(pragma("journal_mode"), Ok("wal".to_owned().into()));
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}

//! A path in, a connection to a database that is surely a device's out.

use std::{fs::OpenOptions, io::ErrorKind, path::Path, time::Duration};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::error::{Error, Result};

/// "posd" in ASCII, in SQLite's header.
const APPLICATION_ID: i32 = 0x706F_7364;
/// The layout of the `posduif_` tables below.
const USER_VERSION: i32 = 2;
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

CREATE TABLE posduif_upload (
    id TEXT NOT NULL,
    upto INTEGER NOT NULL,
    items TEXT NOT NULL,
    body BLOB NOT NULL
);

CREATE TABLE posduif_staging (
    seq INTEGER PRIMARY KEY,
    cursor TEXT NOT NULL,
    has_more INTEGER NOT NULL,
    body BLOB NOT NULL
);
"#;

/// From layout 1 to 2. The triggers are made anew by the next app instructions.
const SINCE_LAYOUT_1: &str = r#"
CREATE TABLE posduif_upload (
    id TEXT NOT NULL,
    upto INTEGER NOT NULL,
    items TEXT NOT NULL,
    body BLOB NOT NULL
);
INSERT OR REPLACE INTO posduif_state VALUES ('stale', 1);
"#;

/// Opens an existing device database for reading and writing, and brings an older layout up to date. Refuses any
/// other file, without changing it.
pub(crate) fn connect(path: &Path) -> Result<Connection> {
    let mut conn = open(path)?;
    let layout = match marks(&conn, path)? {
        (APPLICATION_ID, layout @ 1..=USER_VERSION) => layout,
        (APPLICATION_ID, layout) => {
            return Err(Error::Unusable(format!(
                "{} has layout {layout}, this version of the app knows 1 to {USER_VERSION}: update the app",
                path.display()
            )));
        }
        _ => return Err(foreign(path)),
    };
    conn.busy_timeout(BUSY_TIMEOUT)?;
    whole(&conn).map_err(|error| damaged(path, error))?;
    if cut_within_a_page(&conn, path)? {
        return Err(damage(path, "it ends within a page"));
    }
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    if layout < USER_VERSION {
        upgrade(&mut conn)?;
    }
    Ok(conn)
}

fn upgrade(conn: &mut Connection) -> Result<()> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if tx.pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0))? == 1 {
        tx.execute_batch(SINCE_LAYOUT_1)?;
        tx.pragma_update(None, "user_version", USER_VERSION)?;
    }
    tx.commit()?;
    Ok(())
}

/// A file that was cut short has a good header and lacks pages. SQLite notices with the first one that it misses.
fn whole(conn: &Connection) -> rusqlite::Result<()> {
    for table in ["posduif_state", "posduif_outbox", "posduif_rejected", "posduif_staging"] {
        conn.prepare(&format!("SELECT 1 FROM {table}"))?.exists([])?;
    }
    Ok(())
}

/// SQLite takes the missing end of the last page for zeros. A log beside the file may still hold that page.
fn cut_within_a_page(conn: &Connection, path: &Path) -> Result<bool> {
    let page: u32 = conn.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let length = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len());
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    Ok(length(path) % u64::from(page.max(1)) != 0 && length(Path::new(&log)) == 0)
}

fn damage(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::Unusable(format!("{} is damaged ({why}): restore it, or enrol in a new file", path.display()))
}

fn damaged(path: &Path, error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        // Unknown: a table is missing.
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) => {
            damage(path, error)
        }
        _ => Error::Store(error),
    }
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
    let tx = conn.transaction_with_behavior(TransactionBehavior::Exclusive)?;
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
    if path.exists() && !path.is_file() {
        return Err(Error::Unusable(format!("{} is not a file: name a file for the device", path.display())));
    }
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
        Some(ErrorCode::NotADatabase) => foreign(path),
        _ => damaged(path, error),
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
    fn a_newer_layout_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("newer.sqlite");
        create(&path).unwrap();
        for layout in [USER_VERSION + 1, i32::MAX, 0, -1] {
            Connection::open(&path).unwrap().pragma_update(None, "user_version", layout).unwrap();
            let before = std::fs::read(&path).unwrap();
            let error = connect(&path).unwrap_err().to_string();
            assert!(
                error.contains(&format!("layout {layout}")) && error.contains("update the app"),
                "{error}"
            );
            assert_eq!(std::fs::read(&path).unwrap(), before);
        }
    }

    #[test]
    fn the_first_layout_is_brought_up_to_date_once_and_asks_for_instructions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old.sqlite");
        create(&path).unwrap();
        let old = Connection::open(&path).unwrap();
        old.execute_batch("DROP TABLE posduif_upload; PRAGMA user_version = 1;").unwrap();
        drop(old);
        for _ in 0..2 {
            let conn = connect(&path).unwrap();
            let sql =
                "SELECT (SELECT count(*) FROM posduif_upload), value FROM posduif_state WHERE name = 'stale'";
            let found = conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
            assert_eq!(found, Ok((0, 1)));
            assert_eq!(conn.pragma_query_value(None, "user_version", |row| row.get(0)), Ok(USER_VERSION));
        }
    }

    #[test]
    fn what_is_no_file_or_a_damaged_one_is_refused_with_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        for result in [create(folder.path()), connect(folder.path()).map(drop)] {
            assert!(result.unwrap_err().to_string().contains("is not a file"));
        }
        let path = folder.path().join("whole.sqlite");
        create(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let cut = folder.path().join("cut.sqlite");
        for length in 0..whole.len().div_ceil(512) {
            std::fs::write(&cut, &whole[..length * 512]).unwrap();
            let error = connect(&cut).unwrap_err();
            let known = error.to_string();
            let said = known.contains("is damaged") || known.contains("not a Posduif device database");
            assert!(matches!(error, Error::Unusable(_)) && said, "{length}: {known}");
        }
        let missing = folder.path().join("missing.sqlite");
        std::fs::copy(&path, &missing).unwrap();
        Connection::open(&missing).unwrap().execute_batch("DROP TABLE posduif_staging").unwrap();
        assert!(connect(&missing).unwrap_err().to_string().contains("is damaged"));
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

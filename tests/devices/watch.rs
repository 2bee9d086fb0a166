//! A device's file in, every state that its application could see out.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use posduif_model::Lsn;
use posduif_sdk::rusqlite::{Connection, OpenFlags, OptionalExtension, types::ValueRef};
use serde_json::Value;

use crate::shape::{self, Row, Rows};

/// What was visible at some time, and the position that the device said it showed.
#[derive(Clone, PartialEq)]
pub struct State {
    pub lsn: Lsn,
    pub rows: Rows,
}

/// Looks at a file over a connection of its own whenever anything in it has changed.
pub struct Watch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<State>>>,
    thread: Option<JoinHandle<()>>,
}

/// Between two looks; a sync asks the server between two visible changes, which takes longer.
const LOOK_EVERY: Duration = Duration::from_micros(500);

impl Watch {
    pub fn start(file: PathBuf) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (until, states) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = std::thread::spawn(move || look(&file, &until, &states));
        Watch { stop, seen, thread: Some(thread) }
    }

    /// The states seen since the last call, in their order.
    pub fn take(&self) -> Vec<State> {
        assert!(self.thread.as_ref().is_some_and(|thread| !thread.is_finished()), "nobody looks any more");
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn look(file: &PathBuf, until: &AtomicBool, seen: &Mutex<Vec<State>>) {
    let conn = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    conn.busy_timeout(Duration::from_secs(60)).unwrap();
    let mut version: i64 = -1;
    let mut last = None;
    while !until.load(Ordering::Relaxed) {
        let now = conn.query_row("PRAGMA data_version", [], |row| row.get(0)).unwrap();
        if now == version {
            std::thread::sleep(LOOK_EVERY);
            continue;
        }
        version = now;
        let state = read(&conn);
        if state.is_some() && state != last {
            seen.lock().unwrap().extend(state.clone());
            last = state;
        }
    }
}

/// All that is visible, in one read transaction; nothing before the first catch-up.
fn read(conn: &Connection) -> Option<State> {
    conn.execute_batch("BEGIN").unwrap();
    let lsn = "SELECT value FROM posduif_state WHERE name = 'lsn'";
    let lsn: Option<String> = conn.query_row(lsn, [], |row| row.get(0)).optional().unwrap();
    let state = lsn.map(|lsn| State { lsn: lsn.parse().unwrap(), rows: rows(conn) });
    conn.execute_batch("COMMIT").unwrap();
    state
}

/// The rows of all tables that are compared.
pub fn rows(conn: &Connection) -> Rows {
    let mut all = Rows::new();
    for (table, columns) in shape::TABLES {
        let sql = format!("SELECT {} FROM {table}", columns.join(", "));
        let mut statement = conn.prepare_cached(&sql).unwrap();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let value = |(place, name): (usize, &&str)| {
                let value = match row.get_ref(place).unwrap() {
                    ValueRef::Null => Value::Null,
                    ValueRef::Integer(number) => Value::from(number),
                    ValueRef::Text(text) => Value::from(std::str::from_utf8(text).unwrap()),
                    other => panic!("{table}.{name} holds a {}", other.data_type()),
                };
                shape::text(name, &value)
            };
            let row: Row = columns.iter().enumerate().map(value).collect();
            all.insert(shape::key_of(table, &row), row);
        }
    }
    all
}

//! What tests and their programs log in, one folder of files and a list of what must not be in them out.
//!
//! Only where the variable `POSDUIF_TEST_LOGS` names a folder, as `.ci/run` does: everything is then logged at level trace, which takes
//! time and disk. `tests/canaries.sh` searches the folder.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use posduif_runtime::config::{LogConfig, LogFormat};
use posduif_runtime::telemetry;

const FOLDER: &str = "POSDUIF_TEST_LOGS";
/// The level of programs, as they read it.
pub(crate) const LEVEL: (&str, &str) = ("POSDUIF__LOG__LEVEL", "trace");
/// A test process stops to write after this many bytes; the search says that it did.
const MOST_BYTES: usize = 256 << 20;
const CUT: &[u8] = b"\nthe rest was not written: the file is full\n";
/// What is shorter would be found by chance.
const SHORTEST: usize = 10;

/// The folder, if logs are gathered.
pub(crate) fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// The name of the test binary with the process, so that no two write into one file.
pub(crate) fn owner() -> String {
    let binary = std::env::current_exe().ok().and_then(|path| Some(path.file_stem()?.to_str()?.to_owned()));
    format!("{}-{}", binary.unwrap_or_default(), std::process::id())
}

/// From now on this process logs into the folder, as the programs log to standard error.
pub(crate) fn begin() {
    static BEGUN: OnceLock<()> = OnceLock::new();
    let Some(folder) = folder() else { return };
    BEGUN.get_or_init(|| {
        let file = File::create(folder.join(format!("{}.log", owner()))).expect("making a log");
        let lines = Capped(Arc::new(Mutex::new((file, MOST_BYTES))));
        let log = LogConfig { level: LEVEL.1.to_owned(), format: LogFormat::Json };
        telemetry::init_into(&log, move || lines.clone()).expect("logging");
    });
}

/// Says that this must stand in no log: a secret, a token, what somebody wrote.
pub fn plant(canary: &str) {
    let Some(folder) = folder() else { return };
    assert!(canary.len() >= SHORTEST && !canary.contains('\n'), "found by chance: {canary:?}");
    let list = folder.join(format!("{}.planted", owner()));
    let mut list = OpenOptions::new().create(true).append(true).open(list).expect("opening the list");
    list.write_all(format!("{canary}\n").as_bytes()).expect("planting");
}

/// A file that does not grow beyond all measure.
#[derive(Clone)]
struct Capped(Arc<Mutex<(File, usize)>>);

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, left) = &mut *held;
        match left.checked_sub(bytes.len()) {
            Some(rest) => {
                *left = rest;
                file.write_all(bytes)?;
            }
            None if *left > 0 => {
                *left = 0;
                file.write_all(CUT)?;
            }
            None => {}
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

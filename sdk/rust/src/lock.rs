//! One sync at a time: a lock on a file beside the database, which the system releases if the process dies.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::Path,
};

use crate::error::{Error, Result};

/// The right to sync one database, until it is dropped.
#[derive(Debug)]
pub(crate) struct SyncLock {
    _file: File,
}

impl SyncLock {
    /// Takes the lock or answers [`Error::Busy`] at once.
    pub fn acquire(database: &Path) -> Result<Self> {
        let mut path = database.as_os_str().to_owned();
        path.push("-sync");
        let unusable =
            |error| Error::Unusable(format!("{} cannot be locked: {error}", Path::new(&path).display()));
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => Ok(SyncLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Busy),
            Err(TryLockError::Error(error)) => Err(unusable(error)),
        }
    }
}

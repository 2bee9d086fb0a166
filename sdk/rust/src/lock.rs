//! One sync at a time: a lock on a file beside the database, which the system releases if the process dies.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::Path,
};

use crate::error::{Error, Result};

/// The right to sync one database, until it is dropped.
#[derive(Debug)]
pub(crate) struct SyncLock {
    file: File,
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
            Ok(()) => Ok(SyncLock { file }),
            Err(TryLockError::WouldBlock) => Err(Error::Busy),
            Err(TryLockError::Error(error)) => Err(unusable(error)),
        }
    }
}

impl Drop for SyncLock {
    /// Closing the file is not enough: a child that another thread is starting has it, too, until it runs its program.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "the lock on the database stays until its file is closed everywhere");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_being_started_does_not_keep_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("phone.sqlite");
        let lock = SyncLock::acquire(&database).unwrap();
        // What a child has between fork and exec: the same open file.
        let inherited = lock.file.try_clone().unwrap();
        assert!(matches!(SyncLock::acquire(&database), Err(Error::Busy)));
        drop(lock);
        assert!(SyncLock::acquire(&database).is_ok());
        drop(inherited);
    }
}

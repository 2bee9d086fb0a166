//! The environment in, the folder that keeps fetched servers out, changed by one process at a time.

use std::env;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::{ProvisionError, io};

/// The folder for fetched servers. Root's is outside /root, because the servers run as another user.
pub(crate) fn directory() -> Result<PathBuf, ProvisionError> {
    let named = |variable| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let directory = if let Some(directory) = named("POSDUIF_CACHE_DIR") {
        directory
    } else if rustix::process::geteuid().is_root() {
        PathBuf::from("/var/cache/posduif")
    } else if let Some(directory) = named("XDG_CACHE_HOME") {
        directory.join("posduif")
    } else if let Some(home) = named("HOME") {
        home.join(".cache/posduif")
    } else {
        return Err(ProvisionError::Directory {
            path: "~/.cache/posduif".into(),
            problem: "HOME is not set: set POSDUIF_CACHE_DIR to a folder for fetched servers".to_owned(),
        });
    };
    let unusable = |error: std::io::Error| ProvisionError::Directory {
        path: directory.clone(),
        problem: format!(
            "{error}: set POSDUIF_CACHE_DIR to a folder for fetched servers that can be written"
        ),
    };
    if !directory.exists() {
        fs::create_dir_all(&directory).map_err(unusable)?;
        // Whatever the caller's umask is: the user who runs the servers must be able to enter.
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).map_err(unusable)?;
    }
    directory.canonicalize().map_err(unusable)
}

/// The right to change one entry of the cache; other processes wait for it.
pub(crate) struct Entry {
    directory: PathBuf,
    name: String,
    _lock: File,
}

impl Entry {
    /// Waits until no other process is changing this entry.
    pub(crate) fn lock(directory: &Path, name: &str) -> Result<Self, ProvisionError> {
        let path = directory.join(format!("{name}.lock"));
        let lock = File::create(&path).and_then(|file| file.lock().map(|()| file));
        let lock = lock.map_err(io(format!("locking {}", path.display())))?;
        let entry = Self { directory: directory.to_owned(), name: name.to_owned(), _lock: lock };
        entry.sweep()?;
        Ok(entry)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }

    /// A folder on the same file system that other users can enter, removed when it is dropped.
    pub(crate) fn workspace(&self) -> Result<TempDir, ProvisionError> {
        let doing = || io(format!("making a folder in {}", self.directory.display()));
        let folder = tempfile::Builder::new().prefix(&self.prefix()).tempdir_in(&self.directory);
        let folder = folder.map_err(doing())?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).map_err(doing())?;
        Ok(folder)
    }

    /// Puts an unpacked tree in place, in one step, so that nobody ever sees half of it.
    pub(crate) fn publish(&self, tree: &Path) -> Result<(), ProvisionError> {
        let path = self.path();
        let doing = || io(format!("putting {} in place", path.display()));
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(doing()(error)),
            _ => fs::rename(tree, &path).map_err(doing()),
        }
    }

    fn prefix(&self) -> String {
        format!(".{}-", self.name)
    }

    /// Removes what a killed process left; the lock says that nobody is using it.
    fn sweep(&self) -> Result<(), ProvisionError> {
        let doing = || io(format!("sweeping {}", self.directory.display()));
        for found in fs::read_dir(&self.directory).map_err(doing())? {
            let found = found.map_err(doing())?;
            if found.file_name().to_string_lossy().starts_with(&self.prefix()) {
                fs::remove_dir_all(found.path()).map_err(doing())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_swept_and_other_entries_stay() {
        let cache = tempfile::tempdir().unwrap();
        for name in [".a-1x", ".b-1x", "a"] {
            fs::create_dir(cache.path().join(name)).unwrap();
        }
        Entry::lock(cache.path(), "a").unwrap();
        assert!(!cache.path().join(".a-1x").exists());
        assert!(cache.path().join(".b-1x").exists() && cache.path().join("a").exists());
    }

    #[test]
    fn publishing_replaces_a_broken_entry() {
        let cache = tempfile::tempdir().unwrap();
        let entry = Entry::lock(cache.path(), "a").unwrap();
        fs::create_dir(entry.path()).unwrap();
        let workspace = entry.workspace().unwrap();
        let tree = workspace.path().join("tree");
        fs::create_dir_all(tree.join("bin")).unwrap();
        entry.publish(&tree).unwrap();
        assert!(entry.path().join("bin").exists() && !tree.exists());
    }
}

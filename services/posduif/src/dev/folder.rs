//! The folder that holds one development installation, and the lock of whoever runs it.

use std::{
    fs::{self, File, TryLockError},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;

/// The file by which a folder is known to be ours; nothing else is ever removed.
const MARKER: &str = "settings.json";
const LOCK: &str = "lock";

/// A folder for one installation.
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder asked for, else the user's own. Root's lies outside /root: servers run as another user.
    pub fn choose(asked: Option<PathBuf>) -> anyhow::Result<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let path = match asked {
            Some(path) => std::path::absolute(path)?,
            None if rustix::process::geteuid().is_root() => PathBuf::from("/var/lib/posduif/dev"),
            None => set("XDG_DATA_HOME")
                .or_else(|| set("HOME").map(|home| home.join(".local/share")))
                .context("HOME is not set; name a folder with --data-dir")?
                .join("posduif/dev"),
        };
        Ok(Folder { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn settings(&self) -> PathBuf {
        self.join(MARKER)
    }

    /// The log file of one part.
    pub fn log(&self, part: &str) -> PathBuf {
        self.join(&format!("{part}.log"))
    }

    /// Makes the folder; others may pass through it to their own folders, but see nothing.
    pub fn create(&self) -> anyhow::Result<()> {
        let cannot = || format!("cannot make {}; name another folder with --data-dir", self.path.display());
        if !self.path.exists() {
            fs::create_dir_all(&self.path).with_context(cannot)?;
            fs::set_permissions(&self.path, fs::Permissions::from_mode(0o711)).with_context(cannot)?;
        }
        let is_empty = fs::read_dir(&self.path).with_context(cannot)?.next().is_none();
        let is_ours = is_empty || self.join(LOCK).exists() || self.settings().exists();
        anyhow::ensure!(
            is_ours,
            "{} holds something else; name an empty folder with --data-dir",
            self.path.display()
        );
        // From here on it is known to be ours.
        File::options().append(true).create(true).open(self.join(LOCK)).with_context(cannot)?;
        Ok(())
    }

    /// Takes the folder for as long as the file lives.
    pub fn lock(&self) -> anyhow::Result<File> {
        let path = self.join(LOCK);
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => anyhow::bail!("{}", self.busy()),
            Err(TryLockError::Error(error)) => Err(error).context("cannot lock the folder"),
        }
    }

    /// Whether nobody runs in this folder.
    pub fn is_free(&self) -> anyhow::Result<bool> {
        let file = match File::open(self.join(LOCK)) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error).context("cannot look at the lock"),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error).context("cannot look at the lock"),
        }
    }

    /// What to say when somebody does.
    pub fn busy(&self) -> String {
        format!("posduif dev runs in {} already; stop it with: posduif dev stop", self.path.display())
    }

    /// Removes all data of an installation that is not running.
    pub fn remove(&self) -> anyhow::Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        anyhow::ensure!(
            self.settings().exists() || self.join(LOCK).exists(),
            "{} was not made by posduif dev; nothing was removed",
            self.path.display()
        );
        let cannot = || format!("cannot remove {}", self.path.display());
        // The marker goes last: cut short, it can be repeated.
        for entry in fs::read_dir(&self.path).with_context(cannot)? {
            let path = entry.with_context(cannot)?.path();
            match path.is_dir() {
                true => fs::remove_dir_all(&path).with_context(cannot)?,
                false if path == self.settings() => {}
                false => fs::remove_file(&path).with_context(cannot)?,
            }
        }
        fs::remove_dir_all(&self.path).with_context(cannot)
    }
}

/// An empty file that only its owner may read.
pub fn private_file(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    // The mode counts only when the file is made, and an old file may have another one.
    let _ = fs::remove_file(path);
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

/// Writes a file that only its owner may read, whole or not at all.
pub fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;

    let cannot = || format!("cannot write {}", path.display());
    let fresh = path.with_extension("new");
    let mut file = private_file(&fresh).with_context(cannot)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(cannot)?;
    fs::rename(&fresh, path).with_context(cannot)
}

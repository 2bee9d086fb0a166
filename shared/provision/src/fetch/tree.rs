//! An unpacked tree in, one that every user of the machine can read and run out.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Reason;

/// Opens folders and files to all: root fetches, an unprivileged user runs.
pub(super) fn open_to_all(path: &Path) -> Result<(), Reason> {
    let inner = || -> std::io::Result<()> {
        let metadata = fs::symlink_metadata(path)?;
        if metadata.is_symlink() {
            return Ok(());
        }
        let runnable = metadata.is_dir() || metadata.permissions().mode() & 0o100 != 0;
        fs::set_permissions(path, fs::Permissions::from_mode(if runnable { 0o755 } else { 0o644 }))
    };
    inner().map_err(|error| format!("{} cannot be opened to all: {error}", path.display()))?;
    for child in children(path)? {
        open_to_all(&child)?;
    }
    Ok(())
}

/// Marks every file of a folder as a program: wheels do not say which ones are.
pub(super) fn make_runnable(folder: &Path) -> Result<(), Reason> {
    for file in children(folder)? {
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))
            .map_err(|error| format!("{} cannot be made runnable: {error}", file.display()))?;
    }
    Ok(())
}

fn children(path: &Path) -> Result<Vec<std::path::PathBuf>, Reason> {
    if path.is_symlink() || !path.is_dir() {
        return Ok(Vec::new());
    }
    let list = || fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect();
    let listed: std::io::Result<Vec<_>> = list();
    listed.map_err(|error| format!("{} cannot be listed: {error}", path.display()))
}

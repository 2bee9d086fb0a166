//! A directory's path in, a private directory that the server's user owns and can enter out.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{ProvisionError, io};
use crate::user::ServerUser;

/// The private directory of one server, readable by its user alone.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    path: PathBuf,
    user: Option<ServerUser>,
}

impl Place {
    /// Makes or takes over the directory. One that holds anything but `contents` is somebody else's and refused.
    pub(crate) fn claim(path: &Path, contents: &[&str]) -> Result<Self, ProvisionError> {
        let user = ServerUser::needed()?;
        fs::create_dir_all(path).map_err(io(format!("making {}", path.display())))?;
        let path = path.canonicalize().map_err(io(format!("finding {}", path.display())))?;
        let unusable = |problem: String| ProvisionError::Directory { path: path.clone(), problem };
        for entry in fs::read_dir(&path).map_err(io(format!("listing {}", path.display())))?.flatten() {
            if !contents.iter().any(|known| entry.file_name() == *known) {
                let stranger = entry.file_name().display().to_string();
                return Err(unusable(format!(
                    "it holds {stranger}, which is not the server's: choose an empty one"
                )));
            }
        }
        let place = Self { path: path.clone(), user };
        place.seal(&path, 0o700)?;
        if let Some(user) = &place.user {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "cd \"$1\"", "sh"]).arg(&path).current_dir("/");
            user.apply(&mut command);
            let entered = command.output().is_ok_and(|output| output.status.success());
            if !entered {
                let name = user.name();
                return Err(unusable(format!(
                    "user {name}, who runs the server, cannot enter it: choose another"
                )));
            }
        }
        Ok(place)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn user(&self) -> Option<&ServerUser> {
        self.user.as_ref()
    }

    /// Writes a file that only the server's user can read.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf, ProvisionError> {
        let path = self.join(name);
        let doing = || io(format!("writing {}", path.display()));
        // Sealed while it is still empty: the text may hold a password.
        fs::write(&path, "").map_err(doing())?;
        self.seal(&path, 0o600)?;
        fs::write(&path, text).map_err(doing())?;
        Ok(path)
    }

    /// Makes a directory within, if it is missing.
    pub(crate) fn folder(&self, name: &str) -> Result<(), ProvisionError> {
        let path = self.join(name);
        fs::create_dir_all(&path).map_err(io(format!("making {}", path.display())))?;
        self.seal(&path, 0o700)
    }

    fn seal(&self, path: &Path, mode: u32) -> Result<(), ProvisionError> {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(io(format!("making {} private", path.display())))?;
        self.user.as_ref().map_or(Ok(()), |user| user.own(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_somebody_elses_files_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.txt"), "").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let error = Place::claim(folder.path(), &["data"]).unwrap_err().to_string();
        assert!(error.contains("it holds thesis.txt"), "{error}");
        assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn a_claimed_directory_and_its_files_are_private() {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let place = Place::claim(&folder.path().join("server"), &["data"]).unwrap();
        let file = place.write("secret", "s").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(place.path()), mode(&file)), (0o700, 0o600));
    }
}

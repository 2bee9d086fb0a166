//! A program that may be a server in, its version or the reason why it cannot be used out.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use crate::software::Software;
use crate::user::ServerUser;
use crate::version::Version;

/// Asks the program for its version, as the user who will run it: a program in a folder that this user cannot
/// enter is no use.
pub(crate) fn probe(
    software: Software,
    program: &Path,
    libraries: Option<&OsStr>,
    user: Option<&ServerUser>,
) -> Result<Version, String> {
    if !program.exists() {
        return Err(format!("there is no {}", program.display()));
    }
    if let Some(missing) = software.companions().iter().find(|name| !program.with_file_name(name).exists()) {
        return Err(format!("{missing} is not beside it"));
    }
    let mut command = Command::new(program);
    command.arg(software.version_argument()).current_dir("/").env("LC_ALL", "C");
    if let Some(libraries) = libraries {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    if let Some(user) = user {
        user.apply(&mut command);
    }
    let output = command.output().map_err(|error| match user {
        Some(user) => format!("user {} cannot run it ({error})", user.name()),
        None => format!("it cannot be run ({error})"),
    })?;
    let answer = String::from_utf8_lossy(&output.stdout);
    let Some(version) = Version::parse(&answer).filter(|_| output.status.success()) else {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(format!("it does not tell its version ({})", complaint.trim()));
    };
    if version < software.minimum() {
        return Err(format!("it is version {version} and {} is needed", software.minimum()));
    }
    Ok(version)
}

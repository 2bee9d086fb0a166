//! A private directory in, a data directory that fits the installed PostgreSQL out.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{DATA, LOG, PASSWORD_FILE, PostgresOptions, UNFINISHED_DATA};
use crate::error::{ProvisionError, io};
use crate::installation::Installation;
use crate::place::Place;
use crate::software::Software;

/// Makes the data directory if there is none; one of another major version is refused.
pub(super) fn ensure(
    installation: &Installation,
    options: &PostgresOptions,
    place: &Place,
) -> Result<(), ProvisionError> {
    let major = installation.version().major();
    let data = place.join(DATA);
    match fs::read_to_string(data.join("PG_VERSION")) {
        Ok(version) if version.trim() == major.to_string() => Ok(()),
        Ok(version) => Err(ProvisionError::Directory {
            path: data,
            problem: format!(
                "it was made by PostgreSQL {} and {major} was found: name the older one's bin folder by {}, or \
                 choose another directory",
                version.trim(),
                Software::Postgres.variable()
            ),
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => make(installation, options, place),
        Err(error) => Err(io(format!("reading {}", data.display()))(error)),
    }
}

/// Runs initdb beside the final place, so that an interrupted run is never taken for a data directory.
fn make(installation: &Installation, options: &PostgresOptions, place: &Place) -> Result<(), ProvisionError> {
    let unfinished = place.join(UNFINISHED_DATA);
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(io(format!("removing {}", unfinished.display()))(error));
        }
        _ => {}
    }
    let password_file = place.write(PASSWORD_FILE, &options.password)?;
    let made = initdb(installation, options, place, &unfinished, &password_file);
    fs::remove_file(&password_file).map_err(io(format!("removing {}", password_file.display())))?;
    made?;
    fs::rename(&unfinished, place.join(DATA)).map_err(io(format!("renaming {}", unfinished.display())))
}

fn initdb(
    installation: &Installation,
    options: &PostgresOptions,
    place: &Place,
    data: &Path,
    password_file: &Path,
) -> Result<(), ProvisionError> {
    let mut command = Command::new(installation.program().with_file_name("initdb"));
    command
        // The built-in provider sorts by code point everywhere, whatever locales the machine has.
        .args(["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"])
        .args(["--auth=scram-sha-256", "--no-instructions"])
        .arg("--pgdata")
        .arg(data)
        .arg("--pwfile")
        .arg(password_file)
        .arg(format!("--username={}", options.superuser))
        .env("LC_ALL", "C")
        .current_dir(place.path())
        .stdin(Stdio::null());
    if !options.durable {
        command.arg("--no-sync");
    }
    if let Some(libraries) = installation.libraries() {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    if let Some(user) = place.user() {
        user.apply(&mut command);
    }
    let output = command.output().map_err(io("running initdb"))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    let log = place.write(LOG, &complaint)?;
    let detail = complaint.lines().find(|line| line.contains("error") || line.contains("FATAL"));
    let detail = format!("initdb failed ({})", detail.unwrap_or("without saying why").trim());
    Err(ProvisionError::Start { name: Software::Postgres.name(), detail, log })
}

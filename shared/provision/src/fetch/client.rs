//! A package client's command in, its output or the gist of its complaint out.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Reason;

const LONGEST_GIST: usize = 300;

/// Runs the command to its end and gives what it printed on standard output.
pub(super) fn run(command: &mut Command) -> Result<String, Reason> {
    run_aloud(command).map(|(said, _)| said)
}

/// [`run`] for clients that complain and still succeed: gives the gist of the complaint too.
pub(super) fn run_aloud(command: &mut Command) -> Result<(String, String), Reason> {
    let name =
        Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    // English answers, whatever the caller's language: they are read below.
    let output =
        command.env("LC_ALL", "C").stdin(Stdio::null()).output().map_err(|error| match error.kind() {
            ErrorKind::NotFound => format!("{name} is not installed"),
            _ => format!("{name} cannot be run ({error})"),
        })?;
    let complaint = gist(&String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        return Ok((String::from_utf8_lossy(&output.stdout).into_owned(), complaint));
    }
    Err(format!("{name} failed ({complaint})"))
}

/// The first line about an error, which tells the cause: clients go on to what follows from it and to advice.
fn gist(complaint: &str) -> String {
    let lines = || complaint.lines().map(str::trim).filter(|line| !line.is_empty());
    let tells = |line: &&str| {
        let lower = line.to_ascii_lowercase();
        line.starts_with("E:") || lower.contains("error") || lower.contains("failed to")
    };
    let line = lines().find(tells).or_else(|| lines().next_back()).unwrap_or("without saying why");
    // pip wraps the cause of a broken connection into a state of its own.
    let cause = line.split_once("connection broken by ").map_or(line, |(_, cause)| cause);
    cause.chars().take(LONGEST_GIST).collect()
}

/// The only file with this ending in the folder that a client has downloaded into.
pub(super) fn downloaded(folder: &Path, ending: &str) -> Result<PathBuf, Reason> {
    std::fs::read_dir(folder)
        .map_err(|error| error.to_string())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.to_string_lossy().ends_with(ending))
        .ok_or_else(|| format!("no {ending} file was downloaded"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_client_is_named() {
        let reason = run(&mut Command::new("/nowhere/npm")).unwrap_err();
        assert_eq!(reason, "npm is not installed");
    }

    #[test]
    fn a_failed_client_is_quoted_by_its_first_error() {
        let script =
            "echo start >&2; echo 'ERROR: no network' >&2; echo 'ERROR: no such package' >&2; exit 1";
        let reason = run(Command::new("sh").args(["-c", script])).unwrap_err();
        assert_eq!(reason, "sh failed (ERROR: no network)");
    }
}

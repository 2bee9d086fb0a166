//! The machine's folders in, the first server that is new enough out.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::ProvisionError;
use crate::installation::Installation;
use crate::probe::probe;
use crate::software::Software;
use crate::user::ServerUser;

/// What a search over the machine gave.
pub(crate) struct Search {
    pub(crate) found: Option<Installation>,
    /// Why each candidate was passed over, for the message when nothing can be had at all.
    pub(crate) passed_over: Vec<String>,
}

/// Looks at the explicit path, then the environment, then PATH, then the usual folders.
pub(crate) fn find(
    software: Software,
    explicit: Option<&Path>,
    user: Option<&ServerUser>,
) -> Result<Search, ProvisionError> {
    if let Some(path) = explicit {
        return named(software, path, "the options".to_owned(), user);
    }
    if let Some(path) = env::var_os(software.variable()).filter(|path| !path.is_empty()) {
        return named(software, Path::new(&path), software.variable().to_owned(), user);
    }
    let on_path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&on_path).chain(usual_folders(software));
    Ok(first_usable(software, folders, user))
}

fn named(
    software: Software,
    path: &Path,
    by: String,
    user: Option<&ServerUser>,
) -> Result<Search, ProvisionError> {
    let program = software.program_at(path);
    match probe(software, &program, None, user) {
        Ok(version) => {
            Ok(Search { found: Some(Installation::new(program, version, None)), passed_over: Vec::new() })
        }
        Err(problem) => {
            Err(ProvisionError::Named { name: software.name(), path: path.to_owned(), by, problem })
        }
    }
}

fn first_usable(
    software: Software,
    folders: impl Iterator<Item = PathBuf>,
    user: Option<&ServerUser>,
) -> Search {
    let mut seen = BTreeSet::new();
    let mut passed_over = Vec::new();
    for folder in folders {
        for name in software.program_names() {
            let path = folder.join(name);
            let Ok(real) = path.canonicalize() else { continue };
            // The companions of a program lie beside its real file, not beside a link to it. But a link of another
            // name stays: Debian's `redis-server` leads to a program that looks at the name it was called by.
            let program = if real.ends_with(name) { real.clone() } else { path };
            if !seen.insert((name, real)) {
                continue;
            }
            match probe(software, &program, None, user) {
                Ok(version) => {
                    let found = Some(Installation::new(program, version, None));
                    return Search { found, passed_over };
                }
                Err(problem) => passed_over.push(format!("{}: {problem}", program.display())),
            }
        }
    }
    Search { found: None, passed_over }
}

/// The usual folders, a later version before an earlier one.
fn usual_folders(software: Software) -> impl Iterator<Item = PathBuf> {
    software.usual_folders().iter().flat_map(|pattern| expand(pattern))
}

fn expand(pattern: &str) -> Vec<PathBuf> {
    let mut paths = vec![PathBuf::from("/")];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        paths = match part.split_once('*') {
            None => paths.into_iter().map(|path| path.join(part)).collect(),
            Some((before, after)) => paths.iter().flat_map(|path| matching(path, before, after)).collect(),
        };
    }
    paths
}

fn matching(folder: &Path, before: &str, after: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.len() >= before.len() + after.len())
        .filter(|name| name.starts_with(before) && name.ends_with(after))
        .collect();
    names.sort();
    names.into_iter().rev().map(|name| folder.join(name)).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn pretend(folder: &Path, name: &str, answer: &str) -> PathBuf {
        let program = folder.join(name);
        fs::write(&program, format!("#!/bin/sh\necho '{answer}'\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        program
    }

    #[test]
    fn an_explicitly_named_server_that_is_too_old_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        pretend(folder.path(), "postgres", "postgres (PostgreSQL) 15.18");
        pretend(folder.path(), "initdb", "");
        let error = find(Software::Postgres, Some(folder.path()), None).err().unwrap().to_string();
        assert!(error.contains("it is version 15.18 and 18.0 is needed"), "{error}");
        assert!(error.contains("correct that path or leave it out"), "{error}");
    }

    #[test]
    fn an_explicitly_named_server_that_is_missing_is_refused() {
        let error = find(Software::Redis, Some(Path::new("/nowhere/redis-server")), None).err().unwrap();
        assert!(error.to_string().contains("there is no /nowhere/redis-server"), "{error}");
    }

    #[test]
    fn a_server_that_is_too_old_is_passed_over_for_a_newer_one() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        pretend(old.path(), "redis-server", "Redis server v=6.2.1 sha=0");
        let wanted = pretend(new.path(), "valkey-server", "Valkey server v=8.1.0 sha=0");
        let folders = [old.path().to_owned(), new.path().to_owned()];
        let search = first_usable(Software::Redis, folders.into_iter(), None);
        assert_eq!(search.found.unwrap().program(), wanted.canonicalize().unwrap());
        assert!(search.passed_over[0].contains("6.2.1"), "{:?}", search.passed_over);
    }

    #[test]
    fn a_pattern_gives_the_later_version_first() {
        let folder = tempfile::tempdir().unwrap();
        for version in ["17", "18"] {
            fs::create_dir_all(folder.path().join(version).join("bin")).unwrap();
        }
        let pattern = format!("{}/*/bin", folder.path().display());
        assert_eq!(expand(&pattern), ["18", "17"].map(|version| folder.path().join(version).join("bin")));
    }
}

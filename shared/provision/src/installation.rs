//! A server program that is on this machine and new enough.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::version::Version;

/// A server program that was asked for its version and is new enough.
#[derive(Debug, Clone)]
pub struct Installation {
    program: PathBuf,
    version: Version,
    libraries: Option<OsString>,
}

impl Installation {
    pub(crate) fn new(program: PathBuf, version: Version, libraries: Option<OsString>) -> Self {
        Self { program, version, libraries }
    }

    /// The server program itself: `postgres`, `redis-server` or `valkey-server`.
    pub fn program(&self) -> &Path {
        &self.program
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// The value of `LD_LIBRARY_PATH` under which a fetched program finds its libraries.
    pub fn libraries(&self) -> Option<&OsStr> {
        self.libraries.as_deref()
    }
}

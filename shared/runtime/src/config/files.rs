//! The configuration's files in, whether they are still the same and which sections differ out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{Config, Reader, error::ConfigError, load};

/// The state of the files at a moment: the text of both that hold settings, and which files the secrets are in.
///
/// Files are followed through symbolic links: an orchestrator replaces a link, and not the file.
#[derive(PartialEq, Eq)]
pub struct Fingerprint {
    settings: Option<Vec<u8>>,
    tenants: Option<Vec<u8>>,
    secrets: BTreeMap<PathBuf, Option<Version>>,
}

/// What tells one version of a file from the next without reading it.
#[derive(PartialEq, Eq)]
struct Version {
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds of the last change of the content, and of owner or mode.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    /// Looks at the file and at those that it named when `config` was read from it.
    pub fn take(path: &Path, reader: Reader, config: &Config) -> Self {
        let secrets = config.tenants.iter().filter_map(|tenant| tenant.secret_file(reader));
        Fingerprint {
            settings: fs::read(path).ok(),
            tenants: config.tenants_file.as_ref().and_then(|file| fs::read(file).ok()),
            secrets: secrets.map(|file| (file.to_owned(), Version::of(file).ok())).collect(),
        }
    }
}

impl Version {
    fn of(path: &Path) -> io::Result<Self> {
        let file = fs::metadata(path)?;
        Ok(Version {
            inode: file.ino(),
            bytes: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}

/// Everything but the tenants, as it is written and overridden by the environment.
#[derive(Clone, PartialEq)]
pub struct Sections(BTreeMap<String, config::Value>);

impl Sections {
    /// # Errors
    /// The file cannot be read, or is no YAML.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut sections: BTreeMap<String, config::Value> = load::parse(&text, load::environment())?;
        sections.retain(|name, _| name != "tenants" && name != "tenants_file");
        Ok(Sections(sections))
    }

    /// The names of those that differ.
    pub fn differing<'s>(&'s self, other: &'s Sections) -> BTreeSet<&'s str> {
        let names = self.0.keys().chain(other.0.keys());
        names.filter(|name| self.0.get(*name) != other.0.get(*name)).map(String::as_str).collect()
    }
}

//! A YAML list of tenants in, their entries out; and a changed list in, the file out, never half of it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

use posduif_model::TenantId;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{error::ConfigError, load, tenants::TenantConfig};

/// What stands in the list for one tenant: keys of `tenants`, as they are written.
pub type Entry = Map<String, Value>;

/// The file that `tenants_file` names, as the operator's tool edits it.
#[derive(Clone, Debug)]
pub struct TenantsFile {
    path: PathBuf,
}

/// The list could not be changed; it is as it was.
#[derive(Debug, thiserror::Error)]
pub enum TenantsFileError {
    #[error(transparent)]
    Unusable(#[from] ConfigError),
    #[error("cannot write {path}: {source}; run this as the file's owner, where its folder can be written")]
    Write { path: PathBuf, source: io::Error },
    #[error("{0} has an entry for tenant {1} already; remove it first: posduif tenant drop")]
    Taken(PathBuf, TenantId),
}

/// Nobody but its owner reads a new file: it may hold passwords.
const PRIVATE: u32 = 0o600;
/// Whatever an existing file allows, strangers never.
const NO_STRANGERS: u32 = 0o770;

const HEAD: &str = "\
# The tenants that `posduif tenant add` and `posduif tenant drop` keep; the services look at it every two seconds.
# Entries have the keys of `tenants` in config.yaml. Edited by hand it keeps its entries, not its comments.
";

#[derive(Deserialize)]
struct Wrapped<T> {
    tenants_file: Vec<T>,
}

/// The tenants of a file; passwords that it names are not read yet.
pub(super) fn tenants(path: &Path) -> Result<Vec<TenantConfig>, ConfigError> {
    parse(path, &read(path)?)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|source| ConfigError::ReadTenants { path: path.to_owned(), source })
}

/// An empty text is no list: a file that is just being written must not end every tenant.
fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<Vec<T>, ConfigError> {
    let mut wrapped = "tenants_file:\n".to_owned();
    for line in text.lines().filter(|line| line.trim_end() != "---") {
        wrapped += &format!("  {line}\n");
    }
    let read: Result<Wrapped<T>, ConfigError> = load::parse(&wrapped, []);
    let cause = |cause| ConfigError::Tenants { path: path.to_owned(), cause: Box::new(cause) };
    Ok(read.map_err(cause)?.tenants_file)
}

impl TenantsFile {
    pub fn new(path: PathBuf) -> Self {
        TenantsFile { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes an empty list where there is no file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn ensure(&self) -> Result<(), TenantsFileError> {
        let _alone = self.lock()?;
        match self.path.exists() {
            true => Ok(()),
            false => self.write(&[]),
        }
    }

    /// Whether the list has an entry for the tenant.
    ///
    /// # Errors
    /// The file cannot be read, or holds no usable list.
    pub fn has(&self, tenant: &TenantId) -> Result<bool, ConfigError> {
        Ok(tenants(&self.path)?.iter().any(|entry| entry.id == *tenant))
    }

    /// Adds an entry at the end.
    ///
    /// # Errors
    /// The entry or the file is not usable, or the tenant has an entry already.
    pub fn add(&self, entry: Entry) -> Result<(), TenantsFileError> {
        let _alone = self.lock()?;
        let mut entries: Vec<Entry> = parse(&self.path, &read(&self.path)?)?;
        entries.push(entry);
        // As the services will read it.
        let mut read: Vec<TenantConfig> = parse(&self.path, &text(&entries))?;
        match read.pop() {
            Some(added) if read.iter().any(|known| known.id == added.id) => {
                Err(TenantsFileError::Taken(self.path.clone(), added.id))
            }
            _ => self.write(&entries),
        }
    }

    /// Removes the tenant's entry; whether there was one.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn remove(&self, tenant: &TenantId) -> Result<bool, TenantsFileError> {
        let _alone = self.lock()?;
        let entries: Vec<Entry> = parse(&self.path, &read(&self.path)?)?;
        let read = tenants(&self.path)?;
        let stays = entries.iter().zip(&read).filter(|(_, read)| read.id != *tenant);
        let kept: Vec<Entry> = stays.map(|(entry, _)| entry.clone()).collect();
        if kept.len() == entries.len() {
            return Ok(false);
        }
        self.write(&kept)?;
        Ok(true)
    }

    /// One writer at a time: two that add a tenant at once must not undo each other.
    fn lock(&self) -> Result<File, TenantsFileError> {
        let folder = File::open(self.folder()).and_then(|folder| folder.lock().map(|()| folder));
        folder.map_err(|source| self.failed(source))
    }

    fn folder(&self) -> PathBuf {
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        parent.map_or_else(|| PathBuf::from("."), Path::to_owned)
    }

    fn failed(&self, source: io::Error) -> TenantsFileError {
        TenantsFileError::Write { path: self.path.clone(), source }
    }

    fn write(&self, entries: &[Entry]) -> Result<(), TenantsFileError> {
        replace(&self.path, &text(entries)).map_err(|source| self.failed(source))
    }
}

/// The list as YAML; JSON's texts are YAML's.
fn text(entries: &[Entry]) -> String {
    let mut text = HEAD.to_owned();
    if entries.is_empty() {
        text += "[]\n";
    }
    for entry in entries {
        // The id leads, so that people find it.
        let (id, rest): (Vec<_>, Vec<_>) = entry.iter().partition(|(key, _)| *key == "id");
        for (place, (key, value)) in id.into_iter().chain(rest).enumerate() {
            text += &format!("{} {key}: {value}\n", if place == 0 { "-" } else { " " });
        }
    }
    text
}

/// Readers see the old file or the new one, also after a crash.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    // Behind a symbolic link, the file itself.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let former = fs::metadata(&path).ok();
    let mode = former.as_ref().map_or(PRIVATE, |former| former.mode() & NO_STRANGERS);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let written = (|| {
        // What a predecessor with this process id left behind.
        let _absent = fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        if let Some(former) =
            former.filter(|former| file.metadata().is_ok_and(|own| owner(&own) != owner(former)))
        {
            fchown(&file, Some(former.uid()), Some(former.gid()))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)
    })();
    if written.is_err() {
        let _gone = fs::remove_file(&new);
        return written;
    }
    File::open(path.parent().unwrap_or_else(|| Path::new(".")))?.sync_all()
}

fn owner(of: &fs::Metadata) -> (u32, u32) {
    (of.uid(), of.gid())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::{super::Config, *};

    fn entry(value: Value) -> Entry {
        value.as_object().unwrap().clone()
    }

    fn in_folder() -> (tempfile::TempDir, TenantsFile) {
        let folder = tempfile::tempdir().unwrap();
        let file = TenantsFile::new(folder.path().join("tenants.yaml"));
        (folder, file)
    }

    fn mode(file: &TenantsFile) -> u32 {
        fs::metadata(file.path()).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_added_is_read_back_with_every_key_and_what_is_removed_is_gone() {
        let (_folder, file) = in_folder();
        file.ensure().unwrap();
        assert_eq!(mode(&file), 0o600);
        let password = "a \"quote\", a \\ and: # more";
        file.add(entry(json!({"id": "b", "url": "postgres://u@h/b", "password": password}))).unwrap();
        file.add(entry(json!({"url": "postgres://u@h/a", "admin_url": "postgres://x@h/a"}))).unwrap();
        let yaml = format!(
            "{{tenants: [{{url: 'postgres://u@h/own'}}], tenants_file: '{}'}}",
            file.path().display()
        );
        let config = Config::from_yaml(&yaml).unwrap();
        let ids: Vec<&str> = config.tenants.iter().map(|tenant| tenant.id.as_str()).collect();
        assert_eq!(ids, ["own", "b", "a"]);
        assert_eq!(config.tenants[1].url.config().get_password(), Some(password.as_bytes()));
        assert!(file.remove(&"b".parse().unwrap()).unwrap());
        assert!(!file.remove(&"b".parse().unwrap()).unwrap());
        assert!(!file.has(&"b".parse().unwrap()).unwrap() && file.has(&"a".parse().unwrap()).unwrap());
        assert!(file.remove(&"a".parse().unwrap()).unwrap());
        assert_eq!(Config::from_yaml(&yaml).unwrap().tenants.len(), 1);
    }

    #[test]
    fn an_entry_that_the_services_would_refuse_is_not_written() {
        let (_folder, file) = in_folder();
        file.ensure().unwrap();
        file.add(entry(json!({"url": "postgres://u@h/a"}))).unwrap();
        let before = fs::read_to_string(file.path()).unwrap();
        let taken = file.add(entry(json!({"id": "a", "url": "postgres://u@h/b"}))).unwrap_err();
        assert!(matches!(taken, TenantsFileError::Taken(..)), "{taken}");
        let wrong = file.add(entry(json!({"url": "postgres://u@h/b", "user": "x"}))).unwrap_err().to_string();
        assert!(wrong.contains("tenants_file[1].user: unknown field"), "{wrong}");
        assert_eq!(fs::read_to_string(file.path()).unwrap(), before);
    }

    #[test]
    fn an_empty_file_is_no_list_and_one_that_is_missing_says_what_to_do() {
        let (_folder, file) = in_folder();
        let yaml = format!("tenants_file: '{}'", file.path().display());
        let refused = || Config::from_yaml(&yaml).unwrap_err().to_string();
        assert!(refused().contains("posduif tenant add"), "{}", refused());
        for text in ["", "# a comment\n", "---\n", "tenants: []\n", "- url: 'postgres://u@h/a'\n  pass"] {
            fs::write(file.path(), text).unwrap();
            assert!(refused().contains("tenants.yaml"), "{text:?}: {}", refused());
        }
        for text in ["[]", "---\n[]\n", "# none\n[]\n"] {
            fs::write(file.path(), text).unwrap();
            assert!(Config::from_yaml(&yaml).unwrap().tenants.is_empty(), "{text:?}");
        }
    }

    #[test]
    fn an_existing_file_keeps_its_group_and_never_shows_itself_to_strangers() {
        let (_folder, file) = in_folder();
        file.ensure().unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
        file.add(entry(json!({"url": "postgres://u@h/a"}))).unwrap();
        assert_eq!(mode(&file), 0o640);
    }

    #[test]
    fn tenants_that_are_added_at_once_are_all_there() {
        let (_folder, file) = in_folder();
        file.ensure().unwrap();
        std::thread::scope(|scope| {
            for number in 0..16 {
                let file = &file;
                scope.spawn(move || {
                    file.add(entry(json!({"url": format!("postgres://u@h/t{number}")}))).unwrap();
                });
            }
        });
        assert_eq!(tenants(file.path()).unwrap().len(), 16);
    }
}

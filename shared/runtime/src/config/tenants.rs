//! `tenants`: one database each, with the roles of API, ingester and operator.

use std::path::{Path, PathBuf};

use posduif_model::{Source, TenantId};
use secrecy::SecretString;
use serde::Deserialize;

use super::{error::Problems, postgres_url::PostgresUrl, wal::WalConfig};
use crate::secret::{self, SecretError, SecretSource};

/// One tenant and how to reach its database.
///
/// Two are equal where their reader need not notice a difference: id, database and role, password, certificates, source.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Keys")]
pub struct TenantConfig {
    /// By default the name of the database.
    pub id: TenantId,
    /// The role of whoever loaded the configuration, the API's and the tool's unless the ingester did; its password is
    /// part of it then.
    pub url: PostgresUrl,
    /// PEM file with certificates to trust besides those of the operating system.
    pub ca_file: Option<PathBuf>,
    /// Whether the changes come from the WAL; `None`: as `sync.wal.enabled` says.
    pub wal: Option<bool>,
    password: SecretSource,
    ingester_url: Option<PostgresUrl>,
    ingester_password: SecretSource,
    admin_url: Option<PostgresUrl>,
    admin_password: SecretSource,
}

impl PartialEq for TenantConfig {
    fn eq(&self, other: &Self) -> bool {
        (&self.id, &self.url, &self.ca_file, self.wal) == (&other.id, &other.url, &other.ca_file, other.wal)
    }
}

/// Which of the programs reads the configuration: each reads its own passwords alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Ingester,
    /// The API and the operator's tool.
    Api,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    id: Option<TenantId>,
    url: PostgresUrl,
    #[serde(default, deserialize_with = "secret::deserialize")]
    password: Option<SecretString>,
    password_file: Option<PathBuf>,
    ingester_url: Option<PostgresUrl>,
    #[serde(default, deserialize_with = "secret::deserialize")]
    ingester_password: Option<SecretString>,
    ingester_password_file: Option<PathBuf>,
    admin_url: Option<PostgresUrl>,
    #[serde(default, deserialize_with = "secret::deserialize")]
    admin_password: Option<SecretString>,
    admin_password_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    wal: Option<bool>,
}

/// Keys of one tenant that do not go together.
#[derive(Debug, thiserror::Error)]
enum InvalidTenant {
    #[error("its database's name cannot be a tenant's id, give one with id: {0}")]
    Id(posduif_model::id::InvalidId),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("{0} is given in the URL and by a key of its own; keep one of them")]
    PasswordTwice(&'static str),
    #[error("{0}_password is given without {0}_url")]
    PasswordAlone(&'static str),
    #[error("ingester_url names another database than url; the services of a tenant work on one")]
    OtherDatabase,
}

impl TryFrom<Keys> for TenantConfig {
    type Error = InvalidTenant;

    fn try_from(keys: Keys) -> Result<Self, InvalidTenant> {
        let id = match keys.id {
            Some(id) => id,
            None => keys.url.database().parse().map_err(InvalidTenant::Id)?,
        };
        let password = SecretSource::new("password", keys.password, keys.password_file)?;
        let ingester_password =
            SecretSource::new("ingester_password", keys.ingester_password, keys.ingester_password_file)?;
        let admin_password =
            SecretSource::new("admin_password", keys.admin_password, keys.admin_password_file)?;
        if keys.url.has_password() && !password.is_absent() {
            return Err(InvalidTenant::PasswordTwice("password"));
        }
        once(&keys.ingester_url, &ingester_password, "ingester", "ingester_password")?;
        once(&keys.admin_url, &admin_password, "admin", "admin_password")?;
        if keys.ingester_url.as_ref().is_some_and(|url| url.database() != keys.url.database()) {
            return Err(InvalidTenant::OtherDatabase);
        }
        let (url, ingester_url, admin_url, ca_file) =
            (keys.url, keys.ingester_url, keys.admin_url, keys.ca_file);
        Ok(TenantConfig {
            id,
            url,
            ca_file,
            wal: keys.wal,
            password,
            ingester_url,
            ingester_password,
            admin_url,
            admin_password,
        })
    }
}

/// That a role of its own has its password in one place.
fn once(
    url: &Option<PostgresUrl>,
    password: &SecretSource,
    role: &'static str,
    key: &'static str,
) -> Result<(), InvalidTenant> {
    match url {
        None if !password.is_absent() => Err(InvalidTenant::PasswordAlone(role)),
        Some(url) if url.has_password() && !password.is_absent() => Err(InvalidTenant::PasswordTwice(key)),
        _ => Ok(()),
    }
}

impl TenantConfig {
    /// A tenant that has nothing but an id and a URL.
    pub fn new(id: TenantId, url: PostgresUrl) -> Self {
        TenantConfig {
            id,
            url,
            ca_file: None,
            wal: None,
            password: SecretSource::Absent,
            ingester_url: None,
            ingester_password: SecretSource::Absent,
            admin_url: None,
            admin_password: SecretSource::Absent,
        }
    }

    /// Where its changes shall come from.
    pub fn source(&self, wal: &WalConfig) -> Source {
        match self.wal.unwrap_or(wal.enabled) {
            true => Source::Wal,
            false => Source::Polling,
        }
    }

    /// The same tenant, reached as the operator does; by `url` where no `admin_url` is given.
    ///
    /// Only this reads `admin_password_file`, so that a service need not be able to.
    pub fn as_admin(&self) -> Result<TenantConfig, SecretError> {
        self.reached_by(self.admin_url.as_ref(), &self.admin_password)
    }

    /// The same tenant, reached as the ingester does; by `url` where no `ingester_url` is given.
    ///
    /// Only this reads `ingester_password_file`, so that the API need not be able to.
    pub fn as_ingester(&self) -> Result<TenantConfig, SecretError> {
        self.reached_by(self.ingester_url.as_ref(), &self.ingester_password)
    }

    /// The name of the ingester's role; it takes no password to know it.
    pub fn ingester_role(&self) -> Option<&str> {
        self.ingester_url.as_ref().unwrap_or(&self.url).config().get_user()
    }

    /// The files that the reader takes from this entry, besides those of certificates.
    pub(super) fn secret_file(&self, reader: Reader) -> Option<&Path> {
        let source = match reader {
            Reader::Ingester if self.ingester_url.is_some() => &self.ingester_password,
            Reader::Ingester | Reader::Api => &self.password,
        };
        source.file()
    }

    fn reached_by(
        &self,
        url: Option<&PostgresUrl>,
        password: &SecretSource,
    ) -> Result<TenantConfig, SecretError> {
        let mut tenant = self.clone();
        if let Some(url) = url {
            tenant.url = url.clone();
            if let Some(password) = password.read()? {
                tenant.url.set_password(&password);
            }
        }
        Ok(tenant)
    }

    /// The same tenant as this reader sees it once its configuration was loaded.
    ///
    /// # Errors
    /// The password's file cannot be read.
    pub fn settled(mut self, reader: Reader) -> Result<Self, SecretError> {
        self.settle(reader).map_err(|(_, error)| error)?;
        Ok(self)
    }

    /// Puts the reader's password into the URL; what cannot be read is told with its key.
    fn settle(&mut self, reader: Reader) -> Result<(), (&'static str, SecretError)> {
        if reader == Reader::Ingester && self.ingester_url.is_some() {
            *self = self.as_ingester().map_err(|error| ("ingester_password_file", error))?;
        } else if let Some(password) = self.password.read().map_err(|error| ("password_file", error))? {
            self.url.set_password(&password);
        }
        Ok(())
    }
}

/// Reads the password files and refuses what concerns the list as a whole. The first `own` entries stand in the
/// configuration, the others in the `tenants_file`.
pub(super) fn settle(tenants: &mut [TenantConfig], own: usize, reader: Reader, problems: &mut Problems) {
    let mut seen = std::collections::BTreeSet::new();
    for (index, tenant) in tenants.iter_mut().enumerate() {
        let entry = match index.checked_sub(own) {
            None => format!("tenants[{index}]"),
            Some(index) => format!("tenants_file[{index}]"),
        };
        if !seen.insert(tenant.id.clone()) {
            problems.add(
                format!("{entry}.id"),
                format!("{} is the id of an earlier tenant; ids must differ", tenant.id),
            );
        }
        if let Err((key, error)) = tenant.settle(reader) {
            problems.add(format!("{entry}.{key}"), error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Config, Reader};

    fn refused(yaml: &str) -> String {
        Config::from_yaml(yaml).unwrap_err().to_string()
    }

    #[test]
    fn the_id_defaults_to_the_database() {
        let config = Config::from_yaml("tenants: [{url: 'postgres://u@h/shop'}]").unwrap();
        assert_eq!(config.tenants[0].id.as_str(), "shop");
    }

    #[test]
    fn two_tenants_with_one_id_are_refused() {
        let error = refused("tenants: [{url: 'postgres://u@h/a'}, {id: a, url: 'postgres://u@h/b'}]");
        assert!(error.contains("tenants[1].id"), "{error}");
    }

    #[test]
    fn at_least_one_tenant_is_needed() {
        assert!(refused("tenants: []").contains("tenants: is empty"));
        assert!(refused("redis: {}").contains("tenants: is empty"));
    }

    #[test]
    fn the_password_comes_from_its_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hunter2\n").unwrap();
        let yaml =
            format!("tenants: [{{url: 'postgres://u@h/a', password_file: {}}}]", file.path().display());
        let config = Config::from_yaml(&yaml).unwrap();
        assert_eq!(config.tenants[0].url.config().get_password(), Some(&b"hunter2"[..]));
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn a_password_given_twice_is_refused_unseen() {
        for keys in [
            "url: 'postgres://u@h/a', password: hunter2, password_file: x",
            "url: 'postgres://u:hunter2@h/a', password: hunter2",
            "url: 'postgres://u@h/a', admin_url: 'postgres://p:hunter2@h/a', admin_password_file: x",
            "url: 'postgres://u@h/a', admin_password: hunter2",
            "url: 'postgres://u@h/a', ingester_password: hunter2",
            "url: 'postgres://u@h/a', ingester_url: 'postgres://i:hunter2@h/a', ingester_password_file: x",
            "url: 'postgres://u@h/a', ingester_url: 'postgres://i:hunter2@h/b'",
        ] {
            let error = refused(&format!("tenants: [{{{keys}}}]"));
            assert!(error.contains("tenants[0]") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_missing_password_file_is_named_and_an_admin_one_matters_only_to_the_operator() {
        let error = refused("tenants: [{url: 'postgres://u@h/a', password_file: no/such}]");
        assert!(error.contains("tenants[0].password_file") && error.contains("no/such"), "{error}");
        let yaml = "tenants: [{url: 'postgres://u@h/a', admin_url: 'postgres://root@h/a', admin_password_file: no/such}]";
        let config = Config::from_yaml(yaml).unwrap();
        assert!(config.tenants[0].as_admin().is_err());
    }

    #[test]
    fn the_operator_falls_back_to_the_url_of_the_services() {
        let yaml = "tenants: [{url: 'postgres://u@h/a'}, {url: 'postgres://u@h/b', admin_url: 'postgres://root@h/b', admin_password: s}]";
        let config = Config::from_yaml(yaml).unwrap();
        let user = |index: usize| {
            config.tenants[index].as_admin().unwrap().url.config().get_user().map(str::to_owned)
        };
        assert_eq!((user(0).as_deref(), user(1).as_deref()), (Some("u"), Some("root")));
    }

    #[test]
    fn each_program_reads_its_own_passwords_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hunter2\n").unwrap();
        let yaml = |own: &str, other: &str| {
            let path = file.path().display();
            format!(
                "tenants: [{{url: 'postgres://api@h/a', ingester_url: 'postgres://reader@h:7/a', \
                 {own}password_file: {path}, {other}password_file: no/such}}]"
            )
        };
        for (reader, own, other, user) in
            [(Reader::Api, "", "ingester_", "api"), (Reader::Ingester, "ingester_", "", "reader")]
        {
            let config = Config::from_yaml_for(reader, &yaml(own, other)).unwrap();
            let tenant = &config.tenants[0];
            assert_eq!(tenant.url.config().get_user(), Some(user));
            assert_eq!(tenant.url.config().get_password(), Some(&b"hunter2"[..]));
            assert_eq!(tenant.ingester_role(), Some("reader"));
            let error = Config::from_yaml_for(reader, &yaml(other, own)).unwrap_err().to_string();
            assert!(error.contains(&format!("tenants[0].{own}password_file")), "{error}");
        }
    }

    #[test]
    fn the_ingester_falls_back_to_the_url() {
        let config =
            Config::from_yaml_for(Reader::Ingester, "tenants: [{url: 'postgres://u:pw@h/a'}]").unwrap();
        assert_eq!(config.tenants[0].url.config().get_password(), Some(&b"pw"[..]));
        assert_eq!(config.tenants[0].ingester_role(), Some("u"));
    }

    #[test]
    fn a_number_as_password_is_refused_unseen() {
        let error = refused("tenants: [{url: 'postgres://u@h/a', password: 0123456}]");
        assert!(error.contains("tenants[0].password") && !error.contains("123456"), "{error}");
    }
}

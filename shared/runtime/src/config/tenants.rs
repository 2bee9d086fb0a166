//! `tenants`: one database each, with the role of the services and that of the operator.

use std::path::PathBuf;

use posduif_model::TenantId;
use secrecy::SecretString;
use serde::Deserialize;

use super::{error::Problems, postgres_url::PostgresUrl};
use crate::secret::{self, SecretError, SecretSource};

/// One tenant and how to reach its database.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Keys")]
pub struct TenantConfig {
    /// By default the name of the database.
    pub id: TenantId,
    /// The services' own role; its password is part of it once the configuration is loaded.
    pub url: PostgresUrl,
    /// PEM file with certificates to trust besides those of the operating system.
    pub ca_file: Option<PathBuf>,
    password: SecretSource,
    admin_url: Option<PostgresUrl>,
    admin_password: SecretSource,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    id: Option<TenantId>,
    url: PostgresUrl,
    #[serde(default, deserialize_with = "secret::deserialize")]
    password: Option<SecretString>,
    password_file: Option<PathBuf>,
    admin_url: Option<PostgresUrl>,
    #[serde(default, deserialize_with = "secret::deserialize")]
    admin_password: Option<SecretString>,
    admin_password_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
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
    #[error("admin_password is given without admin_url")]
    AdminPasswordAlone,
}

impl TryFrom<Keys> for TenantConfig {
    type Error = InvalidTenant;

    fn try_from(keys: Keys) -> Result<Self, InvalidTenant> {
        let id = match keys.id {
            Some(id) => id,
            None => keys.url.database().parse().map_err(InvalidTenant::Id)?,
        };
        let password = SecretSource::new("password", keys.password, keys.password_file)?;
        let admin_password =
            SecretSource::new("admin_password", keys.admin_password, keys.admin_password_file)?;
        if keys.url.has_password() && !password.is_absent() {
            return Err(InvalidTenant::PasswordTwice("password"));
        }
        match &keys.admin_url {
            None if !admin_password.is_absent() => return Err(InvalidTenant::AdminPasswordAlone),
            Some(url) if url.has_password() && !admin_password.is_absent() => {
                return Err(InvalidTenant::PasswordTwice("admin_password"));
            }
            _ => {}
        }
        let (url, admin_url, ca_file) = (keys.url, keys.admin_url, keys.ca_file);
        Ok(TenantConfig { id, url, ca_file, password, admin_url, admin_password })
    }
}

impl TenantConfig {
    /// A tenant that has nothing but an id and a URL.
    pub fn new(id: TenantId, url: PostgresUrl) -> Self {
        let (password, admin_password) = (SecretSource::Absent, SecretSource::Absent);
        TenantConfig { id, url, ca_file: None, password, admin_url: None, admin_password }
    }

    /// The same tenant, reached as the operator does; the services' role where no `admin_url` is given.
    ///
    /// Only this reads `admin_password_file`, so that a service need not be able to.
    pub fn as_admin(&self) -> Result<TenantConfig, SecretError> {
        let mut tenant = self.clone();
        if let Some(admin_url) = &self.admin_url {
            tenant.url = admin_url.clone();
            if let Some(password) = self.admin_password.read()? {
                tenant.url.set_password(&password);
            }
        }
        Ok(tenant)
    }
}

/// Reads the password files and refuses what concerns the list as a whole.
pub(super) fn settle(tenants: &mut [TenantConfig], problems: &mut Problems) {
    if tenants.is_empty() {
        problems.add("tenants", "is empty; name at least one tenant with its url");
    }
    let mut seen = std::collections::BTreeSet::new();
    for (index, tenant) in tenants.iter_mut().enumerate() {
        if !seen.insert(tenant.id.clone()) {
            problems.add(
                format!("tenants[{index}].id"),
                format!("{} is the id of an earlier tenant; ids must differ", tenant.id),
            );
        }
        match tenant.password.read() {
            Ok(Some(password)) => tenant.url.set_password(&password),
            Ok(None) => {}
            Err(error) => problems.add(format!("tenants[{index}].password_file"), error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

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
        assert!(refused("redis: {}").contains("tenants: is required"));
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
    fn a_number_as_password_is_refused_unseen() {
        let error = refused("tenants: [{url: 'postgres://u@h/a', password: 0123456}]");
        assert!(error.contains("tenants[0].password") && !error.contains("123456"), "{error}");
    }
}

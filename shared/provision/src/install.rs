//! Options in, an installed server that is new enough out: found on this machine, else fetched.

use std::path::PathBuf;

use crate::error::{ProvisionError, io};
use crate::fetch::fetch;
use crate::find::find;
use crate::installation::Installation;
use crate::software::Software;
use crate::user::ServerUser;

/// PostgreSQL 18 or newer. `bin_dir` is the folder of `postgres` and `initdb`; without it the environment, PATH
/// and the usual folders are searched, and at last it is fetched into the cache.
///
/// # Errors
/// [`ProvisionError::Named`], [`ProvisionError::Unavailable`], or a cache that cannot be written.
pub async fn postgres_installation(bin_dir: Option<PathBuf>) -> Result<Installation, ProvisionError> {
    install(Software::Postgres, bin_dir).await
}

/// Redis or Valkey 7.0 or newer. `server` is the program; without it see [`postgres_installation`].
///
/// # Errors
/// As [`postgres_installation`].
pub async fn redis_installation(server: Option<PathBuf>) -> Result<Installation, ProvisionError> {
    install(Software::Redis, server).await
}

/// HAProxy 2.6 or newer, for tests of several replicas. `program` is its path; without it see
/// [`postgres_installation`].
///
/// # Errors
/// As [`postgres_installation`].
pub async fn haproxy_installation(program: Option<PathBuf>) -> Result<Installation, ProvisionError> {
    install(Software::Haproxy, program).await
}

async fn install(software: Software, explicit: Option<PathBuf>) -> Result<Installation, ProvisionError> {
    let work = move || {
        let user = ServerUser::needed()?;
        let search = find(software, explicit.as_deref(), user.as_ref())?;
        match search.found {
            Some(installation) => Ok(installation),
            None => fetch(software, &search.passed_over, user.as_ref()),
        }
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| io(format!("finding {}", software.name()))(error.into()))?
}

//! A name and a password in, a user who can log in out.

use std::{io::BufRead, path::Path};

use anyhow::Context;
use posduif_accounts::{Caches, log_ins, password, user};
use posduif_changelog::Timeouts;
use posduif_model::{TenantId, UserId};
use posduif_runtime::{
    config::{Config, RedisConfig},
    postgres,
};
use tokio_postgres::Client;

use crate::cli::{UserAdd, UserKind};

/// Shorter passwords are guessed; the limit is that of NIST SP 800-63B for passwords a person chose.
const SHORTEST_PASSWORD: usize = 8;

/// `posduif user add`.
pub async fn add(path: &Path, arguments: UserAdd) -> anyhow::Result<()> {
    let config = Config::load(path)?;
    let tenant = match &arguments.tenant {
        Some(id) => config.tenants.iter().find(|tenant| tenant.id == *id),
        None => config.tenants.first().filter(|_| config.tenants.len() == 1),
    };
    let tenant = tenant.context("name one of the configured tenants with --tenant")?;
    let password = match arguments.password_stdin {
        true => Some(read_password()?),
        false => None,
    };
    anyhow::ensure!(
        password.is_some() || arguments.kind == UserKind::Mobile,
        "a web user logs in with a password; give it on standard input with --password-stdin"
    );
    let (mut client, driver) = postgres::connect(&tenant.as_admin()?, "posduif-user").await?;
    let driver = tokio::spawn(driver);
    let caches = caches(&config.redis, &tenant.id)?;
    let id = ensure(&mut client, &caches, &arguments.username, arguments.kind, password).await?;
    drop(client);
    driver.await.context("closing the connection")??;
    println!("{}: {} user {} is {id}", tenant.id, arguments.kind.as_str(), arguments.username);
    Ok(())
}

fn read_password() -> anyhow::Result<String> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("reading the password from standard input")?;
    let password = line.trim_end_matches(['\r', '\n']).to_owned();
    anyhow::ensure!(
        password.chars().count() >= SHORTEST_PASSWORD,
        "the password is too short; it needs at least {SHORTEST_PASSWORD} characters"
    );
    Ok(password)
}

/// What the replicas remember of the tenant's credentials; nothing is connected yet.
pub fn caches(redis: &RedisConfig, tenant: &TenantId) -> anyhow::Result<Caches> {
    let timeouts = Timeouts { connect: redis.connect_timeout, response: redis.response_timeout };
    Ok(Caches::new(&posduif_changelog::pool(redis.url.expose(), 1, timeouts)?, tenant))
}

/// Adds the user where it is missing and sets the password where another one is given; returns the user's id.
///
/// A new password ends the log-ins of the old one.
pub async fn ensure(
    client: &mut Client,
    caches: &Caches,
    username: &str,
    kind: UserKind,
    password: Option<String>,
) -> anyhow::Result<UserId> {
    client
        .execute(
            "INSERT INTO public.users (username, user_type) VALUES ($1, $2) ON CONFLICT (username) DO NOTHING",
            &[&username, &kind.as_str()],
        )
        .await?;
    let found = user::find(client, username, kind.as_str()).await?;
    let id: UserId = found
        .with_context(|| format!("{username} is a user of the other type already; choose another name"))?;
    if let Some(password) = password {
        let stored = user::password_hash(client, id).await?;
        let hash = tokio::task::spawn_blocking(move || match stored {
            Some(stored) if password::is_match(&password, &stored)? => Ok(None),
            _ => password::hash(&password).map(Some),
        });
        if let Some(hash) = hash.await?? {
            log_ins::set_password(client, caches, id, &hash).await?;
        }
    }
    Ok(id)
}

//! A name and a password in, a user who can log in out.

use std::{io::BufRead, path::Path};

use anyhow::Context;
use posduif_accounts::{Caches, log_ins, password, user, username};
use posduif_model::UserId;
use tokio_postgres::Client;

use crate::{
    cli::{UserAdd, UserKind},
    operator::Operator,
};

/// Shorter passwords are guessed; the limit is that of NIST SP 800-63B for passwords a person chose.
const SHORTEST_PASSWORD: usize = 8;

/// `posduif user add`.
pub async fn run(path: &Path, arguments: UserAdd) -> anyhow::Result<()> {
    let UserAdd { tenant, username, kind, password_stdin, admin } = arguments;
    anyhow::ensure!(
        admin.is_none() || kind == UserKind::Web,
        "only a web user can operate a tenant; leave --admin out, or add a user of --type web"
    );
    let username = username::parse(&username)?;
    let password = match password_stdin {
        true => Some(read_password()?),
        false => None,
    };
    let mut operator = Operator::open(path, tenant.as_ref()).await?;
    let is_known = user::find(&operator.client, &username, kind.as_str()).await?.is_some();
    anyhow::ensure!(
        password.is_some() || kind == UserKind::Mobile || (is_known && admin.is_some()),
        "a web user logs in with a password; give it on standard input with --password-stdin"
    );
    let id = ensure(&mut operator.client, &operator.caches, &username, kind, password).await?;
    if let Some(is_admin) = admin {
        let set = log_ins::set_admin(&mut operator.client, &operator.caches, id, is_admin).await;
        set.map_err(|error| operator.explain(error, &format!("user {username}")))?;
    }
    let role = match admin {
        Some(true) => ", and operates the tenant",
        Some(false) => ", and does not operate the tenant",
        None => "",
    };
    println!("{}: {} user {username} is {id}{role}", operator.tenant, kind.as_str());
    operator.close().await
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

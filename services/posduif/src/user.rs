//! A name and a password in, a user who can log in out.

use std::{io::BufRead, path::Path};

use anyhow::Context;
use posduif_runtime::{config::Config, postgres};
use tokio_postgres::Client;

use crate::{
    cli::{UserAdd, UserKind},
    password,
};

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
    let id = ensure(&mut client, &arguments.username, arguments.kind, password).await?;
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

/// Adds the user where it is missing and sets the password where one is given; returns the user's id.
pub async fn ensure(
    client: &mut Client,
    username: &str,
    kind: UserKind,
    password: Option<String>,
) -> anyhow::Result<uuid::Uuid> {
    let hash = match password {
        Some(password) => Some(password::hash(password).await?),
        None => None,
    };
    let transaction = client.transaction().await?;
    transaction
        .execute(
            "INSERT INTO public.users (username, user_type) VALUES ($1, $2) ON CONFLICT (username) DO NOTHING",
            &[&username, &kind.as_str()],
        )
        .await?;
    let row = transaction
        .query_one("SELECT id, user_type FROM public.users WHERE username = $1", &[&username])
        .await?;
    let (id, found): (uuid::Uuid, String) = (row.get(0), row.get(1));
    anyhow::ensure!(found == kind.as_str(), "{username} is a {found} user already; choose another name");
    if let Some(hash) = hash {
        transaction
            .execute(
                "INSERT INTO posduif_engine.user_credentials (user_id, password_hash) VALUES ($1, $2)
                 ON CONFLICT (user_id) DO UPDATE SET password_hash = excluded.password_hash, updated_at = now()",
                &[&id, &hash],
            )
            .await?;
    }
    transaction.commit().await?;
    Ok(id)
}

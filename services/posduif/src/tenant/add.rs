//! `posduif tenant add`: a database in, a tenant that is followed out; cut at any step and run again, it completes.

use std::{
    io::BufRead,
    path::{Path, PathBuf, absolute},
};

use anyhow::Context;
use posduif_changelog::LogReader;
use posduif_model::TenantId;
use posduif_runtime::{
    config::{Config, Entry, PostgresUrl, Reader, TenantConfig, TenantsFile},
    postgres,
};
use serde_json::{Value, json};

use super::{
    arguments::Add,
    following,
    word::{self, Say, Word},
};
use crate::{migrate, operator};

pub async fn run(path: &Path, arguments: Add) -> anyhow::Result<()> {
    let (no_wait, json) = (arguments.no_wait, arguments.json);
    let file = Config::tenants_file_of(path)?.map(TenantsFile::new);
    if let Some(file) = &file {
        file.ensure()?;
    }
    let config = Config::load(path)?;
    let entry = entry(arguments)?;
    let tenant: TenantConfig =
        serde_json::from_value(Value::Object(entry.clone())).context("the entry is not usable")?;
    let tenant = tenant.settled(Reader::Api)?;
    let is_new = is_new(&config, &tenant, file.as_ref())?;

    reach(&tenant).await?;
    let report = migrate::migrate(&tenant, &config.sync.rules()?, &config.sync.wal.publication).await?;
    if !json {
        migrate::print(&tenant, &report);
    }
    let (client, driver) = postgres::connect(&tenant.as_admin()?, "posduif").await?;
    let driver = tokio::spawn(driver);
    let word = word::say(&client, Say::TakeUp).await?;
    if let Some(file) = file.as_ref().filter(|_| is_new) {
        file.add(entry)?;
        eprintln!("{} is in {} now", tenant.id, file.path().display());
    }
    let waits = !no_wait && word.paused_at.is_none();
    if waits {
        let log = LogReader::new(operator::redis(&config.redis)?, &tenant.id);
        let slot = config.sync.wal.slot_name(tenant.url.database());
        following::joined(&client, &log, &slot).await.context("the tenant is configured")?;
    }
    drop(client);
    driver.await.context("closing the connection")??;
    match json {
        true => println!(
            "{}",
            json!({"tenant_id": tenant.id, "database": tenant.url.database(), "applied": report.applied,
                   "warnings": report.warnings, "paused_at": word.paused_at,
                   "followed": if waits { Some(true) } else { None }})
        ),
        false => println!("{}", told(&tenant.id, &word, waits)),
    }
    Ok(())
}

fn told(tenant: &TenantId, word: &Word, waited: bool) -> String {
    match (&word.paused_at, waited) {
        (Some(since), _) => {
            format!("{tenant} is a tenant, paused since {since}; posduif tenant resume {tenant} ends that")
        }
        (None, true) => format!("{tenant} is a tenant, and followed"),
        (None, false) => format!("{tenant} is a tenant; ingesters find it within seconds"),
    }
}

/// The entry as it will stand in the file.
fn entry(arguments: Add) -> anyhow::Result<Entry> {
    let Add { id, url, ingester_url, admin_url, ca_file, password_stdin, .. } = arguments;
    let mut lines = std::io::stdin().lock().lines();
    let mut entry = Entry::new();
    let mut put = |key: &str, value: String| entry.insert(key.to_owned(), Value::String(value));
    if let Some(id) = id {
        put("id", id.to_string());
    }
    let roles = [
        ("", Some(url), arguments.password_file),
        ("ingester_", ingester_url, arguments.ingester_password_file),
        ("admin_", admin_url, arguments.admin_password_file),
    ];
    for (role, url, file) in roles {
        let Some(url) = url else { continue };
        anyhow::ensure!(
            !url.has_password(),
            "an argument can be seen by everybody on this machine: leave the password out of {role}url and give it by \
             --password-stdin or a file, and change it if this machine is shared"
        );
        put(&format!("{role}url"), url.as_written().to_owned());
        if let Some(file) = file {
            put(&format!("{role}password_file"), text_of(&file)?);
        } else if password_stdin {
            let line = lines.next().transpose().context("reading passwords from standard input")?;
            let password = line.with_context(|| format!("standard input has no line for {role}url"))?;
            put(&format!("{role}password"), password);
        }
    }
    if let Some(file) = ca_file {
        put("ca_file", text_of(&file)?);
    }
    if let Some(wal) = arguments.wal {
        entry.insert("wal".to_owned(), Value::Bool(wal));
    }
    Ok(entry)
}

/// The services may be started elsewhere.
fn text_of(file: &Path) -> anyhow::Result<String> {
    let file: PathBuf = absolute(file).with_context(|| format!("{}", file.display()))?;
    file.into_os_string().into_string().map_err(|_| anyhow::anyhow!("the name of a file is no text"))
}

/// Whether its entry is to be written; one that is there already must name the same database.
fn is_new(config: &Config, tenant: &TenantConfig, file: Option<&TenantsFile>) -> anyhow::Result<bool> {
    if let Some(known) = config.tenants.iter().find(|known| known.id == tenant.id) {
        anyhow::ensure!(
            place(&known.url) == place(&tenant.url),
            "{} is configured already, with {}; give this one another --id, or drop that one first",
            tenant.id,
            known.url.redacted()
        );
        return Ok(false);
    }
    let same = config.tenants.iter().find(|known| place(&known.url) == place(&tenant.url));
    if let Some(same) = same {
        anyhow::bail!("tenant {} has this database already; a database belongs to one tenant", same.id);
    }
    config.allows(config.tenants.len() + 1)?;
    anyhow::ensure!(
        file.is_some(),
        "the configuration names no tenants_file, so there is none to add the tenant to. Add the entry to tenants by hand (the \
         services notice), or set tenants_file and restart them"
    );
    Ok(true)
}

/// Hosts, ports and database.
fn place(url: &PostgresUrl) -> String {
    let shown = url.redacted();
    shown.rsplit_once('@').map(|(_, place)| place.to_owned()).unwrap_or(shown)
}

/// That each role gets in, before anything is changed.
async fn reach(tenant: &TenantConfig) -> anyhow::Result<()> {
    for (key, reached) in
        [("admin_url", tenant.as_admin()?), ("ingester_url", tenant.as_ingester()?), ("url", tenant.clone())]
    {
        let connected = postgres::connect(&reached, "posduif").await;
        let (client, driver) =
            connected.with_context(|| format!("{key}: is the role there (deploy/postgres/setup.sql)?"))?;
        let driver = tokio::spawn(driver);
        client.simple_query("SELECT 1").await.with_context(|| key.to_owned())?;
        drop(client);
        driver.await.context("closing the connection")??;
    }
    Ok(())
}

//! A test in, a fresh database of its own out, dropped with its replication slots afterwards.

use std::time::Duration;

use anyhow::{Context, Result};
use posduif_provision::shipped::{ADMIN, TENANT_SQL};
use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::servers::{Servers, connect};

/// A fresh database, set up as operators set theirs up.
pub struct Database {
    name: String,
    url: String,
    ingester_url: String,
    admin_url: String,
    superuser_url: String,
    server_url: String,
    dropped: bool,
}

impl Database {
    /// Makes an empty database with a unique name.
    pub async fn create(servers: &Servers) -> Self {
        let name = format!("t_{}", Uuid::new_v4().simple());
        let sql = format!("CREATE DATABASE {name} OWNER {ADMIN} STRATEGY file_copy");
        servers.superuser().await.batch_execute(&sql).await.expect("making a database");
        let database = Self {
            url: servers.url(&name),
            ingester_url: servers.ingester_url(&name),
            admin_url: servers.admin_url(&name),
            superuser_url: servers.superuser_url(&name),
            server_url: servers.superuser_url("postgres"),
            name,
            dropped: false,
        };
        database.connect().await.batch_execute(TENANT_SQL).await.expect("setting the database up");
        database
    }

    /// Unique, so it also serves as a tenant id or a key prefix.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address for the API.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The address for the ingester, which may replicate.
    pub fn ingester_url(&self) -> &str {
        &self.ingester_url
    }

    /// The address for the owner, who migrates and is no superuser.
    pub fn admin_url(&self) -> &str {
        &self.admin_url
    }

    /// The superuser's address, for what a test does to the server and nothing that Posduif does.
    pub fn superuser_url(&self) -> &str {
        &self.superuser_url
    }

    /// An entry of `tenants` in a configuration, each program with its own role. As JSON it fits into YAML, too.
    pub fn tenant(&self) -> Value {
        json!({ "url": self.url, "ingester_url": self.ingester_url, "admin_url": self.admin_url })
    }

    /// A session of the owner, who is what the application of a tenant is: it makes tables and writes rows.
    pub async fn connect(&self) -> Client {
        connect(&self.admin_url).await
    }

    /// A session of the superuser.
    pub async fn connect_superuser(&self) -> Client {
        connect(&self.superuser_url).await
    }

    /// Drops the replication slots and the database, whoever still uses them.
    pub async fn drop_now(mut self) {
        self.dropped = true;
        remove(&self.server_url, &self.name).await.expect("dropping the database");
    }
}

impl Drop for Database {
    /// Does its best without the test's runtime, which may be ending: slots that stay would keep the cluster's WAL.
    fn drop(&mut self) {
        if self.dropped {
            return;
        }
        let (url, name) = (self.server_url.clone(), self.name.clone());
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime
                .block_on(async { tokio::time::timeout(Duration::from_secs(10), remove(&url, &name)).await? })
        });
        match cleaner.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("database {} was not dropped: {error:#}", self.name),
            Err(_) => eprintln!("database {} was not dropped: the cleaner panicked", self.name),
        }
    }
}

async fn remove(server_url: &str, name: &str) -> Result<()> {
    let (superuser, connection) = tokio_postgres::connect(server_url, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    // A service that is still running takes its slot again at once, so both are repeated until they meet no user.
    let mut result = drop_slots(&superuser, name).await;
    for _ in 0..100 {
        if result.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        result = drop_slots(&superuser, name).await;
    }
    result.with_context(|| format!("dropping the slots of {name}"))?;
    superuser.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
    drop(superuser);
    connection.await??;
    Ok(())
}

async fn drop_slots(superuser: &Client, database: &str) -> Result<()> {
    let of_database = "FROM pg_replication_slots WHERE database = $1";
    let terminate = format!("SELECT pg_terminate_backend(active_pid, 2000) {of_database} AND active");
    superuser.query(&terminate, &[&database]).await?;
    let slots = superuser.query(&format!("SELECT slot_name::text {of_database}"), &[&database]).await?;
    for slot in slots {
        let slot: String = slot.get(0);
        superuser.execute("SELECT pg_drop_replication_slot($1::text::name)", &[&slot]).await?;
    }
    Ok(())
}

//! A test in, a fresh database of its own out, dropped with its replication slots afterwards.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::servers::{ROLE, Servers, connect};

/// A fresh database on the shared PostgreSQL. The services' role owns it.
pub struct Database {
    name: String,
    url: String,
    admin_url: String,
    server_url: String,
    dropped: bool,
}

impl Database {
    /// Makes an empty database with a unique name.
    pub async fn create(servers: &Servers) -> Self {
        let name = format!("t_{}", Uuid::new_v4().simple());
        let admin = servers.admin().await;
        let sql = format!("CREATE DATABASE {name} OWNER {ROLE} STRATEGY file_copy");
        admin.batch_execute(&sql).await.expect("making a database");
        Self {
            url: servers.url(&name),
            admin_url: servers.admin_url(&name),
            server_url: servers.admin_url("postgres"),
            name,
            dropped: false,
        }
    }

    /// Unique, so it also serves as a tenant id or a key prefix.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address for the services' role: it owns the database and may replicate, but is no superuser.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The superuser's address of this database.
    pub fn admin_url(&self) -> &str {
        &self.admin_url
    }

    /// A session of the services' role.
    pub async fn connect(&self) -> Client {
        connect(&self.url).await
    }

    /// A session of the superuser.
    pub async fn connect_admin(&self) -> Client {
        connect(&self.admin_url).await
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
    let (admin, connection) = tokio_postgres::connect(server_url, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    // A service that is still running takes its slot again at once, so both are repeated until they meet no user.
    let mut result = drop_slots(&admin, name).await;
    for _ in 0..100 {
        if result.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        result = drop_slots(&admin, name).await;
    }
    result.with_context(|| format!("dropping the slots of {name}"))?;
    admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
    drop(admin);
    connection.await??;
    Ok(())
}

async fn drop_slots(admin: &Client, database: &str) -> Result<()> {
    let of_database = "FROM pg_replication_slots WHERE database = $1";
    let terminate = format!("SELECT pg_terminate_backend(active_pid, 2000) {of_database} AND active");
    admin.query(&terminate, &[&database]).await?;
    let slots = admin.query(&format!("SELECT slot_name::text {of_database}"), &[&database]).await?;
    for slot in slots {
        let slot: String = slot.get(0);
        admin.execute("SELECT pg_drop_replication_slot($1::text::name)", &[&slot]).await?;
    }
    Ok(())
}

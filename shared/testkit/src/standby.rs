//! A primary in, a standby that streams from it out, which can be cut off and promoted.

use std::time::Duration;

use posduif_provision::Postgres;
use tokio_postgres::Client;

use crate::{
    backup::Backup,
    chaos::Proxy,
    eventually::eventually,
    servers::{Servers, at, session},
};

/// Recovery replays little, on a machine that may be busy.
const SOON: Duration = Duration::from_secs(60);

/// A hot standby of [`Servers`], with a physical slot of its name at the primary.
pub struct Standby {
    pub postgres: Postgres,
    /// Its way to the primary: cut or turned into a black hole, the standby falls behind.
    pub link: Proxy,
    name: String,
}

impl Standby {
    /// Copies the primary and lets the copy stream from it; with `keeps_slots` it also keeps copies of fail-over slots.
    pub async fn start(servers: &Servers, name: &str, keeps_slots: bool) -> Self {
        let primary = servers.postgres();
        let client = session(primary, "postgres").await;
        // From now on the primary keeps the WAL that the copy needs.
        let slot = "SELECT pg_create_physical_replication_slot($1::text::name, true)";
        client.execute(slot, &[&name]).await.expect("making a physical slot");
        let backup = Backup::take(servers, primary, &format!("{name}.backup")).await;
        backup.place(servers, name, "standby.signal");
        let link = Proxy::start(at(primary)).await;
        let mut options = Servers::options(&servers.scratch, name);
        options.durable = false;
        let conninfo = format!(
            "host=127.0.0.1 port={} user=postgres password={} dbname=postgres application_name={name}",
            link.address().port(),
            options.password
        );
        let settings = [
            ("primary_conninfo", conninfo.as_str()),
            ("primary_slot_name", name),
            ("hot_standby_feedback", "on"),
            ("sync_replication_slots", if keeps_slots { "on" } else { "off" }),
            ("wal_retrieve_retry_interval", "200ms"),
            ("wal_receiver_status_interval", "1s"),
        ];
        options.settings.extend(settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let postgres = Postgres::start(options).await.unwrap_or_else(|error| panic!("{error}"));
        let standby = Standby { postgres, link, name: name.to_owned() };
        eventually(SOON, "the standby streams", async || {
            let sql = "SELECT FROM pg_stat_replication WHERE application_name = $1 AND state = 'streaming'";
            Ok(client.query_opt(sql, &[&standby.name]).await?.map(drop))
        })
        .await;
        standby
    }

    /// A superuser's session at the standby itself.
    pub async fn session(&self, database: &str) -> Client {
        session(&self.postgres, database).await
    }

    /// Waits until it has a copy of this slot that would survive a promotion.
    ///
    /// The copy becomes usable once the slot has passed two records of running transactions. PostgreSQL writes one every
    /// fifteen seconds; here the primary is told to.
    pub async fn has_slot(&self, servers: &Servers, slot: &str) {
        let (client, primary) = (self.session("postgres").await, servers.superuser().await);
        eventually(SOON, "the slot is copied", async || {
            primary.execute("SELECT pg_log_standby_snapshot()", &[]).await?;
            let sql = "SELECT FROM pg_replication_slots WHERE slot_name = $1 AND synced AND NOT temporary
                          AND invalidation_reason IS NULL";
            Ok(client.query_opt(sql, &[&slot]).await?.map(drop))
        })
        .await;
    }

    /// Makes it a primary.
    pub async fn promote(self) -> Postgres {
        let client = self.session("postgres").await;
        client.execute("SELECT pg_promote(false)", &[]).await.expect("promoting");
        Self::leads(&self.postgres).await;
        self.postgres
    }

    /// Waits until a server is no longer in recovery.
    pub(crate) async fn leads(postgres: &Postgres) {
        let client = session(postgres, "postgres").await;
        eventually(SOON, "the recovery is over", async || {
            let recovers: bool = client.query_one("SELECT pg_is_in_recovery()", &[]).await?.get(0);
            Ok((!recovers).then_some(()))
        })
        .await;
    }
}

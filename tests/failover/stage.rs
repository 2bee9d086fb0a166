//! How a standby is set in, a tenant with that standby, devices and writers out, whose PostgreSQL can be replaced.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use posduif_changelog::LogState;
use posduif_model::{Lsn, UserId};
use posduif_provision::Postgres;
use posduif_sdk::Device;
use posduif_testkit::{Servers, Standby, eventually};
use serde_json::Value;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::{
    load::{self, Load},
    phone::{agrees, enroll, sync},
    roaming::Roaming,
    run::{Run, from_environment},
    shape,
    site::{PATIENCE, Settings, Site},
    status,
    writer::open_accounts,
};

const USERS: usize = 3;
pub const STANDBY: &str = "standby_1";
/// Why each epoch was opened; what a slot's loss did not open is noted there as well.
const REASONS: &str =
    "SELECT reason FROM posduif_engine.epoch_history WHERE reason <> 'slot_compared' ORDER BY opened_at";

/// How the primary and its standby are set.
#[derive(Clone, Copy, Debug)]
pub struct Set {
    /// Commits wait for the standby.
    pub synchronous: bool,
    /// The standby keeps a copy of the ingester's slot.
    pub keeps_slots: bool,
    /// The ingester waits for the standby.
    pub waits: bool,
}

/// As the runbook says: nothing that was acknowledged or published can be lost.
pub const PREPARED: Set = Set { synchronous: true, keeps_slots: true, waits: true };

/// What became of the devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The log goes on, no device begins again.
    GoesOn,
    /// A new epoch for this reason: devices begin again, and hold what the server holds.
    NewEpoch(&'static str),
}

pub struct Stage {
    pub run: Run,
    pub servers: Servers,
    pub site: Site,
    pub phones: Vec<Roaming>,
    users: Vec<UserId>,
    load: Option<Load>,
    /// How often the writers began.
    shifts: u64,
    promised: Vec<Uuid>,
    /// How many epochs there were before the fault.
    epochs: usize,
}

impl Stage {
    /// A tenant with devices, without a standby and without load yet.
    pub async fn begin(test: &'static str) -> Self {
        let run = Run::begin(test);
        let servers = Servers::movable().await;
        let settings = Settings {
            sql: format!("{}{}", shape::SQL, load::SQL),
            tables: shape::declarations(),
            batch_size: 20,
            ..Settings::default()
        };
        let site = Site::start(&servers, settings).await;
        let mut devices = Vec::new();
        for n in 0..USERS {
            let file = site.scratch.join(&format!("{n}.sqlite"));
            devices.push((enroll(&site, &file, &format!("User {n}"), false, None).await, file));
        }
        let users: Vec<UserId> = devices.iter().map(|(device, _)| device.user_id()).collect();
        site.database.connect().await.batch_execute(&open_accounts(&users)).await.unwrap();
        let mut phones = Vec::new();
        for (device, file) in devices {
            sync(&device).await;
            phones.push(Roaming::start(device, file));
        }
        let (load, promised) = (None, Vec::new());
        let mut stage = Stage { run, servers, site, phones, users, load, shifts: 0, promised, epochs: 0 };
        stage.epochs = stage.reasons().await.len();
        stage
    }

    /// The writers begin, or begin again.
    pub fn resume(&mut self) {
        self.shifts += 1;
        let url = self.site.database.superuser_url();
        self.load = Some(Load::start(&self.run, self.shifts, url, &self.users));
    }

    /// The writers stop.
    pub async fn rest(&mut self) {
        self.promised.extend(self.load.take().expect("the writers rest already").end().await);
    }

    /// Gives the primary a standby, sets both, and sets the writers to work.
    pub async fn standby(&mut self, set: Set) -> Standby {
        let standby = Standby::start(&self.servers, STANDBY, set.keeps_slots).await;
        if set.keeps_slots {
            standby.has_slot(&self.servers, &self.slot()).await;
        }
        let admin = self.servers.superuser().await;
        let names = |is: bool| if is { STANDBY } else { "" };
        for (setting, value) in [
            ("synchronous_standby_names", names(set.synchronous)),
            ("synchronized_standby_slots", names(set.waits)),
        ] {
            admin.batch_execute(&format!("ALTER SYSTEM SET {setting} = '{value}'")).await.unwrap();
        }
        admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        self.resume();
        self.works().await;
        standby
    }

    pub fn slot(&self) -> String {
        format!("posduif_sync_{}", self.site.database.name())
    }

    /// Waits until writers write and devices sync, some of each.
    pub async fn works(&self) {
        self.writes(from_environment("POSDUIF_FAILOVER_TRANSACTIONS", 40)).await;
        for phone in &self.phones {
            phone.syncs().await;
        }
    }

    /// Waits until the writers have written so many transactions more.
    pub async fn writes(&self, transactions: u64) {
        self.load.as_ref().expect("the writers rest").does(transactions).await;
    }

    /// The primary dies, the standby takes its place and address; gives how long it took from the promotion until the
    /// log had a change of the new primary.
    pub async fn fail_over(&mut self, standby: Standby) -> Duration {
        self.servers.postgres_mut().kill9().await;
        self.servers.address().cut_all();
        let promoted = Instant::now();
        let postgres = standby.promote().await;
        self.take(postgres).await;
        promoted.elapsed()
    }

    /// Another server is reached at the address, by everybody; waits until the log has a change of it. Gives the former server.
    pub async fn take(&mut self, postgres: Postgres) -> Postgres {
        let former = self.servers.move_to(postgres);
        self.servers.address().cut_all();
        self.follows().await;
        former
    }

    /// Waits until the log has a change of the server at the address: another timeline or epoch than before, where that
    /// is another server.
    pub async fn follows(&self) -> LogState {
        let client = self.site.database.connect_superuser().await;
        let sql = "SELECT pg_current_wal_insert_lsn()::text, timeline_id::int4
                     FROM pg_split_walfile_name(pg_walfile_name(pg_current_wal_insert_lsn()))";
        let row = client.query_one(sql, &[]).await.unwrap();
        let (now, timeline): (String, i32) = (row.get(0), row.get(1));
        let (now, timeline): (Lsn, u32) = (now.parse().unwrap(), timeline.try_into().unwrap());
        let registered = "SELECT epoch FROM posduif_engine.sync_epoch";
        eventually(PATIENCE, "the log follows the new server", async || {
            let epoch: String = client.query_one(registered, &[]).await?.get(0);
            let state = self.site.log.state().await?;
            Ok(state.filter(|state| {
                state.epoch.to_string() == epoch && state.timeline == timeline && state.watermark.end >= now
            }))
        })
        .await
    }

    /// The reasons of the tenant's epochs, oldest first, as the server has them.
    pub async fn reasons(&self) -> Vec<String> {
        let client = self.site.database.connect().await;
        client.query(REASONS, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    pub fn devices(&self) -> Vec<Arc<Device>> {
        self.phones.iter().map(|phone| Arc::clone(&phone.device)).collect()
    }

    /// A superuser's session in the tenant's database, at the address.
    pub async fn session(&self) -> Client {
        self.site.database.connect_superuser().await
    }

    pub async fn status(&self) -> Value {
        status::ask(&self.site).await
    }

    /// Goes on for a while, then compares every device with the server. Gives how many promised transactions are gone.
    pub async fn ends(self, outcome: Outcome) -> i64 {
        match outcome {
            Outcome::GoesOn => self.ends_after(&[]).await,
            Outcome::NewEpoch(reason) => self.ends_after(&[reason]).await,
        }
    }

    /// [`Stage::ends`] after epochs for these reasons, the last of which the server knows; every device began again with each.
    pub async fn ends_after(mut self, reasons: &[&str]) -> i64 {
        self.works().await;
        self.rest().await;
        let Stage { run, servers, site, phones, promised, epochs, .. } = self;
        let client = site.database.connect_superuser().await;
        let (mut snapshots, mut states) = (Vec::new(), 0);
        for phone in phones {
            let (device, taken, shown) = phone.end().await;
            agrees(&site, &client, &device).await;
            snapshots.push(taken);
            states += shown;
        }
        let history: Vec<String> =
            client.query(REASONS, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
        let lost = load::missing(&client, &promised).await;
        eprintln!(
            "seed {}: {} transactions promised, {lost} of them lost, {states} states shown, {snapshots:?} snapshots, \
             epochs {history:?}",
            run.seed,
            promised.len()
        );
        let newest: Vec<&str> = history.iter().skip(epochs).map(String::as_str).collect();
        assert!(reasons.ends_with(&newest) && newest.is_empty() == reasons.is_empty(), "{history:?}");
        let each = u32::try_from(reasons.len()).unwrap();
        assert_eq!(snapshots, [each; USERS], "how often the devices began again");
        drop(client);
        site.database.drop_now().await;
        drop(servers);
        lost
    }
}

/// Says a figure of a run.
pub fn report(case: &str, took: Duration) {
    eprintln!("{case}: {:.1} s from the promotion to the first published change", took.as_secs_f64());
}

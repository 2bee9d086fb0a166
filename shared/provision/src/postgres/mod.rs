//! Options in, a running PostgreSQL with logical replication out.

mod cluster;
mod settings;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::address::percent_encoded;
use crate::error::{ProvisionError, io};
use crate::install::postgres_installation;
use crate::installation::Installation;
use crate::launch::{Recipe, launch};
use crate::place::Place;
use crate::software::Software;
use crate::supervise::{Signal, Spec, Supervised};

/// What the private directory holds.
const DATA: &str = "data";
const UNFINISHED_DATA: &str = "data.new";
const PASSWORD_FILE: &str = "password";
const LOG: &str = "postgres.log";

/// A fast shutdown ends all sessions and writes a checkpoint; a client that replicates can hold it up for ever.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// How to run one PostgreSQL server.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// The folder of `postgres` and `initdb`; searched for or fetched when `None`.
    pub bin_dir: Option<PathBuf>,
    /// The private directory of this server, made when missing; the data of an earlier start in it is used again.
    pub dir: PathBuf,
    /// The port on 127.0.0.1; a free one when `None`.
    pub port: Option<u16>,
    /// The superuser that the first start makes.
    pub superuser: String,
    /// Its password, set by the first start and not changed by later ones.
    pub password: String,
    /// `false` leaves out all waiting for the disk: for tests, whose data nobody needs after a power cut.
    pub durable: bool,
    /// Further lines for `postgresql.conf`, stronger than the server's own.
    pub settings: Vec<(String, String)>,
}

impl PostgresOptions {
    /// A durable server on a free port with the superuser `postgres`.
    pub fn new(dir: impl Into<PathBuf>, password: impl Into<String>) -> Self {
        Self {
            bin_dir: None,
            dir: dir.into(),
            port: None,
            superuser: "postgres".to_owned(),
            password: password.into(),
            durable: true,
            settings: Vec::new(),
        }
    }
}

/// A PostgreSQL server that ends when this value is dropped or its process dies.
#[derive(Debug)]
pub struct Postgres {
    recipe: PostgresRecipe,
    server: Supervised,
    port: u16,
}

/// What every start of one server has in common.
#[derive(Debug)]
struct PostgresRecipe {
    installation: Installation,
    options: PostgresOptions,
    place: Place,
}

impl Postgres {
    /// Finds or fetches PostgreSQL, makes the data directory at the first start, and waits until it accepts
    /// connections.
    ///
    /// # Errors
    /// Any [`ProvisionError`]; a port that was asked for and is taken is [`ProvisionError::PortTaken`].
    pub async fn start(options: PostgresOptions) -> Result<Self, ProvisionError> {
        let installation = postgres_installation(options.bin_dir.clone()).await?;
        let prepare = move || {
            let place = Place::claim(&options.dir, &[DATA, UNFINISHED_DATA, PASSWORD_FILE, LOG])?;
            cluster::ensure(&installation, &options, &place)?;
            Ok(PostgresRecipe { installation, options, place })
        };
        let recipe = tokio::task::spawn_blocking(prepare)
            .await
            .map_err(|error| io("preparing PostgreSQL's data directory")(error.into()))??;
        let (server, port) = launch(&recipe, recipe.options.port).await?;
        Ok(Self { recipe, server, port })
    }

    /// The address of a database, with the superuser's name and password: a secret.
    pub fn url(&self, database: &str) -> String {
        let options = &self.recipe.options;
        let (user, password) = (percent_encoded(&options.superuser), percent_encoded(&options.password));
        format!("postgres://{user}:{password}@127.0.0.1:{}/{}", self.port, percent_encoded(database))
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id of the postmaster.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    pub fn installation(&self) -> &Installation {
        &self.recipe.installation
    }

    pub fn log(&self) -> PathBuf {
        self.recipe.place.join(LOG)
    }

    /// The data directory; to be touched only while the server is stopped.
    pub fn data(&self) -> PathBuf {
        self.recipe.place.join(DATA)
    }

    /// Whether the server has not ended, by itself or by this value's methods.
    pub fn is_running(&mut self) -> bool {
        self.server.try_wait().is_none()
    }

    /// A fast shutdown; an immediate one when it takes too long.
    ///
    /// # Errors
    /// Not even SIGKILL ended the server.
    pub async fn stop(&mut self) -> Result<(), ProvisionError> {
        self.server.signal(Signal::Int);
        if self.server.wait(STOP_WITHIN).await.is_some() {
            return Ok(());
        }
        self.stop_immediately().await
    }

    /// An immediate shutdown: sessions are cut and nothing is written, so the next start recovers from the WAL.
    ///
    /// # Errors
    /// Not even SIGKILL ended the server.
    pub async fn stop_immediately(&mut self) -> Result<(), ProvisionError> {
        let ended = self.server.stop(Signal::Quit, STOP_WITHIN).await;
        let stuck = ProvisionError::Stop { name: Software::Postgres.name(), pid: self.pid() };
        ended.map(drop).ok_or(stuck)
    }

    /// SIGKILL to the postmaster, as a crash: its other processes end by themselves a moment later.
    pub async fn kill9(&mut self) {
        self.server.kill9().await;
    }

    /// Stops the server if it runs and starts it again with the same data on the same port.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub async fn restart(&mut self) -> Result<(), ProvisionError> {
        self.stop().await?;
        self.server = launch(&self.recipe, Some(self.port)).await?.0;
        Ok(())
    }
}

impl Recipe for PostgresRecipe {
    const SOFTWARE: Software = Software::Postgres;

    fn spec(&self, port: u16) -> Result<Spec, ProvisionError> {
        let text = settings::configuration(&self.options, port);
        self.place.write(&format!("{DATA}/postgresql.conf"), &text)?;
        // Data that is not durable is not worth a checkpoint either.
        let ends_by = match self.options.durable {
            true => vec![Signal::Int, Signal::Quit, Signal::Kill],
            false => vec![Signal::Quit, Signal::Kill],
        };
        let spec = Spec::new(self.installation.program(), self.place.join(LOG))
            .arg("-D")
            .arg(self.place.join(DATA))
            .env("LC_ALL", "C")
            .directory(self.place.path())
            .user(self.place.user().cloned())
            .ends_by(ends_by);
        Ok(match self.installation.libraries() {
            Some(libraries) => spec.env("LD_LIBRARY_PATH", libraries),
            None => spec,
        })
    }

    async fn ready(&self, pid: u32, _: u16) -> bool {
        accepts_connections(&self.place.join(DATA), pid)
    }
}

/// What `pg_ctl --wait` looks at: the server writes its state into line 8 of `postmaster.pid`. The first line tells
/// whether the file is this server's or was left by one that crashed.
fn accepts_connections(data: &Path, pid: u32) -> bool {
    let Ok(text) = fs::read_to_string(data.join("postmaster.pid")) else { return false };
    let mut lines = text.lines().map(str::trim);
    // A standby that takes queries says "standby".
    lines.next() == Some(&pid.to_string()) && matches!(lines.nth(6), Some("ready" | "standby"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_that_a_crashed_server_left_does_not_count_as_ready() {
        let data = tempfile::tempdir().unwrap();
        let text = "4711\n/data\n1700000000\n5432\n\n127.0.0.1\n 1 2\nready   \n";
        fs::write(data.path().join("postmaster.pid"), text).unwrap();
        assert!(accepts_connections(data.path(), 4711));
        assert!(!accepts_connections(data.path(), 4712));
        fs::write(data.path().join("postmaster.pid"), text.replace("ready", "starting")).unwrap();
        assert!(!accepts_connections(data.path(), 4711));
        fs::write(data.path().join("postmaster.pid"), text.replace("ready  ", "standby")).unwrap();
        assert!(accepts_connections(data.path(), 4711));
    }
}

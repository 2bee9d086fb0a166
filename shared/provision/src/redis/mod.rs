//! Options in, a running Redis or Valkey with an append-only file out.

mod ping;
mod settings;
mod users;

use std::path::PathBuf;
use std::time::Duration;

use crate::address::percent_encoded;
use crate::error::{ProvisionError, io};
use crate::install::redis_installation;
use crate::installation::Installation;
use crate::launch::{Recipe, launch};
use crate::place::Place;
use crate::software::Software;
use crate::supervise::{Signal, Spec, Supervised};
pub use users::{Password, RedisUsers};

/// What the private directory holds.
const DATA: &str = "data";
const CONFIGURATION: &str = "redis.conf";
const USERS: &str = "users.acl";
const LOG: &str = "redis.log";

const STOP_WITHIN: Duration = Duration::from_secs(20);

/// How to run one Redis server.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// The program, `redis-server` or `valkey-server`; searched for or fetched when `None`.
    pub server: Option<PathBuf>,
    /// The private directory of this server, made when missing; the data of an earlier start in it is used again.
    pub dir: PathBuf,
    /// The port on 127.0.0.1; a free one when `None`.
    pub port: Option<u16>,
    /// The password that clients must give; none is asked for when `None`.
    pub password: Option<String>,
    /// Users instead of a single password for everybody.
    pub users: Option<RedisUsers>,
    /// Further lines for `redis.conf`, stronger than the server's own.
    pub settings: Vec<(String, String)>,
}

impl RedisOptions {
    /// A server on a free port without a password.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { server: None, dir: dir.into(), port: None, password: None, users: None, settings: Vec::new() }
    }
}

/// A Redis server that ends when this value is dropped or its process dies.
#[derive(Debug)]
pub struct Redis {
    recipe: RedisRecipe,
    server: Supervised,
    port: u16,
}

/// What every start of one server has in common.
#[derive(Debug)]
struct RedisRecipe {
    installation: Installation,
    options: RedisOptions,
    place: Place,
}

impl Redis {
    /// Finds or fetches Redis and waits until it has loaded its data and answers.
    ///
    /// # Errors
    /// Any [`ProvisionError`]; a port that was asked for and is taken is [`ProvisionError::PortTaken`].
    pub async fn start(options: RedisOptions) -> Result<Self, ProvisionError> {
        let installation = redis_installation(options.server.clone()).await?;
        let prepare = move || {
            let place = Place::claim(&options.dir, &[DATA, CONFIGURATION, USERS, LOG])?;
            place.folder(DATA)?;
            Ok(RedisRecipe { installation, options, place })
        };
        let recipe = tokio::task::spawn_blocking(prepare)
            .await
            .map_err(|error| io("preparing Redis's data directory")(error.into()))??;
        let (server, port) = launch(&recipe, recipe.options.port).await?;
        Ok(Self { recipe, server, port })
    }

    /// The address of the server, with its password: a secret. Where there are users, that of the observer.
    pub fn url(&self) -> String {
        match &self.recipe.options.users {
            Some(users) => self.url_of(&users.observer),
            None => self.address("", self.recipe.options.password.as_deref()),
        }
    }

    /// The address of the server for one of its users, with the user's password: a secret.
    pub fn url_of(&self, user: &str) -> String {
        let users = self.recipe.options.users.as_ref();
        self.address(user, users.and_then(|users| users.password(user)))
    }

    fn address(&self, user: &str, password: Option<&str>) -> String {
        let credential = password.map(|password| format!("{user}:{}@", percent_encoded(password)));
        format!("redis://{}127.0.0.1:{}/0", credential.unwrap_or_default(), self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id of the server.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    pub fn installation(&self) -> &Installation {
        &self.recipe.installation
    }

    pub fn log(&self) -> PathBuf {
        self.recipe.place.join(LOG)
    }

    /// Whether the server has not ended, by itself or by this value's methods.
    pub fn is_running(&mut self) -> bool {
        self.server.try_wait().is_none()
    }

    /// Stops the server after it has written its append-only file; kills it when it takes too long.
    ///
    /// # Errors
    /// Not even SIGKILL ended the server.
    pub async fn stop(&mut self) -> Result<(), ProvisionError> {
        let ended = self.server.stop(Signal::Term, STOP_WITHIN).await;
        let stuck = ProvisionError::Stop { name: Software::Redis.name(), pid: self.pid() };
        ended.map(drop).ok_or(stuck)
    }

    /// SIGKILL, as a crash: up to a second of writes may be lost if the machine goes down with it.
    pub async fn kill9(&mut self) {
        self.server.kill9().await;
    }

    /// Stops the server if it runs and starts it again with the same data on the same port.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub async fn restart(&mut self) -> Result<(), ProvisionError> {
        self.stop().await?;
        self.server = launch(&self.recipe, Some(self.port)).await?.0;
        Ok(())
    }
}

impl Recipe for RedisRecipe {
    const SOFTWARE: Software = Software::Redis;

    fn spec(&self, port: u16) -> Result<Spec, ProvisionError> {
        let mut text = settings::configuration(&self.options, port, &self.place.join(DATA));
        if let Some(users) = &self.options.users {
            let file = self.place.write(USERS, &users.acl_file(self.installation.version()))?;
            text += &settings::line("aclfile", &file.display().to_string());
        }
        let configuration = self.place.write(CONFIGURATION, &text)?;
        let spec = Spec::new(self.installation.program(), self.place.join(LOG))
            .arg(configuration)
            .env("LC_ALL", "C")
            .directory(self.place.path())
            .user(self.place.user().cloned());
        Ok(match self.installation.libraries() {
            Some(libraries) => spec.env("LD_LIBRARY_PATH", libraries),
            None => spec,
        })
    }

    async fn ready(&self, _: u32, port: u16) -> bool {
        let user = self
            .options
            .users
            .as_ref()
            .and_then(|users| Some(vec![users.observer.as_str(), users.password(&users.observer)?]));
        let log_in = user.or_else(|| self.options.password.as_deref().map(|password| vec![password]));
        ping::answers(port, &log_in.unwrap_or_default()).await
    }
}

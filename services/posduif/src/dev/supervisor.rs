//! The process that owns servers and services from their start to their end.

use std::{net::IpAddr, time::Duration};

use anyhow::Context;
use posduif_provision::{Postgres, PostgresOptions, Redis, RedisOptions, RedisUsers, shipped};
use serde_json::{Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use super::{
    banner,
    configuration::{Configurations, api_url},
    folder::Folder,
    programs::Programs,
    running::Running,
    services::{Services, wait_until_ready},
    settings::{Settings, WebUser, is_free, keep_or_choose},
    tenant,
};

/// What the user asked for.
pub struct Wishes {
    pub api_port: Option<u16>,
    pub host: IpAddr,
}

/// How often it looks whether everything still runs; also the pause before something is started again.
const WATCH: Duration = Duration::from_millis(500);

/// Starts everything, waits for SIGINT, SIGTERM or SIGHUP, and stops everything.
pub async fn run(folder: &Folder, wishes: Wishes) -> anyhow::Result<()> {
    folder.create()?;
    let _lock = folder.lock()?;
    Running::forget(folder)?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let stopped = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    };
    tokio::pin!(stopped);
    // Dropping a half-started installation stops what it has started.
    let mut installation = tokio::select! {
        started = Installation::start(folder, &wishes) => started?,
        () = &mut stopped => {
            println!("Stopped while starting.");
            return Ok(());
        }
    };
    banner::print(&installation.running, folder)?;
    println!("Ctrl-C stops everything.");
    let outcome = loop {
        tokio::select! {
            () = &mut stopped => break Ok(()),
            () = sleep(WATCH) => if let Err(error) = installation.watch(folder).await {
                break Err(error);
            },
        }
    };
    println!("Stopping.");
    Running::forget(folder)?;
    installation.stop().await?;
    outcome
}

struct Installation {
    postgres: Postgres,
    redis: Redis,
    services: Services,
    running: Running,
}

impl Installation {
    async fn start(folder: &Folder, wishes: &Wishes) -> anyhow::Result<Self> {
        let mut settings = Settings::load(folder)?;
        choose_ports(&mut settings, wishes)?;
        settings.save(folder)?;
        println!("Starting PostgreSQL and Redis.");
        let (postgres, redis) =
            tokio::try_join!(start_postgres(folder, &settings), start_redis(folder, &settings))?;
        settings.ports.postgres = postgres.port();
        settings.ports.redis = redis.port();
        settings.save(folder)?;
        println!("Preparing tenant {}.", tenant::TENANT);
        let files = Configurations::write(folder, &postgres, &redis, &settings, wishes.host)?;
        tenant::prepare(&postgres, &settings, &files.tool).await?;
        println!("Building or finding the services.");
        let programs = Programs::find().await?;
        println!("Starting ingester and API.");
        let mut services = Services::start(programs, folder, &files)?;
        let api_admin_url = format!("http://127.0.0.1:{}", settings.ports.api_admin);
        let ingester_admin_url = format!("http://127.0.0.1:{}", settings.ports.ingester_admin);
        wait_until_ready(&mut services.ingester, &ingester_admin_url, folder).await?;
        wait_until_ready(&mut services.api, &api_admin_url, folder).await?;
        let api_url = api_url(wishes.host, settings.ports.api);
        let first = settings.web_users.first().context("there is no web user")?;
        let enrollment_url =
            create_enrollment(&api_url, first).await.context("cannot create an enrolment")?;
        let running = Running {
            supervisor: std::process::id().cast_signed(),
            ingester: services.ingester.pid(),
            api: services.api.pid(),
            tenant: tenant::TENANT.to_owned(),
            api_url,
            api_admin_url,
            ingester_admin_url,
            enrollment_url,
            postgres_url: tenant::url(&postgres, shipped::ADMIN, Some(&settings.roles.admin)),
            redis_url: redis.url(),
            web_users: settings.web_users.clone(),
        };
        running.write(folder)?;
        Ok(Installation { postgres, redis, services, running })
    }

    /// Starts again what has died, as a container's restart policy would.
    async fn watch(&mut self, folder: &Folder) -> anyhow::Result<()> {
        if !self.postgres.is_running() {
            println!("PostgreSQL ended; starting it again.");
            self.postgres.restart().await?;
        }
        if !self.redis.is_running() {
            println!("Redis ended; starting it again.");
            self.redis.restart().await?;
        }
        let mut revived = false;
        for service in [&mut self.services.ingester, &mut self.services.api] {
            if let Some(status) = service.revive()? {
                println!("The {} ended with status {status}; started it again.", service.name);
                revived = true;
            }
        }
        if revived {
            self.running.ingester = self.services.ingester.pid();
            self.running.api = self.services.api.pid();
            self.running.write(folder)?;
        }
        Ok(())
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        self.services.stop().await;
        let (postgres, redis) = tokio::join!(self.postgres.stop(), self.redis.stop());
        postgres?;
        Ok(redis?)
    }
}

fn choose_ports(settings: &mut Settings, wishes: &Wishes) -> anyhow::Result<()> {
    let ports = &mut settings.ports;
    match wishes.api_port {
        Some(port) => {
            anyhow::ensure!(is_free(port), "port {port} is taken; choose another one with --api-port");
            ports.api = port;
        }
        None => ports.api = keep_or_choose(ports.api)?,
    }
    ports.api_admin = keep_or_choose(ports.api_admin)?;
    ports.ingester_admin = keep_or_choose(ports.ingester_admin)?;
    ports.postgres = keep_or_choose(ports.postgres)?;
    ports.redis = keep_or_choose(ports.redis)?;
    Ok(())
}

async fn start_postgres(folder: &Folder, settings: &Settings) -> anyhow::Result<Postgres> {
    let mut options = PostgresOptions::new(folder.join("postgres"), settings.admin_password.clone());
    options.port = Some(settings.ports.postgres);
    Ok(Postgres::start(options).await?)
}

async fn start_redis(folder: &Folder, settings: &Settings) -> anyhow::Result<Redis> {
    let mut options = RedisOptions::new(folder.join("redis"));
    options.port = Some(settings.ports.redis);
    options.users = Some(RedisUsers {
        rules: shipped::USERS_ACL.to_owned(),
        passwords: [
            (shipped::INGESTER, &settings.redis_users.ingester),
            (shipped::API, &settings.redis_users.api),
            (shipped::TOOL, &settings.redis_users.tool),
        ]
        .map(|(user, password)| (user.to_owned(), password.clone().into()))
        .into(),
        observer: shipped::TOOL.to_owned(),
    });
    Ok(Redis::start(options).await?)
}

/// Logs in as a web user and creates an enrolment, through the API like any client.
async fn create_enrollment(api_url: &str, web_user: &WebUser) -> anyhow::Result<String> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
    let log_in = json!({ "username": web_user.username, "password": web_user.password });
    let answer = client.post(format!("{api_url}/api/auth/login")).json(&log_in).send().await?;
    let session: Value = answer.error_for_status()?.json().await?;
    let token = session.get("token").and_then(Value::as_str).context("the log-in gave no token")?;
    let create = client.post(format!("{api_url}/api/enrollment/create")).bearer_auth(token).json(&json!({}));
    let created: Value = create.send().await?.error_for_status()?.json().await?;
    let url = created.pointer("/qr_code_data/enrollment_url").and_then(Value::as_str);
    Ok(url.context("the enrolment has no URL")?.to_owned())
}

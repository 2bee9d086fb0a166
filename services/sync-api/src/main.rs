//! Configuration in, a running sync API out.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use posduif_runtime::{config::Config, lifecycle::Lifecycle, telemetry};
use posduif_sync_api::service;

/// Serves devices and web users: enrolment, sync, messages.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file of both services.
    #[arg(long, default_value = "config/config.yaml")]
    config: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let config = Config::load(&Arguments::parse().config)?;
    telemetry::init(&config.log)?;
    let lifecycle = Lifecycle::new(config.api.shutdown_deadline);
    service::start(&config, &lifecycle.tasks())?;
    Ok(lifecycle.run_until_shutdown().await)
}

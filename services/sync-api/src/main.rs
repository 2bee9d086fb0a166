//! Configuration in, a running sync API out.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use posduif_runtime::{config::Config, lifecycle::Lifecycle, telemetry};
use posduif_sync_api::{document, service};

/// Serves devices and web users: enrolment, sync, messages.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file of both services.
    #[arg(long, default_value = "config/config.yaml")]
    config: PathBuf,
    /// Print the OpenAPI document of the public port and end.
    #[arg(long)]
    print_openapi: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.print_openapi {
        print!("{}", document::text()?);
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::load(&arguments.config)?;
    telemetry::init(&config.log)?;
    let lifecycle = Lifecycle::new(config.api.shutdown_deadline);
    service::start(&config, &arguments.config, &lifecycle.tasks())?;
    Ok(lifecycle.run_until_shutdown().await)
}

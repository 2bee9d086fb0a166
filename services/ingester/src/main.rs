//! The ingester's process: configuration in, exit code out.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use posduif_runtime::{
    config::{Config, Reader},
    lifecycle::Lifecycle,
    telemetry,
};

/// Reads the write-ahead log of every tenant and writes its changes into Redis Streams.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[arg(long, default_value = "config/config.yaml")]
    config: PathBuf,
}

/// Sessions hold nothing that a longer wait could save: what is not confirmed is sent again.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    let lifecycle = Lifecycle::new(DRAIN_DEADLINE);
    match begin(&lifecycle) {
        Ok(()) => lifecycle.run_until_shutdown().await,
        Err(error) => {
            eprintln!("posduif-ingester: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn begin(lifecycle: &Lifecycle) -> anyhow::Result<()> {
    let path = Arguments::parse().config;
    let config = Config::load_for(Reader::Ingester, &path)?;
    telemetry::init(&config.log)?;
    posduif_ingester::start(&config, &path, lifecycle)
}

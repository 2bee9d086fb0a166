//! The operator's tool: migrations, users, enrolment, a phone in the terminal and a whole installation for
//! development.

pub mod cli;

mod columns;
mod moment;
mod operator;
mod qr;

mod device;
mod enroll;
mod migrate;
mod status;
mod tenant;
mod user;

mod dev;

use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command};

/// Runs the command that the arguments name.
pub async fn run() -> anyhow::Result<ExitCode> {
    let Cli { config, command } = Cli::parse();
    let done = match command {
        Command::Status(arguments) => return status::run(&config, &arguments).await,
        Command::Migrate => migrate::run(&config).await,
        Command::Tenant { command } => tenant::run(&config, command).await,
        Command::User { command } => user::run(&config, command).await,
        Command::Enroll(arguments) => enroll::run(&config, &arguments).await,
        Command::Device { command } => device::run(&config, command).await,
        Command::Dev(arguments) => dev::run(arguments).await,
    };
    done.map(|()| ExitCode::SUCCESS)
}

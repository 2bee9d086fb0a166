//! The operator's tool: migrations, users, enrolment, a phone in the terminal and a whole installation for
//! development.

pub mod cli;

mod device;
mod migrate;
mod qr;
mod status;
mod user;

mod dev;

use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command, UserCommand};

/// Runs the command that the arguments name.
pub async fn run() -> anyhow::Result<ExitCode> {
    let Cli { config, command } = Cli::parse();
    let done = match command {
        Command::Status(arguments) => return status::run(&config, &arguments).await,
        Command::Migrate => migrate::run(&config).await,
        Command::User { command: UserCommand::Add(arguments) } => user::add(&config, arguments).await,
        Command::Device { command } => device::run(command).await,
        Command::Dev(arguments) => dev::run(arguments).await,
    };
    done.map(|()| ExitCode::SUCCESS)
}

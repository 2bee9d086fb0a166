//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use posduif_model::TenantId;

use crate::{dev::DevArguments, device::DeviceCommand, status::StatusArguments};

/// Keeps SQLite databases on phones and a PostgreSQL database in step.
#[derive(Parser)]
#[command(name = "posduif", version, arg_required_else_help = true)]
pub struct Cli {
    /// The services' configuration; dev makes its own
    #[arg(long, global = true, default_value = "config/config.yaml")]
    pub config: PathBuf,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Bring every tenant's database to the current schema; can be repeated
    Migrate,
    /// Manage a tenant's users
    User {
        #[command(subcommand)]
        command: UserCommand,
    },
    /// Show slots, lag, watermarks and devices of every tenant; exit code 1 where one has a problem
    Status(StatusArguments),
    /// Play a phone in the terminal
    Device {
        #[command(subcommand)]
        command: DeviceCommand,
    },
    /// Run everything on this machine: servers, migrations, demo users, ingester and API
    Dev(DevArguments),
}

#[derive(Subcommand)]
pub enum UserCommand {
    /// Add a user, or set the password of an existing one
    Add(UserAdd),
}

#[derive(Args)]
pub struct UserAdd {
    /// May be left out where the configuration has one tenant
    #[arg(long)]
    pub tenant: Option<TenantId>,
    #[arg(long)]
    pub username: String,
    #[arg(long = "type", value_enum)]
    pub kind: UserKind,
    /// Read the password from standard input (its first line)
    #[arg(long)]
    pub password_stdin: bool,
}

/// Who logs in with a password, and who enrols a device.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UserKind {
    Web,
    Mobile,
}

impl UserKind {
    /// The value of `users.user_type`.
    pub fn as_str(self) -> &'static str {
        match self {
            UserKind::Web => "web",
            UserKind::Mobile => "mobile",
        }
    }
}

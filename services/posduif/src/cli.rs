//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use posduif_model::TenantId;

use crate::{dev::DevArguments, device::DeviceCommand, status::StatusArguments, tenant::TenantCommand};

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
    /// Show, add, pause, resume and drop tenants
    Tenant {
        #[command(subcommand)]
        command: TenantCommand,
    },
    /// Manage a tenant's users
    User {
        #[command(subcommand)]
        command: UserCommand,
    },
    /// Let a phone in: print an enrolment token, its URL and a QR code
    Enroll(EnrollArguments),
    /// Show slots, lag, watermarks and devices of every tenant; exit code 1 where one has a problem
    Status(StatusArguments),
    /// List and revoke devices, or play a phone in the terminal
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
    /// Show a tenant's users
    List {
        /// May be left out where the configuration has one tenant
        #[arg(long)]
        tenant: Option<TenantId>,
        /// Print a JSON array instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Keep a user out, at once: end its log-ins, revoke its devices, void its enrolment tokens
    Disable {
        username: String,
        /// May be left out where the configuration has one tenant
        #[arg(long)]
        tenant: Option<TenantId>,
    },
    /// Let a disabled user log in and enrol devices again
    Enable {
        username: String,
        /// May be left out where the configuration has one tenant
        #[arg(long)]
        tenant: Option<TenantId>,
    },
}

#[derive(Args)]
pub struct EnrollArguments {
    /// May be left out where the configuration has one tenant
    #[arg(long)]
    pub tenant: Option<TenantId>,
    /// The web user in whose name the device is let in
    #[arg(long, value_name = "USER")]
    pub by: String,
    /// The mobile user whose new phone it is; left out, the phone names a new user
    #[arg(long, value_name = "USER")]
    pub username: Option<String>,
    /// Print one JSON object instead of text and a QR code
    #[arg(long)]
    pub json: bool,
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
    /// Let this web user operate the tenant: disable users, see and revoke all devices; --admin=false takes it away
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub admin: Option<bool>,
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

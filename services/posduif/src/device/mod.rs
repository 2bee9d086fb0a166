//! Devices as their operator sees them, and a phone in the terminal: one device per SQLite file, for demonstrations.

mod enroll;
mod inbox;
mod list;
mod report;
mod revoke;
mod send;
mod sync;
mod watch;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use posduif_model::{DeviceId, TenantId};

/// What an operator and what the phone can do. The enrolment URL is a secret, so the commands are not `Debug`.
#[derive(Subcommand)]
pub enum DeviceCommand {
    /// Show the devices of a tenant, or of all
    List {
        #[arg(long)]
        tenant: Option<TenantId>,
        /// Only those of this user
        #[arg(long, value_name = "USERNAME")]
        user: Option<String>,
        /// Print a JSON array instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Keep a device out, at once and for good; it can be enrolled again
    Revoke {
        /// The device's id
        id: DeviceId,
        /// May be left out where the configuration has one tenant
        #[arg(long)]
        tenant: Option<TenantId>,
    },
    /// Phone: make the database a device of a user, by the URL of an enrolment QR code, and sync it
    Enroll {
        /// The enrolment URL, BASE/api/enrollment/TOKEN
        #[arg(long)]
        url: String,
        /// The name of the user whose phone this is
        #[arg(long)]
        username: String,
        #[command(flatten)]
        phone: Phone,
    },
    /// Phone: write a message to another user and sync
    Send {
        /// The recipient's user name
        #[arg(long)]
        to: String,
        /// The message
        text: String,
        /// Only write it down; the next sync sends it
        #[arg(long)]
        offline: bool,
        #[command(flatten)]
        phone: Phone,
    },
    /// Phone: show the received messages, without a network
    Inbox {
        #[command(flatten)]
        phone: Phone,
    },
    /// Phone: send what waits and fetch what is new
    Sync {
        #[command(flatten)]
        phone: Phone,
    },
    /// Phone: stay connected and show new messages as they come, until Ctrl-C; with --json one object per line
    Watch {
        #[command(flatten)]
        phone: Phone,
    },
}

/// Which phone, and how it talks.
#[derive(Args)]
pub struct Phone {
    /// The device's database
    #[arg(long, value_name = "FILE", default_value = "posduif-device.sqlite")]
    db: PathBuf,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Runs one command and prints its outcome to standard output.
///
/// # Errors
/// Whatever the user has to act on. A network or server that is away for a while is not an error when the
/// local part of the command succeeded.
pub async fn run(config: &Path, command: DeviceCommand) -> anyhow::Result<()> {
    match command {
        DeviceCommand::List { tenant, user, json } => {
            list::run(config, tenant.as_ref(), user.as_deref(), json).await
        }
        DeviceCommand::Revoke { id, tenant } => revoke::run(config, tenant.as_ref(), &id).await,
        DeviceCommand::Enroll { url, username, phone } => enroll::run(&phone, &url, &username).await,
        DeviceCommand::Send { to, text, offline, phone } => send::run(&phone, &to, &text, offline).await,
        DeviceCommand::Inbox { phone } => inbox::run(&phone),
        DeviceCommand::Sync { phone } => sync::run(&phone).await,
        DeviceCommand::Watch { phone } => watch::run(&phone).await,
    }
}

//! A phone in the terminal: one device per SQLite file, for demonstrations and for a first look.

mod enroll;
mod inbox;
mod report;
mod send;
mod sync;
mod watch;

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What the phone can do. The enrolment URL is a secret, so the commands are not `Debug`.
#[derive(Subcommand)]
pub enum DeviceCommand {
    /// Make the database a device of a user, by the URL of an enrolment QR code, and sync it
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
    /// Write a message to another user and sync
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
    /// Show the received messages, without a network
    Inbox {
        #[command(flatten)]
        phone: Phone,
    },
    /// Send what waits and fetch what is new
    Sync {
        #[command(flatten)]
        phone: Phone,
    },
    /// Stay connected and show new messages as they come, until Ctrl-C; with --json one object per line
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

/// Runs one command of the phone and prints its outcome to standard output.
///
/// # Errors
/// Whatever the user has to act on. A network or server that is away for a while is not an error when the
/// local part of the command succeeded.
pub async fn run(command: DeviceCommand) -> anyhow::Result<()> {
    match command {
        DeviceCommand::Enroll { url, username, phone } => enroll::run(&phone, &url, &username).await,
        DeviceCommand::Send { to, text, offline, phone } => send::run(&phone, &to, &text, offline).await,
        DeviceCommand::Inbox { phone } => inbox::run(&phone),
        DeviceCommand::Sync { phone } => sync::run(&phone).await,
        DeviceCommand::Watch { phone } => watch::run(&phone).await,
    }
}

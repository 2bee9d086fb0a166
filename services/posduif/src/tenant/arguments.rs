//! The command line of `posduif tenant`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use posduif_model::TenantId;
use posduif_runtime::config::PostgresUrl;

#[derive(Subcommand)]
pub enum TenantCommand {
    /// Show every tenant: its database, whether that answers, its epoch, how many users and devices it has
    List {
        /// Print a JSON array instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Migrate a database and take it up as a tenant; running services follow it. Can be repeated
    Add(Box<Add>),
    /// End a tenant: its slot, publication and log go, its rows stay. Can be repeated
    Drop(Drop),
    /// Leave a tenant alone for a while: no ingester follows it; its slot stays and keeps WAL
    Pause {
        tenant: TenantId,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Follow a paused tenant again, from where it was left
    Resume {
        tenant: TenantId,
        /// Do not wait until an ingester follows it
        #[arg(long)]
        no_wait: bool,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
}

/// Passwords come from files or standard input: arguments can be seen by everybody on the machine.
#[derive(Args)]
pub struct Add {
    /// Left out, it is the name of the database
    #[arg(long)]
    pub id: Option<TenantId>,
    /// How the API reaches the database, without a password
    #[arg(long)]
    pub url: PostgresUrl,
    /// How the ingester does; left out, as the API
    #[arg(long)]
    pub ingester_url: Option<PostgresUrl>,
    /// How this tool does; left out, as the API
    #[arg(long)]
    pub admin_url: Option<PostgresUrl>,
    /// PEM file with certificates to trust for this server
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Read passwords from standard input, one in a line: for url, ingester-url and admin-url, as far as they are given
    /// and have no file
    #[arg(long)]
    pub password_stdin: bool,
    /// The file with the password for url
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// The file with the password for ingester-url
    #[arg(long, value_name = "FILE", requires = "ingester_url")]
    pub ingester_password_file: Option<PathBuf>,
    /// The file with the password for admin-url
    #[arg(long, value_name = "FILE", requires = "admin_url")]
    pub admin_password_file: Option<PathBuf>,
    /// Whether its changes come from the WAL, or from its tables; left out, as sync.wal.enabled says
    #[arg(long, value_name = "BOOL")]
    pub wal: Option<bool>,
    /// Do not wait until an ingester follows it
    #[arg(long)]
    pub no_wait: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Drop {
    pub tenant: TenantId,
    /// Do not ask for the tenant's id to be typed
    #[arg(long)]
    pub yes: bool,
    /// Leave the publication, where something else uses it
    #[arg(long)]
    pub keep_publication: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

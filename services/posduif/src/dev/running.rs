//! What a running installation tells other commands; the file exists only while everything runs.

use std::fs;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::{
    folder::{Folder, write_private},
    settings::WebUser,
};

/// Where everything is, for people, `dev stop` and tests.
#[derive(Serialize, Deserialize)]
pub struct Running {
    pub supervisor: i32,
    pub ingester: u32,
    pub api: u32,
    pub tenant: String,
    pub api_url: String,
    pub api_admin_url: String,
    pub ingester_admin_url: String,
    pub enrollment_url: String,
    /// With its password, for psql; the file is private.
    pub postgres_url: String,
    pub redis_url: String,
    pub web_users: Vec<WebUser>,
}

const FILE: &str = "running.json";

impl Running {
    pub fn read(folder: &Folder) -> anyhow::Result<Option<Self>> {
        match fs::read_to_string(folder.join(FILE)) {
            Ok(text) => Ok(Some(serde_json::from_str(&text).context("the file of the run is damaged")?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("cannot read the file of the run"),
        }
    }

    pub fn write(&self, folder: &Folder) -> anyhow::Result<()> {
        write_private(&folder.join(FILE), &serde_json::to_string_pretty(self)?)
    }

    pub fn forget(folder: &Folder) -> anyhow::Result<()> {
        match fs::remove_file(folder.join(FILE)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("cannot remove the file of an earlier run")
            }
            _ => Ok(()),
        }
    }
}

//! `posduif dev` as a real process, and what it says of itself.

use std::{path::PathBuf, time::Duration};

use posduif_testkit::{Process, Scratch, binaries, eventually};
use serde::Deserialize;

/// A development installation in a folder of its own.
pub struct Installation {
    scratch: Scratch,
    program: PathBuf,
    process: Process,
}

/// The parts of the run's file that tests need.
#[derive(Deserialize)]
pub struct Running {
    pub ingester: u32,
    pub api_url: String,
    pub web_users: Vec<Account>,
}

#[derive(Deserialize)]
pub struct Account {
    pub username: String,
    pub password: String,
}

const START: Duration = Duration::from_secs(300);

impl Installation {
    pub async fn start() -> Self {
        let program = binaries::path("posduif").await;
        let scratch = Scratch::new();
        let process = Process::command(&program).args(["dev", "--data-dir"]).arg(scratch.join("dev")).spawn();
        Installation { scratch, program, process }
    }

    /// Waits until everything runs.
    pub async fn running(&mut self) -> Running {
        let file = self.scratch.join("dev/running.json");
        eventually(START, "posduif dev is running", async || {
            if let Some(status) = self.process.try_wait() {
                panic!("posduif dev ended with status {status}: {}", self.process.log());
            }
            Ok(std::fs::read_to_string(&file).ok().map(|text| serde_json::from_str(&text).unwrap()))
        })
        .await
    }

    /// Kills the ingester as a crash would, and waits until the supervisor has started another.
    pub async fn kill_ingester(&mut self) {
        let before = self.running().await.ingester;
        let killed = std::process::Command::new("kill").args(["-9", &before.to_string()]).status().unwrap();
        assert!(killed.success(), "there was no ingester to kill");
        eventually(START, "the ingester was started again", async || {
            Ok((self.running().await.ingester != before).then_some(()))
        })
        .await;
    }

    /// `posduif dev stop`; the supervisor must have ended with success.
    pub async fn stop(&mut self) {
        let mut stop = Process::command(&self.program)
            .args(["dev", "stop", "--data-dir"])
            .arg(self.scratch.join("dev"))
            .spawn();
        assert_eq!(stop.wait(START).await, Some(0), "{}", stop.log());
        assert_eq!(self.process.wait(START).await, Some(0), "{}", self.process.log());
    }

    pub fn start_again(&mut self) {
        self.process.start_again();
    }

    /// Where everything of it lies.
    pub fn folder(&self) -> PathBuf {
        self.scratch.join("dev")
    }

    /// A file for a device's database.
    pub fn phone(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }
}

//! The services' processes, and whether they are ready.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context;
use posduif_provision::supervise::{Signal, Spec, Supervised};
use tokio::time::sleep;

use super::{configuration::Configurations, folder::Folder, programs::Programs};

/// Both services, running or about to be started again.
pub struct Services {
    pub ingester: Service,
    pub api: Service,
}

/// One service and how to start it.
pub struct Service {
    pub name: &'static str,
    spec: Spec,
    process: Supervised,
}

const READY_DEADLINE: Duration = Duration::from_secs(60);
/// Longer than the services' own drain deadlines.
const STOP_DEADLINE: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(100);

impl Service {
    fn start(name: &'static str, program: PathBuf, config: &Path, folder: &Folder) -> anyhow::Result<Self> {
        let spec = Spec::new(program, folder.log(name)).arg("--config").arg(config).ends_by([Signal::Term]);
        let process = Supervised::spawn(&spec).with_context(|| format!("cannot start the {name}"))?;
        Ok(Service { name, spec, process })
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Starts the service again if it has ended; returns how it ended.
    pub fn revive(&mut self) -> anyhow::Result<Option<i32>> {
        let Some(status) = self.process.try_wait() else {
            return Ok(None);
        };
        self.process =
            Supervised::spawn(&self.spec).with_context(|| format!("cannot start the {}", self.name))?;
        Ok(Some(status))
    }

    pub async fn stop(&mut self) {
        self.process.stop(Signal::Term, STOP_DEADLINE).await;
    }
}

impl Services {
    /// Starts both.
    pub fn start(programs: Programs, folder: &Folder, files: &Configurations) -> anyhow::Result<Self> {
        Ok(Services {
            ingester: Service::start("ingester", programs.ingester, &files.ingester, folder)?,
            api: Service::start("api", programs.api, &files.api, folder)?,
        })
    }

    pub async fn stop(&mut self) {
        tokio::join!(self.api.stop(), self.ingester.stop());
    }
}

/// Waits until an admin port says that its service is ready; else says what it said last.
pub async fn wait_until_ready(service: &mut Service, admin_url: &str, folder: &Folder) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build()?;
    let (begun, name) = (Instant::now(), service.name);
    let mut last = String::new();
    while begun.elapsed() < READY_DEADLINE {
        match client.get(format!("{admin_url}/readyz")).send().await {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) => last = answer.text().await.unwrap_or_default(),
            Err(error) => {
                last.clear();
                write!(last, "{error}")?;
            }
        }
        if let Some(status) = service.process.try_wait() {
            anyhow::bail!("the {name} ended with status {status}; its log is {}", folder.log(name).display());
        }
        sleep(POLL).await;
    }
    anyhow::bail!("the {name} is not ready after {} s: {last}", READY_DEADLINE.as_secs())
}

//! A server's command in, a server that answers out, or the reason from its log why it does not.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::error::{ProvisionError, io};
use crate::port::{ensure_free, free_port};
use crate::software::Software;
use crate::supervise::{Spec, Supervised};

/// Crash recovery of a large database may take this long before the server answers.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// How long a start is repeated that failed for a reason that passes.
const RETRY_WITHIN: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);

/// What a launch has to know about a server.
pub(crate) trait Recipe: Sync {
    const SOFTWARE: Software;

    /// Writes the configuration for this port and gives the command.
    fn spec(&self, port: u16) -> Result<Spec, ProvisionError>;

    /// Whether the server with this process id and port serves its clients.
    fn ready(&self, pid: u32, port: u16) -> impl Future<Output = bool> + Send;
}

/// Starts the server on the wanted port, or on a free one, and waits until it is ready.
pub(crate) async fn launch<R: Recipe>(
    recipe: &R,
    wanted_port: Option<u16>,
) -> Result<(Supervised, u16), ProvisionError> {
    let give_up = Instant::now() + RETRY_WITHIN;
    loop {
        let port = match wanted_port {
            Some(port) => ensure_free(port).map(|()| port)?,
            None => free_port()?,
        };
        let spec = recipe.spec(port)?;
        let log_before = std::fs::metadata(spec.log()).map_or(0, |log| log.len());
        let mut server = Supervised::spawn(&spec).map_err(io(format!("starting {}", R::SOFTWARE.name())))?;
        let Err(problem) = wait_until_ready(recipe, &mut server, port).await else {
            return Ok((server, port));
        };
        let said = log_since(spec.log(), log_before);
        if passes(&said, wanted_port.is_none()) && Instant::now() < give_up {
            sleep(POLL).await;
            continue;
        }
        let detail = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        return Err(ProvisionError::Start {
            name: R::SOFTWARE.name(),
            detail: format!("{problem} ({})", detail.trim()),
            log: spec.log().to_owned(),
        });
    }
}

async fn wait_until_ready(recipe: &impl Recipe, server: &mut Supervised, port: u16) -> Result<(), String> {
    let give_up = Instant::now() + READY_WITHIN;
    loop {
        // An answer counts only if this server runs after it: another one may have taken the port.
        let answers = recipe.ready(server.pid(), port).await;
        if let Some(status) = server.try_wait() {
            return Err(format!("it ended with status {status}"));
        }
        if answers {
            return Ok(());
        }
        if Instant::now() >= give_up {
            server.kill9().await;
            return Err(format!("it was not ready within {} s", READY_WITHIN.as_secs()));
        }
        sleep(POLL).await;
    }
}

/// Whether the same start may succeed a moment later.
fn passes(log: &str, port_was_free: bool) -> bool {
    // Another program was faster to take the port that was free.
    (port_was_free && log.contains("Address already in use"))
        // PostgreSQL was killed and its last processes have not noticed yet.
        || log.contains("pre-existing shared memory block")
}

/// What the server has written to its log since it was this long.
fn log_since(log: &Path, length: u64) -> String {
    let mut text = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        file.seek(SeekFrom::Start(length))?;
        file.read_to_end(&mut text)
    });
    match read {
        Ok(_) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) => format!("its log cannot be read: {error}"),
    }
}

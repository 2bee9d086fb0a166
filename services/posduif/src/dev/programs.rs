//! The services' programs: beside this one, or built from the checkout that cargo runs it from.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::Context;
use serde::Deserialize;
use tokio::process::Command;

/// The two services as real programs.
pub struct Programs {
    pub ingester: PathBuf,
    pub api: PathBuf,
}

const INGESTER: &str = "posduif-ingester";
const API: &str = "posduif-sync-api";

impl Programs {
    /// Under cargo they are built first, so that they are never older than the sources.
    pub async fn find() -> anyhow::Result<Self> {
        let own = std::env::current_exe()?;
        let folder = own.parent().context("this program lies in no folder")?;
        match (std::env::var_os("CARGO"), std::env::var_os("CARGO_MANIFEST_DIR")) {
            (Some(cargo), Some(manifest)) => build(Path::new(&cargo), Path::new(&manifest), folder).await,
            _ => Ok(Programs { ingester: beside(folder, INGESTER)?, api: beside(folder, API)? }),
        }
    }
}

fn beside(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let program = folder.join(name);
    anyhow::ensure!(
        program.is_file(),
        "{} is missing; build it with cargo build --release -p {name}, or run cargo run --release -p posduif -- dev",
        program.display()
    );
    Ok(program)
}

async fn build(cargo: &Path, manifest: &Path, folder: &Path) -> anyhow::Result<Programs> {
    let mut command = Command::new(cargo);
    command.args(["build", "--message-format=json-render-diagnostics", "-p", INGESTER, "-p", API]);
    if folder.ends_with("release") {
        command.arg("--release");
    }
    // cargo shows its progress on standard error.
    let output = command
        .current_dir(manifest)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .await
        .context("cannot run cargo")?;
    anyhow::ensure!(output.status.success(), "the services could not be built");
    let built = |name: &str| {
        let artifact = |line: &str| serde_json::from_str::<Artifact>(line).ok();
        let messages = String::from_utf8_lossy(&output.stdout);
        let found = messages.lines().filter_map(artifact).find_map(|artifact| {
            artifact.executable.filter(|program| program.file_name().is_some_and(|file| file == name))
        });
        found.with_context(|| format!("cargo built no {name}"))
    };
    Ok(Programs { ingester: built(INGESTER)?, api: built(API)? })
}

/// A message of cargo about a finished artifact; other messages have no executable.
#[derive(Deserialize)]
struct Artifact {
    executable: Option<PathBuf>,
}

//! A binary's name in, the path of its freshly built program out.

use std::collections::HashMap;
use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::sync::Mutex;

/// Builds a binary of the workspace with the profile of the running test, once per process. Its package has the
/// same name.
pub async fn path(name: &str) -> PathBuf {
    static BUILT: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::const_new(None);
    let mut built = BUILT.lock().await;
    let built = built.get_or_insert_default();
    if let Some(path) = built.get(name) {
        return path.clone();
    }
    let owned = name.to_owned();
    let build = tokio::task::spawn_blocking(move || build(&owned)).await.expect("the build task");
    let path = build.unwrap_or_else(|error| panic!("building {name}: {error:#}"));
    built.insert(name.to_owned(), path.clone());
    path
}

fn build(name: &str) -> Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--message-format=json-render-diagnostics", "-p", name, "--bin", name]);
    command.args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml")]);
    if env::current_exe()?.components().any(|part| part.as_os_str() == "release") {
        command.arg("--release");
    }
    let output = command.output().context("running cargo")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout)?
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo named no executable")
}

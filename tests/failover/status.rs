//! A site in, what `posduif status` says of it out.

use posduif_testkit::{Process, binaries};
use serde_json::Value;

use crate::site::{PATIENCE, Site, address};

/// `posduif status --json`, of the site's tenant.
pub async fn ask(site: &Site) -> Value {
    let log = run(site, &["--json"]).await;
    let report: Value = serde_json::from_str(&log).unwrap_or_else(|error| panic!("{error}: {log}"));
    report["tenants"][0].clone()
}

/// `posduif status` for people.
pub async fn table(site: &Site) -> String {
    run(site, &[]).await
}

async fn run(site: &Site, arguments: &[&str]) -> String {
    let config = site.scratch.join(&format!("{}.yaml", address(0)));
    let mut process = Process::command(binaries::path("posduif").await)
        .args(["status", "--config"])
        .arg(config)
        .args(arguments)
        .spawn();
    assert!(process.wait(PATIENCE).await.is_some(), "posduif status hangs");
    process.log()
}

/// The words of problems or warnings.
pub fn codes(tenant: &Value, which: &str) -> Vec<String> {
    let notes = tenant[which].as_array().unwrap();
    notes.iter().map(|note| note["code"].as_str().unwrap().to_owned()).collect()
}

//! `posduif device sync`: what waits goes up, what is new comes down.

use std::collections::HashSet;

use anyhow::Context;
use posduif_sdk::Device;
use serde_json::json;

use super::{Phone, report};

pub async fn run(phone: &Phone) -> anyhow::Result<()> {
    let device = Device::open(&phone.db)?;
    let known: HashSet<i64> = device.rejected()?.iter().map(|rejected| rejected.seq).collect();
    let summary = device.sync().await.context("nothing is lost, but the sync failed")?;
    let rejected = device.rejected()?;
    let fresh: Vec<_> = rejected.iter().filter(|rejected| !known.contains(&rejected.seq)).collect();
    let mut text = report::summary(&summary);
    for rejected in &fresh {
        text.push_str(&format!("\nrefused: {}", report::refusal(rejected)));
    }
    phone.print(&json!({"summary": summary, "rejected": fresh, "pending": device.pending_count()?}), &text);
    Ok(())
}

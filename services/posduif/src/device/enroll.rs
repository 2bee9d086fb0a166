//! `posduif device enroll`: a QR code's URL in, a database that syncs out.

use anyhow::Context;
use posduif_sdk::Device;
use serde_json::json;

use super::{Phone, report};

pub async fn run(phone: &Phone, url: &str, username: &str) -> anyhow::Result<()> {
    let info =
        json!({"app": "posduif device", "version": env!("CARGO_PKG_VERSION"), "os": std::env::consts::OS});
    let device = Device::enroll(&phone.db, url, username, info).await.context("enrolment failed")?;
    let (summary, text) = match device.sync().await {
        Ok(summary) => (Some(summary.clone()), report::summary(&summary)),
        Err(error) if error.is_temporary() => (None, format!("the first sync is still to come: {error}")),
        Err(error) => return Err(error).context("enrolled, but the first sync failed"),
    };
    phone.print(
        &json!({
            "device_id": device.device_id(),
            "user_id": device.user_id(),
            "username": username,
            "tenant_id": device.tenant_id(),
            "db": phone.db,
            "sync": summary,
        }),
        &format!("{username} is enrolled in {} as device {}\n{text}", device.tenant_id(), device.device_id()),
    );
    Ok(())
}

//! `posduif device send`: a message in, a row in the outbox and, with a network, at the server out.

use anyhow::{Context, bail};
use posduif_sdk::{Device, User};
use serde_json::json;

use super::{Phone, report};

pub async fn run(phone: &Phone, to: &str, text: &str, offline: bool) -> anyhow::Result<()> {
    let device = Device::open(&phone.db)?;
    let recipient = recipient(&device, to, offline).await?;
    let id = device.send_message(recipient.id, text)?;
    let kept = if offline {
        Some("offline".to_owned())
    } else {
        match device.sync().await {
            Ok(_) => None,
            Err(error) if error.is_temporary() => Some(error.to_string()),
            Err(error) => return Err(error).context("the message is kept, but the sync failed"),
        }
    };
    let key = json!([id]).to_string();
    if let Some(rejected) = device.rejected()?.iter().find(|rejected| rejected.key == key) {
        bail!("the server refused the message: {}", report::refusal(rejected));
    }
    let pending = device.pending_count()?;
    phone.print(
        &json!({"message_id": id, "sent": kept.is_none(), "reason": kept, "pending": pending}),
        &match &kept {
            None => format!("sent to {to}"),
            Some(reason) => format!("kept, will be sent at the next sync ({reason})"),
        },
    );
    Ok(())
}

/// Looks the user up locally and, if need be, after a sync.
async fn recipient(device: &Device, username: &str, offline: bool) -> anyhow::Result<User> {
    if let Some(user) = device.find_user(username)? {
        return Ok(user);
    }
    if !offline {
        device
            .sync()
            .await
            .with_context(|| format!("{username} is not known here yet, and the sync failed"))?;
    }
    device.find_user(username)?.with_context(|| format!("there is no user {username}"))
}

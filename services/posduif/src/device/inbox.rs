//! `posduif device inbox`: the received messages of the database, as they were at the last sync.

use std::collections::HashMap;

use posduif_sdk::Device;
use serde_json::json;

use super::Phone;

pub fn run(phone: &Phone) -> anyhow::Result<()> {
    let device = Device::open(&phone.db)?;
    let names: HashMap<_, _> = device.users()?.into_iter().map(|user| (user.id, user.username)).collect();
    let mut lines = Vec::new();
    let mut messages = Vec::new();
    for message in device.inbox()? {
        let sender = names.get(&message.sender_id).cloned().unwrap_or_else(|| message.sender_id.to_string());
        let at = message.created_at.as_deref().unwrap_or("-");
        let unread = if message.status.as_deref() == Some("read") { "" } else { " (unread)" };
        let content = message.content.as_deref().unwrap_or("");
        lines.push(format!("{at}  {sender}{unread}: {}", printable(content)));
        let mut json = serde_json::to_value(&message)?;
        if let Some(object) = json.as_object_mut() {
            object.insert("sender".to_owned(), sender.into());
        }
        messages.push(json);
    }
    if lines.is_empty() {
        lines.push("no messages".to_owned());
    }
    phone.print(&json!({"messages": messages}), &lines.join("\n"));
    Ok(())
}

/// What others wrote must not steer the terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn a_message_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc\u{9b}d"), "a [2Jb c d");
    }
}

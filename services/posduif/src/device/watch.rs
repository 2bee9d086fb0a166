//! `posduif device watch`: hints of the server and local writes in, the phone's state and new messages out, until
//! Ctrl-C.

use std::collections::{HashMap, HashSet};

use anyhow::Context;
use posduif_sdk::{Device, Problem, State, Status, Uuid};
use serde_json::json;

use super::{Phone, inbox::printable};

pub async fn run(phone: &Phone) -> anyhow::Result<()> {
    let device = Device::open(&phone.db)?;
    // Whoever reads the output may wait for the first line before it does anything.
    let mut changes = device.status();
    let mut watch = Watch { phone, device: &device, shown: HashSet::new() };
    watch.shown.extend(device.inbox()?.into_iter().map(|message| message.id));
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            // There is no such signal here: only the end of the process ends the watch.
            std::future::pending::<()>().await;
        }
    };
    let run = device.run(interrupted);
    tokio::pin!(run);
    let mut before = None;
    loop {
        tokio::select! {
            ended = &mut run => return ended.context("the watch ended"),
            Some(status) = changes.next() => {
                watch.show_status(&status, before.as_ref());
                watch.show_messages()?;
                before = Some(status);
            }
        }
    }
}

struct Watch<'a> {
    phone: &'a Phone,
    device: &'a Device,
    shown: HashSet<Uuid>,
}

impl Watch<'_> {
    fn show_status(&self, status: &Status, before: Option<&Status>) {
        let silent = |status: &Status| Status { last_synced: None, ..status.clone() };
        if !before.is_some_and(|before| silent(before) == silent(status)) {
            self.phone.print(&json!({"status": status}), &in_words(status));
        }
    }

    fn show_messages(&mut self) -> anyhow::Result<()> {
        let mut fresh = self.device.inbox()?;
        fresh.retain(|message| self.shown.insert(message.id));
        if fresh.is_empty() {
            return Ok(());
        }
        let users = self.device.users()?;
        let names: HashMap<_, _> = users.into_iter().map(|user| (user.id, user.username)).collect();
        for message in fresh {
            let sender =
                names.get(&message.sender_id).cloned().unwrap_or_else(|| message.sender_id.to_string());
            let content = printable(message.content.as_deref().unwrap_or(""));
            let line = format!("{sender}: {content}");
            self.phone.print(&json!({"message": message, "sender": sender}), &line);
        }
        Ok(())
    }
}

fn in_words(status: &Status) -> String {
    let mut text = match status.state {
        State::Offline => "offline".to_owned(),
        State::Connecting => "connecting".to_owned(),
        State::Syncing => "syncing".to_owned(),
        State::Live => "live".to_owned(),
        State::Polling => "polling".to_owned(),
        State::Error(Problem::Unauthorized) => "refused: enrol this phone again".to_owned(),
        State::Error(_) => "trying again after an error".to_owned(),
    };
    if status.pending > 0 {
        text.push_str(&format!(", {} unsent", status.pending));
    }
    if let Some(error) = &status.last_error {
        text.push_str(&format!(" ({})", printable(error)));
    }
    format!("[{text}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_is_unsent_and_why() {
        let status = Status {
            state: State::Offline,
            last_synced: None,
            pending: 2,
            last_error: Some("no\u{1b}route".to_owned()),
        };
        assert_eq!(in_words(&status), "[offline, 2 unsent (no route)]");
        let live = Status { state: State::Live, pending: 0, last_error: None, ..status };
        assert_eq!(in_words(&live), "[live]");
        assert_eq!(json!({"status": live})["status"]["state"], "live");
        let refused = Status { state: State::Error(Problem::Unauthorized), ..live };
        assert_eq!(json!({"status": refused})["status"]["state"], json!({"error": "unauthorized"}));
    }
}

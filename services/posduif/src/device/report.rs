//! The outcome of a command in, one line of JSON or some lines of text on standard output out.

use posduif_sdk::{Rejected, SyncSummary};
use serde_json::Value;

use super::Phone;

impl Phone {
    /// Prints the JSON form or, by default, the text.
    pub fn print(&self, json: &Value, text: &str) {
        if self.json { println!("{json}") } else { println!("{text}") }
    }
}

/// A sync in words.
pub fn summary(summary: &SyncSummary) -> String {
    let source = if summary.snapshot { " (a snapshot)" } else { "" };
    let mut text = format!("sent {}, received {}{source}", summary.uploaded, summary.received);
    for (count, what) in [(summary.rejected, "refused"), (summary.superseded, "superseded")] {
        if count > 0 {
            text.push_str(&format!(", {what} {count}"));
        }
    }
    text
}

/// Why a local write has no effect.
pub fn refusal(rejected: &Rejected) -> String {
    format!("{} {}: {} ({})", rejected.table, rejected.key, rejected.error, rejected.code)
}

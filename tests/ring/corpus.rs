//! Real text messages among their real senders and recipients, and strings that break software.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// A text message of the corpus.
#[derive(Clone, Deserialize)]
pub struct Text {
    pub from: String,
    pub to: String,
    pub sent_at: String,
    pub text: String,
}

fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(file)
}

/// The first `count` messages with a text; generated ones of the same shape where the corpus is not at hand.
pub fn messages(count: usize) -> Vec<Text> {
    let Ok(corpus) = std::fs::read_to_string(data("sms_en.jsonl")) else {
        println!("the corpus is not at hand; the messages are generated");
        return (0..count).map(generated).collect();
    };
    let texts = corpus.lines().map(|line| serde_json::from_str::<Text>(line).unwrap());
    let texts: Vec<Text> = texts.filter(|text| !text.text.is_empty()).take(count).collect();
    assert_eq!(texts.len(), count, "the corpus is too short");
    texts
}

/// A few people write most of the messages, as in the corpus.
fn generated(n: usize) -> Text {
    let person = |k: usize| format!("{:012x}", (k * k) % 331);
    Text {
        from: person(n % 83),
        to: person(n % 89 + 1),
        sent_at: format!("2010-10-{:02}T{:02}:{:02}:00Z", n % 28 + 1, n % 24, n % 60),
        text: format!("message {n} \u{1F4E8} {}", "la ".repeat(n % 50)),
    }
}

/// Hostile strings that PostgreSQL's text can hold: not empty, without a NUL.
pub fn hostile_strings() -> Vec<String> {
    let fallback = || {
        println!("the hostile strings are not at hand; a few of our own are used");
        let own = [
            "'; DROP TABLE users; --",
            "\u{202E}\u{FEFF}\u{200B}",
            "\\u0000 \\ \" ' ` $1 %s {{}}",
            "\u{10FFFF}\r\n\t",
        ];
        own.map(String::from).to_vec()
    };
    let strings = std::fs::read_to_string(data("blns.json"))
        .map_or_else(|_| fallback(), |text| serde_json::from_str(&text).unwrap());
    strings.into_iter().filter(|string| !string.is_empty() && !string.contains('\0')).collect()
}

//! A server in miniature that keeps what is uploaded and counts what it applied: uploads once per id, messages once
//! per id, the newest version of a note. Its log has one row per transaction, its pages four.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use crate::server::{Answer, INCOMING, INSTRUCTIONS, OUTGOING, Request, instructions};

const PAGE: usize = 4;

#[derive(Clone, Default)]
pub struct Ledger {
    log: Vec<(&'static str, Value)>,
    messages: BTreeMap<String, Value>,
    notes: BTreeMap<String, Option<Value>>,
    versions: HashMap<String, String>,
    answers: HashMap<String, (Vec<u8>, Value)>,
    /// How often the item of each row and content took effect.
    pub applied: BTreeMap<String, usize>,
    /// A table appears under the same rules.
    pub more_tables: bool,
    /// Uploads that came under a known id with other bytes.
    pub mistaken: usize,
}

#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<Ledger>>);

pub fn rules() -> Value {
    let columns: Vec<_> = ["id", "owner_id", "title", "updated_at"]
        .iter()
        .map(|name| json!({"name": name, "type": "TEXT"}))
        .collect();
    instructions(
        "r1",
        json!({"name": "public.notes", "local_name": "notes", "primary_key": ["id"], "columns": columns,
               "write": {"columns": ["title"], "owner": "owner_id", "version": "updated_at"}}),
    )
}

impl Shared {
    pub fn with<T>(&self, look: impl FnOnce(&mut Ledger) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    pub fn handler(&self) -> impl FnMut(&Request) -> Option<Answer> + Send + 'static {
        let ledger = self.clone();
        move |request| ledger.with(|ledger| ledger.answer(request))
    }
}

impl Ledger {
    pub fn deliver(&mut self, message: Value) {
        self.messages.insert(message["id"].as_str().unwrap().to_owned(), message.clone());
        self.log.push(("messages", message));
    }

    /// Message contents and note titles, as a device in step shows them.
    pub fn truth(&self) -> (Vec<String>, Vec<String>) {
        let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
        let messages = self.messages.values().map(|message| text(message, "content"));
        let notes = self.notes.values().flatten().map(|note| text(note, "title"));
        (sorted(messages.collect()), sorted(notes.collect()))
    }

    fn answer(&mut self, request: &Request) -> Option<Answer> {
        let body = match request.route.as_str() {
            INSTRUCTIONS if self.more_tables => {
                let mut rules = rules();
                rules["rules"] = json!("r2");
                rules["tables"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({"name": "public.extra", "local_name": "extra",
                    "primary_key": ["id"], "columns": [{"name": "id", "type": "TEXT"}]}));
                rules
            }
            INSTRUCTIONS => rules(),
            // A cursor names the rules that it was made under.
            INCOMING
                if self.more_tables
                    && request.query["since"].starts_with(|first: char| first != 'x')
                    && request.query["since"] != "start" =>
            {
                let error = json!({"error": {"code": "CURSOR_EXPIRED", "message": "other rules"}});
                return Some(Answer::Json(410, error));
            }
            INCOMING => self.page(&request.query["since"]),
            OUTGOING => self.upload(request),
            _ => return None,
        };
        Some(Answer::Json(200, body))
    }

    fn lsn(&self) -> String {
        format!("0/{:X}", 0x1000 + self.log.len())
    }

    /// Cursors are `5`, within a snapshot `s5`, with a leading `x` under the later rules.
    fn page(&self, since: &str) -> Value {
        let rules = if self.more_tables { "x" } else { "" };
        let since = if since == "start" { "s0" } else { since.trim_start_matches('x') };
        let (snapshot, from) = match since.strip_prefix('s') {
            Some(rest) => (true, rest.parse().unwrap()),
            None => (false, since.parse().unwrap()),
        };
        let upto = self.log.len().min(from + PAGE);
        let has_more = upto < self.log.len();
        let rows = &self.log[from..upto];
        let of = |list: &str| -> Vec<Value> {
            rows.iter().filter(|(name, _)| *name == list).map(|(_, row)| row.clone()).collect()
        };
        let stage = if snapshot && has_more { "s" } else { "" };
        let cursor = format!("{rules}{stage}{upto}");
        let mut changes = of("changes");
        if self.more_tables && snapshot && from == 0 {
            changes.push(json!({"table": "public.extra", "op": "upsert", "row": {"id": "e1"}}));
        }
        json!({"messages": of("messages"), "changes": changes, "cursor": cursor, "has_more": has_more,
               "snapshot": snapshot, "lsn": format!("0/{:X}", 0x1000 + upto)})
    }

    fn upload(&mut self, request: &Request) -> Value {
        let id = request.body["upload_id"].as_str().unwrap().to_owned();
        if let Some((bytes, answer)) = self.answers.get(&id) {
            self.mistaken += usize::from(*bytes != request.bytes);
            return answer.clone();
        }
        let mut conflicts = Vec::new();
        for message in request.body["messages"].as_array().unwrap() {
            let key = message["id"].as_str().unwrap().to_owned();
            let mut row = message.clone();
            row["sender_id"] = json!(crate::server::ME);
            row["status"] = json!("synced");
            if !self.messages.contains_key(&key) {
                *self.applied.entry(format!("message {}", message["content"])).or_default() += 1;
                self.deliver(row);
            }
        }
        for change in request.body["changes"].as_array().unwrap_or(&Vec::new()) {
            let key = change["key"]["id"].as_str().unwrap().to_owned();
            let version = change["row"]["updated_at"].as_str().unwrap().to_owned();
            // What counts is the last word on a row.
            conflicts.retain(|conflict: &Value| conflict["key"] != change["key"]);
            if self.versions.get(&key) == Some(&version) {
                continue;
            }
            if self.versions.get(&key).is_some_and(|known| *known > version) {
                conflicts
                    .push(json!({"table": "public.notes", "key": change["key"], "row": self.notes[&key]}));
                continue;
            }
            *self.applied.entry(format!("note {key} {}", change["row"]["title"])).or_default() += 1;
            let row = (change["op"] == "upsert").then(|| {
                json!({"id": key, "owner_id": crate::server::ME, "title": change["row"]["title"], "updated_at": version})
            });
            self.versions.insert(key.clone(), version);
            self.notes.insert(key, row.clone());
            let mut logged = json!({"table": "public.notes", "op": change["op"], "key": change["key"]});
            logged["row"] = json!(row);
            self.log.push(("changes", logged));
        }
        let answer = json!({"synced_count": 0, "failed_count": 0, "conflicts": conflicts, "lsn": self.lsn()});
        self.answers.insert(id, (request.bytes.clone(), answer.clone()));
        answer
    }
}

pub fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list
}

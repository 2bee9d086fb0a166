//! Uploads as they arrived and what was answered in, what every row should be in the end out.
//!
//! The stated rule, without the product's code: of all versions of a row that were uploaded, the one with the greatest
//! `(version, device id)` stands, where a version counts as no later than five minutes after the server's clock at its
//! upload. What was there before any device wrote has no device, and loses against every device of the same version.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use tokio_postgres::Client;

use crate::recorder::Upload;

const MOST_AHEAD: TimeDelta = TimeDelta::minutes(5);

/// Table and id.
pub type RowId = (String, String);

/// The columns that devices write; `None`: the row is deleted.
pub type Written = Option<BTreeMap<String, Value>>;

/// A row as it was uploaded, or its deletion.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    pub at: DateTime<Utc>,
    pub device: String,
    pub row: Written,
}

/// What each row should be.
#[derive(Default)]
pub struct Verdict {
    pub rows: BTreeMap<RowId, Version>,
    /// Versions that were uploaded, and those of them that did not stand when they came.
    pub versions: u32,
    pub losers: u32,
    /// Versions that met one of the same time by another device.
    pub ties: u32,
    /// Versions that were set back.
    pub ahead: u32,
}

impl Verdict {
    /// Begins with what PostgreSQL has before any device writes.
    pub async fn before(client: &Client, table: &str, columns: &[&str]) -> Self {
        let mut verdict = Verdict::default();
        let sql = format!("SELECT to_jsonb(t) FROM {table} t");
        for row in client.query(&sql, &[]).await.unwrap() {
            let row: Value = row.get(0);
            let values = columns.iter().map(|name| ((*name).to_owned(), row[*name].clone())).collect();
            let id = (format!("public.{table}"), row["id"].as_str().unwrap().to_owned());
            let at = instant(&row["updated_at"]);
            verdict.rows.insert(id, Version { at, device: String::new(), row: Some(values) });
        }
        verdict
    }

    /// Takes the uploads in; `client` finds what was answered to each.
    pub async fn take(&mut self, client: &Client, uploads: &[Upload]) {
        let mut seen = BTreeSet::new();
        for Upload { device, body } in uploads {
            let id = body["upload_id"].as_str().expect("an upload without its id");
            if !seen.insert((device, id)) {
                continue;
            }
            let sql =
                "SELECT answer FROM posduif_engine.upload_receipts WHERE device_id = $1 AND upload_id = $2";
            let Some(receipt) = client.query_opt(sql, &[device, &id]).await.unwrap() else {
                // It came, and the server did not get so far as to apply it; the device repeats it in other words.
                continue;
            };
            let answer: Value = serde_json::from_str(receipt.get(0)).unwrap();
            assert_eq!(answer["failed_count"], 0, "{device} was refused something: {answer} of {body}");
            let latest = instant(&answer["sync_timestamp"]) + MOST_AHEAD;
            let mut lost = BTreeSet::new();
            for (id, told, row) in items(body) {
                let at = told.min(latest);
                self.ahead += u32::from(at < told);
                self.versions += 1;
                let version = Version { at, device: device.clone(), row };
                let Some(stands) = self.rows.get_mut(&id) else {
                    self.rows.insert(id, version);
                    continue;
                };
                // What a later item says of the row counts.
                lost.remove(&id);
                self.ties += u32::from(stands.at == at && stands.device != version.device);
                if (stands.at, &stands.device) <= (version.at, &version.device) {
                    *stands = version;
                } else if stands.row.is_some() || version.row.is_some() {
                    // A deletion of what is deleted already loses nothing.
                    lost.insert(id);
                }
            }
            self.losers += u32::try_from(lost.len()).unwrap();
            assert_eq!(conflicts(&answer), lost, "{device} was told of other conflicts: {answer} of {body}");
        }
    }
}

/// The rows of which the server says that another version stands.
fn conflicts(answer: &Value) -> BTreeSet<RowId> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let conflicts = answer["conflicts"].as_array().unwrap().iter();
    conflicts.map(|conflict| (text(&conflict["table"]), text(&conflict["key"]["id"]))).collect()
}

/// The versions in an upload, in the order in which the server takes them.
fn items(body: &Value) -> Vec<(RowId, DateTime<Utc>, Written)> {
    let list = |name: &str| body[name].as_array().cloned().unwrap_or_default();
    let written = |row: &Value| {
        let columns = row.as_object().unwrap().iter();
        let columns = columns.filter(|(name, _)| !matches!(name.as_str(), "id" | "owner_id" | "updated_at"));
        columns.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let users = list("users").into_iter().map(|row| {
        (("public.users".to_owned(), text(&row["id"])), instant(&row["updated_at"]), Some(written(&row)))
    });
    let changes = list("changes").into_iter().map(|change| {
        let row = (change["op"] == "upsert").then(|| written(&change["row"]));
        ((text(&change["table"]), text(&change["key"]["id"])), instant(&change["row"]["updated_at"]), row)
    });
    users.chain(changes).collect()
}

pub fn instant(value: &Value) -> DateTime<Utc> {
    let text = value.as_str().unwrap_or_else(|| panic!("not an instant: {value}"));
    DateTime::parse_from_rfc3339(text).unwrap_or_else(|error| panic!("{error}: {text}")).to_utc()
}

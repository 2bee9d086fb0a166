//! Random uploads of several devices with skewed clocks, compared with the stated rule applied by hand.
//!
//! The model knows no SQL: a row is the newest `(time, device)` of what was uploaded, in which an application's own writes have no
//! device and its deletions are later than the row. It is told what each upload was clamped to by the answer's `sync_timestamp`.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use crate::{
    changes::{self, gone, note},
    fixture::{Api, Phone, ok},
};

const KEYS: usize = 5;

#[derive(Clone, Debug, PartialEq)]
struct State {
    version: (DateTime<Utc>, String),
    /// None for a tombstone.
    title: Option<String>,
}

#[derive(Clone, Debug)]
struct Edit {
    key: usize,
    /// None deletes.
    title: Option<String>,
    /// By the device's own clock; none for one that tells no time.
    at: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug)]
struct Sent {
    device: usize,
    body: Value,
    edits: Vec<Edit>,
    answer: Option<String>,
}

#[derive(Default)]
struct Model(BTreeMap<usize, State>);

impl Model {
    /// Applies an edit and says whether it lost.
    fn apply(&mut self, edit: &Edit, device: &str, now: DateTime<Utc>) -> bool {
        let at = edit.at.unwrap_or(now).min(now + TimeDelta::minutes(5));
        let version = (at, device.to_owned());
        match self.0.get(&edit.key) {
            // There is nothing to delete, and nothing to remember.
            None if edit.title.is_none() => false,
            Some(held) if held.version > version => held.title.is_some() || edit.title.is_some(),
            _ => {
                self.0.insert(edit.key, State { version, title: edit.title.clone() });
                false
            }
        }
    }
}

fn key(number: usize) -> String {
    format!("00000000-0000-0000-0000-{number:012}")
}

/// Devices of clocks a year behind, right, and ten years ahead, of which some tell whole minutes only.
fn clock(device: usize, rng: &mut StdRng) -> DateTime<Utc> {
    let skew = [TimeDelta::days(-365), TimeDelta::zero(), TimeDelta::days(3650)];
    let at = Utc::now() + skew[device % 3] + TimeDelta::seconds(rng.random_range(-3..3) * 60);
    // Few different times, so that there are many ties.
    DateTime::from_timestamp(at.timestamp() / 60 * 60, 0).unwrap()
}

fn edit(device: usize, rng: &mut StdRng) -> Edit {
    Edit {
        key: rng.random_range(0..KEYS),
        title: rng.random_bool(0.75).then(|| format!("t{}", rng.random::<u32>())),
        at: rng.random_bool(0.9).then(|| clock(device, rng)),
    }
}

fn body(number: usize, edits: &[Edit], is_named: bool) -> Value {
    let change = |edit: &Edit| {
        let mut row = json!({});
        if let Some(at) = edit.at {
            row["updated_at"] = json!(at.to_rfc3339());
        }
        match &edit.title {
            Some(title) => {
                row["title"] = json!(title);
                note(&key(edit.key), row)
            }
            None => gone(&key(edit.key), row),
        }
    };
    let changes: Vec<Value> = edits.iter().map(change).collect();
    match is_named {
        true => json!({"upload_id": format!("u{number}"), "changes": changes}),
        false => json!({ "changes": changes }),
    }
}

async fn by_sql(api: &Api, model: &mut Model, owner: &Phone, rng: &mut StdRng) {
    let number = rng.random_range(0..KEYS);
    let is_there = model.0.get(&number).is_some_and(|state| state.title.is_some());
    if rng.random_bool(0.5) {
        let sql = "DELETE FROM notes WHERE id = $1::text::uuid RETURNING updated_at";
        let deleted = api.sql.query_opt(sql, &[&key(number)]).await.unwrap();
        assert_eq!(deleted.is_some(), is_there);
        if let Some(row) = deleted {
            let noted = "SELECT version FROM posduif_engine.row_versions WHERE deleted AND version >= $1
                           AND key = sha256(convert_to(jsonb_build_array($2::text::uuid)::text, 'UTF8'))";
            let before: DateTime<Utc> = row.get(0);
            let version = api.sql.query_one(noted, &[&before, &key(number)]).await.unwrap().get(0);
            assert!(version > before, "a tombstone is later than its row");
            model.0.insert(number, State { version: (version, String::new()), title: None });
        }
        return;
    }
    // Never at the time of a device's version: SQL that leaves a version as it is leaves its writer, too.
    let at = clock(rng.random_range(0..2), rng) + TimeDelta::seconds(1);
    let title = format!("sql{}", rng.random::<u32>());
    let sql = "INSERT INTO notes (id, owner_id, title, updated_at) VALUES ($1::text::uuid, $2, $3, $4)
               ON CONFLICT (id) DO UPDATE SET title = excluded.title, updated_at = excluded.updated_at";
    api.sql.execute(sql, &[&key(number), &owner.user.uuid(), &title, &at]).await.unwrap();
    model.0.insert(number, State { version: (at, String::new()), title: Some(title) });
}

async fn compare(api: &Api, model: &Model, told: &str) {
    let rows = api.sql.query("SELECT id::text, title, updated_at FROM notes ORDER BY id", &[]).await.unwrap();
    let found: Vec<(String, String, DateTime<Utc>)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let expected: Vec<(String, String, DateTime<Utc>)> = model
        .0
        .iter()
        .filter_map(|(number, state)| Some((key(*number), state.title.clone()?, state.version.0)))
        .collect();
    assert_eq!(found, expected, "{told}");
}

#[tokio::test]
async fn whatever_is_uploaded_in_whatever_order_the_rows_are_what_the_rule_says() {
    let (api, [ann, second, _]) = changes::start().await;
    let (_, jwt) = api.web_user("carl").await;
    let mut phones = vec![ann.clone(), second];
    for id in ["a-third", "m-fourth", "z-fifth"] {
        phones.push(api.second_phone(&jwt, &ann, id, "ann").await);
    }
    for seed in 0..6_u64 {
        let mut rng = StdRng::seed_from_u64(seed);
        api.sql
            .batch_execute("TRUNCATE notes, posduif_engine.row_versions, posduif_engine.upload_receipts")
            .await
            .unwrap();
        let mut model = Model::default();
        let mut sent: Vec<Sent> = Vec::new();
        // Written offline, and sent in an order of its own.
        let mut waiting: Vec<usize> = Vec::new();
        for number in 0..60 {
            let device = rng.random_range(0..phones.len());
            let edits: Vec<Edit> = (0..rng.random_range(1..4)).map(|_| edit(device, &mut rng)).collect();
            let is_named = edits.iter().any(|edit| edit.at.is_none()) || rng.random_bool(0.5);
            sent.push(Sent { device, body: body(number, &edits, is_named), edits, answer: None });
            waiting.push(number);
        }
        for step in 0..150 {
            let told = format!("seed {seed}, step {step}");
            if rng.random_bool(0.1) {
                by_sql(&api, &mut model, &ann, &mut rng).await;
                compare(&api, &model, &told).await;
                continue;
            }
            // Something new, or something again.
            let number = match waiting.is_empty() || rng.random_bool(0.4) {
                false => waiting.swap_remove(rng.random_range(0..waiting.len())),
                true => rng.random_range(0..sent.len()),
            };
            waiting.retain(|other| *other != number);
            let upload = &mut sent[number];
            let phone = &phones[upload.device];
            let text = api.outgoing(phone, &upload.body).send().await.unwrap().text().await.unwrap();
            if let Some(first) = &upload.answer {
                assert_eq!(text, *first, "{told}: not the first answer");
            } else {
                let receipt: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(receipt["failed_count"], 0, "{told}: {receipt}");
                let now: DateTime<Utc> = receipt["sync_timestamp"].as_str().unwrap().parse().unwrap();
                let mut lost: BTreeSet<usize> = BTreeSet::new();
                for edit in &upload.edits {
                    match model.apply(edit, &phone.id, now.trunc_subsecs(6)) {
                        true => lost.insert(edit.key),
                        false => lost.remove(&edit.key),
                    };
                }
                let conflicts = receipt["conflicts"].as_array().unwrap();
                let told_lost: BTreeSet<String> = conflicts
                    .iter()
                    .map(|conflict| conflict["key"]["id"].as_str().unwrap().to_owned())
                    .collect();
                assert_eq!(told_lost, lost.iter().map(|number| key(*number)).collect(), "{told}: {receipt}");
                for conflict in conflicts {
                    let number: usize = conflict["key"]["id"].as_str().unwrap()[24..].parse().unwrap();
                    let title = model.0[&number].title.as_deref();
                    assert_eq!(conflict["row"]["title"].as_str(), title, "{told}: not the winner");
                }
                upload.answer = Some(text);
            }
            compare(&api, &model, &told).await;
        }
        assert!(sent.iter().filter(|sent| sent.answer.is_some()).count() > 40, "seed {seed}: most were sent");
    }
    ok(api.outgoing(&ann, &json!({}))).await;
}

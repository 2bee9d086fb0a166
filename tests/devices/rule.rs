//! Five devices of three users edit offline, with clocks that are wrong by years, over links that break: in the end all
//! agree, and hold what the stated rule says.

use std::{collections::BTreeMap, net::Ipv4Addr};

use chrono::{DurationRound, SecondsFormat, TimeDelta, Utc};
use posduif_model::UserId;
use posduif_sdk::{Device, Uuid};
use posduif_testkit::{
    Servers,
    chaos::{Direction, Proxy},
};
use rand::{RngExt, rngs::StdRng};
use serde_json::Value;
use tokio_postgres::Client;

use crate::{
    phone::{agrees, enroll, is_passing},
    recorder::Recorder,
    run::{Run, from_environment},
    shape,
    site::{Settings, Site},
    verdict::{RowId, Verdict, instant},
};

/// How wrong the clocks are, in days.
const CLOCKS: [i64; 5] = [-365, 0, 3652, -30, 3652];
/// Whose each device is.
const OWNERS: [usize; 5] = [0, 0, 1, 1, 2];
const TASKS: u128 = 6;

/// A device, its link, and its clock.
struct Phone {
    device: Device,
    link: Proxy,
    wrong: TimeDelta,
    /// The tasks of its user, which all of the user's devices know.
    tasks: Vec<Uuid>,
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_edits_with_wrong_clocks_converge_to_what_the_rule_says() {
    let run = Run::begin("offline_edits_with_wrong_clocks");
    let rounds: u32 = from_environment("POSDUIF_DEVICES_ROUNDS", 25);
    let settings =
        Settings { sql: shape::SQL.to_owned(), tables: shape::declarations(), ..Settings::default() };
    let site = Site::start(Servers::shared().await, settings).await;
    let client = site.database.connect().await;
    let recorder = Recorder::start((Ipv4Addr::LOCALHOST, site.port).into()).await;
    let mut rng = run.rng(0);
    let phones = phones(&site, &client, &recorder).await;

    let mut verdict = Verdict::before(&client, "users", &["username"]).await;
    verdict.rows.extend(Verdict::before(&client, "tasks", &["title", "done"]).await.rows);
    let (mut edits, mut cuts, mut sent) = (0, 0, 0);
    for _ in 0..rounds {
        for phone in &phones {
            for _ in 0..rng.random_range(0..4) {
                edits += 1;
                sent += u32::from(edit(phone, &phones, &mut rng));
            }
            if rng.random_bool(0.6) {
                cuts += u32::from(!sync_on_a_bad_link(phone, &mut rng).await);
            }
        }
    }
    // In the end all have a network, more than once: what one uploads, others still have to get.
    for _ in 0..2 {
        for phone in &phones {
            agrees(&site, &client, &phone.device).await;
        }
    }

    verdict.take(&client, &recorder.uploads()).await;
    compare(&client, &verdict).await;
    let stored: i64 = client.query_one("SELECT count(*) FROM messages", &[]).await.unwrap().get(0);
    assert_eq!(stored, i64::from(sent), "messages");
    eprintln!(
        "seed {}: {edits} edits, {cuts} syncs cut, {} versions uploaded, {} of them lost, {} set back, {} met \
         one of the same time, {sent} messages",
        run.seed, verdict.versions, verdict.losers, verdict.ahead, verdict.ties
    );
    let Verdict { losers, ahead, ties, .. } = verdict;
    assert!(losers > 0 && ahead > 0 && ties > 0 && cuts > 0, "nothing was in doubt");
}

async fn phones(site: &Site, client: &Client, recorder: &Recorder) -> Vec<Phone> {
    let mut phones: Vec<Phone> = Vec::new();
    for (n, (owner, days)) in OWNERS.into_iter().zip(CLOCKS).enumerate() {
        let link = Proxy::start(recorder.address()).await;
        let (file, through) =
            (site.scratch.join(&format!("{n}.sqlite")), format!("http://{}", link.address()));
        let known = OWNERS[..n].contains(&owner);
        let device = enroll(site, &file, &format!("User {owner}"), known, Some(&through)).await;
        let tasks: Vec<Uuid> = (0..TASKS).map(|task| Uuid::from_u128(1000 * owner as u128 + task)).collect();
        if !known {
            for task in &tasks {
                let sql = "INSERT INTO tasks VALUES ($1, $2, 'as made', false, now() - interval '2 years')";
                client.execute(sql, &[task, &device.user_id().uuid()]).await.unwrap();
            }
        }
        phones.push(Phone { device, link, wrong: TimeDelta::days(days), tasks });
    }
    for phone in &phones {
        agrees(site, client, &phone.device).await;
    }
    phones
}

/// Does something that its user could do now; gives whether it was a message.
fn edit(phone: &Phone, phones: &[Phone], rng: &mut StdRng) -> bool {
    let device = &phone.device;
    let task = phone.tasks[rng.random_range(0..phone.tasks.len())].to_string();
    let (word, user) = (rng.random::<u32>().to_string(), device.user_id().to_string());
    // Sometimes what several devices say at one time; not so far ahead that it would be set back.
    let now = match rng.random_bool(0.4) {
        true => Utc::now().duration_trunc(TimeDelta::minutes(2)).unwrap() + TimeDelta::minutes(4),
        false => Utc::now() + phone.wrong,
    };
    let now = now.to_rfc3339_opts(SecondsFormat::Micros, true);
    let connection = device.connection();
    match rng.random_range(0..10) {
        0..4 => {
            let sql = "INSERT INTO tasks (id, owner_id, title, done, updated_at) VALUES (?1, ?2, ?3, false, ?4)
                       ON CONFLICT (id) DO UPDATE SET title = excluded.title, updated_at = excluded.updated_at";
            connection.execute(sql, (task, user, word, now)).unwrap();
        }
        4..6 => {
            let sql = "UPDATE tasks SET done = NOT done, updated_at = ?2 WHERE id = ?1";
            connection.execute(sql, (task, now)).unwrap();
        }
        6 => {
            connection.execute("DELETE FROM tasks WHERE id = ?1", [task]).unwrap();
        }
        7 => {
            let sql = "UPDATE users SET username = ?2, updated_at = ?3 WHERE id = ?1";
            connection.execute(sql, (user, format!("User {word}"), now)).unwrap();
        }
        8 => {
            drop(connection);
            let others: Vec<UserId> = phones.iter().map(|phone| phone.device.user_id()).collect();
            device.send_message(others[rng.random_range(0..others.len())], &word).unwrap();
            return true;
        }
        _ => {
            let sql = "SELECT id FROM messages WHERE recipient_id = ?1 AND status <> 'read' LIMIT 1";
            let unread: Option<String> = connection.query_row(sql, [user], |row| row.get(0)).ok();
            drop(connection);
            if let Some(unread) = unread {
                device.mark_read(unread.parse().unwrap()).unwrap();
            }
        }
    }
    false
}

/// Gives whether it worked; whatever was cut is left to a later sync.
async fn sync_on_a_bad_link(phone: &Phone, rng: &mut StdRng) -> bool {
    let direction = if rng.random_bool(0.5) { Direction::ToClient } else { Direction::ToServer };
    if rng.random_bool(0.4) {
        phone.link.cut_after_bytes(rng.random_range(0..3_000), direction);
    }
    let synced = phone.device.sync().await;
    phone.link.heal(direction);
    if let Err(error) = &synced {
        assert!(is_passing(error), "{}: {error}", phone.device.username());
    }
    synced.is_ok()
}

/// PostgreSQL holds exactly what the rule says.
async fn compare(client: &Client, verdict: &Verdict) {
    let mut held: BTreeMap<RowId, Value> = BTreeMap::new();
    for table in ["tasks", "users"] {
        let sql = format!("SELECT to_jsonb(t) FROM {table} t");
        for row in client.query(&sql, &[]).await.unwrap() {
            let row: Value = row.get(0);
            held.insert((format!("public.{table}"), row["id"].as_str().unwrap().to_owned()), row);
        }
    }
    for (id, version) in &verdict.rows {
        let row = held.remove(id);
        match (&version.row, &row) {
            (None, None) => {}
            (Some(columns), Some(row)) => {
                for (name, value) in columns {
                    assert_eq!(plain(&row[name]), plain(value), "{name} of {id:?}: {row}, not {version:?}");
                }
                assert_eq!(instant(&row["updated_at"]), version.at, "{id:?}: {row}, not {version:?}");
            }
            _ => panic!("{id:?} is {row:?}, and should be {version:?}"),
        }
    }
    assert!(held.is_empty(), "rows that nobody wrote: {held:?}");
}

/// SQLite has 0 and 1 for false and true.
fn plain(value: &Value) -> Value {
    match value {
        Value::Bool(is) => Value::from(i64::from(*is)),
        other => other.clone(),
    }
}

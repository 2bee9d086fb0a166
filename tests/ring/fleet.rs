//! Fifty devices of real people: what is in their SQLite equals what is in PostgreSQL, row by row.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use posduif_model::UserId;
use posduif_provision::free_port;
use posduif_sdk::Device;
use posduif_testkit::{API, Database, INGESTER, Process, Scratch, Servers, TOOL, binaries, eventually};
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::{corpus, web::WebUser};

const MESSAGES: usize = 5_000;
const DEVICES: usize = 50;
/// Devices that sync at the same time.
const AT_ONCE: usize = 10;
const SOON: Duration = Duration::from_secs(120);
pub const PASSWORD: &str = "correct horse battery staple";

/// A tenant with its services as real processes.
pub struct Fleet {
    pub database: Database,
    pub api_url: String,
    /// Where operators ask.
    pub admin_url: String,
    pub scratch: Scratch,
    _ingester: Process,
    _api: Process,
}

/// `limits` is the configuration's `rate_limit`, `tls` its `api.tls`.
pub async fn start(limits: Value, tls: Option<Value>) -> Fleet {
    launch(limits, tls, true).await
}

/// A tenant that is polled.
pub async fn polled() -> Fleet {
    launch(json!({ "enabled": false }), None, false).await
}

async fn launch(limits: Value, tls: Option<Value>, wal: bool) -> Fleet {
    let servers = Servers::shared().await;
    let database = Database::create(servers).await;
    let scratch = Scratch::new();
    let [api, api_admin, ingester_admin] = std::array::from_fn(|_| free_port().unwrap());
    let scheme = if tls.is_some() { "https" } else { "http" };
    let api_url = format!("{scheme}://127.0.0.1:{api}");
    let mut tenant = database.tenant();
    tenant["wal"] = wal.into();
    let config = json!({
        "tenants": [tenant],
        "redis": { "url": servers.redis_url_of(TOOL) },
        "api": { "bind": format!("127.0.0.1:{api}"), "public_url": api_url, "tls": tls.unwrap_or(json!({})) },
        "admin": {
            "api_bind": format!("127.0.0.1:{api_admin}"),
            "ingester_bind": format!("127.0.0.1:{ingester_admin}"),
        },
        "auth": { "jwt_secret": "0123456789abcdef0123456789abcdef" },
        "rate_limit": limits,
    });
    let path = scratch.join("config.yaml");
    std::fs::write(&path, config.to_string()).unwrap();
    let migrate = ["migrate", "--config"];
    let mut migrate = Process::command(binaries::path("posduif").await).args(migrate).arg(&path).spawn();
    assert_eq!(migrate.wait(SOON).await, Some(0), "{}", migrate.log());
    add_web_user(&path).await;
    let run = |program, user| {
        let redis = servers.redis_url_of(user);
        Process::command(program).arg("--config").arg(&path).env("POSDUIF__REDIS__URL", redis).spawn()
    };
    let ingester = run(binaries::path("posduif-ingester").await, INGESTER);
    let api_process = run(binaries::path("posduif-sync-api").await, API);
    for port in [ingester_admin, api_admin] {
        let url = format!("http://127.0.0.1:{port}/readyz");
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        eventually(SOON, "a service is ready", async || {
            Ok(client.get(&url).send().await?.status().is_success().then_some(()))
        })
        .await;
    }
    let admin_url = format!("http://127.0.0.1:{api_admin}");
    Fleet { database, api_url, admin_url, scratch, _ingester: ingester, _api: api_process }
}

impl Fleet {
    /// Says in the configuration of the running services where the changes shall come from.
    pub fn use_wal(&self, wal: bool) {
        let path = self.scratch.join("config.yaml");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config["tenants"][0]["wal"] = wal.into();
        std::fs::write(&path, config.to_string()).unwrap();
    }
}

async fn add_web_user(config: &std::path::Path) {
    use tokio::io::AsyncWriteExt;

    let mut add = tokio::process::Command::new(binaries::path("posduif").await)
        .args(["user", "add", "--username", "Web", "--type", "web", "--password-stdin", "--config"])
        .arg(config)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    add.stdin.take().unwrap().write_all(PASSWORD.as_bytes()).await.unwrap();
    assert!(add.wait().await.unwrap().success());
}

/// Creates the people of the corpus as mobile users.
async fn create_people(client: &Client, texts: &[corpus::Text]) -> HashMap<String, UserId> {
    let names: BTreeSet<&String> = texts.iter().flat_map(|text| [&text.from, &text.to]).collect();
    let names: Vec<&String> = names.into_iter().collect();
    let insert =
        "INSERT INTO users (username, user_type) SELECT unnest($1::text[]), 'mobile' RETURNING username, id";
    let rows = client.query(insert, &[&names]).await.unwrap();
    rows.iter().map(|row| (row.get(0), UserId::new(row.get(1)))).collect()
}

/// Loads messages as an importer would: many rows per statement, their own times.
async fn load(client: &Client, people: &HashMap<String, UserId>, texts: &[corpus::Text]) {
    for group in texts.chunks(100) {
        let column = |f: &dyn Fn(&corpus::Text) -> String| group.iter().map(f).collect::<Vec<_>>();
        let (senders, recipients) =
            (column(&|text| people[&text.from].to_string()), column(&|text| people[&text.to].to_string()));
        let (contents, times) = (column(&|text| text.text.clone()), column(&|text| text.sent_at.clone()));
        client
            .execute(
                "INSERT INTO messages (sender_id, recipient_id, content, created_at, updated_at)
                 SELECT s::uuid, r::uuid, c, t::timestamptz, t::timestamptz
                   FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS m (s, r, c, t)",
                &[&senders, &recipients, &contents, &times],
            )
            .await
            .unwrap();
    }
}

/// The people with the most messages: their devices have the most to sync.
fn busiest(texts: &[corpus::Text]) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for text in texts {
        *counts.entry(&text.from).or_default() += 1;
        *counts.entry(&text.to).or_default() += 1;
    }
    let mut names: Vec<(&str, usize)> = counts.into_iter().collect();
    names.sort_by_key(|(name, count)| (usize::MAX - count, *name));
    names.into_iter().take(DEVICES).map(|(name, _)| name.to_owned()).collect()
}

/// A row as text, column by column, in a form in which both databases can say it.
type Row = Vec<Option<String>>;

const MESSAGE_COLUMNS: [&str; 9] = [
    "id",
    "sender_id",
    "recipient_id",
    "content",
    "status",
    "created_at",
    "updated_at",
    "synced_at",
    "read_at",
];
const USER_COLUMNS: [&str; 7] =
    ["id", "username", "user_type", "last_message_sent", "last_message_at", "created_at", "updated_at"];

/// PostgreSQL's rows, times as RFC 3339 by its own formatting and not by Posduif's.
async fn server_rows(client: &Client, table: &str, columns: &[&str], condition: &str) -> Vec<Row> {
    let column = |name: &&str| match name.ends_with("_at") {
        true => format!("to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')"),
        false => format!("{name}::text"),
    };
    let list = columns.iter().map(column).collect::<Vec<_>>().join(", ");
    let sql = format!("SELECT {list} FROM {table} WHERE {condition} ORDER BY id");
    let rows = client.query(&sql, &[]).await.unwrap();
    rows.iter().map(|row| (0..columns.len()).map(|n| row.get(n)).collect()).collect()
}

fn device_rows(device: &Device, table: &str, columns: &[&str]) -> Vec<Row> {
    let connection = device.connection();
    let sql = format!("SELECT {} FROM {table} ORDER BY id", columns.join(", "));
    let mut statement = connection.prepare(&sql).unwrap();
    let read = |row: &posduif_sdk::rusqlite::Row<'_>| {
        (0..columns.len())
            .map(|n| {
                let value: Option<String> = row.get(n)?;
                Ok(value.map(|text| if columns[n].ends_with("_at") { micros(&text) } else { text }))
            })
            .collect()
    };
    statement.query_map([], read).unwrap().collect::<Result<_, _>>().unwrap()
}

/// `…:00Z` and `…:00.5Z` with six digits and without the `Z`.
fn micros(time: &str) -> String {
    let time = time.strip_suffix('Z').expect("a time in UTC");
    let (seconds, fraction) = time.split_once('.').unwrap_or((time, ""));
    format!("{seconds}.{fraction:0<6}")
}

/// Syncs until the device has seen everything that the database holds now.
async fn catch_up(client: &Client, device: &Device) {
    let now: String = client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await.unwrap().get(0);
    let now: posduif_model::Lsn = now.parse().unwrap();
    eventually(SOON, "the device has caught up", async || {
        let summary = device.sync().await?;
        Ok(summary.lsn.is_some_and(|lsn| lsn >= now).then_some(()))
    })
    .await;
}

/// Catches up, then compares all rows.
async fn agrees(client: &Client, device: &Device) {
    catch_up(client, device).await;
    let user = device.user_id();
    let condition = format!("sender_id = '{user}' OR recipient_id = '{user}'");
    let expected = server_rows(client, "messages", &MESSAGE_COLUMNS, &condition).await;
    assert_same(&expected, &device_rows(device, "messages", &MESSAGE_COLUMNS));
    let expected = server_rows(client, "users", &USER_COLUMNS, "true").await;
    assert_same(&expected, &device_rows(device, "users", &USER_COLUMNS));
    assert_eq!(device.pending_count().unwrap(), 0);
}

fn assert_same(expected: &[Row], got: &[Row]) {
    let differing = expected.iter().zip(got).find(|(a, b)| a != b);
    assert_eq!(differing, None, "a row differs between PostgreSQL and SQLite");
    assert_eq!(expected.len(), got.len(), "rows are missing or too many");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_devices_hold_exactly_what_postgresql_holds() {
    let fleet = start(json!({ "enabled": false }), None).await;
    let client = fleet.database.connect().await;
    let texts = corpus::messages(MESSAGES);
    let people = create_people(&client, &texts).await;
    let (before, meanwhile) = texts.split_at(MESSAGES / 2);
    load(&client, &people, before).await;

    let web = WebUser::log_in(&fleet.api_url, "Web", PASSWORD).await;
    let names = busiest(&texts);
    let enroll = async |name: &String| {
        let url = web.create_enrollment(Some(name)).await;
        Device::enroll(fleet.scratch.join(&format!("{name}.sqlite")), &url, name, json!({})).await
    };
    let devices: Vec<Device> =
        stream::iter(&names).map(enroll).buffered(AT_ONCE).try_collect().await.unwrap();
    assert_eq!(devices.len(), DEVICES);

    // Snapshots, and streams that follow them, while the other half is being loaded.
    let sync_all = async {
        for _ in 0..3 {
            let synced = stream::iter(&devices).map(|device| device.sync()).buffer_unordered(AT_ONCE);
            let _: Vec<_> = synced.try_collect().await.unwrap();
        }
    };
    tokio::join!(sync_all, load(&client, &people, meanwhile));

    // Hostile strings from both ends: by SQL to the first device, and from the first device to the second.
    let hostile = corpus::hostile_strings();
    let (first, second) = (&devices[0], &devices[1]);
    let by_sql: Vec<corpus::Text> = hostile
        .iter()
        .map(|string| corpus::Text {
            from: names[1].clone(),
            to: names[0].clone(),
            sent_at: "2026-01-01T00:00:00Z".to_owned(),
            text: string.clone(),
        })
        .collect();
    load(&client, &people, &by_sql).await;
    let mut sent = 0;
    for string in &hostile {
        // A message of nothing but white space is an empty one, refused where it is written.
        let written = first.send_message(second.user_id(), string);
        assert_eq!(written.is_err(), string.trim().is_empty(), "{string:?}");
        sent += usize::from(written.is_ok());
    }
    let summary = first.sync().await.unwrap();
    assert_eq!((summary.uploaded, summary.rejected), (sent, 0));

    // What one has received another hears of: its word comes with the next request, and goes out with the one after.
    for _ in 0..3 {
        stream::iter(&devices).for_each_concurrent(AT_ONCE, |device| catch_up(&client, device)).await;
    }
    stream::iter(&devices).for_each_concurrent(AT_ONCE, |device| agrees(&client, device)).await;
    let stored: i64 = client.query_one("SELECT count(*) FROM messages", &[]).await.unwrap().get(0);
    assert_eq!(usize::try_from(stored).unwrap(), MESSAGES + hostile.len() + sent);
}

//! Tenants that an operator adds, pauses, resumes and drops while everything runs.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use posduif_sdk::Device;
use posduif_testkit::{Database, Servers, eventually};
use serde_json::{Value, json};

use crate::fixture::{Installation, SOON};

const PASSWORD: &str = "correct horse battery staple";

/// A URL without its password, and that.
fn split(url: &str) -> (String, String) {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (user, place) = rest.split_once('@').unwrap();
    let (user, password) = user.split_once(':').unwrap();
    (format!("{scheme}://{user}@{place}"), password.to_owned())
}

/// Runs `posduif tenant add` for the database; its exit code and what it printed.
async fn add(at: &Installation, database: &Database, more: &[&str]) -> (i32, String) {
    let [url, ingester, admin] = [database.url(), database.ingester_url(), database.admin_url()].map(split);
    let passwords = format!("{}\n{}\n{}\n", url.1, ingester.1, admin.1);
    let arguments =
        ["--url", &url.0, "--ingester-url", &ingester.0, "--admin-url", &admin.0, "--password-stdin"];
    let mut process = at.tool(&[&["tenant", "add"], &arguments[..], more].concat(), &passwords).await;
    (process.wait(3 * SOON).await.expect("posduif hangs"), process.log())
}

/// The object on the last line; progress comes before it.
fn object(log: &str) -> Value {
    serde_json::from_str(log.trim().lines().last().unwrap()).unwrap_or_else(|error| panic!("{error}: {log}"))
}

/// The document names every key.
fn is_documented(object: &Value) {
    let documented = include_str!("../../../../docs/OPERATING.md");
    for key in object.as_object().unwrap().keys() {
        assert!(documented.contains(&format!("`{key}`")), "docs/OPERATING.md lacks {key}");
    }
}

/// What is there of a tenant besides its rows: slots, publications and triggers, and keys.
async fn traces(servers: &Servers, database: &Database) -> (i64, i64, Vec<String>) {
    let sql = "SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database()),
                      (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'posduif\\_%\\_rows')";
    let row = database.connect().await.query_one(sql, &[]).await.unwrap();
    let client = redis::Client::open(servers.redis_url()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let pattern = format!("posduif:{{{}}}:*", database.name());
    let keys = redis::cmd("KEYS").arg(pattern).query_async(&mut redis).await.unwrap();
    (row.get(0), row.get(1), keys)
}

async fn is_followed(at: &Installation, tenant: &str) {
    eventually(SOON, "the tenant is followed", async || {
        let (_, report) = at.status().await;
        let tenants = report["tenants"].as_array().unwrap();
        let found = tenants.iter().find(|found| found["tenant"] == tenant);
        anyhow::ensure!(found.is_some_and(|found| found["ok"] == true), "{report}");
        Ok(Some(()))
    })
    .await;
}

/// Lets a phone of a new user into the tenant.
async fn phone(at: &Installation, tenant: &str, file: &Path) -> Device {
    let mut add = at
        .tool(
            &["user", "add", "--tenant", tenant, "--type", "web", "--username", "Ann", "--password-stdin"],
            PASSWORD,
        )
        .await;
    assert_eq!(add.wait(SOON).await, Some(0), "{}", add.log());
    let invitation = at.json(&["enroll", "--tenant", tenant, "--by", "Ann", "--json"]).await;
    let url = invitation["enrollment_url"].as_str().unwrap().to_owned();
    // A replica finds a new tenant within seconds.
    eventually(SOON, "a phone is enrolled", async || {
        Ok(Some(Device::enroll(file, &url, "Joe", json!({})).await?))
    })
    .await
}

async fn syncs(device: &Device) {
    eventually(SOON, "the device is in step", async || Ok(device.sync().await.map(Some)?)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_added_and_dropped_while_everything_runs_and_another_does_not_notice() {
    let servers = Servers::shared().await;
    let at = Installation::start(servers).await;
    let file = at.keep_tenants_in_a_file();
    std::fs::write(&file, "[]").unwrap();
    at.migrate().await;
    let (mut ingester, mut api) = (at.ingester().await, at.api().await);
    let own = at.database.name().to_owned();
    is_followed(&at, &own).await;
    let stays = Arc::new(phone(&at, &own, &at.phone("stays.sqlite")).await);
    syncs(&stays).await;
    let (over, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let undisturbed = tokio::spawn({
        let (device, over, rounds) = (stays.clone(), over.clone(), rounds.clone());
        async move {
            while !over.load(Ordering::Relaxed) {
                device.sync().await.expect("the other tenant's device syncs all the time");
                rounds.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });

    let database = Database::create(servers).await;
    let (code, log) = add(&at, &database, &["--json"]).await;
    assert_eq!(code, 0, "{log}");
    let added = object(&log);
    assert_eq!((&added["tenant_id"], &added["followed"]), (&json!(database.name()), &json!(true)), "{log}");
    is_documented(&added);
    let listed = at.json(&["tenant", "list", "--json"]).await;
    assert_eq!((&listed[1]["tenant_id"], &listed[1]["dropped_at"]), (&json!(database.name()), &Value::Null));
    let device = Arc::new(phone(&at, database.name(), &at.phone("joe.sqlite")).await);
    syncs(&device).await;
    let (slots, published, keys) = traces(servers, &database).await;
    assert!(slots == 1 && published > 0 && keys.len() > 3, "{slots} {published} {keys:?}");
    // Said once more, it is said once.
    let (code, log) = add(&at, &database, &[]).await;
    assert_eq!(code, 0, "{log}");
    assert_eq!(std::fs::read_to_string(&file).unwrap().matches("- id").count(), 0, "{log}");
    assert_eq!(std::fs::read_to_string(&file).unwrap().matches(database.name()).count(), 3, "one entry");

    at.refused(&["tenant", "drop", database.name()], "nothing was changed").await;
    // Its device does not stop to ask, so that a replica remembers it anew for as long as it serves the tenant.
    let asking = tokio::spawn({
        let device = device.clone();
        async move {
            loop {
                let _refused_in_the_end = device.sync().await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    let log = at.ok(&["tenant", "drop", database.name(), "--yes", "--json"]).await;
    asking.abort();
    let dropped = object(&log);
    assert_eq!((&dropped["entry_removed"], &dropped["remaining"]), (&json!(true), &Value::Null), "{log}");
    is_documented(&dropped);
    assert_eq!(traces(servers, &database).await, (0, 0, vec![]));
    assert!(!std::fs::read_to_string(&file).unwrap().contains(database.name()));
    let error = device.sync().await.unwrap_err().to_string();
    assert!(
        error.contains("401") || error.to_lowercase().contains("credential") || error.contains("enrol"),
        "{error}"
    );
    let rows: i64 =
        database.connect().await.query_one("SELECT count(*) FROM users", &[]).await.unwrap().get(0);
    assert_eq!(rows, 2, "its rows stay");
    // Nobody makes anything of it anew.
    at.ok(&["tenant", "drop", database.name(), "--yes"]).await;
    assert_eq!(traces(servers, &database).await, (0, 0, vec![]));
    over.store(true, Ordering::Relaxed);
    undisturbed.await.unwrap();
    assert!(rounds.load(Ordering::Relaxed) > 10);
    assert_eq!((ingester.try_wait(), api.try_wait()), (None, None));
    // Taken up again it is another log for the devices that are still enrolled.
    let (code, log) = add(&at, &database, &[]).await;
    assert_eq!(code, 0, "{log}");
    syncs(&device).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_that_is_killed_anywhere_is_completed_by_the_next() {
    let servers = Servers::shared().await;
    let at = Installation::start(servers).await;
    std::fs::write(at.keep_tenants_in_a_file(), "[]").unwrap();
    at.migrate().await;
    let _ingester = at.ingester().await;
    let mut killed = 0;
    for milliseconds in [5, 40, 80, 160, 320, 700, 1500, 3000] {
        let database = Database::create(servers).await;
        let (code, log) = add(&at, &database, &[]).await;
        assert_eq!(code, 0, "{log}");
        let mut process = at.tool(&["tenant", "drop", database.name(), "--yes"], "").await;
        killed += usize::from(process.wait(Duration::from_millis(milliseconds)).await.is_none());
        process.kill9().await;
        let log = at.ok(&["tenant", "drop", database.name(), "--yes"]).await;
        assert_eq!(traces(servers, &database).await, (0, 0, vec![]), "after {milliseconds} ms: {log}");
        let listed = at.json(&["tenant", "list", "--json"]).await;
        assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    }
    assert!(killed > 4, "hardly any was killed: {killed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_of_the_configuration_is_paused_resumed_and_dropped_and_a_person_removes_its_lines() {
    let servers = Servers::shared().await;
    let at = Installation::start(servers).await;
    at.migrate().await;
    let tenant = at.database.name().to_owned();
    let mut ingester = at.ingester().await;
    at.well().await;

    // Of one that hangs nobody says that it has left.
    ingester.sigstop();
    let mut pausing = at.tool(&["tenant", "pause", &tenant, "--json"], "").await;
    eventually(SOON, "the tool waits", async || {
        Ok(pausing.log().contains("waiting until the ingester has left").then_some(()))
    })
    .await;
    assert_eq!(pausing.try_wait(), None);
    ingester.sigcont();
    assert_eq!(pausing.wait(SOON).await, Some(0), "{}", pausing.log());
    let paused = object(&pausing.log());
    is_documented(&paused);
    assert!(paused["paused_at"].is_string() && paused["retained_bytes"].is_i64(), "{paused}");
    let (code, report) = at.status().await;
    let found = &report["tenants"][0];
    assert_eq!((code, &found["warnings"][0]["code"]), (0, &json!("paused")), "{report}");
    assert_eq!(
        (&found["database"]["slot"]["active"], &found["problems"]),
        (&json!(false), &json!([])),
        "{report}"
    );
    assert_eq!(at.json(&["tenant", "list", "--json"]).await[0]["paused_at"], paused["paused_at"]);
    let text = at.ok(&["tenant", "pause", &tenant]).await;
    assert!(text.contains("keeps WAL") && text.contains("posduif tenant resume"), "{text}");
    let resumed = object(&at.ok(&["tenant", "resume", &tenant, "--json"]).await);
    is_documented(&resumed);
    assert_eq!(resumed["followed"], true);
    at.well().await;

    let text = at.ok(&["tenant", "drop", &tenant, "--yes"]).await;
    assert!(text.contains("entry 1 of tenants") && text.contains("config.yaml"), "{text}");
    let (slots, published, _) = traces(servers, &at.database).await;
    assert_eq!((slots, published), (0, 0));
    let (code, report) = at.status().await;
    assert_eq!((code, &report["tenants"][0]["warnings"][0]["code"]), (0, &json!("dropped")), "{report}");
    eventually(SOON, "the ingester says why it does not follow", async || {
        Ok(ingester.log().contains("dropped at").then_some(()))
    })
    .await;
    assert!(at.ok(&["migrate"]).await.contains("left alone"));
    let (slots, published, _) = traces(servers, &at.database).await;
    assert_eq!((slots, published), (0, 0));
    at.refused(&["tenant", "pause", &tenant], "was dropped").await;
    at.refused(&["tenant", "resume", &tenant], "posduif tenant add").await;
    // It stands in the configuration, so it is taken up without an entry.
    let (code, log) = add(&at, &at.database, &[]).await;
    assert_eq!(code, 0, "{log}");
    at.well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_become_a_tenant_is_refused_before_anything_is_changed() {
    let servers = Servers::shared().await;
    let at = Installation::start(servers).await;
    let database = Database::create(servers).await;
    let with_password = ["tenant", "add", "--url", database.url()];
    at.refused(&with_password, "an argument can be seen by everybody").await;
    let (code, log) = add(&at, &database, &[]).await;
    assert!(code != 0 && log.contains("names no tenants_file"), "{code} {log}");
    let file = at.keep_tenants_in_a_file();
    let (code, log) = add(&at, &at.database, &["--id", "another"]).await;
    assert!(code != 0 && log.contains("has this database already"), "{code} {log}");
    let (code, log) = add(&at, &database, &["--id", at.database.name()]).await;
    assert!(code != 0 && log.contains("is configured already"), "{code} {log}");
    let gone = split(&database.url().replace(database.name(), "no_such_database"));
    let mut process = at.tool(&["tenant", "add", "--url", &gone.0, "--password-stdin"], &gone.1).await;
    assert_ne!(process.wait(SOON).await, Some(0));
    assert!(process.log().contains("no_such_database"), "{}", process.log());
    let schema = "SELECT to_regnamespace('posduif_engine') IS NULL";
    assert!(database.connect().await.query_one(schema, &[]).await.unwrap().get::<_, bool>(0));
    assert!(std::fs::read_to_string(file).unwrap().ends_with("[]\n"));
    // Nobody follows it: the tool says what is missing, and the tenant is added.
    let (code, log) = add(&at, &database, &["--no-wait"]).await;
    assert!(code == 0 && log.contains("ingesters find it"), "{code} {log}");
    for secret in [database.url(), database.ingester_url(), database.admin_url()].map(|url| split(url).1) {
        assert!(!log.contains(&secret), "a password is shown");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polled_tenant_is_added_paused_resumed_and_dropped_like_any_other() {
    let servers = Servers::shared().await;
    let at = Installation::start(servers).await;
    std::fs::write(at.keep_tenants_in_a_file(), "[]").unwrap();
    at.migrate().await;
    let _ingester = at.ingester().await;
    let database = Database::create(servers).await;
    let (code, log) = add(&at, &database, &["--wal", "false", "--json"]).await;
    assert!(code == 0 && object(&log)["followed"] == true, "{log}");
    let listed = at.json(&["tenant", "list", "--json"]).await;
    assert_eq!(listed[1]["mode"], "polling", "{listed}");
    let (_, told) = at.status().await;
    let told =
        told["tenants"].as_array().unwrap().iter().find(|told| told["tenant"] == database.name()).unwrap();
    assert_eq!((&told["ok"], &told["log"]["source"]), (&true.into(), &"polling".into()), "{told}");
    let paused = object(&at.ok(&["tenant", "pause", database.name(), "--json"]).await);
    assert_eq!(paused["slot"], Value::Null, "{paused}");
    let resumed = object(&at.ok(&["tenant", "resume", database.name(), "--json"]).await);
    assert_eq!(resumed["followed"], true);
    let (slots, published, keys) = traces(servers, &database).await;
    assert!(slots == 0 && published > 3 && !keys.is_empty(), "{slots} {published} {keys:?}");
    at.ok(&["tenant", "drop", database.name(), "--yes"]).await;
    assert_eq!(traces(servers, &database).await, (0, 0, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_whose_database_is_gone_can_be_dropped() {
    let servers = Servers::shared().await;
    let at = Installation::start(servers).await;
    let file = at.keep_tenants_in_a_file();
    let database = Database::create(servers).await;
    let (code, log) = add(&at, &database, &["--no-wait"]).await;
    assert_eq!(code, 0, "{log}");
    let name = database.name().to_owned();
    database.drop_now().await;
    let text = at.ok(&["tenant", "drop", &name, "--yes"]).await;
    assert!(text.contains("is dropped"), "{text}");
    assert!(!std::fs::read_to_string(file).unwrap().contains(&name));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_of_nobody_is_told_with_what_removes_it_and_never_touched() {
    let servers = Servers::private().await;
    let at = Installation::start(&servers).await;
    at.migrate().await;
    let _ingester = at.ingester().await;
    at.well().await;
    let foreign = Database::create(&servers).await;
    let made = "SELECT pg_create_logical_replication_slot('posduif_sync_of_another', 'pgoutput')";
    foreign.connect_superuser().await.query(made, &[]).await.unwrap();
    let (code, report) = at.status().await;
    let orphan = &report["orphan_slots"][0];
    assert_eq!((code, &orphan["reason"]), (0, &json!("not_configured")), "{report}");
    let command = format!(
        "psql -d {} -c \"SELECT pg_drop_replication_slot('posduif_sync_of_another')\"",
        foreign.name()
    );
    assert_eq!(orphan["command"], command, "{report}");
    at.ok(&["tenant", "drop", at.database.name(), "--yes"]).await;
    let (_, report) = at.status().await;
    assert_eq!(report["orphan_slots"].as_array().unwrap().len(), 1, "{report}");
}

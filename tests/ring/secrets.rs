//! Everything that `posduif dev` starts: no argument and no log shows a secret, and no program's file holds another's.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

use crate::installation::Installation;

fn strings(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => drop(found.insert(text.clone())),
        Value::Array(items) => items.iter().for_each(|item| strings(item, found)),
        Value::Object(members) => members.values().for_each(|member| strings(member, found)),
        _ => {}
    }
}

/// The arguments of every process of this machine.
fn command_lines() -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let read = |path: &Path| fs::read(path.join("cmdline")).ok();
    let lines = processes.filter_map(|process| read(&process.path()));
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).collect()
}

fn logs(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("data") {
            text += &logs(&path);
        } else if path.extension().is_some_and(|extension| extension == "log") {
            text += &String::from_utf8_lossy(&fs::read(path).unwrap());
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_runs_shows_a_secret_and_each_program_knows_its_own_alone() {
    let mut installation = Installation::start().await;
    installation.running().await;
    let folder = installation.folder();
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let settings: Value = serde_json::from_str(&read("settings.json")).unwrap();
    let mut secrets = BTreeSet::new();
    strings(&settings, &mut secrets);
    secrets.retain(|text| text.len() >= 12);
    assert_eq!(
        secrets.len(),
        10,
        "superuser, three roles, three users of Redis, the JWT secret and two people"
    );

    let name = folder.to_string_lossy().into_owned();
    let lines = command_lines();
    let own: Vec<&String> = lines.iter().filter(|line| line.contains(&name)).collect();
    for program in ["posduif-ingester", "posduif-sync-api", "postgres", "redis"] {
        assert!(own.iter().any(|line| line.contains(program)), "{program} is not seen: {own:?}");
    }
    let logs = logs(&folder);
    assert!(logs.contains("took the tenant over"), "the logs are not where they are looked for");
    for secret in &secrets {
        assert!(!lines.iter().any(|line| line.contains(secret)), "an argument shows a secret");
        assert!(!logs.contains(secret), "a log shows a secret");
    }

    let held = |file: &str| -> BTreeSet<&str> {
        let text = read(file);
        secrets.iter().map(String::as_str).filter(|secret| text.contains(*secret)).collect()
    };
    let of = |pointers: &[&str]| -> BTreeSet<&str> {
        pointers.iter().map(|pointer| settings.pointer(pointer).unwrap().as_str().unwrap()).collect()
    };
    assert_eq!(held("ingester.yaml"), of(&["/roles/ingester", "/redis_users/ingester"]));
    assert_eq!(held("api.yaml"), of(&["/roles/api", "/redis_users/api", "/jwt_secret"]));
    assert_eq!(held("config.yaml"), of(&["/roles/api", "/roles/admin", "/redis_users/tool"]));
    assert_eq!(held("redis/users.acl"), BTreeSet::new(), "Redis is given hashes");
    installation.stop().await;
}

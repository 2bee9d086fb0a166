//! Alerts, dashboard, runbooks and documents, compared with the names that the code has.

use std::{collections::BTreeSet, fs, path::PathBuf};

use posduif_ingester::{epoch, metrics::names};

fn read(path: &str) -> String {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every name of a metric of the ingester in a text, series of histograms under their family's.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let names = words.filter(|word| word.starts_with("posduif_ingester_"));
    let family = |name| ["_bucket", "_sum", "_count"].iter().find_map(|end| str::strip_suffix(name, end));
    names.map(|name| family(name).unwrap_or(name)).collect()
}

#[test]
fn every_metric_that_an_alert_a_panel_or_a_runbook_names_exists() {
    let known = BTreeSet::from(names::ALL);
    let mut files =
        vec!["deploy/observability/alerts.yml".to_owned(), "deploy/observability/dashboard.json".to_owned()];
    files.extend(runbooks());
    let mut used = BTreeSet::new();
    for file in files {
        let text = read(&file);
        let unknown: Vec<&str> = metrics_in(&text).difference(&known).copied().collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}");
        used.extend(metrics_in(&text).iter().map(ToString::to_string));
    }
    assert!(used.len() > 20, "the files name hardly any metric: {used:?}");
}

#[test]
fn the_document_of_metrics_explains_each_one_and_no_other() {
    let text = read("docs/METRICS.md");
    assert_eq!(metrics_in(&text), BTreeSet::from(names::ALL));
    let words = epoch::WORDS.iter().filter(|word| !text.contains(&format!("`{word}`")));
    assert_eq!(words.count(), 0, "docs/METRICS.md lacks a reason of epochs");
}

#[test]
fn every_alert_has_a_runbook_that_names_it_and_every_runbook_an_alert() {
    let alerts = read("deploy/observability/alerts.yml");
    let (mut linked, mut alert) = (BTreeSet::new(), "");
    for line in alerts.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("- alert: ") {
            assert_eq!(alert, "", "{alert} has no runbook");
            alert = name;
        } else if let Some(runbook) = line.strip_prefix("runbook: ") {
            assert!(read(runbook).contains(&format!("`{alert}`")), "{runbook} does not name {alert}");
            linked.insert(runbook.to_owned());
            alert = "";
        }
    }
    assert_eq!(alert, "", "{alert} has no runbook");
    // A few are chores, and say so.
    let alarmed = |path: &String| !read(path).contains("\nNo alert leads here");
    assert_eq!(linked, runbooks().into_iter().filter(alarmed).collect());
}

fn runbooks() -> Vec<String> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/runbooks"));
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    files.map(|name| format!("docs/runbooks/{name}")).collect()
}

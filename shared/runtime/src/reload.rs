//! The configuration's files in, the list of tenants as it is now out; what else changes in them waits for a restart.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use prometheus::IntGauge;
use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::spawn_blocking,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, ConfigError, Fingerprint, Reader, Sections, TenantConfig},
    readiness::Readiness,
};

/// The tenants that a service works for.
pub type Tenants = Arc<Vec<TenantConfig>>;

/// The name under which trouble with the files stands in the readiness; without trouble it is not there.
pub const COMPONENT: &str = "configuration";

/// Kubernetes replaces links and not files, so the files are looked at, instead of waiting to be told.
const LOOK: Duration = Duration::from_secs(2);
/// What changed is taken over once it has stayed the same for so long: an editor may be half-way through the list.
const SETTLE: Duration = Duration::from_millis(300);

/// Looks at the files again and again.
pub struct Reload {
    files: Files,
    hang_up: Signal,
}

struct Files {
    path: PathBuf,
    reader: Reader,
    /// What the process runs with.
    running: Config,
    sections: Option<Sections>,
    /// What was read last and could be used.
    latest: Config,
    tenants: watch::Sender<Tenants>,
    /// As it was before the files were read last, so that nothing that changes meanwhile is missed.
    seen: Option<Fingerprint>,
    /// A change that has been seen once.
    fresh: Option<Fingerprint>,
    refused: Option<String>,
    /// Sections of which it was told that they need a restart.
    told: BTreeSet<String>,
}

/// Says how the files are.
struct Bulletin {
    readiness: Readiness,
    refused: IntGauge,
}

impl Reload {
    /// `config` is what was read from the file at `path`. From now on SIGHUP ends the process no more.
    ///
    /// # Errors
    /// Signals cannot be listened for.
    pub fn new(path: &Path, reader: Reader, config: &Config) -> io::Result<(Self, watch::Receiver<Tenants>)> {
        let hang_up = signal(SignalKind::hangup())?;
        let (files, tenants) = Files::new(path, reader, config);
        Ok((Reload { files, hang_up }, tenants))
    }

    /// Looks until the process drains. The gauge is 1 while the files cannot be used.
    ///
    /// # Errors
    /// A look panicked.
    pub async fn run(
        self,
        readiness: Readiness,
        refused: IntGauge,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let Reload { mut files, mut hang_up } = self;
        let bulletin = Arc::new(Bulletin { readiness, refused });
        bulletin.tell(&files);
        loop {
            let pause = if files.fresh.is_some() { SETTLE } else { LOOK };
            let asked = select! {
                () = shutdown.cancelled() => return Ok(()),
                () = sleep(pause) => false,
                Some(()) = hang_up.recv() => true,
            };
            // A file may lie on a disk that hangs.
            let bulletin = Arc::clone(&bulletin);
            files = spawn_blocking(move || {
                files.look(asked);
                bulletin.tell(&files);
                files
            })
            .await?;
        }
    }
}

impl Bulletin {
    fn tell(&self, files: &Files) {
        self.refused.set(i64::from(files.refused.is_some()));
        match &files.refused {
            Some(reason) => self.readiness.degraded(COMPONENT, reason),
            None if files.tenants.borrow().is_empty() => {
                self.readiness.degraded(COMPONENT, "there is no tenant yet; posduif tenant add adds one");
            }
            None => self.readiness.forget(COMPONENT),
        }
    }
}

impl Files {
    fn new(path: &Path, reader: Reader, config: &Config) -> (Self, watch::Receiver<Tenants>) {
        let (tenants, followed) = watch::channel(Arc::new(config.tenants.clone()));
        let files = Files {
            path: path.to_owned(),
            reader,
            running: config.clone(),
            sections: Sections::read(path).ok(),
            latest: config.clone(),
            tenants,
            // They may have changed since they were read.
            seen: None,
            fresh: None,
            refused: None,
            told: BTreeSet::new(),
        };
        (files, followed)
    }

    /// Takes over what changed, at once if somebody asked for it.
    fn look(&mut self, asked: bool) {
        let found = Fingerprint::take(&self.path, self.reader, &self.latest);
        let is_new = self.seen.as_ref() != Some(&found);
        if is_new && !asked && self.fresh.as_ref() != Some(&found) {
            self.fresh = Some(found);
            return;
        }
        self.fresh = None;
        if !is_new && !asked && self.refused.is_none() {
            return;
        }
        self.seen = Some(found);
        match self.load() {
            Ok(config) => self.take_over(config, asked),
            Err(error) => {
                let reason = format!(
                    "the configuration as it is now cannot be used, the tenants stay as they were: {error}"
                );
                if asked || self.refused.as_ref() != Some(&reason) {
                    tracing::error!(file = %self.path.display(), reason, "the configuration was not taken over");
                }
                self.refused = Some(reason);
            }
        }
    }

    fn load(&self) -> Result<Config, ConfigError> {
        let config = Config::load_for(self.reader, &self.path)?;
        self.running.allows(config.tenants.len())?;
        Ok(config)
    }

    fn take_over(&mut self, config: Config, asked: bool) {
        if self.refused.take().is_some() {
            tracing::info!("the configuration can be used again");
        }
        self.tell_what_waits();
        let (former, now) = (self.tenants.borrow().clone(), Arc::new(config.tenants.clone()));
        self.latest = config;
        if *former == *now {
            if asked {
                tracing::info!("the configuration was read again; the tenants are the same");
            }
            return;
        }
        let of = |list: &Tenants, id| list.iter().find(|tenant| tenant.id == id).cloned();
        let ids = |list: &Tenants| list.iter().map(|tenant| tenant.id.clone()).collect::<Vec<_>>();
        let (before, after) = (ids(&former), ids(&now));
        let added: Vec<_> = after.iter().filter(|id| !before.contains(id)).map(ToString::to_string).collect();
        let removed: Vec<_> =
            before.iter().filter(|id| !after.contains(id)).map(ToString::to_string).collect();
        let both = after.into_iter().filter(|id| before.contains(id));
        let changed: Vec<_> = both
            .filter(|id| of(&former, id.clone()) != of(&now, id.clone()))
            .map(|id| id.to_string())
            .collect();
        tracing::info!(?added, ?removed, ?changed, "the tenants are other ones now");
        self.tenants.send_replace(now);
    }

    /// Says once of each section that it changed and waits for a restart.
    fn tell_what_waits(&mut self) {
        let (Some(running), Ok(now)) = (&self.sections, Sections::read(&self.path)) else { return };
        let differing: BTreeSet<String> = running.differing(&now).into_iter().map(str::to_owned).collect();
        if !differing.is_subset(&self.told) {
            tracing::warn!(
                sections = ?differing,
                "the configuration changed where only a restart takes it over; of a running process only the tenants change"
            );
        }
        self.told = differing;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ONE: &str = "tenants: [{url: 'postgres://u@h/a'}]\n";
    const TWO: &str = "tenants: [{url: 'postgres://u@h/a'}, {url: 'postgres://u@h/b'}]\n";

    struct Folder {
        folder: tempfile::TempDir,
        files: Files,
        tenants: watch::Receiver<Tenants>,
    }

    impl Folder {
        fn with(yaml: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("config.yaml");
            fs::write(&path, yaml).unwrap();
            let config = Config::load(&path).unwrap();
            let (files, tenants) = Files::new(&path, Reader::Api, &config);
            Folder { folder, files, tenants }
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.folder.path().join(name), text).unwrap();
        }

        /// What is there after it has been looked at twice.
        fn ids(&mut self) -> Vec<String> {
            self.files.look(false);
            self.files.look(false);
            self.tenants.borrow_and_update().iter().map(|tenant| tenant.id.to_string()).collect()
        }
    }

    #[test]
    fn tenants_come_and_go_with_the_file() {
        let mut folder = Folder::with(ONE);
        assert_eq!(folder.ids(), ["a"]);
        assert!(!folder.tenants.has_changed().unwrap());
        folder.write("config.yaml", TWO);
        assert_eq!(folder.ids(), ["a", "b"]);
        folder.write("config.yaml", ONE);
        assert_eq!(folder.ids(), ["a"]);
    }

    #[test]
    fn a_list_that_is_just_being_written_is_not_taken_over_unless_somebody_asks_for_it() {
        let mut folder = Folder::with(TWO);
        folder.write("config.yaml", ONE);
        folder.files.look(false);
        assert!(folder.files.fresh.is_some() && !folder.tenants.has_changed().unwrap());
        folder.write("config.yaml", &format!("{TWO}\n"));
        folder.files.look(false);
        assert_eq!(folder.ids(), ["a", "b"]);
        folder.write("config.yaml", ONE);
        folder.files.look(true);
        assert_eq!(folder.tenants.borrow().len(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_used_keeps_the_list_and_is_looked_at_until_it_can() {
        let mut folder = Folder::with(TWO);
        for broken in
            ["", "tenants: [{url", "tenants: []", "tenants: [{url: 'postgres://u@h/a', secret: hunter2}]"]
        {
            folder.write("config.yaml", broken);
            assert_eq!(folder.ids(), ["a", "b"], "{broken:?}");
            let reason = folder.files.refused.clone().unwrap();
            assert!(reason.contains("tenants stay") && !reason.contains("hunter2"), "{reason}");
        }
        fs::remove_file(folder.folder.path().join("config.yaml")).unwrap();
        assert_eq!(folder.ids(), ["a", "b"]);
        folder.write("config.yaml", ONE);
        assert_eq!(folder.ids(), ["a"]);
        assert_eq!(folder.files.refused, None);
    }

    #[test]
    fn a_password_that_changes_in_its_file_makes_another_entry() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        fs::write(&secret, "one").unwrap();
        let yaml = format!("tenants: [{{url: 'postgres://u@h/a', password_file: '{}'}}]", secret.display());
        let mut folder = Folder::with(&yaml);
        let of = |tenants: &Tenants| tenants[0].url.config().get_password().map(<[u8]>::to_vec);
        fs::write(&secret, "two").unwrap();
        folder.ids();
        assert_eq!(of(&folder.tenants.borrow()), Some(b"two".to_vec()));
        // A secret that is away for a moment is no other secret.
        fs::remove_file(&secret).unwrap();
        folder.ids();
        assert!(folder.files.refused.is_some());
        assert_eq!(of(&folder.tenants.borrow()), Some(b"two".to_vec()));
        fs::write(&secret, "six").unwrap();
        folder.ids();
        assert_eq!(of(&folder.tenants.borrow()), Some(b"six".to_vec()));
    }

    #[test]
    fn a_tenants_file_that_becomes_another_through_a_link_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("first"), "[]").unwrap();
        fs::write(at("second"), "- url: 'postgres://u@h/b'").unwrap();
        std::os::unix::fs::symlink(at("first"), at("link")).unwrap();
        let mut watched = Folder::with(&format!("tenants_file: '{}'", at("link").display()));
        assert!(watched.ids().is_empty());
        std::os::unix::fs::symlink(at("second"), at("new")).unwrap();
        fs::rename(at("new"), at("link")).unwrap();
        assert_eq!(watched.ids(), ["b"]);
    }

    #[test]
    fn what_the_running_process_cannot_do_with_more_tenants_is_refused_though_the_file_would_allow_it() {
        let mut folder = Folder::with(&format!("{ONE}auth: {{device_auth: device_id}}\n"));
        folder.write("config.yaml", TWO);
        assert_eq!(folder.ids(), ["a"]);
        assert!(
            folder.files.refused.as_ref().unwrap().contains("auth.device_auth"),
            "{:?}",
            folder.files.refused
        );
    }

    #[test]
    fn other_sections_wait_for_a_restart_and_are_named() {
        let mut folder = Folder::with(ONE);
        folder.write("config.yaml", &format!("{TWO}redis: {{pool_size: 4}}\nlog: {{level: debug}}\n"));
        assert_eq!(folder.ids(), ["a", "b"]);
        assert_eq!(folder.files.told, BTreeSet::from(["log".to_owned(), "redis".to_owned()]));
        assert_eq!(folder.files.running.redis.pool_size, 16);
    }
}

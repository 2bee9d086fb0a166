//! A running PostgreSQL in, a copy of its files out, from which a standby or an earlier state of it is made.
//!
//! PostgreSQL's low-level backup API and a copy of the folder, because packages of the server alone lack `pg_basebackup`.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use posduif_provision::Postgres;

use crate::{
    servers::{Servers, session},
    standby::Standby,
};

/// Folders whose content belongs to the running server and not to its data. The WAL comes from elsewhere.
const EMPTIED: [&str; 7] =
    ["pg_wal", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_subtrans"];
/// Files of the running server; its settings are the copy's own.
const LEFT_OUT: [&str; 3] = ["postmaster.pid", "postmaster.opts", "postgresql.auto.conf"];

/// The files of a server as of some time; with the WAL since then they are a server.
pub struct Backup {
    data: PathBuf,
}

impl Backup {
    /// Copies the files of a running server into a new folder.
    pub async fn take(servers: &Servers, postgres: &Postgres, name: &str) -> Self {
        let data = servers.scratch.join(name);
        let client = session(postgres, "postgres").await;
        client.execute("SELECT pg_backup_start('test', true)", &[]).await.expect("beginning a backup");
        copy(&postgres.data(), &data, Path::new("")).expect("copying the data");
        let stop = "SELECT labelfile FROM pg_backup_stop(false)";
        let label: String = client.query_one(stop, &[]).await.expect("ending a backup").get(0);
        fs::write(data.join("backup_label"), label).expect("writing the backup's label");
        Backup { data }
    }

    /// Puts a copy of the files where a server of this name will look for them, to start with the signal file `signal`.
    pub(crate) fn place(&self, servers: &Servers, name: &str, signal: &str) {
        let folder = servers.scratch.join(name);
        fs::create_dir(&folder).expect("making a folder");
        let data = folder.join("data");
        copy(&self.data, &data, Path::new("")).expect("copying the backup");
        fs::write(data.join(signal), "").expect("writing the signal file");
        own(&data, &data.join(signal));
        own(&data, &data.join("backup_label"));
    }

    /// Recovers the server as of a position of its WAL, from the archive that `archive` fills; it has a name of its own.
    pub async fn recover(&self, servers: &Servers, name: &str, target: &str) -> Postgres {
        self.place(servers, name, "recovery.signal");
        let mut options = Servers::options(&servers.scratch, name);
        options.durable = false;
        let restore = format!("cp {}/%f %p", archive(servers).display());
        let settings = [
            ("restore_command", restore.as_str()),
            ("recovery_target_lsn", target),
            ("recovery_target_action", "promote"),
        ];
        options.settings.extend(settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let postgres = Postgres::start(options).await.unwrap_or_else(|error| panic!("{error}"));
        Standby::leads(&postgres).await;
        postgres
    }
}

/// The folder that holds the WAL of [`start_archive`].
fn archive(servers: &Servers) -> PathBuf {
    servers.scratch.join("archive")
}

/// Has PostgreSQL keep its WAL for [`Backup::recover`]; restarts it.
pub async fn start_archive(servers: &mut Servers) {
    let folder = archive(servers);
    fs::create_dir(&folder).expect("making the archive");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("opening the archive");
    let superuser = servers.superuser().await;
    let command = format!("ALTER SYSTEM SET archive_command = 'cp %p {}/%f'", folder.display());
    for sql in ["ALTER SYSTEM SET archive_mode = on", &command] {
        superuser.batch_execute(sql).await.expect("setting the archive up");
    }
    servers.postgres_mut().restart().await.expect("restarting PostgreSQL");
}

/// Copies a folder that is being written; a file that goes meanwhile is made good by the WAL.
fn copy(from: &Path, to: &Path, within: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    let metadata = fs::metadata(from)?;
    fs::set_permissions(to, metadata.permissions())?;
    chown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, place) = (entry.file_name(), within.join(entry.file_name()));
        let emptied = EMPTIED.iter().any(|folder| within.starts_with(folder));
        let left_out = LEFT_OUT.iter().any(|file| place == Path::new(file));
        let kind = entry.file_type()?;
        // A folder of the WAL stays a folder; a temporary file is nobody's data.
        if left_out || (emptied && !kind.is_dir()) || name.to_string_lossy().starts_with("pgsql_tmp") {
            continue;
        }
        if kind.is_dir() && within != Path::new("pg_replslot") {
            copy(&entry.path(), &to.join(&name), &place)?;
        } else if kind.is_file() {
            match fs::copy(entry.path(), to.join(&name)) {
                Ok(_) => own(from, &to.join(&name)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Gives a file to whom the folder belongs, for that user alone.
fn own(folder: &Path, file: &Path) {
    let metadata = fs::metadata(folder).expect("the folder's owner");
    chown(file, Some(metadata.uid()), Some(metadata.gid())).expect("giving a file away");
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("sealing a file");
}

//! The two servers that Posduif stands on, and the balancer that tests put before it: their names, oldest usable
//! versions and usual places.

use std::path::{Path, PathBuf};

use crate::version::Version;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Software {
    Postgres,
    Redis,
    Haproxy,
}

impl Software {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::Redis => "Redis",
            Self::Haproxy => "HAProxy",
        }
    }

    pub(crate) fn minimum(self) -> Version {
        match self {
            Self::Postgres => Version::new(18, 0),
            Self::Redis => Version::new(7, 0),
            Self::Haproxy => Version::new(2, 6),
        }
    }

    /// The environment variable that names the server explicitly.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::Postgres => "POSDUIF_POSTGRES_BIN_DIR",
            Self::Redis => "POSDUIF_REDIS_SERVER",
            Self::Haproxy => "POSDUIF_HAPROXY",
        }
    }

    /// The program that an explicit path stands for: a folder for PostgreSQL, which needs several programs.
    pub(crate) fn program_at(self, named: &Path) -> PathBuf {
        match self {
            Self::Postgres => named.join("postgres"),
            Self::Redis | Self::Haproxy => named.to_owned(),
        }
    }

    pub(crate) fn program_names(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["postgres"],
            Self::Redis => &["redis-server", "valkey-server"],
            Self::Haproxy => &["haproxy"],
        }
    }

    /// Programs that have to lie beside the server.
    pub(crate) fn companions(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["initdb"],
            Self::Redis | Self::Haproxy => &[],
        }
    }

    /// What makes the program print its version and end.
    pub(crate) fn version_argument(self) -> &'static str {
        match self {
            Self::Postgres | Self::Redis => "--version",
            Self::Haproxy => "-v",
        }
    }

    /// Folders where distributions put the server without putting it on PATH; `*` stands for any one name.
    pub(crate) fn usual_folders(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &[
                "/usr/lib/postgresql/*/bin",
                "/usr/pgsql-*/bin",
                "/usr/lib/postgresql*/bin",
                "/usr/libexec/postgresql*",
                "/usr/local/pgsql/bin",
                "/opt/homebrew/opt/postgresql@*/bin",
                "/usr/local/opt/postgresql@*/bin",
                "/Applications/Postgres.app/Contents/Versions/*/bin",
            ],
            Self::Redis | Self::Haproxy => &[
                "/usr/bin",
                "/usr/sbin",
                "/usr/local/bin",
                "/usr/local/sbin",
                "/opt/homebrew/bin",
                "/opt/local/bin",
            ],
        }
    }
}

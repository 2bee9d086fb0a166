//! `api.tls`: the certificate that the public port shows, if it speaks TLS itself.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::Problems;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM: the certificate, then those between it and the root.
    pub cert_file: Option<PathBuf>,
    /// PEM: its private key.
    pub key_file: Option<PathBuf>,
}

impl TlsConfig {
    /// Both files, or `None` where the port speaks plain HTTP.
    pub fn files(&self) -> Option<(&Path, &Path)> {
        Some((self.cert_file.as_deref()?, self.key_file.as_deref()?))
    }

    pub(super) fn check(&self, problems: &mut Problems) {
        if self.cert_file.is_some() != self.key_file.is_some() {
            problems.add("api.tls", "cert_file and key_file belong together; give both, or neither");
        }
    }
}

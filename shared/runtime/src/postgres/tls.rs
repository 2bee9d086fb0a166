//! Trusted certificates in, the TLS side of a connection out.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem, pem::PemObject},
};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::TenantConfig;

/// No TLS connection to this tenant could be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read certificates from the ca_file {path}")]
    CaFile { path: PathBuf, source: pem::Error },
    #[error("the ca_file {0} holds no certificate")]
    NoCertificate(PathBuf),
    #[error("the ca_file {path} holds a certificate that cannot be trusted")]
    BadCertificate { path: PathBuf, source: rustls::Error },
    #[error(
        "sslmode=require needs trusted certificates, and this system has none; \
         install its ca-certificates or name the server's own in ca_file"
    )]
    NothingTrusted,
    #[error("TLS cannot be set up")]
    Provider(#[from] rustls::Error),
}

/// A connector that verifies chain and host name wherever TLS is used; the URL's sslmode decides whether it is.
pub fn make_tls(tenant: &TenantConfig) -> Result<MakeRustlsConnect, TlsError> {
    let mode = tenant.url.config().get_ssl_mode();
    let roots = if mode == SslMode::Disable { RootCertStore::empty() } else { trusted(tenant)? };
    if mode == SslMode::Require && roots.is_empty() {
        return Err(TlsError::NothingTrusted);
    }
    // The provider is named, not installed: a process-wide default could be missing or another library's.
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Required by sslnegotiation=direct, ignored by servers that were asked first.
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(MakeRustlsConnect::new(config))
}

/// The operating system's certificates and those of `ca_file`.
fn trusted(tenant: &TenantConfig) -> Result<RootCertStore, TlsError> {
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::warn!(tenant = %tenant.id, %error, "a certificate of this system cannot be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(native.certs);
    let Some(path) = &tenant.ca_file else { return Ok(roots) };
    let unreadable = |source| TlsError::CaFile { path: path.clone(), source };
    let mut found = false;
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        let bad = |source| TlsError::BadCertificate { path: path.clone(), source };
        roots.add(certificate.map_err(unreadable)?).map_err(bad)?;
        found = true;
    }
    if found { Ok(roots) } else { Err(TlsError::NoCertificate(path.clone())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(url: &str, ca_file: Option<PathBuf>) -> TenantConfig {
        let mut tenant = TenantConfig::new("t".parse().unwrap(), url.parse().unwrap());
        tenant.ca_file = ca_file;
        tenant
    }

    #[test]
    fn a_connector_needs_no_process_wide_provider() {
        assert!(make_tls(&tenant("postgres://u@h/d", None)).is_ok());
    }

    #[test]
    fn a_ca_file_without_certificates_is_refused_by_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = make_tls(&tenant("postgres://u@h/d", Some(file.path().to_owned())));
        assert!(matches!(refused, Err(TlsError::NoCertificate(path)) if path == file.path()));
        let refused = make_tls(&tenant("postgres://u@h/d", Some("no/such/file".into())));
        assert!(matches!(refused, Err(TlsError::CaFile { .. })));
        assert!(make_tls(&tenant("postgres://u@h/d?sslmode=disable", Some("no/such/file".into()))).is_ok());
    }
}

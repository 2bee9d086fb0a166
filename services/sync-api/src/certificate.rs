//! Two files in, the certificate that the public port shows out, also after they were renewed.

use std::{
    convert::Infallible,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use posduif_runtime::config::TlsConfig;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use tokio::time::interval;

/// How often the files are looked at. Renewal is not urgent: certificates are replaced weeks before they end.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The files cannot be used; the message says which and why.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("api.tls: {path} cannot be read")]
    Read { path: PathBuf, source: io::Error },
    #[error("api.tls: {path} is no PEM file of the kind that is needed")]
    Pem { path: PathBuf, source: pem::Error },
    #[error("api.tls: {0} holds no certificate")]
    Empty(PathBuf),
    #[error("api.tls: certificate and key cannot be used together")]
    Refused(#[from] rustls::Error),
}

/// What is shown to whoever connects.
pub struct Certificate {
    cert_file: PathBuf,
    key_file: PathBuf,
    provider: Arc<CryptoProvider>,
    shown: RwLock<Arc<CertifiedKey>>,
    /// What the files held when they were looked at last, whether it could be used or not.
    seen: Mutex<Files>,
}

#[derive(PartialEq, Eq)]
struct Files {
    certificates: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    fn read(cert_file: &Path, key_file: &Path) -> Result<Self, CertificateError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|source| CertificateError::Read { path: path.to_owned(), source })
        };
        Ok(Files { certificates: read(cert_file)?, key: read(key_file)? })
    }
}

impl Certificate {
    /// Reads the files, if there are any.
    pub fn load(config: &TlsConfig) -> Result<Option<Arc<Self>>, CertificateError> {
        let Some((cert_file, key_file)) = config.files() else { return Ok(None) };
        // The provider is named, not installed: a process-wide default could be missing or another library's.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let files = Files::read(cert_file, key_file)?;
        let shown = certified(&files, cert_file, key_file, &provider)?;
        Ok(Some(Arc::new(Certificate {
            cert_file: cert_file.to_owned(),
            key_file: key_file.to_owned(),
            provider,
            shown: RwLock::new(Arc::new(shown)),
            seen: Mutex::new(files),
        })))
    }

    /// The server's side of TLS: 1.2 and 1.3, HTTP/1.1.
    pub fn server(self: &Arc<Self>) -> Result<ServerConfig, CertificateError> {
        let builder = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth();
        let mut server = builder.with_cert_resolver(self.clone());
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(server)
    }

    /// Keeps looking whether the files were renewed. New ones that cannot be used are told once, and the old ones stay.
    pub async fn keep_fresh(self: Arc<Self>) -> Infallible {
        let mut looks = interval(LOOK_INTERVAL);
        loop {
            looks.tick().await;
            let certificate = self.clone();
            // A file may lie on a disk that hangs.
            let looked = tokio::task::spawn_blocking(move || certificate.look()).await;
            match looked {
                Ok(Ok(true)) => {
                    tracing::info!(file = %self.cert_file.display(), "the certificate was renewed")
                }
                Ok(Ok(false)) => {}
                Ok(Err(error)) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(%error, cause, "the new certificate cannot be used, the old one stays");
                }
                Err(error) => tracing::error!(%error, "the certificate's files were not looked at"),
            }
        }
    }

    /// Whether there is a new certificate.
    fn look(&self) -> Result<bool, CertificateError> {
        let files = Files::read(&self.cert_file, &self.key_file)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == files {
            return Ok(false);
        }
        let renewed = certified(&files, &self.cert_file, &self.key_file, &self.provider);
        *seen = files;
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(renewed?);
        Ok(true)
    }
}

fn certified(
    files: &Files,
    cert_file: &Path,
    key_file: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, CertificateError> {
    let no_pem = |path: &Path| {
        let path = path.to_owned();
        move |source| CertificateError::Pem { path: path.clone(), source }
    };
    let chain = CertificateDer::pem_slice_iter(&files.certificates).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(no_pem(cert_file))?;
    if chain.is_empty() {
        return Err(CertificateError::Empty(cert_file.to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(&files.key).map_err(no_pem(key_file))?;
    Ok(CertifiedKey::from_der(chain, key, provider)?)
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Keys are not shown.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("cert_file", &self.cert_file).finish_non_exhaustive()
    }
}

//! TLS for callers. Certificate and key are read from files, again when the files change, so that
//! renewals need no restart.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Minimum time between two checks of the files.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Reasons why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or holds no such thing.
    #[error("{path}: {reason}", path = path.display())]
    File {
        /// The file that cannot be used.
        path: PathBuf,
        /// Reason, as the operating system or the PEM parser gives it.
        reason: String,
    },
    /// Certificate and key do not belong together, or are of a kind that cannot be used.
    #[error("the certificate and its key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// TLS configuration of the listener. Clones share the certificate.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
}

impl Tls {
    /// Reads a certificate chain and the key of its first certificate, both PEM.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let resolver = CertificateFiles::open(certificate, key)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        // The server speaks HTTP/1.1 only, so ALPN offers nothing else.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    pub(crate) async fn accept_tls<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<TlsStream<S>> {
        self.acceptor.accept(stream).await
    }
}

/// The certificate as its files hold it, read again when they change.
#[derive(Debug)]
struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
    current: Mutex<CurrentCertificate>,
}

#[derive(Debug)]
/// The certificate in use.
struct CurrentCertificate {
    certified_key: Arc<CertifiedKey>,
    /// Modification times of certificate and key at the last check.
    modified_times: [Option<SystemTime>; 2],
    /// Time of the last check.
    checked_at: Instant,
}

impl CertificateFiles {
    fn open(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        // Before the files are read: a change in between is found by the next check.
        let modified = [modified_time(certificate), modified_time(key)];
        let certified = Arc::new(read_certificate(certificate, key)?);
        let current = CurrentCertificate {
            certified_key: certified,
            modified_times: modified,
            checked_at: Instant::now(),
        };
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        Ok(Self { certificate, key, current: Mutex::new(current) })
    }

    /// Reads the files again if they changed. If they cannot be used, for instance because only one
    /// of the two is written yet, the last good certificate stays.
    fn refresh_certificate(&self, current: &mut CurrentCertificate) {
        current.checked_at = Instant::now();
        let modified = [modified_time(&self.certificate), modified_time(&self.key)];
        if modified == current.modified_times {
            return;
        }
        // Also after a failure: the same broken files are not read again until they change.
        current.modified_times = modified;
        match read_certificate(&self.certificate, &self.key) {
            Ok(certified) => current.certified_key = Arc::new(certified),
            Err(error) => tracing::warn!(%error, "the new certificate is not used"),
        }
    }
}

impl ResolvesServerCert for CertificateFiles {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Called for every handshake, so the files are checked at most every `CHECK_INTERVAL`.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.checked_at.elapsed() >= CHECK_INTERVAL {
            self.refresh_certificate(&mut current);
        }
        Some(Arc::clone(&current.certified_key))
    }
}

fn modified_time(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

fn read_certificate(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| file_error(certificate, &error))?;
    if chain.is_empty() {
        return Err(file_error(certificate, &"it holds no certificate in PEM"));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| file_error(key, &error))?;
    Ok(CertifiedKey::from_der(chain, secret, &ring::default_provider())?)
}

fn file_error(path: &Path, reason: &impl ToString) -> TlsError {
    TlsError::File { path: path.to_owned(), reason: reason.to_string() }
}

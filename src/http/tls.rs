//! The certificate of the HTTP listener: read from PEM files (RFC 7468), and read again when they change or at
//! SIGHUP, so that a renewal needs no restart. New handshakes get the new one; a pair that cannot be read leaves the
//! old one in place. The key is never logged.

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{Error as RustlsError, ServerConfig};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that holds no PEM of the kind.
    #[error("cannot read {path}: {source}")]
    Pem {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: PemError,
    },
    /// A certificate file without a certificate.
    #[error("{0} holds no certificate")]
    Empty(PathBuf),
    /// The two do not belong together, or the library cannot use them.
    #[error("http.tls_cert and http.tls_key: {0}")]
    Pair(#[from] RustlsError),
}

/// When two files were last changed, and how large they are.
type Stamp = [Option<(SystemTime, u64)>; 2];

/// A certificate that renews itself.
pub(super) struct Certificates {
    cert: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<ServerConfig>>,
}

impl Certificates {
    /// Reads the pair.
    pub(super) fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let current = RwLock::new(Arc::new(read(cert, key)?));
        Ok(Self { cert: cert.to_owned(), key: key.to_owned(), current })
    }

    /// What the next handshake uses.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        // The lock guards one assignment, which leaves nothing half done.
        Arc::clone(&self.current.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Reads the files again when they change or at SIGHUP, until stopped.
    pub(super) async fn watch(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => Some(hangup),
            Err(error) => {
                tracing::warn!(%error, "SIGHUP cannot be heard; certificates are read again when they change");
                None
            }
        };
        let mut seen = self.stamp().await;
        loop {
            let asked = tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => false,
                () = heard(&mut hangup) => true,
                _ = stopped.changed() => return,
            };
            let now = self.stamp().await;
            if asked || now != seen {
                seen = now;
                self.renew().await;
            }
        }
    }

    async fn stamp(&self) -> Stamp {
        let mut stamp = [None, None];
        for (path, stamp) in [&self.cert, &self.key].into_iter().zip(&mut stamp) {
            let metadata = tokio::fs::metadata(path).await.ok();
            *stamp = metadata.and_then(|metadata| Some((metadata.modified().ok()?, metadata.len())));
        }
        stamp
    }

    /// Reads the files again; what cannot be read changes nothing.
    pub(super) async fn renew(self: &Arc<Self>) {
        let this = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || read(&this.cert, &this.key)).await;
        match read {
            Ok(Ok(config)) => {
                *self.current.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(config);
                tracing::info!("the HTTP certificate was read again");
            }
            Ok(Err(error)) => tracing::warn!(%error, "the HTTP certificate stays as it was"),
            Err(error) => tracing::error!(%error, "the HTTP certificate stays as it was"),
        }
    }
}

async fn heard(hangup: &mut Option<tokio::signal::unix::Signal>) {
    match hangup {
        Some(hangup) => {
            hangup.recv().await;
        }
        None => std::future::pending().await,
    }
}

fn read(cert: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let of = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Pem { path, source }
    };
    let chain = CertificateDer::pem_file_iter(cert).map_err(of(cert))?;
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(of(cert))?;
    if chain.is_empty() {
        return Err(TlsError::Empty(cert.to_owned()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(of(key))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

//! TLS: certificates from files, and both sides of the handshake (RFC 3261 §26.3, RFC 5922).
//!
//! Owns what is believed: our own certificate and key, and the authorities whose certificates are taken. A peer's certificate
//! is always checked, against the name that it was looked up by or, without one, its address. Never logs a key.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// Where systems keep the authorities that they believe, in the order in which they are looked for.
const SYSTEM_AUTHORITIES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Which files TLS is made from; all are PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate with its chain. Needed to accept connections; shown to servers that ask for it.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
    /// The authorities that we believe; the system's when there is no such file.
    pub ca: Option<PathBuf>,
}

/// Why TLS cannot be spoken.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file is missing or holds no such thing.
    #[error("cannot use {path}: {why}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Connections cannot be accepted without a certificate and its key.
    #[error("a certificate and its key are needed to accept TLS connections")]
    NoCertificate,
    /// Certificate and key do not belong together, or are of a kind that is not known.
    #[error("the certificate cannot be used: {0}")]
    Certificate(String),
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn bad(path: &Path, why: impl std::fmt::Display) -> TlsError {
    TlsError::File { path: path.to_owned(), why: why.to_string() }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| bad(path, error))?;
    let all: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| bad(path, error))?;
    if all.is_empty() { Err(bad(path, "no certificate in it")) } else { Ok(all) }
}

fn identity(files: &TlsFiles) -> Result<Option<Identity>, TlsError> {
    let (Some(cert), Some(key)) = (&files.cert, &files.key) else { return Ok(None) };
    let key_read = PrivateKeyDer::from_pem_file(key).map_err(|error| bad(key, error))?;
    Ok(Some((certificates(cert)?, key_read)))
}

fn authorities(files: &TlsFiles) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &files.ca {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| bad(path, error))?;
        }
        return Ok(roots);
    }
    if let Some(path) = SYSTEM_AUTHORITIES.iter().map(Path::new).find(|path| path.exists()) {
        // One odd certificate in a system's bundle is no reason to believe none of the others.
        roots.add_parsable_certificates(certificates(path)?);
    }
    Ok(roots)
}

/// Opens connections.
#[derive(Clone)]
pub(super) struct Dialler(TlsConnector);

impl Dialler {
    /// From files.
    pub(super) fn new(files: &TlsFiles) -> Result<Self, TlsError> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Certificate(error.to_string()))?
            .with_root_certificates(authorities(files)?);
        let config = match identity(files)? {
            Some((chain, key)) => builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| TlsError::Certificate(error.to_string()))?,
            None => builder.with_no_client_auth(),
        };
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Shakes hands as a client. The certificate must be for `name`, or for `ip` when there is none.
    pub(super) async fn dial(
        &self,
        stream: TcpStream,
        name: Option<&str>,
        ip: IpAddr,
    ) -> io::Result<client::TlsStream<TcpStream>> {
        let wanted = match name {
            Some(name) => ServerName::try_from(name.to_owned())
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "not a host name"))?,
            None => ServerName::IpAddress(ip.to_canonical().into()),
        };
        self.0.connect(wanted, stream).await
    }
}

/// Accepts connections.
#[derive(Clone)]
pub(super) struct Porter(TlsAcceptor);

impl Porter {
    /// From files.
    pub(super) fn new(files: &TlsFiles) -> Result<Self, TlsError> {
        let (chain, key) = identity(files)?.ok_or(TlsError::NoCertificate)?;
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Certificate(error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| TlsError::Certificate(error.to_string()))?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Shakes hands as a server.
    pub(super) async fn admit(&self, stream: TcpStream) -> io::Result<server::TlsStream<TcpStream>> {
        self.0.accept(stream).await
    }
}

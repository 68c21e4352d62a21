//! TLS: a certificate chain and its key, from PEM files.

use crate::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What shakes hands, with TLS 1.2 and 1.3.
pub(crate) fn acceptor((chain, key): &(PathBuf, PathBuf)) -> Result<TlsAcceptor, Error> {
    let unreadable = |path: &Path, reason: String| Error::Pem { path: path.to_path_buf(), reason };
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(chain, error.to_string()))?;
    if certificates.is_empty() {
        return Err(unreadable(chain, "it has no certificate".to_string()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(certificates, secret))
        .map_err(|error| Error::Tls { chain: chain.clone(), key: key.clone(), reason: error.to_string() })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

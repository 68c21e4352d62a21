//! HTTPS.

use crate::server::{Reply, TestServer, config};
use rhetor_server::{App, Config, Error, Server};
use rhetor_store::{PullOptions, Store};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// A certificate for localhost that nobody else trusts, and its key: for these tests only.
fn files() -> (PathBuf, PathBuf) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/security");
    (here.join("chain.pem"), here.join("key.pem"))
}

#[tokio::test]
async fn a_handshake_ends_in_a_reply() {
    let server = TestServer::start(Config { tls: Some(files()), ..config() });
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(files().0).unwrap()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(client)).connect(name, tcp).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    assert_eq!(Reply::read(&mut bytes.as_slice()).status, 200);
    // Plain text on that port is no request.
    let plain = tokio::task::spawn_blocking(move || server.ask("GET /health", &[], b"").status);
    assert_eq!(plain.await.unwrap(), 0);
}

#[tokio::test]
async fn files_that_are_no_certificate_and_no_key_are_named() {
    let (chain, key) = files();
    let nothing = PathBuf::from("nothing.pem");
    for (tls, wrong) in [
        ((nothing.clone(), key.clone()), &nothing),
        ((chain.clone(), nothing.clone()), &nothing),
        ((key.clone(), key.clone()), &key),
        ((chain.clone(), chain.clone()), &chain),
    ] {
        let home = tempfile::tempdir().unwrap();
        let config = Config { tls: Some(tls), ..config() };
        let app = App::new(config, Store::open(home.path()), PullOptions::default());
        match Server::listen(app).await {
            Err(Error::Pem { path, .. }) => assert_eq!(&path, wrong),
            other => panic!("{:?}", other.err()),
        }
    }
}

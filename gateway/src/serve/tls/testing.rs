//! Certificates and connections for tests.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use config::problem::{Place, Problem};
use config::settings::{Certificate, FileRef};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::stream::TlsStream;

/// An authority of one test.
pub(crate) struct Authority(pub(crate) CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as files hold them.
pub(crate) struct Pem {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "Authority of a test");
        let key = KeyPair::generate().unwrap();
        Authority(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these names.
    pub(crate) fn issue(&self, names: &[&str]) -> Pem {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        self.sign(&CertificateParams::new(names).unwrap())
    }

    pub(crate) fn sign(&self, params: &CertificateParams) -> Pem {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Pem {
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }

    /// Trusts it, and nobody else.
    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }
}

/// Files of one test.
pub(crate) struct Files(tempfile::TempDir);

impl Files {
    pub(crate) fn new() -> Files {
        Files(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    pub(crate) fn refer(&self, name: &str) -> FileRef {
        refer(&self.0.path().join(name))
    }

    /// Writes both, under `NAME.pem` and `NAME.key`.
    pub(crate) fn put(&self, name: &str, pem: &Pem) -> Certificate {
        self.write(&format!("{name}.pem"), &pem.cert);
        self.write(&format!("{name}.key"), &pem.key);
        Certificate {
            cert: self.refer(&format!("{name}.pem")),
            key: self.refer(&format!("{name}.key")),
            hosts: Vec::new(),
        }
    }
}

pub(crate) fn refer(path: &Path) -> FileRef {
    let value = path.file_name().unwrap().to_str().unwrap().to_owned();
    let place = Problem {
        line: 7,
        column: 5,
        path: "gateway.listeners[0].tls".to_owned(),
        value,
        ..Problem::of_file("gate.yaml", String::new(), String::new())
    };
    FileRef {
        path: path.to_owned(),
        at: Place::of(place),
    }
}

/// Fit for handshakes.
pub(crate) fn certified(pem: &Pem) -> Arc<CertifiedKey> {
    use rustls::pki_types::pem::PemObject as _;
    let chain = CertificateDer::pem_slice_iter(pem.cert.as_bytes())
        .collect::<Result<_, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).unwrap();
    Arc::new(CertifiedKey::from_der(chain, key, &super::provider()).unwrap())
}

/// Configurations of a server called `localhost` and of a client that trusts it.
pub(crate) fn configurations() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let authority = Authority::new();
    let certified = certified(&authority.issue(&["localhost"]));
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    let client = ClientConfig::builder()
        .with_root_certificates(authority.roots())
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

/// The two ends of a socket.
pub(crate) async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
    (one.unwrap(), other.unwrap().0)
}

/// The server's and the client's end of a connection that has shaken hands.
pub(crate) async fn connected() -> (TlsStream, TlsStream) {
    let (server, client) = configurations();
    shake(server, client).await
}

pub(crate) async fn shake(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
) -> (TlsStream, TlsStream) {
    let (ours, theirs) = sockets().await;
    let name = ServerName::try_from("localhost").unwrap();
    let (server, client) = tokio::join!(
        TlsAcceptor::from(server).accept(ours),
        TlsConnector::from(client).connect(name, theirs)
    );
    let (socket, session) = server.unwrap().into_inner();
    let server = TlsStream::new(socket, session.into());
    let (socket, session) = client.unwrap().into_inner();
    (server, TlsStream::new(socket, session.into()))
}

//! Certificates and connections for tests.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
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

/// Configurations of a server called `localhost` and of a client that trusts it.
pub(crate) fn configurations() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    use rustls::pki_types::pem::PemObject as _;
    let authority = Authority::new();
    let pem = authority.issue(&["localhost"]);
    let chain = rustls::pki_types::CertificateDer::pem_slice_iter(pem.cert.as_bytes())
        .collect::<Result<_, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).unwrap();
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
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

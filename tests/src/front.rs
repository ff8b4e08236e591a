//! An endpoint behind TLS: what stands before a backend, takes TLS off and notes who came.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::backend::listen;
use crate::tls::{Authority, Pem};

/// One handshake with the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// The name that was asked for, `""` without one.
    pub name: String,
    pub protocol: String,
    /// The certificate that was shown.
    pub certificate: Option<CertificateDer<'static>>,
    pub resumed: bool,
}

/// A TLS server before a backend. Prints as its address.
pub struct Front {
    pub address: SocketAddr,
    visits: Arc<Mutex<Vec<Visit>>>,
    task: JoinHandle<()>,
}

impl Front {
    /// Shows that certificate, and demands one of this authority, if any.
    #[must_use]
    pub fn start(backend: SocketAddr, pem: &Pem, clients: Option<&Authority>) -> Front {
        let listener = listen();
        let address = listener.local_addr().unwrap();
        let visits = Arc::default();
        let acceptor = TlsAcceptor::from(Arc::new(config(pem, clients)));
        let task = tokio::spawn(serve(listener, acceptor, backend, Arc::clone(&visits)));
        Front {
            address,
            visits,
            task,
        }
    }

    /// The handshakes that were made, in their order.
    #[must_use]
    pub fn visits(&self) -> Vec<Visit> {
        self.visits.lock().unwrap().clone()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Display for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Front({})", self.address)
    }
}

fn config(pem: &Pem, clients: Option<&Authority>) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            let pem = authority.pem();
            roots
                .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
                .unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let certificate = CertificateDer::from_pem_slice(pem.cert.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).unwrap();
    let mut config = builder.with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    backend: SocketAddr,
    visits: Arc<Mutex<Vec<Visit>>>,
) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, visits) = (acceptor.clone(), visits.clone());
        connections.spawn(async move {
            // How a handshake fails is the gateway's affair, and seen from there.
            let mut stream = acceptor.accept(stream).await?;
            let (_, session) = stream.get_ref();
            let protocol = session.alpn_protocol().unwrap_or_default();
            let shown = session.peer_certificates();
            let visit = Visit {
                name: session.server_name().unwrap_or_default().to_owned(),
                protocol: String::from_utf8(protocol.to_vec()).unwrap(),
                certificate: shown.and_then(|all| all.first().cloned()),
                resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
            };
            visits.lock().unwrap().push(visit);
            let mut behind = TcpStream::connect(backend).await?;
            tokio::io::copy_bidirectional(&mut stream, &mut behind).await
        });
        while connections.try_join_next().is_some() {}
    }
}

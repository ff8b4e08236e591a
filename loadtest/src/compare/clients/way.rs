//! How clients reach a proxy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout_at;
use tokio_rustls::TlsConnector;

use super::PATIENCE;
use crate::compare::peers::HOST;
use crate::compare::speech::{Certificate, Wire};
use crate::tls;

/// A connection, whatever it runs over.
pub(super) type Stream = Box<dyn Duplex>;

/// What can be read and written.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug> Duplex for T {}

/// Where a proxy is and what it is spoken to in.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    address: SocketAddr,
    wire: Wire,
    tls: Option<Arc<ClientConfig>>,
}

/// HTTP/1.1 in clear.
impl From<SocketAddr> for Way {
    fn from(address: SocketAddr) -> Way {
        Way {
            address,
            wire: Wire::HTTP1,
            tls: None,
        }
    }
}

impl Way {
    /// To a proxy that shows this certificate where TLS is spoken: 1.3, each time with a full
    /// handshake.
    ///
    /// # Errors
    ///
    /// The certificate cannot be read.
    pub(crate) fn new(
        address: SocketAddr,
        wire: Wire,
        certificate: &Certificate,
    ) -> anyhow::Result<Way> {
        let tls = match wire.tls {
            true => Some(config(wire, certificate)?),
            false => None,
        };
        Ok(Way { address, wire, tls })
    }

    /// What is spoken there.
    pub(crate) fn wire(&self) -> Wire {
        self.wire
    }

    /// How TLS is made, if it is.
    #[cfg(test)]
    pub(crate) fn tls(&self) -> Option<Arc<ClientConfig>> {
        self.tls.clone()
    }

    /// # Errors
    ///
    /// Nobody accepts it, TLS fails, or a minute passes.
    pub(super) async fn connect(&self) -> anyhow::Result<Stream> {
        let stream = timeout_at((Instant::now() + PATIENCE).into(), self.open()).await;
        let stream = stream.context("no connection in time")?;
        stream.with_context(|| format!("no connection to {}", self.address))
    }

    async fn open(&self) -> anyhow::Result<Stream> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let Some(config) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let name = ServerName::try_from(HOST)?;
        let connector = TlsConnector::from(config.clone());
        Ok(Box::new(connector.connect(name, stream).await?))
    }
}

fn config(wire: Wire, certificate: &Certificate) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate.cert())?)?;
    let mut config = ClientConfig::builder_with_provider(tls::of_clients())
        .with_protocol_versions(&[&version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    let protocol = if wire.http2 { "h2" } else { "http/1.1" };
    config.alpn_protocols = vec![protocol.into()];
    Ok(Arc::new(config))
}

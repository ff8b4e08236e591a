//! TLS: certificates for the gateway and its endpoints, and connections of clients who believe in
//! them.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedIssuer, DnType, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::gateway::Launch;
use crate::wait::within;

/// Who signs the certificates of one test.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as files hold them.
#[derive(Clone, Debug)]
pub struct Pem {
    pub cert: String,
    pub key: String,
}

impl Default for Authority {
    fn default() -> Authority {
        Authority::new()
    }
}

impl Authority {
    #[must_use]
    pub fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "Authority of a test");
        let key = KeyPair::generate().unwrap();
        Authority(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// Its own certificate.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these names and addresses.
    #[must_use]
    pub fn issue(&self, names: &[&str]) -> Pem {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        self.sign(&CertificateParams::new(names).unwrap())
    }

    #[must_use]
    pub fn sign(&self, params: &CertificateParams) -> Pem {
        let key = KeyPair::generate().unwrap();
        Pem {
            cert: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// A client who trusts it and nobody else, and speaks these protocols, the first rather.
    #[must_use]
    pub fn client(&self, protocols: &[&str]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider);
        let client = client.with_safe_default_protocol_versions().unwrap();
        let mut client = client.with_root_certificates(roots).with_no_client_auth();
        client.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        client
    }

    /// As [`client`](Authority::client), who shows this certificate where it is asked for one.
    #[must_use]
    pub fn client_with(&self, protocols: &[&str], pem: &Pem) -> ClientConfig {
        let mut client = self.client(protocols);
        let chain = CertificateDer::from_pem_slice(pem.cert.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).unwrap();
        let provider = client.crypto_provider().clone();
        let ours = CertifiedKey::from_der(vec![chain], key, &provider).unwrap();
        client.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(ours));
        client
    }

    /// A connection to `address`, whose certificate is for `name`.
    pub async fn connect(
        &self,
        address: SocketAddr,
        name: &str,
        protocols: &[&str],
    ) -> TlsStream<TcpStream> {
        let client = Arc::new(self.client(protocols));
        connect(&client, address, name).await.unwrap()
    }
}

/// A connection of this client to `address`, whose certificate must be for `name`.
///
/// # Errors
/// When the handshake fails.
pub async fn connect(
    client: &Arc<ClientConfig>,
    address: SocketAddr,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = within("a connection", TcpStream::connect(address)).await?;
    stream.set_nodelay(true)?;
    let connector = TlsConnector::from(client.clone());
    let name = ServerName::try_from(name.to_owned()).unwrap();
    within("a TLS handshake", connector.connect(name, stream)).await
}

/// What was agreed on in the handshake, `""` when nothing was.
#[must_use]
pub fn protocol(stream: &TlsStream<TcpStream>) -> &str {
    let (_, session) = stream.get_ref();
    std::str::from_utf8(session.alpn_protocol().unwrap_or_default()).unwrap()
}

impl Launch {
    /// Puts a certificate and its key beside the configuration, as `NAME.pem` and `NAME.key`.
    #[must_use]
    pub fn certificate(self, name: &str, pem: &Pem) -> Launch {
        self.file(&format!("{name}.pem"), &pem.cert)
            .file(&format!("{name}.key"), &pem.key)
    }
}

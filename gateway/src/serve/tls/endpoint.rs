//! TLS to the endpoints of a revision: whom to trust, who we are, what they are called.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use config::problem::Problem;
use config::revision::{Authorities, EndpointTls, Inside, Key, Protocol};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::files::{self, Pair};
use super::inside::{self, ByIdentity};
use super::provider;
use super::stream::TlsStream;

/// Makes sessions with the endpoints of one revision.
#[derive(Debug)]
pub struct Dialer {
    config: Arc<ClientConfig>,
    material: Material,
    hosts: Arc<Hosts>,
}

/// What was read and written.
#[derive(Debug, PartialEq, Eq)]
struct Material {
    server_name: Option<Arc<str>>,
    authorities: Trusted,
    ours: Option<Pair>,
    protocol: Protocol,
    inside: Option<Inside>,
}

/// Authorities as they were read.
#[derive(Debug, PartialEq, Eq)]
enum Trusted {
    System,
    File(Vec<CertificateDer<'static>>),
    Text(Arc<inside::Authorities>),
}

impl Trusted {
    fn read(ca: Option<&Authorities>) -> Result<Trusted, Vec<Problem>> {
        Ok(match ca {
            None => Trusted::System,
            Some(Authorities::File(file)) => Trusted::File(files::certificates(file)?),
            Some(Authorities::Pem(pem)) => Trusted::Text(inside::Authorities::read(pem)),
        })
    }
}

/// What endpoints with a host name are called, by the addresses that it stands for now.
#[derive(Debug, Default)]
pub struct Hosts(ArcSwap<BTreeMap<SocketAddr, Arc<str>>>);

impl PartialEq for Hosts {
    /// One is only equal to itself.
    fn eq(&self, other: &Hosts) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Hosts {
    pub fn set(&self, hosts: BTreeMap<SocketAddr, Arc<str>>) {
        self.0.store(Arc::new(hosts));
    }
}

impl Dialer {
    /// Whether they are one and the same; `None` speaks in clear.
    #[must_use]
    pub fn is_same(one: Option<&Arc<Dialer>>, other: Option<&Arc<Dialer>>) -> bool {
        one.map(Arc::as_ptr) == other.map(Arc::as_ptr)
    }

    /// Reads the files of a revision. Where all is as it was `before`, that stays, with the sessions
    /// it can take up again. Blocks.
    ///
    /// # Errors
    /// Everything that is wrong with any of the files.
    pub fn read(
        key: &Key,
        protocol: Protocol,
        tls: &EndpointTls,
        before: Option<&Arc<Dialer>>,
    ) -> Result<Arc<Dialer>, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut note = |more: Vec<Problem>| problems.extend(more);
        let authorities = Trusted::read(tls.ca.as_ref()).map_err(&mut note).ok();
        let ours = tls.client_cert.as_deref();
        let ours = ours.map(|(cert, key)| Pair::read(cert, key)).transpose();
        let ours = ours.map_err(&mut note).ok();
        let (Some(authorities), Some(ours)) = (authorities, ours) else {
            return Err(problems);
        };
        let material = Material {
            server_name: tls.server_name.clone(),
            authorities,
            ours,
            protocol,
            inside: tls.inside.as_deref().cloned(),
        };
        if let Some(same) = before.filter(|before| before.material == material) {
            return Ok(same.clone());
        }
        let config = material.config(key, tls)?;
        Ok(Arc::new(Dialer {
            config: Arc::new(config),
            material,
            hosts: before.map_or_else(Arc::default, |before| before.hosts.clone()),
        }))
    }

    /// Where an endpoint that is known by this address speaks TLS.
    #[must_use]
    pub fn target(&self, address: SocketAddr) -> SocketAddr {
        let port = self.material.inside.as_ref().map(|inside| inside.port);
        SocketAddr::new(address.ip(), port.unwrap_or(address.port()))
    }

    /// Where to say which addresses have a host name.
    #[must_use]
    pub fn hosts(&self) -> &Arc<Hosts> {
        &self.hosts
    }

    /// Shakes hands with the endpoint at `address` over a connection to it.
    ///
    /// # Errors
    /// The connection failed, or the endpoint is not who it should be or does not speak what it
    /// should.
    ///
    /// # Cancel safety
    /// None: the connection is closed.
    pub async fn connect(
        self: &Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
    ) -> io::Result<TlsStream> {
        let name = self.name_of(address)?;
        let connector = TlsConnector::from(self.config.clone());
        let (socket, session) = connector.connect(name, stream).await?.into_inner();
        let h2 = self.material.protocol == Protocol::H2c;
        if h2 && session.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::other("the endpoint does not speak HTTP/2"));
        }
        Ok(TlsStream::opened(socket, session.into(), self.clone()))
    }

    fn name_of(&self, address: SocketAddr) -> io::Result<ServerName<'static>> {
        let host = match &self.material.server_name {
            Some(written) => Some(written.clone()),
            None => self.hosts.0.load().get(&address).cloned(),
        };
        match host {
            Some(host) => ServerName::try_from(host.to_string()).map_err(io::Error::other),
            None => Ok(ServerName::from(address.ip())),
        }
    }
}

impl Material {
    fn config(&self, key: &Key, tls: &EndpointTls) -> Result<ClientConfig, Vec<Problem>> {
        let roots = self.roots(key, tls)?;
        let versions: &[_] = match &self.inside {
            Some(_) => &[&rustls::version::TLS13],
            None => rustls::ALL_VERSIONS,
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(|error| {
                let problem = format!("revision {key}: TLS cannot be set up: {error}");
                vec![Problem::of_file("", problem, "report this".to_owned())]
            })?;
        let builder = match &self.inside {
            Some(inside) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(ByIdentity::new(roots, inside))),
            None => builder.with_root_certificates(roots),
        };
        let mut config = match (&tls.client_cert, &self.ours) {
            (Some(written), Some(pair)) => {
                let (cert, key) = &**written;
                let certified = pair.certified(cert, key, &provider())?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![match self.protocol {
            Protocol::Http1 => b"http/1.1".to_vec(),
            Protocol::H2c => b"h2".to_vec(),
        }];
        if self.inside.is_some() {
            // All pods are asked for by one name, and none takes another's tickets.
            config.resumption = Resumption::disabled();
        }
        Ok(config)
    }

    fn roots(&self, key: &Key, tls: &EndpointTls) -> Result<Arc<RootCertStore>, Vec<Problem>> {
        let roots = match (&self.authorities, &tls.ca) {
            (Trusted::Text(authorities), _) => Arc::clone(&authorities.roots),
            (Trusted::File(all), Some(Authorities::File(file))) => {
                Arc::new(files::roots(file, all)?)
            }
            _ => system_roots(),
        };
        match &self.authorities {
            Trusted::Text(_) if roots.is_empty() => {
                let problem = "no authority that is to be trusted can be read".to_owned();
                let hint = "give at least one certificate in PEM".to_owned();
                let origin = format!("revision {key}");
                return Err(vec![Problem::of_file(&origin, problem, hint)]);
            }
            _ if roots.is_empty() => tracing::warn!(
                revision = %key,
                "the system trusts no authority, so no endpoint will be trusted: write `tls.ca`"
            ),
            _ => {}
        }
        Ok(roots)
    }
}

/// The authorities this machine trusts, read once.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let read = || {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "cannot read all authorities of the system");
        }
        let mut roots = RootCertStore::empty();
        let (_added, ignored) = roots.add_parsable_certificates(found.certs);
        if ignored > 0 {
            tracing::debug!(ignored, "authorities of the system that cannot be read");
        }
        Arc::new(roots)
    };
    ROOTS.get_or_init(read).clone()
}

#[cfg(test)]
mod tests;

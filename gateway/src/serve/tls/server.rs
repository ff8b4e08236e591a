//! What the handshakes of a listener are made with: certificates, authorities of clients, tickets.

use std::sync::Arc;
use std::time::SystemTime;

use config::problem::Problem;
use config::settings::{Certificate, Tls, UnknownName};
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::CertificateDer;
use rustls::server::{
    NoClientAuth, NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier, danger,
};
use rustls::{RootCertStore, ServerConfig};

use super::files::{self, Pair, wrong};
use super::names::{ByName, FromRoutes};
use super::provider;
use super::tickets::{self, Secret, Tickets};
use super::x509::{self, Validity};

/// What we offer clients to speak, the first we would rather.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Makes sessions out of handshakes with clients.
#[derive(Debug)]
pub struct Acceptor {
    pub config: Arc<ServerConfig>,
    material: Material,
    tickets: Arc<dyn ProducesTickets>,
    /// Where names are turned away that no certificate is for.
    known: Option<Arc<ByName>>,
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
struct Material {
    certificates: Vec<(Pair, Vec<Arc<str>>)>,
    clients: Option<Clients>,
    /// Empty: tickets are made with keys of our own.
    ticket_keys: Vec<Secret>,
    rejects_unknown: bool,
    from_routes: bool,
}

/// Whom client certificates must come from.
#[derive(Debug, PartialEq, Eq)]
struct Clients {
    authorities: Vec<CertificateDer<'static>>,
    required: bool,
}

impl Acceptor {
    /// Reads the files of a listener. Where they say what they said `before`, that stays as it is.
    /// `from_routes` is used only if the listener wants it. Blocks.
    ///
    /// # Errors
    /// Everything that is wrong with any of them.
    pub fn read(
        tls: &Tls,
        before: Option<&Arc<Acceptor>>,
        from_routes: FromRoutes,
    ) -> Result<Arc<Acceptor>, Vec<Problem>> {
        let (mut problems, mut certificates) = (Vec::new(), Vec::new());
        for certificate in &tls.certificates {
            match Pair::read(&certificate.cert, &certificate.key) {
                Ok(pair) => certificates.push((pair, certificate.hosts.clone())),
                Err(more) => problems.extend(more),
            }
        }
        let mut clients = None;
        if let Some(ca) = &tls.client_ca {
            match files::certificates(&ca.file) {
                Ok(authorities) => {
                    clients = Some(Clients {
                        authorities,
                        required: ca.required,
                    });
                }
                Err(more) => problems.extend(more),
            }
        }
        let ticket_keys = tickets::read(&tls.ticket_keys).unwrap_or_else(|more| {
            problems.extend(more);
            Vec::new()
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        let material = Material {
            certificates,
            clients,
            ticket_keys,
            rejects_unknown: tls.unknown_name == UnknownName::Reject,
            from_routes: tls.from_routes,
        };
        match before.filter(|before| before.material == material) {
            Some(same) => Ok(same.clone()),
            None => {
                let from_routes = material.from_routes.then_some(from_routes);
                Acceptor::make(tls, material, before, from_routes).map(Arc::new)
            }
        }
    }

    fn make(
        tls: &Tls,
        material: Material,
        before: Option<&Arc<Acceptor>>,
        from_routes: Option<FromRoutes>,
    ) -> Result<Acceptor, Vec<Problem>> {
        let certificates = by_name(tls, &material, from_routes);
        let clients = verifier(tls, &material);
        let (certificates, clients) = match (certificates, clients) {
            (Ok(certificates), Ok(clients)) => (certificates, clients),
            (certificates, clients) => {
                let problems = [certificates.err(), clients.err()];
                return Err(problems.into_iter().flatten().flatten().collect());
            }
        };
        let tickets = ticketer(tls, &material, before)?;
        let certificates = Arc::new(certificates);
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| unbuilt(tls, &error))?;
        let builder = builder.with_client_cert_verifier(clients);
        let mut config = builder.with_cert_resolver(certificates.clone());
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        config.ticketer = tickets.clone();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Acceptor {
            config: Arc::new(config),
            known: (material.rejects_unknown || !certificates.has_default())
                .then_some(certificates),
            material,
            tickets,
        })
    }

    /// Whether a client that asks for this name is turned away.
    #[must_use]
    pub fn rejects(&self, name: Option<&str>) -> bool {
        let (Some(known), Some(name)) = (&self.known, name) else {
            return false;
        };
        !known.knows(name)
    }
}

/// A ticket stands for the client certificate that was verified when it was given out. So it
/// outlives a change of our certificates, but not one of whom we trust. Without keys from files, no
/// listener takes another one's.
fn ticketer(
    tls: &Tls,
    material: &Material,
    before: Option<&Arc<Acceptor>>,
) -> Result<Arc<dyn ProducesTickets>, Vec<Problem>> {
    let Material {
        clients,
        ticket_keys,
        ..
    } = material;
    let same = |of: &Material| of.clients == *clients && of.ticket_keys == *ticket_keys;
    if let Some(before) = before.filter(|before| same(&before.material)) {
        return Ok(before.tickets.clone());
    }
    if ticket_keys.is_empty() {
        // Its keys change each 6 hours, and are gone after 12.
        return Ticketer::new().map_err(|error| unbuilt(tls, &error));
    }
    match Tickets::new(ticket_keys, &scope(clients.as_ref())) {
        Ok(tickets) => Ok(Arc::new(tickets)),
        Err(error) => Err(unbuilt(tls, &rustls::Error::General(error.to_string()))),
    }
}

/// Whom client certificates must come from, in bytes.
fn scope(clients: Option<&Clients>) -> Vec<u8> {
    let Some(clients) = clients else {
        return Vec::new();
    };
    let mut scope = vec![1, u8::from(clients.required)];
    for authority in &clients.authorities {
        scope.extend((authority.len() as u64).to_be_bytes());
        scope.extend_from_slice(authority);
    }
    scope
}

/// What only a fault of the library can bring about.
fn unbuilt(tls: &Tls, error: &rustls::Error) -> Vec<Problem> {
    let problem = format!("TLS cannot be set up: {error}");
    match tls.certificates.first() {
        Some(first) => wrong(&first.cert, problem, "report this"),
        None => vec![Problem::of_file("", problem, "report this".to_owned())],
    }
}

fn verifier(
    tls: &Tls,
    material: &Material,
) -> Result<Arc<dyn danger::ClientCertVerifier>, Vec<Problem>> {
    let (Some(ca), Some(clients)) = (&tls.client_ca, &material.clients) else {
        return Ok(Arc::new(NoClientAuth));
    };
    let roots: RootCertStore = files::roots(&ca.file, &clients.authorities)?;
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let builder = match clients.required {
        true => builder,
        false => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| {
        let problem = format!("clients cannot be verified: {error}");
        let hint = "write a file with certificates of authorities in PEM";
        wrong(&ca.file, problem, hint)
    })
}

/// Names that were written go before those that certificates bring along; of two certificates with
/// the same name, the first has it.
fn by_name(
    tls: &Tls,
    material: &Material,
    from_routes: Option<FromRoutes>,
) -> Result<ByName, Vec<Problem>> {
    let (mut problems, mut ready) = (Vec::new(), Vec::new());
    for (index, written) in tls.certificates.iter().enumerate() {
        let (pair, hosts) = &material.certificates[index];
        match (
            pair.certified(&written.cert, &written.key, &provider()),
            names(written, pair, hosts, index == 0),
        ) {
            (Ok(certified), Ok(names)) => ready.push((certified, names, !hosts.is_empty())),
            (certified, names) => {
                problems.extend(certified.err().into_iter().flatten());
                problems.extend(names.err().into_iter().flatten());
            }
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let default = ready.first().map(|(default, _, _)| default.clone());
    let mut by_name = ByName::new(from_routes, default);
    ready.sort_by_key(|(_, _, written)| !written);
    for (certified, names, _) in &ready {
        for name in names {
            by_name.add(name, certified);
        }
    }
    Ok(by_name)
}

/// The names a certificate is to be used for.
fn names(
    written: &Certificate,
    pair: &Pair,
    hosts: &[Arc<str>],
    is_default: bool,
) -> Result<Vec<String>, Vec<Problem>> {
    let file = written.cert.path.display();
    let Some(parsed) = x509::parse(&pair.chain[0]) else {
        let problem = format!("the certificate in {file} cannot be read");
        let hint = "write a file with an X.509 certificate of version 3 in PEM";
        return Err(wrong(&written.cert, problem, hint));
    };
    match x509::validity(&parsed, SystemTime::now()) {
        Validity::Now => {}
        Validity::Over => tracing::warn!(%file, "the certificate has expired: clients refuse it"),
        Validity::NotYet => tracing::warn!(%file, "the certificate is not valid yet"),
    }
    let covered = x509::hosts(&parsed);
    if let Some(host) = hosts.iter().find(|host| !covers(&covered, host)) {
        let problem = format!("the certificate in {file} is not for `{host}`");
        let hint = match covered.is_empty() {
            true => "it names no host: make one with a subject alternative name".to_owned(),
            false => format!("it is for {}", covered.join(", ")),
        };
        return Err(wrong(&written.cert, problem, hint));
    }
    if !hosts.is_empty() {
        return Ok(hosts.iter().map(ToString::to_string).collect());
    }
    if covered.is_empty() && !is_default {
        let problem = format!("the certificate in {file} names no host: it would never be used");
        let hint = "make one with a subject alternative name, or write it first";
        return Err(wrong(&written.cert, problem, hint));
    }
    Ok(covered)
}

/// Whether one of a certificate's names stands for this host, or for this wildcard.
fn covers(names: &[String], host: &str) -> bool {
    names.iter().any(|name| {
        let wildcard = name.strip_prefix("*.").filter(|_| !host.starts_with('*'));
        let suffix = host.split_once('.').map(|(_, suffix)| suffix);
        *name == *host || wildcard.is_some() && wildcard == suffix
    })
}

#[cfg(test)]
mod tests;

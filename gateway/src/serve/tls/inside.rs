//! Endpoints inside a cluster: their authorities, which all revisions share, and how they are known.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use config::revision::Inside;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::{provider, x509};

/// What a certificate in PEM begins with.
const MARK: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Authorities that came as text.
#[derive(Debug)]
pub(super) struct Authorities {
    pem: Arc<[u8]>,
    pub(super) roots: Arc<RootCertStore>,
}

impl PartialEq for Authorities {
    fn eq(&self, other: &Authorities) -> bool {
        self.pem == other.pem
    }
}

impl Eq for Authorities {}

impl Authorities {
    /// Those that can be read; perhaps none. The last ones are read once while anybody has them:
    /// thousands of revisions trust the same.
    pub(super) fn read(pem: &Arc<[u8]>) -> Arc<Authorities> {
        static LAST: Mutex<Weak<Authorities>> = Mutex::new(Weak::new());
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = last.upgrade().filter(|known| known.pem == *pem) {
            return known;
        }
        let mut roots = RootCertStore::empty();
        // Each by itself: one that is broken takes no other with it.
        let begins = pem.windows(MARK.len()).enumerate();
        let begins = begins.filter(|(_, part)| *part == MARK);
        let starts: Vec<usize> = begins.map(|(at, _)| at).collect();
        let ends = starts.iter().copied().skip(1).chain([pem.len()]);
        let parts = starts
            .iter()
            .zip(ends)
            .map(|(start, end)| &pem[*start..end]);
        let found = parts.filter_map(|part| CertificateDer::from_pem_slice(part).ok());
        let (added, _) = roots.add_parsable_certificates(found);
        if added < starts.len() {
            let of = starts.len();
            tracing::warn!(added, of, "not all authorities of the cluster can be read");
        }
        let read = Arc::new(Authorities {
            pem: Arc::clone(pem),
            roots: Arc::new(roots),
        });
        *last = Arc::downgrade(&read);
        read
    }
}

/// Believes whoever has a certificate of an authority for an identity, whatever name was asked for.
#[derive(Debug)]
pub(super) struct ByIdentity {
    roots: Arc<RootCertStore>,
    identity: Arc<str>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ByIdentity {
    pub(super) fn new(roots: Arc<RootCertStore>, inside: &Inside) -> ByIdentity {
        ByIdentity {
            roots,
            identity: Arc::clone(&inside.identity),
            algorithms: provider().signature_verification_algorithms,
        }
    }
}

impl ServerCertVerifier for ByIdentity {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _asked: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        // Not as a host: with the name of a long namespace it is longer than a label may be.
        let parsed = x509::parse(end_entity).ok_or(CertificateError::BadEncoding)?;
        match x509::hosts(&parsed)
            .iter()
            .any(|name| **name == *self.identity)
        {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::NotValidForName.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

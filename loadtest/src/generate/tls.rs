//! TLS: whom to trust, and what to speak.

use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::args::RunArgs;
use super::plan::Protocol;
use crate::tls::of_clients;

/// How connections are secured. Each makes a full handshake: none resumes another's session.
///
/// # Errors
/// The authorities to trust cannot be read.
pub(super) fn config(args: &RunArgs, protocol: Protocol) -> anyhow::Result<Arc<ClientConfig>> {
    let provider = of_clients();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let mut config = if args.insecure {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
            .with_no_client_auth()
    } else {
        builder
            .with_root_certificates(roots(args)?)
            .with_no_client_auth()
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = match protocol {
        Protocol::Http2 => vec![b"h2".to_vec()],
        Protocol::Http1 | Protocol::WebSocket => vec![b"http/1.1".to_vec()],
    };
    Ok(Arc::new(config))
}

fn roots(args: &RunArgs) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Some(file) = &args.ca else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        ensure!(
            !roots.is_empty(),
            "the system trusts no authority: say --ca FILE or --insecure"
        );
        return Ok(roots);
    };
    let name = file.display();
    let certificates =
        CertificateDer::pem_file_iter(file).with_context(|| format!("cannot read {name}"))?;
    for certificate in certificates {
        let certificate = certificate.with_context(|| format!("{name} is no PEM file"))?;
        roots
            .add(certificate)
            .with_context(|| format!("{name} holds no usable certificate"))?;
    }
    ensure!(!roots.is_empty(), "{name} holds no certificate");
    Ok(roots)
}

/// Takes any certificate whose key signed the handshake.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

//! Files of certificates and keys: read, and what is wrong with them said where they are named.

use std::io::{self, Read as _};
use std::sync::Arc;

use config::problem::Problem;
use config::settings::FileRef;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

/// Largest file of certificates or keys; the authorities of a whole system are a quarter of it.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What a pair of files holds: a certificate, those that lead to an authority, and the key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Pair {
    /// Reads both files.
    ///
    /// # Errors
    /// What is wrong with each.
    pub(super) fn read(cert: &FileRef, key: &FileRef) -> Result<Pair, Vec<Problem>> {
        match (certificates(cert), private_key(key)) {
            (Ok(chain), Ok(key)) => Ok(Pair { chain, key }),
            (chain, key) => Err([chain.err(), key.err()]
                .into_iter()
                .flatten()
                .flatten()
                .collect()),
        }
    }

    /// Makes it fit for handshakes. `cert` and `key` are the files it came from.
    ///
    /// # Errors
    /// The key is of no use, or not that of the certificate.
    pub(super) fn certified(
        &self,
        cert: &FileRef,
        key: &FileRef,
        provider: &CryptoProvider,
    ) -> Result<Arc<CertifiedKey>, Vec<Problem>> {
        let made = CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), provider);
        match made {
            Ok(certified) => Ok(Arc::new(certified)),
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                let cert = cert.path.display();
                let problem = format!("the key does not belong to the certificate in {cert}");
                let hint = "the file of the certificate must begin with the one for this key, \
                            before those that lead to an authority";
                Err(wrong(key, problem, hint))
            }
            Err(rustls::Error::InvalidCertificate(error)) => Err(wrong(
                cert,
                format!("the certificate cannot be read: {error:?}"),
                "write a file with an X.509 certificate of version 3 in PEM",
            )),
            Err(error) => Err(wrong(
                key,
                format!("the key is of no use: {error}"),
                "write a file with an unencrypted RSA (2048 bits or more), ECDSA (P-256, P-384, P-521) or \
                 Ed25519 key",
            )),
        }
    }
}

/// What is wrong with a file, said where it is named.
pub(super) fn wrong(
    file: &FileRef,
    problem: impl Into<String>,
    hint: impl Into<String>,
) -> Vec<Problem> {
    vec![file.at.problem(problem, hint)]
}

/// Certificates, the first of them the one in question. Never empty.
pub(super) fn certificates(file: &FileRef) -> Result<Vec<CertificateDer<'static>>, Vec<Problem>> {
    let bytes = read(file)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match all {
        Ok(all) if all.is_empty() => Err(wrong(
            file,
            format!("there is no certificate in {}", file.path.display()),
            "write a file in PEM, with `-----BEGIN CERTIFICATE-----`",
        )),
        Ok(all) => Ok(all),
        Err(error) => Err(no_pem(file, &error)),
    }
}

fn private_key(file: &FileRef) -> Result<PrivateKeyDer<'static>, Vec<Problem>> {
    let bytes = read(file)?;
    let encrypted = || {
        let has = |mark: &[u8]| bytes.windows(mark.len()).any(|part| part == mark);
        ENCRYPTED.iter().any(|mark| has(mark))
    };
    let hint = match PrivateKeyDer::from_pem_slice(&bytes) {
        Ok(key) => return Ok(key),
        Err(_) if encrypted() => {
            "it is encrypted: write it without a password, as `openssl pkey` does"
        }
        Err(pem::Error::NoItemsFound) => "write a file in PEM, with `-----BEGIN PRIVATE KEY-----`",
        Err(error) => return Err(no_pem(file, &error)),
    };
    let problem = format!("there is no key to be used in {}", file.path.display());
    Err(wrong(file, problem, hint))
}

/// How an encrypted key announces itself: in PKCS #8, and in what went before it.
const ENCRYPTED: [&[u8]; 2] = [
    b"-----BEGIN ENCRYPTED PRIVATE KEY-----",
    b"Proc-Type: 4,ENCRYPTED",
];

fn no_pem(file: &FileRef, error: &pem::Error) -> Vec<Problem> {
    let path = file.path.display();
    // The library tells a missing marker as a list of numbers.
    let problem = match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            let marker = String::from_utf8_lossy(end_marker);
            format!("{path} is not PEM: `-----END {marker}-----` is missing")
        }
        error => format!("{path} is not PEM: {error}"),
    };
    wrong(file, problem, "make the file again, or copy it whole")
}

/// Authorities to trust. `all` is what [`certificates`] read.
pub(super) fn roots(
    file: &FileRef,
    all: &[CertificateDer<'static>],
) -> Result<RootCertStore, Vec<Problem>> {
    let mut roots = RootCertStore::empty();
    for one in all {
        roots.add(one.clone()).map_err(|error| {
            let path = file.path.display();
            let problem = format!("a certificate in {path} is no authority: {error}");
            wrong(
                file,
                problem,
                "write a file with certificates of authorities in PEM",
            )
        })?;
    }
    Ok(roots)
}

/// All of a file, within a bound.
pub(super) fn read(file: &FileRef) -> Result<Vec<u8>, Vec<Problem>> {
    let path = file.path.display();
    read_bounded(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => wrong(
            file,
            format!("there is no file {path}"),
            "paths are relative to the directory of the configuration file",
        ),
        io::ErrorKind::PermissionDenied => wrong(
            file,
            format!("{path} may not be read: {error}"),
            "let the user read it that the gateway runs as",
        ),
        _ => wrong(
            file,
            format!("{path} cannot be read: {error}"),
            "write the path of a file",
        ),
    })
}

fn read_bounded(file: &FileRef) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for whoever writes it.
    if !std::fs::metadata(&file.path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(&file.path)?;
    opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

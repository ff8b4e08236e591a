//! What clients offer in handshakes, and certificates made for a moment.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};

/// What our clients can do: all of the library's but key exchanges that are hybrids with a
/// post-quantum one. Some servers would choose those and some not, so that their handshakes would
/// not be the same work.
pub(crate) fn of_clients() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        kx_groups: vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1],
        ..default_provider()
    })
}

/// Writes a new certificate (ECDSA P-256, signed by itself) for these names and its key to `cert.pem` and `key.pem` in this
/// directory, which is made.
///
/// # Errors
///
/// A name is none, or the files cannot be written.
pub(crate) fn write_certificate(
    directory: &Path,
    names: &[&str],
) -> anyhow::Result<(PathBuf, PathBuf)> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).context("cannot make a certificate")?;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    for (path, text) in [
        (&cert, made.cert.pem()),
        (&key, made.signing_key.serialize_pem()),
    ] {
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok((cert, key))
}

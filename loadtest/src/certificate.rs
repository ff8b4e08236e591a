//! Certificates made for a moment: ECDSA P-256, signed by themselves.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Writes a new certificate for these names and its key to `cert.pem` and `key.pem` in this
/// directory, which is made.
///
/// # Errors
///
/// A name is none, or the files cannot be written.
pub(crate) fn write(directory: &Path, names: &[&str]) -> anyhow::Result<(PathBuf, PathBuf)> {
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

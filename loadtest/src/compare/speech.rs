//! What is spoken on both sides of a proxy.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::peers::HOST;
use crate::tls;

/// What a client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wire {
    /// HTTP/2 instead of HTTP/1.1: from the first byte, or chosen by ALPN over TLS.
    pub(crate) http2: bool,
    pub(crate) tls: bool,
}

impl Wire {
    pub(crate) const HTTP1: Wire = Wire {
        http2: false,
        tls: false,
    };
    pub(crate) const H2C: Wire = Wire {
        http2: true,
        tls: false,
    };
    pub(crate) const HTTP1_TLS: Wire = Wire {
        http2: false,
        tls: true,
    };
    pub(crate) const H2: Wire = Wire {
        http2: true,
        tls: true,
    };

    pub(crate) fn scheme(self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }
}

/// What a proxy has to understand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Speech {
    pub(crate) clients: Wire,
    /// Speak HTTP/2 with the upstream, in clear, instead of HTTP/1.1.
    pub(crate) upstream_http2: bool,
}

/// The certificate all proxies of a comparison show, for [`HOST`].
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    directory: PathBuf,
}

impl Certificate {
    /// Makes one and writes it to this directory, which is made.
    ///
    /// # Errors
    ///
    /// The files cannot be written.
    pub(crate) fn write(directory: PathBuf) -> anyhow::Result<Certificate> {
        let (cert, key) = tls::write_certificate(&directory, &[HOST])?;
        let made = Certificate { directory };
        let both = fs::read_to_string(cert)? + &fs::read_to_string(key)?;
        fs::write(made.both(), both).context("cannot write a certificate")?;
        Ok(made)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// The file of the certificate, which is its own authority.
    pub(crate) fn cert(&self) -> String {
        self.path("cert.pem")
    }

    /// The file of its key.
    pub(crate) fn key(&self) -> String {
        self.path("key.pem")
    }

    /// A file of both.
    pub(crate) fn both(&self) -> String {
        self.path("both.pem")
    }
}

//! Where the load goes: a URL, and the addresses behind it.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, bail, ensure};
use http::Uri;
use http::uri::Authority;

/// A URL taken apart.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) tls: bool,
    pub(super) websocket: bool,
    /// Without the brackets of an IPv6 address.
    pub(super) host: String,
    /// As in the URL: the host and, if it was given, the port.
    pub(super) authority: String,
    /// Path and query.
    pub(super) path: String,
    /// What the host stands for, in the order to try.
    pub(super) addresses: Vec<SocketAddr>,
}

impl Target {
    /// Takes a URL apart and looks its host up.
    ///
    /// # Errors
    /// It is no URL of http, https, ws or wss, or its host has no address.
    pub(super) fn resolve(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("{url:?} is no URL"))?;
        let (tls, websocket) = match uri.scheme_str() {
            Some("http") => (false, false),
            Some("https") => (true, false),
            Some("ws") => (false, true),
            Some("wss") => (true, true),
            Some(other) => bail!("{url}: {other} is none of http, https, ws, wss"),
            None => bail!("{url:?} is no URL: expected http://HOST:PORT/PATH"),
        };
        let authority = uri.authority().context("a URL needs a host")?;
        ensure!(
            !authority.as_str().contains('@'),
            "{url}: user names in URLs are not supported; send a header"
        );
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = port(authority)
            .with_context(|| format!("{url}: no port"))?
            .unwrap_or(if tls { 443 } else { 80 });
        let addresses: Vec<SocketAddr> = (host.as_str(), port)
            .to_socket_addrs()
            .with_context(|| format!("cannot resolve {host}"))?
            .collect();
        ensure!(!addresses.is_empty(), "cannot resolve {host}: no address");
        Ok(Self {
            tls,
            websocket,
            host,
            authority: authority.as_str().to_owned(),
            path: uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
            addresses,
        })
    }
}

/// The port, if there is one: what is none must not be taken for one left out.
fn port(authority: &Authority) -> anyhow::Result<Option<u16>> {
    let after_host = authority.as_str().strip_prefix(authority.host());
    match after_host.and_then(|rest| rest.strip_prefix(':')) {
        None | Some("") => Ok(None),
        Some(port) => {
            let number = port.parse();
            Ok(Some(number.with_context(|| format!("{port:?}"))?))
        }
    }
}

//! HAProxy.

use std::net::SocketAddr;
use std::path::Path;

use super::{Peer, Setup, Site, fields};
use crate::compare::process::CommandLine;

pub(super) const PEER: Peer = Peer {
    name: "haproxy",
    package: "haproxy (Debian)",
    program: Some("haproxy"),
    version: &["-v"],
    fields: fields::ALL,
    only_in: &[],
    setup: |program, site| setup(program, site, fields::HAPROXY_MORE),
};

/// The same, adding the client's address and nothing else: the least anybody runs.
pub(super) const BARE: Peer = Peer {
    name: "haproxy-bare",
    fields: fields::BARE,
    only_in: &["keepalive"],
    setup: |program, site| setup(program, site, ""),
    ..PEER
};

fn setup(program: &Path, site: &Site, more: &str) -> Setup {
    let frontend = format!("{more}  default_backend upstream\n");
    let text = text(site.workers, site.listen, site.upstreams[0], &frontend);
    let config = format!("{}/haproxy.cfg", site.directory.display());
    Setup {
        command: CommandLine::new(program, ["-db", "-f", &config]),
        files: vec![("haproxy.cfg", text)],
    }
}

/// A configuration whose frontend ends in these lines; they may name the backend `upstream`.
pub(crate) fn text(
    workers: usize,
    listen: SocketAddr,
    upstream: SocketAddr,
    frontend: &str,
) -> String {
    let bare = fields::HAPROXY_BARE;
    format!(
        "global
  nbthread {workers}

defaults
  mode http
  timeout connect 5s
  timeout client 75s
  timeout server 60s
  timeout http-keep-alive 75s
  http-reuse always
{bare}
frontend public
  bind {listen}
{frontend}
backend upstream
  server one {upstream}
"
    )
}

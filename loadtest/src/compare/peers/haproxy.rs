//! HAProxy.

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
    let (listen, upstream) = (site.listen, site.upstreams[0]);
    let workers = site.workers;
    let bare = fields::HAPROXY_BARE;
    let text = format!(
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
{more}  default_backend upstream

backend upstream
  server one {upstream}
"
    );
    let config = format!("{}/haproxy.cfg", site.directory.display());
    Setup {
        command: CommandLine::new(program, ["-db", "-f", &config]),
        files: vec![("haproxy.cfg", text)],
    }
}

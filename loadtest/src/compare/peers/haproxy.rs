//! HAProxy.

use std::path::Path;

use super::{Peer, Setup, Site};
use crate::compare::process::CommandLine;

pub(super) const PEER: Peer = Peer {
    name: "haproxy",
    package: "haproxy (Debian)",
    program: Some("haproxy"),
    version: &["-v"],
    for_large: false,
    setup,
};

fn setup(program: &Path, site: &Site) -> Setup {
    let (listen, upstream) = (site.listen, site.upstreams[0]);
    let workers = site.workers;
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
  option forwardfor

frontend public
  bind {listen}
  default_backend upstream

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

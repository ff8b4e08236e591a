//! HAProxy.

use std::path::Path;

use super::{Peer, Setup, Site, fields};
use crate::compare::process::CommandLine;
use crate::compare::speech::Wire;

pub(super) const PEER: Peer = Peer {
    name: "haproxy",
    package: "haproxy (Debian)",
    program: Some("haproxy"),
    version: &["-v"],
    fields: fields::ALL,
    only_in: &[],
    lacks: super::nothing,
    setup: |program, site| {
        let scheme = site.speech.clients.scheme();
        setup(program, site, &fields::haproxy_more(scheme))
    },
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
    let bind = format!("{}{}", site.listen, listening(site));
    let h2c = if site.speech.upstream_http2 {
        " proto h2"
    } else {
        ""
    };
    let server = format!("{}{h2c}", site.upstreams[0]);
    let text = text(site.workers, &bind, &server, &frontend);
    let config = format!("{}/haproxy.cfg", site.directory.display());
    Setup {
        command: CommandLine::new(program, ["-db", "-f", &config]),
        files: vec![("haproxy.cfg", text)],
    }
}

/// The parameters of `bind`.
fn listening(site: &Site) -> String {
    match site.speech.clients {
        Wire { tls: true, .. } => {
            let both = site.certificate.both();
            format!(" ssl crt {both} alpn h2,http/1.1")
        }
        Wire::H2C => " proto h2".to_owned(),
        _ => String::new(),
    }
}

/// A configuration that listens on and sends to these addresses, each with its parameters, and
/// whose frontend ends in these lines; they may name the backend `upstream`.
pub(crate) fn text(workers: usize, bind: &str, server: &str, frontend: &str) -> String {
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
  bind {bind}
{frontend}
backend upstream
  server one {server}
"
    )
}

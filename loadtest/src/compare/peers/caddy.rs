//! Caddy. By itself it sets `X-Forwarded-For`, `-Proto` and `-Host`; names requests only when told to.

use std::path::Path;

use super::{POOL, Peer, Setup, Site, fields};
use crate::compare::process::CommandLine;
use crate::compare::speech::{Speech, Wire};

pub(super) const PEER: Peer = Peer {
    name: "caddy",
    package: "caddy (Debian)",
    program: Some("caddy"),
    version: &["version"],
    fields: fields::FORWARDED,
    only_in: &[],
    lacks: super::nothing,
    setup,
};

fn setup(program: &Path, site: &Site) -> Setup {
    let directory = site.directory.display();
    let (listen, upstream) = (site.listen, site.upstreams[0]);
    let Speech {
        clients,
        upstream_http2,
    } = site.speech;
    let (cert, key) = (site.certificate.cert(), site.certificate.key());
    let (protocols, tls) = match clients {
        Wire { tls: true, .. } => ("h1 h2", format!("  tls {cert} {key}\n")),
        Wire::H2C => ("h1 h2c", String::new()),
        _ => ("h1", String::new()),
    };
    let versions = if upstream_http2 {
        "      versions h2c 2\n"
    } else {
        ""
    };
    let text = format!(
        "{{
  admin off
  auto_https off
  servers {{
    protocols {protocols}
  }}
  log {{
    level ERROR
  }}
}}
{scheme}://:{port} {{
  bind {ip}
{tls}  reverse_proxy {upstream} {{
    transport http {{
      keepalive_idle_conns {POOL}
      keepalive_idle_conns_per_host {POOL}
{versions}    }}
  }}
}}
",
        scheme = clients.scheme(),
        port = listen.port(),
        ip = listen.ip()
    );
    let config = format!("{directory}/Caddyfile");
    Setup {
        command: CommandLine::new(
            program,
            ["run", "--config", &config, "--adapter", "caddyfile"],
        )
        .with_env("GOMAXPROCS", site.workers.to_string())
        .with_env("XDG_DATA_HOME", directory.to_string())
        .with_env("XDG_CONFIG_HOME", directory.to_string()),
        files: vec![("Caddyfile", text)],
    }
}

//! Caddy. By itself it sets `X-Forwarded-For`, `-Proto` and `-Host`; names requests only when told to.

use std::path::Path;

use super::{POOL, Peer, Setup, Site, fields};
use crate::compare::process::CommandLine;

pub(super) const PEER: Peer = Peer {
    name: "caddy",
    package: "caddy (Debian)",
    program: Some("caddy"),
    version: &["version"],
    fields: fields::FORWARDED,
    only_in: &[],
    setup,
};

fn setup(program: &Path, site: &Site) -> Setup {
    let directory = site.directory.display();
    let (listen, upstream) = (site.listen, site.upstreams[0]);
    let text = format!(
        "{{
  admin off
  auto_https off
  log {{
    level ERROR
  }}
}}
http://:{port} {{
  bind {ip}
  reverse_proxy {upstream} {{
    transport http {{
      keepalive_idle_conns {POOL}
      keepalive_idle_conns_per_host {POOL}
    }}
  }}
}}
",
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

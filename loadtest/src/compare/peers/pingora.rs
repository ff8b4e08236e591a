//! A minimal proxy on pingora, in this program under the feature `peer-pingora`. It sets the same
//! fields as Tidegate.

use super::{Peer, Setup, fields};
use crate::compare::process::CommandLine;
use crate::compare::speech::Speech;

pub(super) const PEER: Peer = Peer {
    name: "pingora",
    package: "this program, built with --features peer-pingora",
    program: None,
    version: &["pingora", "--which"],
    fields: fields::ALL,
    only_in: &[],
    lacks,
    setup: |program, site| Setup {
        command: CommandLine::new(
            program,
            [
                "pingora".to_owned(),
                format!("--listen={}", site.listen),
                format!("--to={}", site.upstreams[0]),
                format!("--workers={}", site.workers),
            ]
            .into_iter()
            .chain(site.speech.clients.http2.then(|| "--h2c".to_owned())),
        ),
        files: Vec::new(),
    },
};

fn lacks(speech: Speech) -> Option<&'static str> {
    if speech.clients.tls {
        Some("it is built without TLS")
    } else if speech.upstream_http2 {
        Some("it is set up for upstreams of HTTP/1.1")
    } else {
        None
    }
}

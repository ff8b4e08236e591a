//! The byte copier of this program: the floor.

use super::{Peer, Setup, fields};
use crate::compare::process::CommandLine;
use crate::compare::speech::Speech;

pub(super) const PEER: Peer = Peer {
    name: "copier",
    package: "this program",
    program: None,
    version: &["--version"],
    fields: fields::NONE,
    only_in: &[],
    lacks,
    setup: |program, site| Setup {
        command: CommandLine::new(
            program,
            [
                "copy".to_owned(),
                format!("--listen={}", site.listen),
                format!("--to={}", site.upstreams[0]),
                format!("--workers={}", site.workers),
            ],
        ),
        files: Vec::new(),
    },
};

fn lacks(speech: Speech) -> Option<&'static str> {
    if speech.clients.tls {
        Some("it knows no TLS")
    } else if speech.clients.http2 != speech.upstream_http2 {
        Some("it passes on what it gets, so that the upstream would have to speak the same")
    } else {
        None
    }
}

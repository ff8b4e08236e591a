//! A minimal proxy on pingora, in this program under the feature `peer-pingora`.

use super::{Peer, Setup};
use crate::compare::process::CommandLine;

pub(super) const PEER: Peer = Peer {
    name: "pingora",
    package: "this program, built with --features peer-pingora",
    program: None,
    version: &["pingora", "--which"],
    for_large: false,
    setup: |program, site| Setup {
        command: CommandLine::new(
            program,
            [
                "pingora".to_owned(),
                format!("--listen={}", site.listen),
                format!("--to={}", site.upstreams[0]),
                format!("--workers={}", site.workers),
            ],
        ),
        files: Vec::new(),
    },
};

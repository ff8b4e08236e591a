//! The byte copier of this program: the floor.

use super::{Peer, Setup};
use crate::compare::process::CommandLine;

pub(super) const PEER: Peer = Peer {
    name: "copier",
    package: "this program",
    program: None,
    version: &["--version"],
    for_large: false,
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

//! The byte copier of this program: the floor.

use super::{Peer, Setup, fields};
use crate::compare::process::CommandLine;

pub(super) const PEER: Peer = Peer {
    name: "copier",
    package: "this program",
    program: None,
    version: &["--version"],
    fields: fields::NONE,
    only_in: &[],
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

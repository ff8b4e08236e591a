//! A minimal proxy on pingora, in this program under the feature `peer-pingora`. It sets the same
//! fields as Tidegate.

use super::{Peer, Setup, fields};
use crate::compare::process::CommandLine;

pub(super) const PEER: Peer = Peer {
    name: "pingora",
    package: "this program, built with --features peer-pingora",
    program: None,
    version: &["pingora", "--which"],
    fields: fields::ALL,
    only_in: &[],
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

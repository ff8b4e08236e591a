//! What our codec makes of messages, against the corpus in `tests/corpus` and against what others
//! make of them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail, and says what it left out"
)]

mod cases;
#[path = "../../../tests/src/corpus.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "it is public to the end-to-end tests, and some of it is for them alone"
)]
mod corpus;
mod ours;

use std::path::PathBuf;

use corpus::Case;

/// Every request of the corpus.
fn requests() -> Vec<Case> {
    corpus::read(&corpus_directory().join("requests"))
}

fn corpus_directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus")
}

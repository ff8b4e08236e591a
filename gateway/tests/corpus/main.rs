//! What our codec makes of messages: against the corpus in `tests/corpus`, and against what hyper,
//! nginx and HAProxy make of them.

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
mod differences;
mod differential;
mod hyper_peer;
mod ours;
mod proxies;
mod recorder;
mod variations;

use std::path::PathBuf;

use corpus::Case;

/// Every request of the corpus.
fn requests() -> Vec<Case> {
    corpus::read(&corpus_directory().join("requests"))
}

fn corpus_directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus")
}

/// `full` with `TIDEGATE_LONG=1`, else `usual`.
fn sized<T>(usual: T, full: T) -> T {
    let long = std::env::var_os("TIDEGATE_LONG");
    if long.is_some_and(|value| !value.is_empty() && value != "0") {
        full
    } else {
        usual
    }
}

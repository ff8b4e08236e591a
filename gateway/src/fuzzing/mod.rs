//! What the fuzzers run: one function per target. It must neither panic nor hang, whatever the bytes
//! say. `fuzz/` gives them bytes by the million; the tests here replay the seeds in `fuzz/corpus`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a target says what it found by a panic"
)]

mod bodies;
mod configuration;
mod heads;
mod http2;
mod logs;
mod paths;
mod routes;
mod wire;

use crate::exchange::tests::hostile;

/// A target: what it is called, and what it does with an input.
type Target = (&'static str, fn(&[u8]));

/// All of them, by name.
pub const TARGETS: &[Target] = &[
    ("access_log", logs::access_log),
    ("admin_question", logs::admin_question),
    ("authority", wire::authority),
    ("body", bodies::body),
    ("certificate", wire::certificate),
    ("configuration", configuration::configuration),
    ("cookie", routes::cookie),
    ("forwarded", hostile::forwarded),
    ("grpc_timeout", wire::grpc_timeout),
    ("h1_exchange", hostile::h1_exchange),
    ("h2_client", hostile::h2_client),
    ("h2_endpoint", hostile::h2_endpoint),
    ("h2_frames", http2::frames),
    ("h2_heads", http2::heads),
    ("ingress", configuration::ingress),
    ("path", paths::path),
    ("proxy_header", wire::proxy_header),
    ("request_head", heads::request),
    ("request_log", logs::request_log),
    ("response_head", heads::response),
    ("routes", routes::routes),
];

/// Gives an input to a target.
///
/// # Panics
/// When the target finds a fault, and when there is none of this name.
pub fn run(target: &str, input: &[u8]) {
    let (_, body) = TARGETS
        .iter()
        .find(|(name, _)| *name == target)
        .unwrap_or_else(|| panic!("there is no target {target}"));
    body(input);
}

#[cfg(test)]
mod tests;

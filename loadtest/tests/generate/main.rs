//! `loadtest run` counts right, whatever the other side does: each test runs the built binary
//! against a server of its own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod bodies;
mod closed_loop;
mod failures;
mod held;
mod open_loop;
mod output;
mod protocols;
mod requests;
mod support;

//! What a request through Tidegate costs, and what it costs through the peers.
//!
//! - [`generate`] makes load and counts what comes back (`loadtest run`);
//! - [`backend`] is the upstream behind every proxy (`loadtest backend`);
//! - [`compare`] runs the same work through each proxy in turn (`loadtest compare`).
//!
//! Hidden commands serve `compare`: [`copy`] is the floor a proxy is measured from, [`launch`] puts a
//! program on chosen processors.
//!
//! `compare` starts the other two as processes of their own, so that the kernel accounts for each
//! apart; the border between them is the JSON of [`report::Report`].

pub mod backend;
mod bounds;
pub mod cli;
pub mod compare;
pub mod copy;
mod field;
pub mod generate;
pub mod launch;
#[cfg(feature = "peer-pingora")]
pub mod pingora;
pub mod report;
pub mod system;
mod tls;

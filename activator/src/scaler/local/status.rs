//! What people may know of a revision's local processes.

use std::net::SocketAddr;

/// A revision's local processes at one moment, beside what its throttle knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalStatus {
    /// Processes that are not ready yet.
    pub starting: Vec<SocketAddr>,
    /// Ready endpoints the autoscaler wants.
    pub wanted: u32,
    /// Whether its short window decides at the moment.
    pub panicking: bool,
}

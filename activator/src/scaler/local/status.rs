//! What people may know of a revision's local processes.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::probe::Proof;

/// A revision's local processes at one moment, beside what its throttle knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalStatus {
    /// Processes that are not ready yet.
    pub starting: Vec<SocketAddr>,
    /// Ready endpoints the autoscaler wants.
    pub wanted: u32,
    /// Whether its short window decides at the moment.
    pub panicking: bool,
    /// How often a request found no endpoint and one was brought.
    pub cold_starts: u64,
    /// The phases of all of them, added up.
    pub total: Phases,
    pub last_start: Option<LastStart>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastStart {
    /// When the request came.
    pub at: SystemTime,
    pub phases: Phases,
}

/// Where the time of a cold start went, one phase after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Request → the scaler has heard of it.
    pub nudge: Duration,
    /// → a process was asked for.
    pub act: Duration,
    /// → it takes connections.
    pub endpoint: Duration,
    /// → it answers as its readiness asks, and is published.
    pub probe: Duration,
}

impl std::ops::AddAssign for Phases {
    fn add_assign(&mut self, other: Phases) {
        self.nudge += other.nudge;
        self.act += other.act;
        self.endpoint += other.endpoint;
        self.probe += other.probe;
    }
}

/// A cold start that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct ColdStart {
    at: SystemTime,
    nudged: Instant,
    heard: Instant,
    acted: Option<Instant>,
}

impl ColdStart {
    pub(super) fn new(nudged: Instant, heard: Instant) -> ColdStart {
        let waited = heard.saturating_duration_since(nudged);
        let now = SystemTime::now();
        ColdStart {
            at: now.checked_sub(waited).unwrap_or(now),
            nudged,
            heard,
            acted: None,
        }
    }

    /// A process was asked for; only the first time counts.
    pub(super) fn acted(&mut self, now: Instant) {
        self.acted.get_or_insert(now);
    }

    pub(super) fn finish(self, proof: Proof) -> LastStart {
        let acted = self.acted.unwrap_or(self.heard);
        LastStart {
            at: self.at,
            phases: Phases {
                nudge: self.heard.saturating_duration_since(self.nudged),
                act: acted.saturating_duration_since(self.heard),
                endpoint: proof.accepted.saturating_duration_since(acted),
                probe: proof.ready.saturating_duration_since(proof.accepted),
            },
        }
    }
}

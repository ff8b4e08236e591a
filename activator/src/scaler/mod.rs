//! Scalers: they hear a revision's demand and may bring endpoints.
//!
//! [`autoscale`] decides how many (pure, no clock); [`local`] starts and stops that many processes
//! on this machine; [`knative`] tells Knative's autoscaler of demand and finds the pods it started;
//! [`ask`] asks endpoints how they are, and [`patience`] says how long they may take.

use std::time::Duration;

use config::revision::Revision;

pub mod ask;
pub mod autoscale;
pub mod knative;
pub mod local;
pub mod patience;

/// The least time a start gets; more when requests may wait longer for it.
pub const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long an endpoint of this revision may take until it is ready.
#[must_use]
pub fn start_timeout(revision: &Revision) -> Duration {
    START_TIMEOUT.max(revision.wait_at_most(revision.timeout))
}

//! config-leader-election: how long who writes statuses may be silent.

use std::time::Duration;

use super::read::Map;
use super::{BadValue, Data};

pub(super) const NAME: &str = "config-leader-election";

const LEASE: &str = "lease-duration";
const RENEW: &str = "renew-deadline";
const RETRY: &str = "retry-period";

/// The times of our lease. `buckets` is for controllers that share their work out: statuses of ours
/// are written by one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderElection {
    /// `lease-duration` (older: `leaseDuration`): after so long without renewal another replica
    /// takes the lease.
    pub lease_duration: Duration,
    /// `renew-deadline` (older: `renewDeadline`): who could not renew it for so long writes no more.
    pub renew_deadline: Duration,
    /// `retry-period` (older: `retryPeriod`): between two attempts to take or to renew it.
    pub retry_period: Duration,
}

impl Default for LeaderElection {
    fn default() -> LeaderElection {
        LeaderElection {
            lease_duration: Duration::from_secs(60),
            renew_deadline: Duration::from_secs(40),
            retry_period: Duration::from_secs(10),
        }
    }
}

impl LeaderElection {
    pub(super) fn of(data: &Data) -> Result<LeaderElection, BadValue> {
        let map = Map { name: NAME, data };
        let default = LeaderElection::default();
        let times = LeaderElection {
            lease_duration: map.duration(&[LEASE, "leaseDuration"], default.lease_duration)?,
            renew_deadline: map.duration(&[RENEW, "renewDeadline"], default.renew_deadline)?,
            retry_period: map.duration(&[RETRY, "retryPeriod"], default.retry_period)?,
        };
        let wrong = |key, time, problem| Err(map.wrong(key, &format!("{time:?}"), problem));
        // A lease holds whole seconds.
        if times.lease_duration < Duration::from_secs(1) {
            return wrong(LEASE, times.lease_duration, "write 1s or more");
        }
        if times.renew_deadline >= times.lease_duration {
            let problem = "it must be shorter than lease-duration";
            return wrong(RENEW, times.renew_deadline, problem);
        }
        if times.retry_period.is_zero() || times.retry_period >= times.renew_deadline {
            let problem = "it must be longer than 0s and shorter than renew-deadline";
            return wrong(RETRY, times.retry_period, problem);
        }
        Ok(times)
    }
}

//! Who writes statuses: the replica that holds a lease.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;

use super::config_maps::{LeaderElection, Settings};
use super::watch::text_of;

/// What the lease is called.
const NAME: &str = "tidegate-status";
/// The answer to one request.
const ANSWER: Duration = Duration::from_secs(5);

/// Where the lease is, what it calls us, and what says how long it lasts.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) namespace: String,
    pub(super) us: String,
    pub(super) settings: watch::Receiver<Arc<Settings>>,
}

/// What we remember of the lease. Pure.
#[derive(Debug)]
struct Seen {
    us: String,
    /// Its holder and the text of its last renewal, and when we first saw that: no clock but our
    /// own is trusted.
    last: Option<(String, Option<MicroTime>, Instant)>,
    renewed: Option<Instant>,
    times: LeaderElection,
}

impl Seen {
    /// The lease to be written, if it is ours to write; `found` is what is there.
    fn wanted(&mut self, found: Option<&Lease>, now: Instant, time: Timestamp) -> Option<Lease> {
        let spec = found
            .and_then(|lease| lease.spec.clone())
            .unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let ours = holder == self.us;
        let renewal = spec.renew_time.clone();
        let seen = match &self.last {
            Some((who, when, seen)) if *who == holder && *when == renewal => *seen,
            _ => now,
        };
        self.last = Some((holder.clone(), renewal, seen));
        let seconds = spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok());
        let lasts = seconds.map_or(self.times.lease_duration, Duration::from_secs);
        let free = holder.is_empty() || now.duration_since(seen) >= lasts;
        if !ours && !free {
            return None;
        }
        let transitions = spec.lease_transitions.unwrap_or(0);
        let metadata = found.map_or_else(ObjectMeta::default, |lease| lease.metadata.clone());
        Some(Lease {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                ..metadata
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.us.clone()),
                lease_duration_seconds: i32::try_from(self.times.lease_duration.as_secs()).ok(),
                acquire_time: match ours {
                    true => spec.acquire_time,
                    false => Some(MicroTime(time)),
                },
                renew_time: Some(MicroTime(time)),
                lease_transitions: Some(if ours { transitions } else { transitions + 1 }),
                ..spec
            }),
        })
    }

    fn leads(&self, now: Instant) -> bool {
        let deadline = self.times.renew_deadline;
        self.renewed
            .is_some_and(|renewed| now.duration_since(renewed) < deadline)
    }
}

/// Tries to hold the lease, and says whether we do, until `shutdown`; then lets go of it.
pub(super) async fn lead(
    client: Client,
    place: Place,
    leads: watch::Sender<bool>,
    mut shutdown: watch::Receiver<bool>,
) {
    let Place {
        namespace,
        us,
        settings,
    } = place;
    let leases: Api<Lease> = Api::namespaced(client, &namespace);
    let mut seen = Seen {
        us,
        last: None,
        renewed: None,
        times: LeaderElection::default(),
    };
    loop {
        seen.times = settings.borrow().leader_election;
        let asked = Instant::now();
        match tokio::time::timeout(ANSWER, renew(&leases, &mut seen)).await {
            Ok(Ok(true)) => seen.renewed = Some(asked),
            // Another holds it.
            Ok(Ok(false)) => seen.renewed = None,
            Ok(Err(error)) => tracing::warn!(error = text_of(&error), "no word on the lease"),
            Err(_) => tracing::warn!("no answer on the lease in {ANSWER:?}"),
        }
        say(&leads, seen.leads(Instant::now()));
        let until = seen
            .renewed
            .map(|renewed| renewed + seen.times.renew_deadline);
        tokio::select! {
            () = tokio::time::sleep(seen.times.retry_period) => {}
            () = at(until) => say(&leads, seen.leads(Instant::now())),
            _ = shutdown.wait_for(|shutdown| *shutdown) => break,
        }
    }
    let led = *leads.borrow();
    say(&leads, false);
    if led && let Ok(Err(error)) = tokio::time::timeout(ANSWER, release(&leases, &seen)).await {
        tracing::debug!(error = text_of(&error), "the lease was not let go");
    }
}

fn say(leads: &watch::Sender<bool>, now: bool) {
    let changed = leads.send_if_modified(|before| std::mem::replace(before, now) != now);
    if changed {
        tracing::info!(leader = now, "who writes statuses has changed");
    }
}

/// Never, where there is no such time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// Whether the lease is ours now. Somebody who was quicker is no error.
async fn renew(leases: &Api<Lease>, seen: &mut Seen) -> Result<bool, kube::Error> {
    let found = leases.get_opt(NAME).await?;
    let Some(lease) = seen.wanted(found.as_ref(), Instant::now(), Timestamp::now()) else {
        return Ok(false);
    };
    let parameters = PostParams::default();
    let written = match found {
        Some(_) => leases.replace(NAME, &parameters, &lease).await,
        None => leases.create(&parameters, &lease).await,
    };
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

async fn release(leases: &Api<Lease>, seen: &Seen) -> Result<(), kube::Error> {
    let Some(mut lease) = leases.get_opt(NAME).await? else {
        return Ok(());
    };
    let Some(spec) = &mut lease.spec else {
        return Ok(());
    };
    if spec.holder_identity.as_ref() == Some(&seen.us) {
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        leases.replace(NAME, &PostParams::default(), &lease).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(us: &str) -> Seen {
        Seen {
            us: us.to_owned(),
            last: None,
            renewed: None,
            times: LeaderElection::default(),
        }
    }

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn holder(lease: &Lease) -> (Option<&str>, Option<i32>) {
        let spec = lease.spec.as_ref().expect("a specification");
        (spec.holder_identity.as_deref(), spec.lease_transitions)
    }

    #[test]
    fn a_lease_that_nobody_holds_is_taken_and_then_renewed() {
        let mut us = seen("us");
        let now = Instant::now();
        let taken = us.wanted(None, now, time(1)).expect("a lease");
        assert_eq!(holder(&taken), (Some("us"), Some(1)));
        let renewed = us.wanted(Some(&taken), now, time(9)).expect("a lease");
        assert_eq!(holder(&renewed), (Some("us"), Some(1)));
        let times = |lease: &Lease| {
            lease
                .spec
                .clone()
                .map(|spec| (spec.acquire_time, spec.renew_time))
        };
        assert_eq!(
            times(&renewed),
            Some((Some(MicroTime(time(1))), Some(MicroTime(time(9)))))
        );
    }

    #[test]
    fn a_holder_that_renews_keeps_it_and_one_that_is_silent_loses_it() {
        let (mut us, mut them) = (seen("us"), seen("them"));
        let start = Instant::now();
        let first = them.wanted(None, start, time(1)).expect("a lease");
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(us.wanted(Some(&first), start, time(1)).is_none());
        assert!(us.wanted(Some(&first), at(59), time(1)).is_none());
        let second = them.wanted(Some(&first), at(59), time(2)).expect("a lease");
        assert!(
            us.wanted(Some(&second), at(61), time(1)).is_none(),
            "it was renewed"
        );
        assert!(
            us.wanted(Some(&second), at(120), time(1)).is_none(),
            "as we saw just now"
        );
        let taken = us.wanted(Some(&second), at(121), time(3)).expect("a lease");
        assert_eq!(holder(&taken), (Some("us"), Some(2)));
    }

    #[test]
    fn a_lease_that_was_let_go_is_taken_at_once() {
        let mut us = seen("us");
        let mut lease = seen("them")
            .wanted(None, Instant::now(), time(1))
            .expect("a lease");
        lease
            .spec
            .as_mut()
            .expect("a specification")
            .holder_identity = Some(String::new());
        assert!(us.wanted(Some(&lease), Instant::now(), time(2)).is_some());
    }

    #[test]
    fn without_renewals_we_stop_before_others_begin() {
        let mut us = seen("us");
        let now = Instant::now();
        assert!(!us.leads(now));
        us.renewed = Some(now);
        let deadline = us.times.renew_deadline;
        assert!(us.leads(now + deadline - Duration::from_secs(1)));
        assert!(!us.leads(now + deadline));
        assert!(deadline < us.times.lease_duration);
    }
}

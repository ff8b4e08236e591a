//! Which pods of one revision can serve, and which to ask next: decided here, without a clock or a
//! socket.
//!
//! Kubernetes says which addresses there are and which of them are ready; only the pod itself knows
//! whether its queue-proxy takes requests. An address is asked once it is known and then every so
//! often until it answers as it should. From then on it is believed: one bad answer of a busy pod
//! must not take it away. That is for Kubernetes to do, by saying that it is no longer ready, or gone.
//! One that failed a request is asked again while it is used, so that it is heard of when it is well.
//!
//! Of Knative's mesh modes there are two: to probe (`auto`, with `enable-mesh-pod-addressability` or
//! without) and to believe Kubernetes (`disabled`). What `auto` falls back to where no pod can be
//! reached, and `enabled` always uses, the cluster address of the revision's private Service, is
//! left out: behind it nobody knows which pod serves, so limits would hold nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use config::source::feed::Addresses;

use super::probe::Outcome;
use crate::scaler::patience::{PATIENCE_MOST, RoundTrips};

/// For so long after it came up a pod that refuses connections, or says that it does not serve yet, is
/// asked more often: it is about to.
const EAGER_FOR: Duration = Duration::from_secs(10);
/// Between the first probes with either outcome; the pause grows by a quarter each time.
const EAGER_FIRST: Duration = Duration::from_millis(10);
/// So much more for each pod that is not proven: many that start share the eagerness of one.
const EAGER_SHARE: Duration = Duration::from_millis(2);
/// Between the end of one probe and the next, at least.
const PAUSE_LEAST: Duration = Duration::from_millis(10);

/// Of so many attempts to connect one is waited for longer.
const LONG_ONE_IN: u32 = 4;

/// How pods are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Manner {
    /// False: whom Kubernetes calls ready is not asked, the others are not used.
    pub(super) probes: bool,
    /// Between two probes of a pod, from one's beginning to the next's.
    pub(super) period: Duration,
    /// A probe waits so long, and longer where connections are seen to take longer.
    pub(super) patience: Duration,
}

#[derive(Debug)]
pub(super) struct Pods {
    manner: Manner,
    /// Pods that answer are used before Kubernetes says that they are ready.
    unready_too: bool,
    known: BTreeMap<SocketAddr, Pod>,
    /// Those to be asked and when.
    due: BTreeSet<(Instant, SocketAddr)>,
    asked: usize,
    /// Of connections to pods that passed, and as much again for the answer.
    connects: RoundTrips,
}

#[derive(Debug)]
struct Pod {
    ready: bool,
    /// When it was first seen, or began anew.
    since: Instant,
    state: State,
    /// It has answered as it should.
    proven: bool,
    /// How often it was asked eagerly after it refused, and after it did not serve yet.
    refusals: i32,
    not_yet: i32,
    /// Probes, in a row, that nothing came of in time; and of these the latest in a row that were
    /// not even connected.
    late: u32,
    unconnected: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Is not asked: not ready, and unready pods are not used.
    Idle,
    Due(Instant),
    Asked {
        ticket: u64,
        at: Instant,
    },
    Passed,
}

/// A probe to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) address: SocketAddr,
    pub(super) within: Duration,
}

impl Pods {
    pub(super) fn new(manner: Manner) -> Pods {
        Pods {
            manner,
            unready_too: false,
            known: BTreeMap::new(),
            due: BTreeSet::new(),
            asked: 0,
            connects: RoundTrips::default(),
        }
    }

    /// Whether pods are used before Kubernetes says that they are ready.
    pub(super) fn use_unready(&mut self, unready_too: bool, now: Instant) {
        if std::mem::replace(&mut self.unready_too, unready_too) == unready_too {
            return;
        }
        let addresses: Vec<_> = self.known.keys().copied().collect();
        for address in addresses {
            if !self.known[&address].ready {
                self.begin_anew(address, now);
            }
        }
    }

    /// The whole set as Kubernetes knows it. Costs probes of those only that are new, have become
    /// unready, or are worth another look now that they are ready.
    pub(super) fn set(&mut self, addresses: &Addresses, now: Instant) {
        let unready = addresses.unready.iter().map(|address| (*address, false));
        let ready = addresses.ready.iter().map(|address| (*address, true));
        // Of an address that is said to be both, ready counts.
        let said: BTreeMap<SocketAddr, bool> = unready.chain(ready).collect();
        let gone: Vec<_> = self.known.keys().copied().collect();
        for address in gone.into_iter().filter(|at| !said.contains_key(at)) {
            self.move_to(address, State::Idle);
            self.known.remove(&address);
        }
        for (address, ready) in said {
            let Some(pod) = self.known.get_mut(&address) else {
                self.known.insert(address, Pod::new(ready, now));
                self.begin_anew(address, now);
                continue;
            };
            let was_ready = std::mem::replace(&mut pod.ready, ready);
            match (was_ready, ready, pod.state) {
                (true, false, _) => self.begin_anew(address, now),
                (false, true, State::Due(_)) if pod.proven => {
                    self.move_to(address, State::Due(now))
                }
                (false, true, State::Idle | State::Due(_)) => self.begin_anew(address, now),
                _ => {}
            }
        }
    }

    /// Nothing asked about this pod counts any more.
    fn begin_anew(&mut self, address: SocketAddr, now: Instant) {
        let (probes, unready_too) = (self.manner.probes, self.unready_too);
        let Some(pod) = self.known.get_mut(&address) else {
            return;
        };
        let state = match (probes, pod.ready) {
            (false, true) => State::Passed,
            (false, false) => State::Idle,
            (true, ready) if ready || unready_too => State::Due(now),
            (true, _) => State::Idle,
        };
        *pod = Pod {
            state: pod.state,
            ..Pod::new(pod.ready, now)
        };
        self.move_to(address, state);
    }

    /// The pod failed a request: it is asked again, a period from now so that one which fails every
    /// request and passes every probe is not tried all the time.
    pub(super) fn doubt(&mut self, address: SocketAddr, now: Instant) {
        let passed = |pod: &Pod| pod.state == State::Passed;
        if self.manner.probes && self.known.get(&address).is_some_and(passed) {
            self.move_to(address, State::Due(now + self.manner.period));
        }
    }

    fn move_to(&mut self, address: SocketAddr, state: State) {
        let Some(pod) = self.known.get_mut(&address) else {
            return;
        };
        match std::mem::replace(&mut pod.state, state) {
            State::Due(at) => {
                self.due.remove(&(at, address));
            }
            State::Asked { .. } => self.asked -= 1,
            State::Idle | State::Passed => {}
        }
        match state {
            State::Due(at) => {
                self.due.insert((at, address));
            }
            State::Asked { .. } => self.asked += 1,
            State::Idle | State::Passed => {}
        }
    }

    /// When the next pod is to be asked.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// How many are being asked.
    pub(super) fn asked(&self) -> usize {
        self.asked
    }

    /// The next probe, if one is due. `ticket` comes back with its outcome; a ticket is used once.
    pub(super) fn ask(&mut self, ticket: u64, now: Instant) -> Option<Question> {
        let (at, address) = self.due.first().copied()?;
        if at > now {
            return None;
        }
        let doublings = self.known.get(&address).map_or(0, Pod::doublings);
        self.move_to(address, State::Asked { ticket, at: now });
        let expected = self.connects.patience(self.manner.patience);
        let within = expected.saturating_mul(1 << doublings.min(8));
        Some(Question {
            address,
            within: within.min(PATIENCE_MOST.max(self.manner.patience)),
        })
    }

    /// A probe has ended. True when there is another pod to use because of it.
    pub(super) fn answered(
        &mut self,
        ticket: u64,
        address: SocketAddr,
        outcome: Outcome,
        now: Instant,
    ) -> bool {
        let unproven = self.due.len() + self.asked;
        let Some(pod) = self.known.get_mut(&address) else {
            return false;
        };
        let asked_at = match pod.state {
            State::Asked { ticket: of, at } if of == ticket => at,
            // The pod has begun anew since.
            _ => return false,
        };
        let mut next = (asked_at + self.manner.period).max(now + PAUSE_LEAST);
        (pod.late, pod.unconnected) = match outcome {
            Outcome::Late { connected: true } => (pod.late + 1, 0),
            Outcome::Late { connected: false } => (pod.late + 1, pod.unconnected + 1),
            Outcome::Passed { .. } | Outcome::Refused | Outcome::NotYet | Outcome::Failed => (0, 0),
        };
        match outcome {
            Outcome::Passed { connect } => {
                let new = !std::mem::replace(&mut pod.proven, true);
                self.connects.measured(connect * 2);
                self.move_to(address, State::Passed);
                return new;
            }
            Outcome::Refused | Outcome::NotYet
                if now.saturating_duration_since(pod.since) < EAGER_FOR =>
            {
                // Whoever listens has come one step further, and begins anew.
                let times = match outcome {
                    Outcome::NotYet => &mut pod.not_yet,
                    _ => &mut pod.refusals,
                };
                let grown = EAGER_FIRST.mul_f64(1.25_f64.powi((*times).min(20)));
                *times += 1;
                let shared = EAGER_SHARE.mul_f64(unproven as f64);
                next = next.min(now + grown.max(shared));
            }
            Outcome::Refused | Outcome::NotYet | Outcome::Late { .. } | Outcome::Failed => {}
        }
        self.move_to(address, State::Due(next));
        false
    }

    /// Those that can serve, in order.
    pub(super) fn usable(&self) -> Vec<SocketAddr> {
        let serves = |pod: &Pod| pod.proven || pod.state == State::Passed;
        let usable = self.known.iter().filter(|(_, pod)| serves(pod));
        usable.map(|(address, _)| *address).collect()
    }
}

impl Pod {
    fn new(ready: bool, now: Instant) -> Pod {
        Pod {
            ready,
            since: now,
            state: State::Idle,
            proven: false,
            refusals: 0,
            not_yet: 0,
            late: 0,
            unconnected: 0,
        }
    }

    /// How often what a probe is waited for is doubled. A queue-proxy that was connected to asks its
    /// user's container again and again and answers as soon as that is ready, so waiting gains
    /// most. What could not be connected to may have got an address that nobody routes to yet, and the
    /// kernel would take a second to try again: then a new attempt gains most, but where connections
    /// take long none but a long one succeeds, so each fourth is.
    fn doublings(&self) -> u32 {
        match self.unconnected {
            0 => self.late,
            more if more % LONG_ONE_IN == 0 => self.late / LONG_ONE_IN,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests;

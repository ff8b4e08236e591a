//! The processes of one revision: which to start, which to publish, which to let go.
//!
//! Pure: it is told what happened and when, and asks its [`Host`] for the rest. Every change ends
//! in [`Fleet::settle`], which compares what is there with what is wanted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::revision::{Key, Process, Readiness, Revision};
use tracing::{error, info, warn};

use super::backoff::Backoff;
use super::protocol::{Exit, Id, Refusal};
use crate::scaler::{START_TIMEOUT, start_timeout};

/// Rounds of processes that exited before they were ready, until waiting requests are told.
pub(super) const EARLY_EXITS: u32 = 3;
/// Rounds until they are told if the last was ready for a while: it does start, and the first pauses
/// are short.
pub(super) const CRASHES: u32 = 5;
/// A process that was ready for this long has proved itself: the next failure is a new one.
pub(super) const HEALTHY: Duration = Duration::from_secs(10);
/// How long requests may keep a draining process whose revision has no `maxDuration`.
pub(super) const DRAIN_MAX: Duration = Duration::from_secs(300);
/// How often a draining process's requests are counted.
pub(super) const DRAIN_POLL: Duration = Duration::from_millis(20);
/// Processes of one revision that start at the same time; more wait for these to be ready.
pub(super) const STARTS_AT_ONCE: usize = 16;
/// How often in a row a port that turned out to be taken is replaced without a pause.
const PORT_RETRIES: u32 = 5;

/// What a fleet needs of the world.
pub(super) trait Host {
    /// Asks for a new process; the fleet will be told what becomes of it.
    ///
    /// # Errors
    /// Why it cannot even be asked for.
    fn start(&mut self, process: &Arc<Process>) -> Result<(Id, SocketAddr), Refusal>;
    /// What a starting process lacks, as the end of a sentence: "was not ready: …".
    fn lacks(&self, id: Id) -> String;
    /// SIGTERM, later SIGKILL; its exit will be told.
    fn stop(&mut self, id: Id);
    /// The whole set of addresses that may get new requests.
    fn set_endpoints(&mut self, ready: &[SocketAddr]);
    /// Requests there that do not rest.
    fn busy_at(&self, address: SocketAddr) -> u32;
    /// All of them.
    fn in_flight_at(&self, address: SocketAddr) -> u32;
    /// Waiting requests have nothing to hope for until then.
    fn fail(&mut self, why: &str, until: Instant);
    fn clear_failure(&mut self);
}

#[derive(Debug)]
pub(super) struct Fleet {
    key: Key,
    process: Arc<Process>,
    start_timeout: Duration,
    drain_max: Duration,
    /// Changes with the program; processes of earlier ones are *stale*.
    generation: u32,
    wanted: usize,
    instances: Vec<Instance>,
    published: Vec<SocketAddr>,
    backoff: Backoff,
    port_retries: u32,
    /// Those who ask are told so, until the present pause is over.
    failed: bool,
}

#[derive(Debug)]
struct Instance {
    id: Id,
    address: SocketAddr,
    generation: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Starting {
        give_up: Instant,
    },
    Ready {
        since: Instant,
    },
    /// Gets no new requests; not yet told to end, so it may be revived.
    Draining {
        since: Instant,
        give_up: Instant,
    },
    /// Told to end.
    Stopping,
}

impl Fleet {
    /// No process is wanted yet.
    pub(super) fn new(revision: &Revision, process: &Process) -> Fleet {
        let mut fleet = Fleet {
            key: revision.key.clone(),
            process: Arc::new(process.clone()),
            start_timeout: START_TIMEOUT,
            drain_max: DRAIN_MAX,
            generation: 0,
            wanted: 0,
            instances: Vec::new(),
            published: Vec::new(),
            backoff: Backoff::default(),
            port_retries: 0,
            failed: false,
        };
        fleet.set_bounds(revision);
        fleet
    }

    fn set_bounds(&mut self, revision: &Revision) {
        self.start_timeout = start_timeout(revision);
        self.drain_max = revision.max_duration.unwrap_or(DRAIN_MAX);
    }

    /// A changed program is started before processes of the old one drain.
    pub(super) fn configure(
        &mut self,
        revision: &Revision,
        process: &Process,
        now: Instant,
        host: &mut impl Host,
    ) {
        self.set_bounds(revision);
        let old = std::mem::replace(&mut self.process, Arc::new(process.clone()));
        let same = old.command == process.command
            && old.env == process.env
            && old.directory == process.directory;
        if !same {
            self.generation = self.generation.wrapping_add(1);
            self.backoff.reset();
            self.clear_failure(host);
        }
        self.settle(now, host);
    }

    pub(super) fn want(&mut self, wanted: u32, now: Instant, host: &mut impl Host) {
        self.wanted = wanted as usize;
        self.settle(now, host);
    }

    /// The process answers as its readiness asks.
    pub(super) fn ready(&mut self, id: Id, now: Instant, host: &mut impl Host) {
        let instance = self.instances.iter_mut().find(|it| it.id == id);
        if let Some(instance) = instance
            && matches!(instance.state, State::Starting { .. })
        {
            instance.state = State::Ready { since: now };
            info!(revision = %self.key, address = %instance.address, "endpoint ready");
            self.port_retries = 0;
            self.settle(now, host);
            // After the endpoint is published, so that nobody is told to wait in between.
            self.clear_failure(host);
        }
    }

    /// How the process at that address, if it is one of ours, is asked whether it is well. A connection
    /// tells nothing: requests get those too.
    pub(super) fn readiness_at(&self, address: SocketAddr) -> Option<Readiness> {
        let readiness = &self.process.readiness;
        let known = self.published.contains(&address) && *readiness != Readiness::Tcp;
        known.then(|| readiness.clone())
    }

    pub(super) fn refused(&mut self, id: Id, why: &Refusal, now: Instant, host: &mut impl Host) {
        if self.remove(id).is_some_and(|it| it.is_starting()) {
            self.cannot_start(why, now, host);
        }
        self.settle(now, host);
    }

    pub(super) fn exited(&mut self, id: Id, exit: &Exit, now: Instant, host: &mut impl Host) {
        let Some(instance) = self.remove(id) else {
            return;
        };
        let mut crashes = false;
        match instance.state {
            State::Starting { .. } if is_port_taken(exit) && self.port_retries < PORT_RETRIES => {
                self.port_retries += 1;
                info!(revision = %self.key, address = %instance.address, "port was taken");
            }
            State::Starting { .. } => {
                let why = format!("{exit} before it was ready");
                self.log_failure(&why, &exit.tail);
                // The last words may be anything, so clients do not read them.
                if self.backoff.failed(now) >= EARLY_EXITS {
                    self.fail(&why, now, host);
                }
            }
            State::Ready { since } => {
                warn!(revision = %self.key, address = %instance.address, "process {exit}");
                self.forgive(since, now);
                let young = now.saturating_duration_since(since) < HEALTHY;
                crashes = young && self.backoff.failed(now) >= CRASHES;
            }
            State::Draining { .. } | State::Stopping => {
                info!(revision = %self.key, address = %instance.address, "process {exit}");
            }
        }
        self.settle(now, host);
        if crashes {
            // Once its endpoint is gone, with which nothing would be said.
            self.fail(&format!("{exit} soon after it was ready"), now, host);
        }
    }

    /// The supervisor died, and the process with it.
    pub(super) fn lost(&mut self, id: Id, now: Instant, host: &mut impl Host) {
        if self.remove(id).is_some_and(|it| it.is_starting()) {
            self.backoff.failed(now);
        }
        self.settle(now, host);
    }

    /// What time alone has changed.
    pub(super) fn expire(&mut self, now: Instant, host: &mut impl Host) {
        if self.backoff.allows(now) {
            // Whoever comes next may wait for another attempt.
            self.clear_failure(host);
        }
        let mut late = None;
        for instance in &mut self.instances {
            match instance.state {
                State::Starting { give_up } if give_up <= now => {
                    late = Some(host.lacks(instance.id));
                    host.stop(instance.id);
                    instance.state = State::Stopping;
                }
                _ => {}
            }
        }
        if let Some(lacks) = late {
            let within = self.start_timeout.as_secs();
            let cause = format!("was not ready within {within} s: {lacks}");
            let detail = String::new();
            // Whoever waits for a second attempt may wait as long again.
            self.cannot_start(&Refusal { cause, detail }, now, host);
        }
        let proved: Vec<Instant> = self
            .instances
            .iter()
            .filter_map(Instance::ready_since)
            .collect();
        for since in proved {
            self.forgive(since, now);
        }
        self.settle(now, host);
    }

    /// Tells every process to end, whatever it still serves.
    pub(super) fn stop_all(&mut self, host: &mut impl Host) {
        self.wanted = 0;
        self.published.clear();
        host.set_endpoints(&[]);
        for instance in &mut self.instances {
            if instance.state != State::Stopping {
                instance.state = State::Stopping;
                host.stop(instance.id);
            }
        }
    }

    /// When [`Fleet::expire`] has something to do at the latest.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let own = self.instances.iter().filter_map(|it| match it.state {
            State::Starting { give_up } => Some(give_up),
            State::Draining { .. } => Some(now + DRAIN_POLL),
            State::Ready { since } if self.backoff.is_before(since) => Some(since + HEALTHY),
            State::Ready { .. } | State::Stopping => None,
        });
        let retry = self.backoff.not_before();
        let retry = retry.filter(|&at| at > now && (self.failed || self.missing() > 0));
        own.chain(retry).min()
    }

    /// Endpoints that may get new requests.
    pub(super) fn ready_count(&self) -> u32 {
        u32::try_from(self.published.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn starting(&self) -> impl Iterator<Item = SocketAddr> {
        let starting = self.instances.iter().filter(|it| it.is_starting());
        starting.map(|it| it.address)
    }

    /// No process is left.
    pub(super) fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    /// What the fleet last published; for a throttle that has not heard it.
    pub(super) fn published(&self) -> &[SocketAddr] {
        &self.published
    }

    fn remove(&mut self, id: Id) -> Option<Instance> {
        let at = self.instances.iter().position(|it| it.id == id)?;
        Some(self.instances.remove(at))
    }

    /// A process that became ready after the last failure, and stayed so, ends the back-off.
    fn forgive(&mut self, ready_since: Instant, now: Instant) {
        let healthy = now.saturating_duration_since(ready_since) >= HEALTHY;
        if healthy && self.backoff.is_before(ready_since) {
            self.backoff.reset();
        }
    }

    /// Trying again at once would not help, so this is told at once.
    fn cannot_start(&mut self, why: &Refusal, now: Instant, host: &mut impl Host) {
        self.log_failure(&why.cause, &why.detail);
        self.backoff.failed(now);
        self.fail(&why.cause, now, host);
    }

    fn log_failure(&self, cause: &str, detail: &str) {
        match detail {
            "" => error!(revision = %self.key, "cannot start: {cause}"),
            detail => error!(revision = %self.key, "cannot start: {cause}: {detail}"),
        }
    }

    /// Until the pause is over that the failure began.
    fn fail(&mut self, why: &str, now: Instant, host: &mut impl Host) {
        if self.wanted > 0 {
            self.failed = true;
            host.fail(why, self.backoff.not_before().unwrap_or(now));
        }
    }

    fn clear_failure(&mut self, host: &mut impl Host) {
        if std::mem::take(&mut self.failed) {
            host.clear_failure();
        }
    }

    /// Processes of the present program that are still to be asked for.
    fn missing(&self) -> usize {
        let present = self.fresh().filter(|it| it.is_live()).count();
        self.wanted.saturating_sub(present)
    }

    fn fresh(&self) -> impl Iterator<Item = &Instance> {
        let generation = self.generation;
        self.instances
            .iter()
            .filter(move |it| it.generation == generation)
    }

    fn settle(&mut self, now: Instant, host: &mut impl Host) {
        self.revive();
        self.start_missing(now, host);
        self.stop_starting(host);
        self.drain_surplus(now, host);
        self.publish(host);
        self.stop_drained(now, host);
    }

    fn revive(&mut self) {
        let mut missing = self.missing();
        for instance in &mut self.instances {
            if let State::Draining { since, .. } = instance.state
                && instance.generation == self.generation
                && missing > 0
            {
                instance.state = State::Ready { since };
                missing -= 1;
            }
        }
    }

    fn start_missing(&mut self, now: Instant, host: &mut impl Host) {
        let at_once = match self.backoff.is_failing() {
            true => 1,
            false => STARTS_AT_ONCE,
        };
        let starting = self.fresh().filter(|it| it.is_starting()).count();
        let room = at_once.saturating_sub(starting);
        for _ in 0..self.missing().min(room) {
            if !self.backoff.allows(now) {
                return;
            }
            match host.start(&self.process) {
                Ok((id, address)) => {
                    self.clear_failure(host);
                    self.instances.push(Instance {
                        id,
                        address,
                        generation: self.generation,
                        state: State::Starting {
                            give_up: now + self.start_timeout,
                        },
                    });
                }
                Err(why) => self.cannot_start(&why, now, host),
            }
        }
    }

    /// Ends starts that are stale or more than wanted, the youngest first.
    fn stop_starting(&mut self, host: &mut impl Host) {
        let live = self.fresh().filter(|it| it.is_live()).count();
        let mut surplus = live.saturating_sub(self.wanted);
        for instance in self.instances.iter_mut().rev() {
            if !instance.is_starting() {
                continue;
            }
            let stale = instance.generation != self.generation;
            if stale || surplus > 0 {
                surplus -= usize::from(!stale);
                instance.state = State::Stopping;
                host.stop(instance.id);
            }
        }
    }

    /// Ready processes beyond what is wanted leave: stale ones first, then the least busy, and among
    /// these the one with fewer streams at rest, which go with it.
    fn drain_surplus(&mut self, now: Instant, host: &impl Host) {
        let generation = self.generation;
        let mut ready: Vec<&mut Instance> = self
            .instances
            .iter_mut()
            .filter(|it| it.ready_since().is_some())
            .collect();
        let surplus = ready.len().saturating_sub(self.wanted);
        ready.sort_by_cached_key(|it| {
            let (busy, all) = (host.busy_at(it.address), host.in_flight_at(it.address));
            (it.generation == generation, busy, all)
        });
        for instance in ready.into_iter().take(surplus) {
            if let Some(since) = instance.ready_since() {
                let give_up = now + self.drain_max;
                instance.state = State::Draining { since, give_up };
            }
        }
    }

    fn publish(&mut self, host: &mut impl Host) {
        let ready: Vec<SocketAddr> = self
            .instances
            .iter()
            .filter(|it| it.ready_since().is_some())
            .map(|it| it.address)
            .collect();
        if ready != self.published {
            host.set_endpoints(&ready);
            self.published = ready;
        }
    }

    fn stop_drained(&mut self, now: Instant, host: &mut impl Host) {
        for instance in &mut self.instances {
            if let State::Draining { give_up, .. } = instance.state
                && (give_up <= now || host.busy_at(instance.address) == 0)
            {
                instance.state = State::Stopping;
                host.stop(instance.id);
            }
        }
    }
}

impl Instance {
    fn is_starting(&self) -> bool {
        matches!(self.state, State::Starting { .. })
    }

    fn is_live(&self) -> bool {
        matches!(self.state, State::Starting { .. } | State::Ready { .. })
    }

    fn ready_since(&self) -> Option<Instant> {
        match self.state {
            State::Ready { since } => Some(since),
            State::Starting { .. } | State::Draining { .. } | State::Stopping => None,
        }
    }
}

/// Whether a process exited because somebody else took its port between our choice and its bind.
fn is_port_taken(exit: &Exit) -> bool {
    let tail = exit.tail.to_ascii_lowercase();
    ["address already in use", "address in use", "eaddrinuse"]
        .iter()
        .any(|sign| tail.contains(sign))
}

#[cfg(test)]
mod tests;

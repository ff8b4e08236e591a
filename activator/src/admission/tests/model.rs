//! What the rules say about a throttle, apart from its counts: the simulation compares.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use super::super::queue::window::Window;
use super::super::{AcquireError, Fault, Limits, RampUp, SUSPICION, SUSPICION_MAX, Share};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Supplier {
    None,
    Fixed,
    Scaled,
}

pub(super) struct Model {
    pub(super) limits: Limits,
    pub(super) supplier: Supplier,
    pub(super) failed: bool,
    pub(super) retired: bool,
    pub(super) declared: BTreeMap<SocketAddr, Standing>,
    /// Some have been declared before.
    any_before: bool,
    /// All of them, or none.
    pub(super) shares: BTreeMap<SocketAddr, Share>,
    /// How many failures were news, of each that is known.
    pub(super) eras: BTreeMap<SocketAddr, u16>,
    /// Slots are marked.
    pub(super) proxied: bool,
}

/// How an endpoint stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Since when and until when it is suspect.
    pub(super) suspect: Option<(Instant, Instant)>,
    /// How often in a row it became so.
    failures: u32,
    alive: bool,
    pub(super) window: Option<Window>,
}

impl Model {
    pub(super) fn new(limits: Limits) -> Model {
        Model {
            limits,
            supplier: Supplier::Scaled,
            failed: false,
            retired: false,
            declared: BTreeMap::new(),
            any_before: false,
            shares: BTreeMap::new(),
            eras: BTreeMap::new(),
            proxied: false,
        }
    }

    pub(super) fn refusal(&self) -> Option<AcquireError> {
        if !self.declared.is_empty() {
            None
        } else if self.retired {
            Some(AcquireError::Removed)
        } else if self.failed {
            Some(AcquireError::StartFailed("no".into()))
        } else if self.supplier == Supplier::None {
            Some(AcquireError::NoScaler)
        } else {
            None
        }
    }

    pub(super) fn any_ready(&self) -> bool {
        self.declared.values().any(|it| it.suspect.is_none())
    }

    /// Whether a slot may be given there: ready, or suspect where there is nothing better.
    pub(super) fn serves(&self, address: SocketAddr) -> bool {
        let last_resort = self.supplier != Supplier::Scaled && !self.any_ready();
        match self.declared.get(&address) {
            Some(standing) => standing.suspect.is_none() || last_resort,
            None => false,
        }
    }

    /// What is configured, `None` = no limit.
    pub(super) fn configured(&self, address: SocketAddr, lending: bool) -> Option<u32> {
        match (self.shares.get(&address), self.limits.concurrency) {
            (Some(share), _) if lending => Some(share.own.max(share.most)),
            (Some(share), _) => Some(share.own),
            (None, 0) => None,
            (None, concurrency) => Some(concurrency),
        }
    }

    /// Most in flight there, `None` = no limit.
    pub(super) fn limit(&self, address: SocketAddr, lending: bool) -> Option<u32> {
        let configured = self.configured(address, lending);
        match self.window(address) {
            Some(window) => Some(configured.map_or(window, |limit| limit.min(window))),
            None => configured,
        }
    }

    pub(super) fn window(&self, address: SocketAddr) -> Option<u32> {
        let window = self.declared.get(&address)?.window.as_ref();
        window.map(Window::size)
    }

    /// Declares these; an address that is no longer `known` begins anew.
    pub(super) fn declare(
        &mut self,
        all: &[SocketAddr],
        waited_for: bool,
        known: impl Fn(SocketAddr) -> bool,
    ) {
        let new = self.supplier == Supplier::Scaled || self.any_before || waited_for;
        let ramp_up = self.limits.ramp_up.filter(|_| new);
        self.any_before |= !all.is_empty();
        let before = std::mem::take(&mut self.declared);
        self.eras.retain(|address, _| known(*address));
        for address in all {
            let standing = match before.get(address) {
                Some(standing) => standing.clone(),
                None if known(*address) => Standing::default(),
                None => Standing {
                    window: ramp_up.map(Window::fresh),
                    ..Standing::default()
                },
            };
            self.declared.insert(*address, standing);
        }
        self.failed &= all.is_empty();
        self.open_windows();
    }

    pub(super) fn configure(&mut self, limits: Limits) {
        self.limits = limits;
        if limits.ramp_up.is_none() {
            for standing in self.declared.values_mut() {
                standing.window = None;
            }
        }
        self.open_windows();
    }

    fn open_windows(&mut self) {
        let concurrency = self.limits.concurrency;
        for (address, standing) in &mut self.declared {
            let share = self.shares.get(address);
            let limit = share.map_or(concurrency, |share| share.own.max(share.most));
            standing.window = standing.window.take().filter(|it| !it.is_open(limit));
        }
    }

    pub(super) fn era(&self, address: SocketAddr) -> u16 {
        self.eras.get(&address).copied().unwrap_or(0)
    }

    /// A request failed there that was let in in that era, while `held` others were in flight.
    pub(super) fn fail(
        &mut self,
        address: SocketAddr,
        era: u16,
        fresh: bool,
        held: u32,
        now: Instant,
    ) -> Fault {
        let news = era == self.era(address);
        let scaled = self.supplier == Supplier::Scaled;
        let ramp_up = self.limits.ramp_up;
        let others = self.declared.iter().filter(|(at, _)| **at != address);
        let spare = others.into_iter().any(|(_, it)| it.suspect.is_none());
        let Some(it) = self.declared.get_mut(&address) else {
            return Fault::Endpoint;
        };
        let fault = if news {
            *self.eras.entry(address).or_default() += 1;
            let alive = std::mem::take(&mut it.alive);
            let dead = !alive && held == 0 && it.failures > 0;
            if dead {
                it.window = ramp_up.filter(|_| scaled).map(Window::fresh);
            }
            let known = it.window.is_some() || it.failures == 0 || alive;
            let may_learn = fresh && !dead && known;
            let crowded = may_learn && ramp_up.is_some_and(|ramp_up| it.learn(ramp_up, held, now));
            if !alive || (spare && !crowded) {
                it.failures += 1;
                it.suspect(now);
            }
            alive && crowded
        } else {
            let windowed = it.window.is_some();
            if let Some(window) = it.window.as_mut().filter(|_| fresh) {
                window.follow(held);
            }
            if it.failures > 0 {
                it.suspect(now);
            }
            windowed
        };
        self.open_windows();
        match fault {
            true => Fault::Crowding,
            false => Fault::Endpoint,
        }
    }

    pub(super) fn answer(&mut self, address: SocketAddr, waited_for: bool) {
        if let Some(it) = self.declared.get_mut(&address)
            && (it.window.is_some() || it.failures > 0)
        {
            it.alive = true;
            if let Some(window) = &mut it.window {
                window.answered(waited_for);
            }
            it.failures = 0;
            it.suspect = None;
            self.open_windows();
        }
    }

    pub(super) fn trust(&mut self, address: SocketAddr) {
        if let Some(it) = self.declared.get_mut(&address) {
            it.suspect = None;
        }
    }

    /// True when there were any to end.
    pub(super) fn end_suspicions(&mut self, now: Instant) -> bool {
        let before = self.declared.clone();
        for it in self.declared.values_mut() {
            it.suspect = it.suspect.filter(|(_, until)| *until > now);
        }
        if self.supplier == Supplier::Scaled && !self.any_ready() {
            for it in self.declared.values_mut() {
                it.suspect = it.suspect.filter(|(since, _)| *since + SUSPICION > now);
            }
        }
        before != self.declared
    }

    /// Time passes while somebody waits.
    pub(super) fn press(&mut self, now: Instant) {
        let Some(ramp_up) = self.limits.ramp_up else {
            return;
        };
        for it in self.declared.values_mut() {
            if let Some(window) = &mut it.window {
                window.pressed(ramp_up, now);
            }
        }
        self.open_windows();
    }

    /// Control looks while nobody waits.
    pub(super) fn ease(&mut self) {
        let windows = self
            .declared
            .values_mut()
            .filter_map(|it| it.window.as_mut());
        windows.for_each(Window::eased);
    }
}

impl Standing {
    fn learn(&mut self, ramp_up: RampUp, held: u32, now: Instant) -> bool {
        match &mut self.window {
            Some(window) => window.failed(ramp_up, held, now),
            None => {
                self.window = Window::learned(ramp_up, held, now);
                self.window.is_some()
            }
        }
    }

    fn suspect(&mut self, now: Instant) {
        let length = SUSPICION * 2_u32.pow(self.failures.min(6) - 1);
        let until = now + length.min(SUSPICION_MAX);
        let until = self.suspect.map_or(until, |(_, before)| before.max(until));
        self.suspect = Some((now, until));
    }
}

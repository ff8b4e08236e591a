//! How many client connections are open, over all workers, and which may not come in.
//!
//! Counted where a connection is accepted, once in its life: no request touches any of this.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use config::settings::Settings;

use crate::refusal::TurnedAway;

/// Descriptors kept for everything but client connections where the process may have few: event
/// loops, listening sockets, logs, files that are read again.
const OTHER_DESCRIPTORS: usize = 64;

/// Of the descriptors there may be, the share of client connections, in tenths: the others are for
/// connections to endpoints and for files.
const CLIENT_TENTHS: usize = 8;

/// Descriptors kept back until no other is left. They are let go then: for accepting connections in
/// order to close them, which otherwise would wait in the kernel and wake us for ever, and for files
/// and endpoints.
const SPARE: usize = 16;

/// How long after the last descriptor was taken whoever comes is turned away.
const DRY: Duration = Duration::from_secs(1);

/// Locks that the counts of addresses are spread over.
const SHARDS: usize = 16;

/// All client connections of the process.
#[derive(Debug)]
pub struct Census {
    all: Counter,
    listeners: Box<[Counter]>,
    /// If there is a bound per address.
    addresses: Option<Addresses>,
    descriptors: Descriptors,
}

/// Whether there are any left.
#[derive(Debug)]
struct Descriptors {
    start: Instant,
    /// Milliseconds from the start on until when there are none; 0 = there are.
    dry_until: AtomicU64,
    spare: Mutex<Vec<OwnedFd>>,
}

#[derive(Debug)]
struct Counter {
    open: AtomicUsize,
    most: usize,
}

#[derive(Debug)]
struct Addresses {
    /// An address is here while it has a connection, so they are as many as connections, at most.
    shards: [Mutex<HashMap<u64, u32, foldhash::fast::RandomState>>; SHARDS],
    most: u32,
}

/// A connection that was let in; counted until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Entry {
    census: Arc<Census>,
    listener: usize,
}

/// A connection that counts for its address; until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Origin {
    census: Arc<Census>,
    address: u64,
}

impl Census {
    /// `descriptors`: how many the process may have; `None` = any number.
    #[must_use]
    pub fn new(settings: &Settings, descriptors: Option<u64>) -> Arc<Census> {
        let limits = &settings.limits;
        let most = limits.connections.unwrap_or_else(|| room(descriptors));
        let listeners = settings.listeners.iter();
        let listeners = listeners.map(|listener| Counter::new(listener.connections));
        Arc::new(Census {
            all: Counter::new(Some(most)),
            listeners: listeners.collect(),
            addresses: limits.connections_per_address.map(|most| Addresses {
                shards: std::array::from_fn(|_| Mutex::default()),
                most,
            }),
            descriptors: Descriptors {
                start: Instant::now(),
                dry_until: AtomicU64::new(0),
                spare: Mutex::new(spare()),
            },
        })
    }

    /// There was no descriptor left: lets those go that were kept back. Whether there were any.
    pub fn run_dry(&self) -> bool {
        self.descriptors.run_dry()
    }

    /// Most connections over all listeners.
    #[must_use]
    pub fn most(&self) -> usize {
        self.all.most
    }

    /// Lets a connection of a listener in, by its index.
    ///
    /// # Errors
    /// TurnedAway it must go.
    pub fn enter(self: &Arc<Self>, listener: usize) -> Result<Entry, TurnedAway> {
        if self.descriptors.is_dry() {
            return Err(TurnedAway::Descriptors);
        }
        if !self.all.enter() {
            return Err(TurnedAway::Connections);
        }
        if let Some(of) = self.listeners.get(listener)
            && !of.enter()
        {
            self.all.leave();
            return Err(TurnedAway::Listener);
        }
        Ok(Entry {
            census: self.clone(),
            listener,
        })
    }

    /// Counts a connection for the client's address, where that is bounded.
    ///
    /// # Errors
    /// The address has as many as it may.
    pub fn of_address(self: &Arc<Self>, address: IpAddr) -> Result<Option<Origin>, TurnedAway> {
        let Some(addresses) = &self.addresses else {
            return Ok(None);
        };
        let address = network(address);
        let mut shard = addresses.shard(address);
        let open = shard.entry(address).or_insert(0);
        if *open >= addresses.most {
            return Err(TurnedAway::Address);
        }
        *open += 1;
        Ok(Some(Origin {
            census: self.clone(),
            address,
        }))
    }
}

/// The connections that leave enough descriptors for the rest.
fn room(descriptors: Option<u64>) -> usize {
    let Some(descriptors) = descriptors else {
        return usize::MAX;
    };
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let share = descriptors / 10 * CLIENT_TENTHS;
    share
        .min(descriptors.saturating_sub(OTHER_DESCRIPTORS))
        .max(1)
}

fn spare() -> Vec<OwnedFd> {
    use rustix::event::{EventfdFlags, eventfd};
    let descriptors = (0..SPARE).map_while(|_| eventfd(0, EventfdFlags::CLOEXEC).ok());
    descriptors.collect()
}

impl Descriptors {
    fn milliseconds(&self, after: Duration) -> u64 {
        let since = self.start.elapsed() + after;
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    fn is_dry(&self) -> bool {
        let until = self.dry_until.load(Relaxed);
        if until == 0 {
            return false;
        }
        if self.milliseconds(Duration::ZERO) < until {
            return true;
        }
        // Whoever comes first after it keeps some back again.
        let over = self.dry_until.compare_exchange(until, 0, Relaxed, Relaxed);
        if over.is_ok() {
            *lock(&self.spare) = spare();
        }
        false
    }

    fn run_dry(&self) -> bool {
        self.dry_until.store(self.milliseconds(DRY), Relaxed);
        let spare = std::mem::take(&mut *lock(&self.spare));
        !spare.is_empty()
    }
}

impl Counter {
    fn new(most: Option<usize>) -> Counter {
        Counter {
            open: AtomicUsize::new(0),
            most: most.unwrap_or(usize::MAX),
        }
    }

    fn enter(&self) -> bool {
        let fits = |open: usize| (open < self.most).then(|| open + 1);
        self.open.fetch_update(Relaxed, Relaxed, fits).is_ok()
    }

    fn leave(&self) {
        self.open.fetch_sub(1, Relaxed);
    }
}

impl Addresses {
    fn shard(
        &self,
        address: u64,
    ) -> MutexGuard<'_, HashMap<u64, u32, foldhash::fast::RandomState>> {
        // Fibonacci hashing: neighbours end up apart.
        let spread = address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let at = usize::try_from(spread).unwrap_or(0) % SHARDS;
        lock(&self.shards[at])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One client's addresses: of IPv6, it has a whole /64.
pub(crate) fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        // In a corner of IPv6 that is nobody's (RFC 4291 §2.5.2).
        IpAddr::V4(address) => 1 << 32 | u64::from(address.to_bits()),
        IpAddr::V6(address) => u64::try_from(address.to_bits() >> 64).unwrap_or(0),
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(of) = self.census.listeners.get(self.listener) {
            of.leave();
        }
        self.census.all.leave();
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let Some(addresses) = &self.census.addresses else {
            return;
        };
        let mut shard = addresses.shard(self.address);
        if let Some(open) = shard.get_mut(&self.address) {
            *open -= 1;
            if *open == 0 {
                shard.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use config::settings::Listener;

    use super::*;

    fn census(all: Option<usize>, listeners: &[Option<usize>], per_address: u32) -> Arc<Census> {
        let mut settings = Settings::default();
        settings.limits.connections = all;
        settings.limits.connections_per_address = (per_address > 0).then_some(per_address);
        let listener = |most: &Option<usize>| Listener {
            connections: *most,
            ..Listener::plain("127.0.0.1:1".parse().unwrap())
        };
        settings.listeners = listeners.iter().map(listener).collect();
        Census::new(&settings, Some(1000))
    }

    #[test]
    fn every_bound_holds_and_who_leaves_makes_room() {
        let census = census(Some(3), &[Some(1), None], 0);
        let first = census.enter(0).unwrap();
        assert_eq!(census.enter(0).unwrap_err(), TurnedAway::Listener);
        let others = [census.enter(1).unwrap(), census.enter(1).unwrap()];
        assert_eq!(census.enter(1).unwrap_err(), TurnedAway::Connections);
        drop(first);
        drop(census.enter(0).unwrap());
        drop(others);
        assert_eq!(census.all.open.load(Relaxed), 0);
        assert!(census.listeners.iter().all(|l| l.open.load(Relaxed) == 0));
    }

    #[test]
    fn an_address_has_its_own_bound_and_is_forgotten_when_it_has_left() {
        let census = census(None, &[None], 2);
        let of = |address: &str| census.of_address(address.parse().unwrap());
        let both = [of("192.0.2.1").unwrap(), of("::ffff:192.0.2.1").unwrap()];
        assert_eq!(of("192.0.2.1").unwrap_err(), TurnedAway::Address);
        let _other = of("192.0.2.2").unwrap();
        drop(both);
        drop(of("192.0.2.1").unwrap());
        // A network of IPv6 is one client.
        let _both = [of("2001:db8::1").unwrap(), of("2001:db8::ffff:1").unwrap()];
        assert_eq!(of("2001:db8::2").unwrap_err(), TurnedAway::Address);
        let _next = of("2001:db8:0:1::1").unwrap();
        let shards = &census.addresses.as_ref().unwrap().shards;
        let known: usize = shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert_eq!(known, 3);
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_so_is_a_mapped_address() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("2001:db8:0:1::1"), network("2001:db8:0:1:ffff::2"));
        assert_ne!(network("2001:db8:0:1::1"), network("2001:db8:0:2::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }

    #[test]
    fn without_a_bound_of_their_own_clients_leave_descriptors_for_the_rest() {
        let most = |descriptors| Census::new(&Settings::default(), descriptors).most();
        assert_eq!(most(Some(20_000)), 16_000);
        assert_eq!(most(Some(100)), 36);
        assert_eq!(most(Some(10)), 1);
        assert_eq!(most(None), usize::MAX);
        assert_eq!(census(Some(5000), &[], 0).most(), 5000);
    }

    #[test]
    fn when_descriptors_run_out_who_comes_is_turned_away_for_a_while() {
        let census = census(None, &[None], 0);
        let inside = census.enter(0).unwrap();
        assert!(census.run_dry(), "none was kept back");
        assert!(!census.run_dry());
        assert_eq!(census.enter(0).unwrap_err(), TurnedAway::Descriptors);
        drop(inside);
        assert_eq!(census.enter(0).unwrap_err(), TurnedAway::Descriptors);
        let descriptors = &census.descriptors;
        descriptors.dry_until.store(1, Relaxed);
        while descriptors.milliseconds(Duration::ZERO) < 1 {
            std::hint::spin_loop();
        }
        drop(census.enter(0).unwrap());
        assert!(census.run_dry(), "none is kept back again");
    }

    #[test]
    fn workers_together_never_exceed_a_bound() {
        let census = census(Some(5), &[Some(3)], 2);
        std::thread::scope(|scope| {
            for worker in 0..3_u8 {
                let census = &census;
                scope.spawn(move || {
                    for turn in 0..20_000_u32 {
                        let entries = [census.enter(0), census.enter(0)];
                        let address = IpAddr::from([192, 0, 2, worker % 2]);
                        let _origin = census.of_address(address);
                        let inside = census.listeners[0].open.load(Relaxed);
                        assert!(inside <= 3, "{inside} on turn {turn}");
                        drop(entries);
                    }
                });
            }
        });
        assert_eq!(census.all.open.load(Relaxed), 0);
    }
}

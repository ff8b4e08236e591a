//! Fixed endpoints that need looking after: names are resolved again as their TTL ends, and an
//! optional check takes those that do not answer out of the set.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use activator::admission::Throttle;
use activator::scaler::ask;
use activator::scaler::patience::RoundTrips;
use config::revision::{Address, Health, Key};
use hickory_resolver::TokioResolver;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::serve::tls::endpoint::Hosts;

/// Bounds of the time between two look-ups, whatever the TTL says.
const TTL_MIN: Duration = Duration::from_secs(1);
const TTL_MAX: Duration = Duration::from_secs(300);

/// After a look-up that failed: the first wait, doubled up to `TTL_MAX`.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// Checks that must fail in a row before an endpoint is taken out; one that succeeds brings it
/// back.
const FAILURES: u32 = 2;

/// What a check may take before it is known how long the endpoint takes, unless the interval is
/// shorter.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who asks.
const AGENT: &str = "tidegate-health";

/// What a keeper found reaches its throttle only while this is open, so that a keeper that is being
/// stopped cannot undo what its successor says.
#[derive(Debug)]
pub struct Outlet(Mutex<Option<Arc<Throttle>>>);

impl Outlet {
    #[must_use]
    pub fn new(throttle: Arc<Throttle>) -> Arc<Outlet> {
        Arc::new(Outlet(Mutex::new(Some(throttle))))
    }

    /// Once this returns, nothing more is said.
    pub fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn say(&self, addresses: &[SocketAddr]) {
        let throttle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(throttle) = &*throttle {
            declare(throttle, addresses);
        }
    }

    fn trust(&self, address: SocketAddr) {
        let throttle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(throttle) = &*throttle {
            throttle.trust(address);
        }
    }
}

/// Declares endpoints that nobody starts: they are there once they are known.
pub fn declare(throttle: &Throttle, addresses: &[SocketAddr]) {
    if !addresses.is_empty() {
        let now = Instant::now();
        throttle.starts().seen(now);
        throttle.starts().passed(now);
    }
    throttle.set_endpoints(addresses);
}

/// Keeps a throttle's endpoints until it is aborted. `hosts` is told what addresses stand for.
pub async fn keep(
    key: Key,
    endpoints: Vec<Address>,
    health: Option<Health>,
    outlet: Arc<Outlet>,
    hosts: Option<Arc<Hosts>>,
) {
    let names = endpoints
        .iter()
        .any(|endpoint| matches!(endpoint, Address::Name { .. }));
    let resolver = if names { resolver(&key) } else { None };
    let mut kept = Kept {
        key,
        outlet,
        resolved: BTreeSet::new(),
        seen: BTreeMap::new(),
        checks: JoinSet::new(),
    };
    let mut next_lookup = Some(Instant::now());
    let mut retry = RETRY_FIRST;
    let interval = health.as_ref().map(|health| health.interval);
    let mut ticks = interval.map(tokio::time::interval);
    if let Some(ticks) = &mut ticks {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    loop {
        tokio::select! {
            () = until(next_lookup) => {
                match resolve(&endpoints, resolver.as_ref()).await {
                    Ok((found, valid_until)) => {
                        kept.resolved = found.keys().copied().collect();
                        retry = RETRY_FIRST;
                        next_lookup = valid_until;
                        if let Some(hosts) = &hosts {
                            // Before anybody can be sent there.
                            hosts.set(named(found));
                        }
                        kept.publish();
                    }
                    Err(error) => {
                        tracing::warn!(revision = %kept.key, %error, "cannot resolve an endpoint; what was known stays");
                        next_lookup = Some(Instant::now() + retry);
                        retry = (retry * 2).min(TTL_MAX);
                    }
                }
            }
            () = tick(ticks.as_mut()) => {
                if let Some(health) = &health {
                    kept.check(health);
                }
            }
            Some(checked) = kept.checks.join_next() => {
                if let Ok(checked) = checked {
                    kept.checked(checked);
                }
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

async fn tick(interval: Option<&mut tokio::time::Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

fn resolver(key: &Key) -> Option<TokioResolver> {
    let built = TokioResolver::builder_tokio().and_then(|builder| builder.build());
    match built {
        Ok(resolver) => Some(resolver),
        Err(error) => {
            tracing::error!(revision = %key, %error, "no name resolution on this machine");
            None
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum LookupError {
    #[error("no name resolution on this machine")]
    NoResolver,
    #[error("{name}: {error}")]
    Failed { name: Arc<str>, error: String },
}

/// Addresses, each with the host name it was found under, if any.
type Found = BTreeMap<SocketAddr, Option<Arc<str>>>;

fn named(found: Found) -> BTreeMap<SocketAddr, Arc<str>> {
    let named = found.into_iter();
    let named = named.filter_map(|(address, host)| Some((address, host?)));
    named.collect()
}

/// Every address of every endpoint, and until when that holds (for ever if none is a name). Of two
/// names with one address, the first counts.
async fn resolve(
    endpoints: &[Address],
    resolver: Option<&TokioResolver>,
) -> Result<(Found, Option<Instant>), LookupError> {
    let mut addresses = Found::new();
    let mut valid_until: Option<Instant> = None;
    for endpoint in endpoints {
        let (host, port) = match endpoint {
            Address::Ip(address) => {
                addresses.entry(*address).or_insert(None);
                continue;
            }
            Address::Name { host, port } => (host, *port),
        };
        let resolver = resolver.ok_or(LookupError::NoResolver)?;
        let found = resolver
            .lookup_ip(&**host)
            .await
            .map_err(|error| LookupError::Failed {
                name: host.clone(),
                error: error.to_string(),
            })?;
        let now = Instant::now();
        let until = found.valid_until().clamp(now + TTL_MIN, now + TTL_MAX);
        valid_until = Some(valid_until.map_or(until, |known| known.min(until)));
        for ip in found.iter() {
            let named = addresses.entry(SocketAddr::new(ip, port));
            named.or_insert_with(|| Some(host.clone()));
        }
    }
    Ok((addresses, valid_until))
}

struct Kept {
    key: Key,
    outlet: Arc<Outlet>,
    resolved: BTreeSet<SocketAddr>,
    /// What checks have shown of each.
    seen: BTreeMap<SocketAddr, Seen>,
    /// At most one of each endpoint.
    checks: JoinSet<Checked>,
}

/// What checks have shown of an endpoint.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// In a row, the last check included.
    failures: u32,
    trips: RoundTrips,
    is_asked: bool,
}

/// How a check ended.
#[derive(Clone, Copy, Debug)]
struct Checked {
    address: SocketAddr,
    healthy: bool,
    /// `None`: it did not end in time.
    took: Option<Duration>,
}

impl Seen {
    fn is_out(&self) -> bool {
        self.failures >= FAILURES
    }
}

impl Kept {
    fn publish(&mut self) {
        self.seen
            .retain(|address, _| self.resolved.contains(address));
        let out = |address: &SocketAddr| self.seen.get(address).is_some_and(Seen::is_out);
        let up = self.resolved.iter().filter(|address| !out(address));
        self.outlet.say(&up.copied().collect::<Vec<_>>());
    }

    /// Asks everybody who is not being asked: who is slow to answer keeps no other waiting.
    fn check(&mut self, health: &Health) {
        for address in self.resolved.iter().copied() {
            let seen = self.seen.entry(address).or_default();
            if std::mem::replace(&mut seen.is_asked, true) {
                continue;
            }
            let within = seen.trips.patience(health.interval.min(PATIENCE));
            let health = health.clone();
            self.checks.spawn(async move {
                let asked = tokio::time::Instant::now();
                let answered = tokio::time::timeout(within, answers(address, health)).await;
                Checked {
                    address,
                    healthy: answered == Ok(true),
                    took: answered.is_ok().then(|| asked.elapsed()),
                }
            });
        }
    }

    fn checked(&mut self, checked: Checked) {
        let Checked {
            address,
            healthy,
            took,
        } = checked;
        // It may have gone meanwhile.
        let Some(seen) = self.seen.get_mut(&address) else {
            return;
        };
        seen.is_asked = false;
        match took {
            Some(took) => seen.trips.measured(took),
            None => seen.trips.timed_out(),
        }
        let was_out = seen.is_out();
        seen.failures = match healthy {
            true => 0,
            false => seen.failures.saturating_add(1),
        };
        let is_out = seen.is_out();
        match (was_out, is_out) {
            (true, false) => {
                tracing::info!(revision = %self.key, %address, "endpoint answers its check again");
            }
            (false, true) => {
                tracing::warn!(revision = %self.key, %address, "endpoint fails its check");
            }
            _ => {}
        }
        if was_out != is_out {
            self.publish();
        }
        if healthy {
            self.outlet.trust(address);
        }
    }
}

/// Whether `GET path` answers 2xx or 3xx.
async fn answers(address: SocketAddr, health: Health) -> bool {
    let Ok(stream) = TcpStream::connect(address).await else {
        return false;
    };
    let Health { path, protocol, .. } = health;
    let status = ask::get(stream, address, &path, AGENT, protocol).await;
    matches!(status, Ok(200..=399))
}

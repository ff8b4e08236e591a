//! Fixed endpoints that need looking after: names are resolved again as their TTL ends, and an
//! optional check takes those that do not answer out of the set.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use activator::admission::Throttle;
use activator::scaler::ask;
use config::revision::{Address, Health, Key};
use hickory_resolver::TokioResolver;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::serve::tls::endpoint::Hosts;

/// Bounds of the time between two look-ups, whatever the TTL says.
const TTL_MIN: Duration = Duration::from_secs(1);
const TTL_MAX: Duration = Duration::from_secs(300);

/// After a look-up that failed: the first wait, doubled up to `TTL_MAX`.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// Checks that must fail in a row before an endpoint is taken out; one that succeeds brings it
/// back.
const FAILURES: u32 = 2;

/// Longest time one check may take.
const CHECK_MAX: Duration = Duration::from_secs(5);

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
            throttle.set_endpoints(addresses);
        }
    }
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
        failures: BTreeMap::new(),
    };
    let mut next_lookup = Some(Instant::now());
    let mut retry = RETRY_FIRST;
    let interval = health.as_ref().map(|health| health.interval);
    let mut checks = interval.map(tokio::time::interval);
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
            () = tick(checks.as_mut()) => {
                if let Some(health) = &health {
                    kept.check(health).await;
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
    /// Failures in a row of those that failed last time.
    failures: BTreeMap<SocketAddr, u32>,
}

impl Kept {
    fn publish(&mut self) {
        self.failures
            .retain(|address, _| self.resolved.contains(address));
        let down = |address: &SocketAddr| {
            self.failures
                .get(address)
                .is_some_and(|failures| *failures >= FAILURES)
        };
        let up: Vec<_> = self
            .resolved
            .iter()
            .filter(|address| !down(address))
            .copied()
            .collect();
        self.outlet.say(&up);
    }

    async fn check(&mut self, health: &Health) {
        let mut checks = JoinSet::new();
        let limit = health.interval.min(CHECK_MAX);
        for address in self.resolved.iter().copied() {
            let health = health.clone();
            checks.spawn(async move {
                let answers = tokio::time::timeout(limit, answers(address, health)).await;
                (address, answers.unwrap_or(false))
            });
        }
        while let Some(checked) = checks.join_next().await {
            let Ok((address, healthy)) = checked else {
                continue;
            };
            if healthy {
                if self
                    .failures
                    .remove(&address)
                    .is_some_and(|failures| failures >= FAILURES)
                {
                    tracing::info!(revision = %self.key, %address, "endpoint answers its check again");
                }
            } else {
                let failures = self.failures.entry(address).or_default();
                *failures = failures.saturating_add(1);
                if *failures == FAILURES {
                    tracing::warn!(revision = %self.key, %address, "endpoint fails its check");
                }
            }
        }
        self.publish();
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

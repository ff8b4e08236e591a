//! What a request sees: snapshot and throttles, swapped together.
//!
//! Control publishes a [`Live`]; every worker keeps its own reference to the newest and its own
//! handles to the routes and revisions it has used. A request borrows the tables only until it is
//! routed: what it keeps are worker-local handles, so a long stream pins no table.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use activator::admission::{Clock, Gate, Throttle};
use arc_swap::ArcSwap;
use config::revision::{Backend, Revision, RevisionId};
use config::route::{Found, Query, find};
use config::snapshot::{Route, Rule, Snapshot, Split, Sticky, Target};
use tokio::sync::watch;

use crate::observe::facts::{Facts, Names};
use crate::observe::metrics::{Labels, Series, WorkerMetrics};
use crate::serve::tls::endpoint::Dialer;
use crate::serve::tls::server::Acceptor;

/// Throttles by revision id; chunks are shared between versions.
#[derive(Clone, Debug, Default)]
pub struct Throttles {
    chunks: Vec<Arc<Vec<Option<Arc<Throttle>>>>>,
}

const CHUNK: usize = 256;

impl Throttles {
    #[must_use]
    pub fn get(&self, id: RevisionId) -> Option<&Arc<Throttle>> {
        let place = id.0 as usize;
        self.chunks.get(place / CHUNK)?.get(place % CHUNK)?.as_ref()
    }

    pub fn set(&mut self, id: RevisionId, throttle: Option<Arc<Throttle>>) {
        let place = id.0 as usize;
        while self.chunks.len() <= place / CHUNK {
            self.chunks.push(Arc::new(vec![None; CHUNK]));
        }
        Arc::make_mut(&mut self.chunks[place / CHUNK])[place % CHUNK] = throttle;
    }
}

/// One version of the world.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// 1 for the first, +1 per swap; 0 = nothing published yet.
    pub version: u64,
    pub snapshot: Snapshot,
    pub throttles: Throttles,
    pub credentials: Arc<Credentials>,
}

/// What files of certificates and keys said when they were last read.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Of the listeners that run, in their order; `None` = in clear.
    pub acceptors: Vec<Option<Arc<Acceptor>>>,
    /// Of the revisions with `tls`.
    pub dialers: HashMap<RevisionId, Arc<Dialer>>,
}

impl Live {
    /// How the endpoints of one of its revisions are spoken to; `None` = in clear.
    #[must_use]
    pub fn dialer(&self, revision: &Revision) -> Option<&Arc<Dialer>> {
        // Nearly no revision has one: they are not looked for.
        revision.tls.as_ref()?;
        self.credentials.dialers.get(&revision.id)
    }
}

/// Where control puts the newest version and workers find it.
#[derive(Debug)]
pub struct Published {
    current: ArcSwap<Live>,
    version: AtomicU64,
    changed: watch::Sender<u64>,
}

impl Default for Published {
    fn default() -> Self {
        Published {
            current: ArcSwap::default(),
            version: AtomicU64::new(0),
            changed: watch::Sender::new(0),
        }
    }
}

impl Published {
    /// Makes `live` what every request from now on sees; returns the one before.
    pub fn swap(&self, live: Live) -> Arc<Live> {
        let version = live.version;
        let old = self.current.swap(Arc::new(live));
        self.version.store(version, Ordering::Release);
        self.changed.send_replace(version);
        old
    }

    #[must_use]
    pub fn load(&self) -> Arc<Live> {
        self.current.load_full()
    }

    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Hears of every swap.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// A worker's handle to a route it has used.
#[derive(Debug)]
pub struct LocalRoute {
    pub route: Arc<Route>,
    /// Made at a target's first request; few, so a search is cheaper than a map.
    series: RefCell<Vec<(Option<RevisionId>, Arc<Series>)>>,
}

/// A worker's handle to a revision it has used.
#[derive(Debug)]
pub struct LocalRevision {
    pub revision: Arc<Revision>,
    pub gate: Rc<Gate>,
    /// How its endpoints are spoken to; `None` = in clear.
    pub dialer: Option<Arc<Dialer>>,
}

/// Which target of a route a request goes to: worker-local, pins no table.
#[derive(Clone, Debug)]
pub struct Routed {
    pub local: Rc<LocalRoute>,
    rule: usize,
    target: Option<Place>,
    /// A sticky cookie to set on the response: its value.
    pub new_cookie: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    /// In the rule's split, else in the route's.
    in_rule: bool,
    index: usize,
}

impl Routed {
    #[must_use]
    pub fn route(&self) -> &Route {
        &self.local.route
    }

    #[must_use]
    pub fn rule(&self) -> &Rule {
        &self.local.route.rules[self.rule]
    }

    /// `None` when the rule answers by itself.
    #[must_use]
    pub fn target(&self) -> Option<&Target> {
        let place = self.target?;
        let split = if place.in_rule {
            self.route().split_of(self.rule())?
        } else {
            &self.route().split
        };
        split.targets.get(place.index)
    }
}

/// One worker's view of the world.
#[derive(Debug)]
pub struct LocalLive {
    published: Arc<Published>,
    worker: usize,
    clock: Rc<Clock>,
    current: RefCell<Arc<Live>>,
    seen: Cell<u64>,
    routes: RefCell<Vec<Option<Rc<LocalRoute>>>>,
    /// To revisions that requests name themselves, by the revision's id.
    direct: RefCell<Vec<Option<Rc<LocalRoute>>>>,
    revisions: RefCell<Vec<Option<Rc<LocalRevision>>>>,
}

impl LocalLive {
    #[must_use]
    pub fn new(published: &Arc<Published>, worker: usize, clock: &Rc<Clock>) -> LocalLive {
        // The version first: should there be a swap in between, it is looked for again.
        let seen = published.version();
        LocalLive {
            published: published.clone(),
            worker,
            clock: clock.clone(),
            current: RefCell::new(published.load()),
            seen: Cell::new(seen),
            routes: RefCell::default(),
            direct: RefCell::default(),
            revisions: RefCell::default(),
        }
    }

    /// Takes up the newest version, letting go of the one before.
    pub fn refresh(&self) {
        let version = self.published.version();
        if version != self.seen.get() {
            *self.current.borrow_mut() = self.published.load();
            self.seen.set(version);
        }
    }

    /// Lets go of handles to what the newest version no longer has.
    pub fn sweep(&self) {
        let live = self.current.borrow();
        for slot in self.revisions.borrow_mut().iter_mut() {
            let stale = slot.as_ref().is_some_and(|local| {
                let id = local.revision.id;
                let known = live.snapshot.revision(id);
                !known.is_some_and(|revision| {
                    Arc::ptr_eq(revision, &local.revision)
                        && Dialer::is_same(local.dialer.as_ref(), live.dialer(revision))
                })
            });
            if stale {
                *slot = None;
            }
        }
        for slot in self.direct.borrow_mut().iter_mut() {
            let stale = slot.as_ref().is_some_and(|local| {
                let target = local.route.split.targets.first();
                let key = target.map(|target| &target.revision_key);
                key.is_none_or(|key| live.snapshot.revision_by_key(key).is_none())
            });
            if stale {
                *slot = None;
            }
        }
        for slot in self.routes.borrow_mut().iter_mut() {
            let stale = slot.as_ref().is_some_and(|local| {
                let known = live.snapshot.route(local.route.id);
                !known.is_some_and(|route| Arc::ptr_eq(route, &local.route))
            });
            if stale {
                *slot = None;
            }
        }
    }

    /// How handshakes at a listener are made now; `None` where it speaks in clear.
    #[must_use]
    pub fn acceptor(&self, listener: usize) -> Option<Arc<Acceptor>> {
        self.refresh();
        let live = self.current.borrow();
        live.credentials.acceptors.get(listener)?.clone()
    }

    /// Where a request goes; `None` is `no_route`. `random` decides what is left to chance.
    #[must_use]
    pub fn route(&self, query: &Query<'_>, random: u64) -> Option<Routed> {
        self.refresh();
        let live = self.current.borrow();
        let found = find(&live.snapshot, query)?;
        let local = self.local_route(found.route);
        let mut new_cookie = None;
        let target = match (found.tagged, found.route.split_of(found.rule())) {
            (_, None) => None,
            (Some(tagged), Some(split)) => Some(place_of(tagged, split, &found)?),
            (None, Some(split)) => {
                let fresh;
                let key = match found.route.sticky.as_ref() {
                    None => None,
                    Some(sticky) => match (sticky.key(query.fields), sticky) {
                        (None, Sticky::Cookie { .. }) => {
                            new_cookie = Some(random);
                            fresh = cookie_value(random);
                            Some(fresh.as_slice())
                        }
                        (key, _) => key,
                    },
                };
                Some(place_of(split.pick(key, random)?, split, &found)?)
            }
        };
        Some(Routed {
            local,
            rule: found.rule,
            target,
            new_cookie,
        })
    }

    /// Where a request goes that names a revision of Knative itself; `None` if there is none.
    #[must_use]
    pub fn named(&self, namespace: &str, name: &str) -> Option<Routed> {
        self.refresh();
        let live = self.current.borrow();
        let revision = live.snapshot.revision_named(namespace, name)?;
        if !matches!(&revision.backend, Backend::Fed(fed) if fed.knative.is_some()) {
            return None;
        }
        let mut direct = self.direct.borrow_mut();
        let slot = slot_at(&mut direct, revision.id.0);
        let leads_there = |local: &Rc<LocalRoute>| {
            let target = local.route.split.targets.first();
            target.is_some_and(|target| target.revision_key == revision.key)
        };
        if !slot.as_ref().is_some_and(leads_there) {
            *slot = Some(LocalRoute::new(Arc::new(Route::to(revision))));
        }
        let target = Place {
            in_rule: false,
            index: 0,
        };
        Some(Routed {
            local: slot.clone()?,
            rule: 0,
            target: Some(target),
            new_cookie: None,
        })
    }

    /// The throttle of the target, as this worker reaches it; `None` if the revision has gone.
    #[must_use]
    pub fn revision(&self, target: &Target) -> Option<Rc<LocalRevision>> {
        let live = self.current.borrow();
        // The route may be older than the tables: ids are reused, names are not.
        let revision = live
            .snapshot
            .revision(target.revision)
            .filter(|revision| revision.key == target.revision_key)?;
        let mut revisions = self.revisions.borrow_mut();
        let known = slot_at(&mut revisions, target.revision.0);
        let dialer = live.dialer(revision);
        if let Some(local) = &known
            && Arc::ptr_eq(&local.revision, revision)
            && Dialer::is_same(local.dialer.as_ref(), dialer)
        {
            return Some(local.clone());
        }
        let throttle = live.throttles.get(target.revision)?;
        let gate = match known {
            Some(old) if Arc::ptr_eq(old.gate.throttle(), throttle) => old.gate.clone(),
            _ => Gate::new(throttle.clone(), self.worker, self.clock.clone()),
        };
        let local = Rc::new(LocalRevision {
            revision: revision.clone(),
            gate,
            dialer: dialer.cloned(),
        });
        *known = Some(local.clone());
        Some(local)
    }

    fn local_route(&self, route: &Arc<Route>) -> Rc<LocalRoute> {
        let mut routes = self.routes.borrow_mut();
        let known = slot_at(&mut routes, route.id.0);
        if let Some(local) = &known
            && Arc::ptr_eq(&local.route, route)
        {
            return local.clone();
        }
        let local = LocalRoute::new(route.clone());
        *known = Some(local.clone());
        local
    }
}

/// Value of a sticky cookie we set: 16 hexadecimal digits.
#[must_use]
pub fn cookie_value(random: u64) -> [u8; 16] {
    let mut text = [0; 16];
    for (pair, byte) in text.chunks_exact_mut(2).zip(random.to_be_bytes()) {
        pair.copy_from_slice(&HEX[usize::from(byte)]);
    }
    text
}

/// The two hexadecimal digits of each byte.
const HEX: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    table
};

fn place_of(target: &Target, split: &Split, found: &Found<'_>) -> Option<Place> {
    let at = |split: &Split| {
        split
            .targets
            .iter()
            .position(|one| std::ptr::eq(one, target))
    };
    if let Some(index) = at(split) {
        return Some(Place {
            in_rule: true,
            index,
        });
    }
    at(&found.route.split).map(|index| Place {
        in_rule: false,
        index,
    })
}

/// The place of this id, which a longer table makes where there is none.
fn slot_at<T>(table: &mut Vec<Option<T>>, id: u32) -> &mut Option<T> {
    let place = id as usize;
    if table.len() <= place {
        table.resize_with(place + 1, || None);
    }
    &mut table[place]
}

impl LocalRoute {
    fn new(route: Arc<Route>) -> Rc<LocalRoute> {
        Rc::new(LocalRoute {
            route,
            series: RefCell::default(),
        })
    }

    /// Counts one exchange of this route with this revision; returns the facts with its names.
    #[must_use]
    pub fn record<'a>(
        &'a self,
        metrics: &WorkerMetrics,
        revision: Option<&'a Revision>,
        facts: Facts<'a>,
    ) -> Facts<'a> {
        let names = Names {
            namespace: &self.route.key.namespace,
            route: &self.route.key.name,
            revision: revision.map_or("", |revision| &revision.key.name),
        };
        let facts = Facts { names, ..facts };
        let id = revision.map(|revision| revision.id);
        let mut known = self.series.borrow_mut();
        let place = known
            .iter()
            .position(|(known, _)| *known == id)
            .unwrap_or_else(|| {
                known.push((
                    id,
                    metrics.labelled_series(names, revision.and_then(labels)),
                ));
                known.len() - 1
            });
        metrics.record(&known[place].1, &facts);
        facts
    }
}

/// What metrics call a revision of Knative beside its name.
fn labels(revision: &Revision) -> Option<Labels<'_>> {
    let Backend::Fed(fed) = &revision.backend else {
        return None;
    };
    let knative = fed.knative.as_ref()?;
    Some(Labels {
        service: &knative.service,
        configuration: &knative.configuration,
    })
}

#[cfg(test)]
mod tests {
    use super::cookie_value;

    #[test]
    fn a_cookie_spells_its_number_in_hexadecimal() {
        for number in [0, 1, 0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210, u64::MAX] {
            let text = cookie_value(number);
            assert_eq!(text, format!("{number:016x}").as_bytes());
        }
    }
}

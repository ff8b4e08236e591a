//! Endpoints that sources bring apart from fragments, on their way to whoever runs the revision.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use activator::admission::{Supply, Throttle};
use activator::scaler::knative::Knative;
use config::revision::{Key, Revision};
use config::source::feed::{Addresses, Feed};

/// What is fed, and to whom. Addresses may come before their revision does, and the other way round.
#[derive(Debug)]
pub struct Feeds {
    knative: Option<Arc<Knative>>,
    known: Mutex<HashMap<Key, Fed>>,
}

#[derive(Debug, Default)]
struct Fed {
    addresses: Option<Addresses>,
    outlet: Option<Outlet>,
}

/// Who makes endpoints of addresses.
#[derive(Clone, Debug)]
enum Outlet {
    /// All that are ready.
    Throttle(Arc<Throttle>),
    /// The scaler, which asks each first.
    Knative(Arc<Knative>),
}

impl Feeds {
    /// `knative`: who looks after revisions of Knative, if there may be any.
    #[must_use]
    pub fn new(knative: Option<Arc<Knative>>) -> Arc<Feeds> {
        Arc::new(Feeds {
            knative,
            known: Mutex::default(),
        })
    }

    /// Brings this throttle what is known of its revision, and what comes.
    pub(super) fn connect(&self, key: &Key, throttle: Arc<Throttle>) {
        self.attach(key, Outlet::Throttle(throttle));
    }

    /// The same for a revision of Knative. Without its scaler nobody brings endpoints.
    pub(super) fn adopt(&self, revision: &Arc<Revision>, throttle: &Arc<Throttle>) {
        match &self.knative {
            Some(knative) => {
                knative.adopt(revision.clone(), throttle.clone());
                self.attach(&revision.key, Outlet::Knative(knative.clone()));
            }
            None => throttle.set_supply(Supply::None),
        }
    }

    /// Brings nothing more.
    pub(super) fn release(&self, key: &Key) {
        let mut known = self.lock();
        let Some(fed) = known.get_mut(key) else {
            return;
        };
        if let Some(Outlet::Knative(knative)) = fed.outlet.take() {
            knative.release(key);
        }
        if fed.addresses.is_none() {
            known.remove(key);
        }
    }

    fn attach(&self, key: &Key, outlet: Outlet) {
        let mut known = self.lock();
        let fed = known.entry(key.clone()).or_default();
        outlet.take(key, fed.addresses.clone().unwrap_or_default());
        fed.outlet = Some(outlet);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Fed>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outlet {
    fn take(&self, key: &Key, addresses: Addresses) {
        match self {
            Outlet::Throttle(throttle) => throttle.set_endpoints(&addresses.ready),
            Outlet::Knative(knative) => knative.addresses(key, addresses),
        }
    }
}

impl Feed for Feeds {
    fn addresses(&self, revision: &Key, now: Addresses) {
        // Under the lock: what comes later must arrive later.
        let mut known = self.lock();
        let fed = known.entry(revision.clone()).or_default();
        if let Some(outlet) = &fed.outlet {
            outlet.take(revision, now.clone());
        }
        fed.addresses = Some(now);
    }

    fn forget(&self, revision: &Key) {
        let mut known = self.lock();
        if let Some(fed) = known.get_mut(revision) {
            if let Some(outlet) = &fed.outlet {
                outlet.take(revision, Addresses::default());
            }
            fed.addresses = None;
            if fed.outlet.is_none() {
                known.remove(revision);
            }
        }
    }
}

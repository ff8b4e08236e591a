//! What sources bring apart from fragments, on its way: endpoints to whoever runs the revision,
//! certificates to where handshakes find them.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use activator::admission::{Supply, Throttle};
use activator::scaler::knative::Knative;
use config::revision::{Key, Revision};
use config::source::Origin;
use config::source::feed::{Addresses, Certificate, Feed};

use super::endpoints::declare;
use crate::serve::tls::store::Store;

/// What is fed, and to whom. Addresses may come before their revision does, and the other way round.
#[derive(Debug)]
pub struct Feeds {
    knative: Option<Arc<Knative>>,
    certificates: Arc<Store>,
    known: Mutex<HashMap<Key, Fed>>,
    overruled: Mutex<BTreeSet<Origin>>,
}

#[derive(Debug, Default)]
struct Fed {
    /// Unless whoever takes them keeps them.
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
    pub fn new(knative: Option<Arc<Knative>>, certificates: Arc<Store>) -> Arc<Feeds> {
        Arc::new(Feeds {
            knative,
            certificates,
            known: Mutex::default(),
            overruled: Mutex::default(),
        })
    }

    pub(super) fn knative(&self) -> Option<&Arc<Knative>> {
        self.knative.as_ref()
    }

    pub(super) fn store(&self) -> &Arc<Store> {
        &self.certificates
    }

    /// Brings this throttle what is known of its revision, and what comes.
    pub(super) fn connect(&self, key: &Key, throttle: Arc<Throttle>) {
        self.attach(key, Outlet::Throttle(throttle));
    }

    /// The same for a revision of Knative. Without its scaler nobody brings endpoints.
    pub(super) fn adopt(&self, revision: &Arc<Revision>, throttle: &Arc<Throttle>) {
        match &self.knative {
            Some(knative) => {
                knative.adopt(revision, throttle);
                self.attach(&revision.key, Outlet::Knative(knative.clone()));
            }
            None => throttle.set_supply(Supply::None),
        }
    }

    /// These have given way to a file.
    pub(super) fn overrule(&self, origins: BTreeSet<Origin>) {
        let mut overruled = self
            .overruled
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        overruled.extend(origins);
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
        match &outlet {
            Outlet::Throttle(throttle) => {
                let addresses = fed.addresses.as_ref();
                declare(throttle, addresses.map_or(&[], |known| &known.ready));
            }
            Outlet::Knative(knative) => {
                // It keeps them from here on.
                if let Some(addresses) = fed.addresses.take() {
                    knative.addresses(key, addresses);
                }
            }
        }
        fed.outlet = Some(outlet);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Fed>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feed for Feeds {
    fn addresses(&self, revision: &Key, now: Addresses) {
        // Under the lock: what comes later must arrive later.
        let mut known = self.lock();
        let fed = known.entry(revision.clone()).or_default();
        match &fed.outlet {
            Some(Outlet::Knative(knative)) => knative.addresses(revision, now),
            Some(Outlet::Throttle(throttle)) => {
                declare(throttle, &now.ready);
                fed.addresses = Some(now);
            }
            None => fed.addresses = Some(now),
        }
    }

    fn replicas(&self, now: &[IpAddr]) {
        if let Some(knative) = &self.knative {
            knative.replicas(now);
        }
    }

    fn certificates(&self, origin: &Origin, now: &[Certificate]) -> Result<(), String> {
        self.certificates.replace(origin, now)
    }

    fn take_overruled(&self) -> BTreeSet<Origin> {
        let mut overruled = self
            .overruled
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *overruled)
    }

    fn forget(&self, revision: &Key) {
        let mut known = self.lock();
        let Some(fed) = known.get_mut(revision) else {
            return;
        };
        fed.addresses = None;
        match &fed.outlet {
            Some(Outlet::Knative(knative)) => knative.forget(revision),
            Some(Outlet::Throttle(throttle)) => throttle.set_endpoints(&[]),
            None => drop(known.remove(revision)),
        }
    }
}

//! One revision as long as it is ours: between its throttle, its reports, and its pods.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use config::revision::Key;
use tokio::time::Instant;

use super::reporter::{Heard, Hearing};
use super::shares::Replicas;
use crate::admission::{Nudge, Throttle};

/// An adopted revision. Its throttle keeps it as its scaler, so it does not keep the throttle.
#[derive(Debug)]
pub(super) struct Followed {
    /// Unique in the process.
    pub(super) id: u64,
    pub(super) key: Key,
    throttle: Weak<Throttle>,
    hearing: Arc<Hearing>,
    /// A nudge was not heard yet: further ones say nothing new.
    nudged: AtomicBool,
    terms: Mutex<Terms>,
}

/// What may change while a revision is adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// Requests in flight per pod; 0 = no limit.
    pub(super) concurrency: u32,
    pub(super) unready_pods: bool,
    /// False once released: what is still under way must not undo what the throttle's next owner
    /// says.
    pub(super) open: bool,
    /// Some slots are lent by other replicas.
    pub(super) lent: bool,
}

impl Terms {
    pub(super) fn new(concurrency: u32, unready_pods: bool) -> Terms {
        Terms {
            concurrency,
            unready_pods,
            open: true,
            lent: false,
        }
    }
}

impl Nudge for Followed {
    fn nudge(&self) {
        if !self.nudged.swap(true, Ordering::AcqRel) {
            let now = Instant::now().into_std();
            self.hearing.say(Heard::Nudge(self.id, now));
        }
    }
}

impl Followed {
    pub(super) fn new(
        id: u64,
        key: Key,
        throttle: &Arc<Throttle>,
        hearing: Arc<Hearing>,
        terms: Terms,
    ) -> Followed {
        Followed {
            id,
            key,
            throttle: Arc::downgrade(throttle),
            hearing,
            nudged: AtomicBool::new(false),
            terms: Mutex::new(terms),
        }
    }

    pub(super) fn is_of(&self, throttle: &Arc<Throttle>) -> bool {
        std::ptr::eq(self.throttle.as_ptr(), Arc::as_ptr(throttle))
    }

    /// `None` once nobody needs it.
    pub(super) fn throttle(&self) -> Option<Arc<Throttle>> {
        self.throttle.upgrade()
    }

    /// Nudges that come from now on are told of again.
    pub(super) fn heard(&self) {
        self.nudged.store(false, Ordering::Release);
    }

    pub(super) fn terms(&self) -> Terms {
        *self.lock()
    }

    pub(super) fn set_terms(&self, concurrency: u32, unready_pods: bool) {
        let mut terms = self.lock();
        terms.concurrency = concurrency;
        terms.unready_pods = unready_pods;
    }

    /// These pods can serve.
    pub(super) fn supply(&self, usable: &[SocketAddr], proxied: bool, replicas: &Replicas) {
        let mut terms = self.lock();
        let Some(throttle) = self.throttle().filter(|_| terms.open) else {
            return;
        };
        // Before those who wait are let in.
        throttle.set_proxied(proxied);
        match terms.concurrency {
            0 => {
                terms.lent = false;
                throttle.set_endpoints(usable);
            }
            concurrency => {
                let shares = replicas.shares(usable, concurrency);
                terms.lent = shares.iter().any(|(_, share)| share.most > share.own);
                throttle.share_endpoints(&shares);
            }
        }
        if terms.lent {
            // Those who wait still may want to be lent some.
            self.nudge();
        }
    }

    /// Takes all endpoints away, and says nothing any more.
    pub(super) fn close(&self) {
        let mut terms = self.lock();
        if std::mem::replace(&mut terms.open, false)
            && let Some(throttle) = self.throttle()
        {
            throttle.set_endpoints(&[]);
            throttle.set_proxied(false);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Terms> {
        self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

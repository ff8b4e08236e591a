//! One revision as long as it is ours: between its throttle, its reports, and its pods.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use config::revision::Key;

use super::failing::Failing;
use super::prober::Inbox;
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
    /// Where pods are asked; it keeps us.
    inbox: Weak<Inbox>,
    /// A nudge was not heard yet: further ones say nothing new.
    nudged: AtomicBool,
    terms: Mutex<Terms>,
    /// While Kubernetes says that it cannot start, and there is no pod.
    failing: Mutex<Option<Failing>>,
}

/// All revisions that are adopted.
#[derive(Debug, Default)]
pub(super) struct Adopted(Mutex<HashMap<Key, Arc<Followed>>>);

impl Adopted {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Followed>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn throttle(&self, key: &Key) -> Option<Arc<Throttle>> {
        self.lock().get(key)?.throttle()
    }
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
            self.hearing.say(Heard::Nudge(self.id));
        }
    }

    fn suspected(&self, address: SocketAddr) {
        if let Some(inbox) = self.inbox.upgrade() {
            inbox.suspected(&self.key, address);
        }
    }
}

impl Followed {
    pub(super) fn new(
        id: u64,
        key: Key,
        throttle: &Arc<Throttle>,
        hearing: Arc<Hearing>,
        inbox: &Arc<Inbox>,
        terms: Terms,
    ) -> Followed {
        Followed {
            id,
            key,
            throttle: Arc::downgrade(throttle),
            hearing,
            inbox: Arc::downgrade(inbox),
            nudged: AtomicBool::new(false),
            terms: Mutex::new(terms),
            failing: Mutex::default(),
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
    pub(super) fn supply(
        &self,
        usable: &[SocketAddr],
        proxied: bool,
        replicas: &Replicas,
        now: Instant,
    ) {
        let mut terms = self.lock();
        let Some(throttle) = self.throttle().filter(|_| terms.open) else {
            return;
        };
        // Before those who wait are let in.
        throttle.set_proxied(proxied);
        if !usable.is_empty() {
            throttle.starts().passed(now);
        }
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

    /// The pod at this address was asked and is well.
    pub(super) fn trust(&self, address: SocketAddr) {
        let terms = self.lock();
        if let Some(throttle) = self.throttle().filter(|_| terms.open) {
            throttle.trust(address);
        }
    }

    /// Whether Kubernetes knows of any pod.
    pub(super) fn is_addressed(&self, any: bool, now: Instant) {
        if let Some(throttle) = self.throttle() {
            throttle.starts().addressed(any, now);
        }
    }

    /// Why the revision has no pod that can serve, if Kubernetes knows that it cannot start.
    pub(super) fn set_failure(&self, why: Option<&Arc<str>>, now: Instant) {
        let terms = self.lock();
        let mut failing = self.failing();
        let Some(throttle) = self.throttle().filter(|_| terms.open) else {
            return;
        };
        match (why, &*failing) {
            (None, None) => {}
            (None, Some(_)) => {
                *failing = None;
                throttle.clear_failure();
            }
            (Some(why), Some(known)) if known.is_for(why) => {}
            (Some(why), _) => {
                let began = failing.insert(Failing::new(Arc::clone(why), now));
                throttle.fail(began.why(), began.until());
            }
        }
    }

    /// Somebody waits: if the revision was known to fail, this is its next attempt.
    pub(super) fn is_tried(&self, now: Instant) {
        if let Some(failing) = &mut *self.failing() {
            failing.is_tried(now);
        }
    }

    /// Fails it again once an attempt has come to nothing.
    pub(super) fn ends_trial(&self, now: Instant) {
        let terms = self.lock();
        if let Some(failing) = &mut *self.failing()
            && failing.is_over(now)
            && let Some(throttle) = self.throttle().filter(|_| terms.open)
        {
            throttle.fail(failing.why(), failing.until());
        }
    }

    /// Nobody waits, nor has for a while.
    pub(super) fn rests(&self) {
        if let Some(failing) = &mut *self.failing() {
            failing.rests();
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
            if self.failing().take().is_some() {
                throttle.clear_failure();
            }
        }
    }

    fn failing(&self) -> MutexGuard<'_, Option<Failing>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Terms> {
        self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

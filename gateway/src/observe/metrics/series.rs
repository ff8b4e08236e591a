//! What one worker counts for one route and revision.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use hashbrown::Equivalent;

use crate::observe::facts::{Method, Names};
use crate::observe::histogram::{Counter, Histogram, LATENCY, OVERHEAD, WAIT};
use crate::refusal::Reason;

/// Different (code, reason) pairs counted exactly per series. An endpoint that answers with more
/// different codes than this has the rest counted as the first of their class: 5xx as 500.
pub(super) const OUTCOMES: usize = 64;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Owned {
    namespace: String,
    route: String,
    revision: String,
}

// `Names` and `Owned` hash alike: the same three strings in the same order.
impl Equivalent<Owned> for Names<'_> {
    fn equivalent(&self, key: &Owned) -> bool {
        self.namespace == key.namespace && self.route == key.route && self.revision == key.revision
    }
}

/// What one worker counts for one route and revision.
#[derive(Debug)]
pub struct Series {
    pub(super) names: Owned,
    pub(super) revision: Arc<RevisionCells>,
    pub(super) outcomes: OnceLock<Box<Outcome>>,
    /// Seconds after the registry was born, plus one; 0 while configured.
    pub(super) retired: AtomicU64,
}

/// Labels of a revision of Knative; empty = none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels<'a> {
    pub service: &'a str,
    pub configuration: &'a str,
}

/// Requests that ended alike: a link of an append-only list, so that a scrape can walk it while
/// its worker adds to it.
#[derive(Debug)]
pub(in crate::observe) struct Outcome {
    pub(in crate::observe) code: u16,
    pub(in crate::observe) reason: Option<Reason>,
    /// Of revisions of Knative, whose metrics tell methods apart.
    pub(in crate::observe) method: Option<Method>,
    /// Its count is the number of requests.
    pub(in crate::observe) latency: Histogram<{ LATENCY.len() }>,
    next: OnceLock<Box<Outcome>>,
}

#[derive(Debug)]
pub(in crate::observe) struct RevisionCells {
    /// Service and configuration, of a revision of Knative.
    pub(super) knative: Option<(String, String)>,
    pub(in crate::observe) overhead: Histogram<{ OVERHEAD.len() }>,
    pub(in crate::observe) queue_wait: Histogram<{ WAIT.len() }>,
    pub(in crate::observe) request_bytes: Counter,
    pub(in crate::observe) response_bytes: Counter,
}

impl Series {
    #[must_use]
    pub fn names(&self) -> Names<'_> {
        Names {
            namespace: &self.names.namespace,
            route: &self.names.route,
            revision: &self.names.revision,
        }
    }

    /// If it is about a revision of Knative.
    pub(in crate::observe) fn labels(&self) -> Option<Labels<'_>> {
        self.revision.labels()
    }

    /// The cells of this end; made when it is the first of its kind.
    pub(super) fn outcome(
        &self,
        code: u16,
        reason: Option<Reason>,
        method: Option<Method>,
    ) -> &Outcome {
        let mut code = code.min(999);
        let mut link = &self.outcomes;
        for place in 0.. {
            let Some(outcome) = link.get() else {
                if place < OUTCOMES || code.is_multiple_of(100) {
                    break;
                }
                code -= code % 100;
                link = &self.outcomes;
                continue;
            };
            if outcome.code == code && outcome.reason == reason && outcome.method == method {
                return outcome;
            }
            link = &outcome.next;
        }
        link.get_or_init(|| Box::new(Outcome::new(code, reason, method)))
    }

    pub(in crate::observe) fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        let first = self.outcomes.get();
        std::iter::successors(first, |outcome| outcome.next.get()).map(|outcome| &**outcome)
    }
}

impl Outcome {
    fn new(code: u16, reason: Option<Reason>, method: Option<Method>) -> Outcome {
        Outcome {
            code,
            reason,
            method,
            latency: Histogram::new(&LATENCY),
            next: OnceLock::new(),
        }
    }
}

impl RevisionCells {
    pub(super) fn new(labels: Option<Labels<'_>>) -> RevisionCells {
        let owned = |labels: Labels<'_>| (labels.service.into(), labels.configuration.into());
        RevisionCells {
            knative: labels.map(owned),
            overhead: Histogram::new(&OVERHEAD),
            queue_wait: Histogram::new(&WAIT),
            request_bytes: Counter::default(),
            response_bytes: Counter::default(),
        }
    }

    pub(super) fn labels(&self) -> Option<Labels<'_>> {
        let (service, configuration) = self.knative.as_ref()?;
        Some(Labels {
            service,
            configuration,
        })
    }
}

impl From<Names<'_>> for Owned {
    fn from(names: Names<'_>) -> Owned {
        Owned {
            namespace: names.namespace.to_owned(),
            route: names.route.to_owned(),
            revision: names.revision.to_owned(),
        }
    }
}

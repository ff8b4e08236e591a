//! Endpoints before they are needed, asked of whoever brings them; and what routes wait for that warm
//! their targets before they shift to them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use activator::admission::Throttle;
use activator::scaler::autoscale::Floor;
use activator::scaler::knative::Knative;
use activator::scaler::local::Local;
use config::revision::{Backend, Key, Revision};
use config::snapshot::Snapshot;

/// How long a target that is warmed is kept up after it was last asked for.
pub(super) const KEPT_UP: Duration = Duration::from_secs(60);

/// Who brings the endpoints of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scaler {
    Process,
    Knative,
    /// Somebody who is not to be asked: they are there or they are not.
    Fixed,
}

impl Scaler {
    /// `None`: nobody does.
    pub(super) fn of(revision: &Revision, knative: bool) -> Option<Scaler> {
        match &revision.backend {
            Backend::None => None,
            Backend::Process(_) => Some(Scaler::Process),
            Backend::Fed(fed) if fed.knative.is_some() => knative.then_some(Scaler::Knative),
            Backend::Fixed { .. } | Backend::Fed(_) => Some(Scaler::Fixed),
        }
    }

    /// The word of the admin API.
    pub(super) fn word(self) -> &'static str {
        match self {
            Scaler::Process => "process",
            Scaler::Knative => "knative",
            Scaler::Fixed => "fixed",
        }
    }
}

/// Asks for so many endpoints. Who brings them and how many they may be; `None`: nobody could.
pub(super) fn expect(
    local: &Local,
    knative: Option<&Arc<Knative>>,
    revision: &Revision,
    floor: Floor,
) -> Option<(Scaler, u32)> {
    let scaler = Scaler::of(revision, knative.is_some())?;
    let mut endpoints = floor.endpoints;
    match (scaler, &revision.backend, knative) {
        (Scaler::Process, Backend::Process(process), _) => {
            let most = process.scale.max;
            if most > 0 {
                endpoints = endpoints.min(most);
            }
            local.expect(&revision.key, floor);
        }
        (Scaler::Knative, _, Some(knative)) => knative.expect(&revision.key, floor),
        _ => endpoints = 1,
    }
    Some((scaler, endpoints))
}

/// One endpoint for a target that is warmed.
pub(super) fn floor(now: Instant) -> Floor {
    // It is asked for again and again until it is warm.
    Floor::new(1, now, KEPT_UP, Duration::ZERO)
}

/// A target that gets its share once it is warm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warming {
    pub route: Key,
    pub revision: Key,
    /// Why it cannot start, if that is known.
    pub why: Option<Arc<str>>,
}

impl Warming {
    pub(super) fn new(route: &Key, revision: &Key, throttle: Option<&Arc<Throttle>>) -> Warming {
        let why = match throttle {
            Some(throttle) => throttle.failure(),
            None => None,
        };
        Warming {
            route: route.clone(),
            revision: revision.clone(),
            why,
        }
    }

    fn is_of(&self, other: &Warming) -> bool {
        (&self.route, &self.revision) == (&other.route, &other.revision)
    }
}

/// Says what has changed, and what became of those that wait no longer: `tables` is the version that is
/// about to be in force.
pub(super) fn log(before: &[Warming], after: &[Warming], tables: &Snapshot) {
    for one in after {
        let known = before.iter().find(|other| one.is_of(other));
        let (route, revision) = (&one.route, &one.revision);
        if known.is_none() {
            tracing::info!(%route, %revision, "warming a target before it gets traffic");
        }
        if let Some(why) = &one.why
            && known.is_none_or(|known| known.why.is_none())
        {
            tracing::warn!(%route, %revision, "a target cannot be warmed, the traffic stays: {why}");
        }
    }
    for one in before {
        if !after.iter().any(|other| one.is_of(other)) {
            let (route, revision) = (&one.route, &one.revision);
            let now = tables.route_by_key(route);
            match now.is_some_and(|now| now.gives(revision)) {
                true => tracing::info!(%route, %revision, "a target is warm and gets its share"),
                false => tracing::info!(%route, %revision, "a target is not wanted any more"),
            }
        }
    }
}

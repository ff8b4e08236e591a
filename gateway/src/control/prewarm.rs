//! `POST /api/prewarm`: what it sets in motion.

use std::sync::Arc;
use std::time::{Duration, Instant};

use activator::scaler::autoscale::Floor;
use activator::scaler::start_timeout;
use config::revision::{Key, Revision};
use config::route::{FieldList, Query, find};

use super::shift;
use super::world::Running;
use crate::live::Live;
use crate::observe::world::{NotPrewarmed, Prewarm, Prewarmed, Wanted};

/// How much longer than a start may take it is held on to.
const MARGIN: Duration = Duration::from_secs(5);

impl Running {
    pub(super) fn set_in_motion(&self, asked: &Prewarm) -> Result<Vec<Prewarmed>, NotPrewarmed> {
        let live = self.published.load();
        let revisions = named(&live, &asked.wanted)?;
        let now = Instant::now();
        let knative = self.knative.as_ref();
        let nobody = |revision: &Revision| NotPrewarmed::NoScaler(revision.key.to_string());
        // All of them or none.
        for revision in &revisions {
            shift::Scaler::of(revision, knative.is_some()).ok_or_else(|| nobody(revision))?;
        }
        let prewarmed = revisions.into_iter().map(|revision| {
            // What the scaler itself says of a start that takes too long comes first.
            let patience = start_timeout(&revision) + MARGIN;
            let floor = Floor::new(asked.endpoints, now, asked.time, patience);
            let (scaler, endpoints) = shift::expect(&self.local, knative, &revision, floor)
                .ok_or_else(|| nobody(&revision))?;
            let Key { namespace, name } = &revision.key;
            let mut prewarmed = Prewarmed {
                namespace: namespace.to_string(),
                name: name.to_string(),
                scaler: scaler.word(),
                endpoints,
                ready: 0,
                why: None,
            };
            update(&live, &mut prewarmed);
            let Prewarm { endpoints, time, .. } = asked;
            tracing::info!(revision = %revision.key, endpoints, for = ?time, "prewarming was asked for");
            Ok(prewarmed)
        });
        prewarmed.collect()
    }

    pub(super) fn bring_up_to_date(&self, prewarmed: &mut [Prewarmed]) {
        let live = self.published.load();
        for one in prewarmed {
            update(&live, one);
        }
    }
}

fn update(live: &Live, one: &mut Prewarmed) {
    let revision = live.snapshot.revision_named(&one.namespace, &one.name);
    let throttle = revision.and_then(|revision| live.throttles.get(revision.id));
    one.ready = throttle.map_or(0, |throttle| throttle.ready());
    let why = throttle.and_then(|throttle| throttle.failure());
    one.why = match revision {
        Some(_) => why.map(|why| why.to_string()),
        None => Some("the revision was removed".to_owned()),
    };
}

/// The revisions that are meant.
fn named(live: &Live, wanted: &Wanted) -> Result<Vec<Arc<Revision>>, NotPrewarmed> {
    match wanted {
        Wanted::Revision { namespace, name } => {
            let revision = live.snapshot.revision_named(namespace, name);
            let revision = revision.ok_or_else(|| {
                NotPrewarmed::Unknown(format!("there is no revision {namespace}/{name}"))
            })?;
            Ok(vec![Arc::clone(revision)])
        }
        Wanted::Route { host, path } => {
            let query = Query {
                host: host.as_bytes(),
                path: path.as_bytes(),
                method: b"GET",
                fields: &FieldList::default(),
                internal: true,
            };
            let unknown = || NotPrewarmed::Unknown(format!("no route leads {host}{path} anywhere"));
            let found = find(&live.snapshot, &query).ok_or_else(unknown)?;
            let split = found.route.split_of(found.rule()).ok_or_else(unknown)?;
            let meant = split.targets.iter().filter(|target| match found.tagged {
                Some(tagged) => std::ptr::eq(*target, tagged),
                None => target.asked > 0,
            });
            let mut revisions: Vec<Arc<Revision>> = Vec::new();
            for target in meant {
                let revision = live.snapshot.revision(target.revision);
                if let Some(revision) = revision
                    && !revisions.iter().any(|known| known.key == revision.key)
                {
                    revisions.push(Arc::clone(revision));
                }
            }
            if revisions.is_empty() {
                return Err(unknown());
            }
            Ok(revisions)
        }
    }
}

//! Changes on their way into the table: what is offered together, and what its verdict means.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::entry::{Live, Removed};
use super::uses::{Edit, says};
use super::{Standing, State};
use crate::document::{At, Document};
use crate::problem::Problem;
use crate::revision::Key;
use crate::source::kubernetes::cluster::ServiceKind;
use crate::source::kubernetes::translate::{Backend, Translation, Untranslated, Wanted, translate};
use crate::source::{Content, Fragment, Origin, Verdict};

/// So often, before anything is offered, it is looked at who can move now that others cannot.
const WAITS_MAX: usize = 16;

/// What was offered, until its verdict comes. There is one at a time.
#[derive(Debug, Default)]
pub(in super::super) struct Batch {
    parts: BTreeMap<Key, Part>,
    /// Revisions that come or go by themselves.
    placed: BTreeSet<Key>,
    edits: BTreeMap<Key, Edit>,
    /// Its ingresses can only be judged together.
    alone: bool,
}

#[derive(Debug)]
enum Part {
    /// An ingress comes, or is changed: what is live once it is accepted.
    Put(Live),
    /// It goes.
    Gone,
}

impl Batch {
    /// How many ingresses and revisions it changes.
    pub(in super::super) fn len(&self) -> usize {
        self.parts.len() + self.placed.len()
    }
}

impl State {
    /// Everything that has changed, to be offered together. The next one only after
    /// [`State::heard`].
    pub(in super::super) fn take_batch(&mut self) -> Option<(Batch, Vec<Fragment>)> {
        if !self.synced {
            return None;
        }
        // Those who have nothing to say make way for the next.
        while let Some(key) = self.alone.pop_first() {
            let offer = self.batch_of(BTreeSet::from([key]), BTreeSet::new(), true);
            if offer.is_some() {
                return offer;
            }
        }
        // Who has to wait may let go of what somebody else waits for.
        for _ in 0..WAITS_MAX {
            let keys = std::mem::take(&mut self.dirty);
            let unplaced = std::mem::take(&mut self.unplaced);
            let offer = self.batch_of(keys, unplaced, false);
            if offer.is_some() || self.dirty.is_empty() {
                return offer;
            }
        }
        None
    }

    /// What has changed of these ingresses and revisions.
    fn batch_of(
        &mut self,
        mut keys: BTreeSet<Key>,
        unplaced: BTreeSet<Key>,
        alone: bool,
    ) -> Option<(Batch, Vec<Fragment>)> {
        self.take_along(&mut keys);
        let mut changes = BTreeMap::new();
        for key in keys {
            let change = match self.ingresses.contains_key(&key) {
                true => self.translated(&key),
                false => self.removed.contains_key(&key).then(Change::gone),
            };
            changes.extend(change.map(|change| (key, change)));
        }
        self.leave_behind(&mut changes);
        let mut batch = Batch {
            alone,
            ..Batch::default()
        };
        let mut fragments = Vec::new();
        for (key, change) in changes {
            self.edit_uses(&mut batch.edits, &key, &change.translation);
            let origin = Origin::Kubernetes(format!("ingress {key}").into());
            fragments.push(Fragment {
                origin,
                content: change.routes,
            });
            self.offered.insert(key.clone());
            let part = change.live.map_or(Part::Gone, Part::Put);
            batch.parts.insert(key, part);
        }
        for key in unplaced {
            self.place(&mut batch, key);
        }
        fragments.extend(self.uses.fragments(&batch.edits));
        self.uses.prepare(&batch.edits, &self.cluster);
        self.unfed.extend(batch.edits.keys().cloned());
        if fragments.is_empty() {
            self.accepted(batch);
            return None;
        }
        Some((batch, fragments))
    }

    /// A revision is there for those who send requests to activators, whoever else names it, while
    /// it and its Service are.
    fn place(&self, batch: &mut Batch, key: Key) {
        let service = self.cluster.service(&key).filter(
            |service| matches!(&service.kind, ServiceKind::Public { revision } if *revision == key),
        );
        let backend = service.map(|service| Backend::of_revision(&key, service, &self.cluster));
        let backend = match backend {
            // It stays as it is.
            Some(Err(Untranslated::Failed(_))) => return,
            Some(Err(Untranslated::NotYet(_))) | None => None,
            Some(Ok(backend)) => Some(backend),
        };
        if backend.is_some() || self.uses.is_placed(&key) {
            let backend = backend.as_ref().map(|backend| (backend, false));
            self.uses.edit(&mut batch.edits, &key, None, backend);
            batch.placed.insert(key);
        }
    }

    /// The change that brings an ingress into the table; `None` when it has to wait.
    fn translated(&mut self, key: &Key) -> Option<Change> {
        let entry = self.ingresses.get(key)?;
        if entry.is_to_stay() {
            return None;
        }
        let standing = match self.translate(key) {
            Ok(change) => return Some(change),
            Err(Untranslated::NotYet(missing)) => Standing::NotYet(missing),
            Err(Untranslated::Failed(error)) => Standing::Failed(error),
        };
        self.waits(key, standing);
        None
    }

    pub(super) fn waits(&mut self, key: &Key, standing: Standing) {
        let Some(entry) = self.ingresses.get(key) else {
            return;
        };
        tracing::debug!(ingress = %key, ?standing, "ingress waits");
        let live = entry.live.as_ref().map(|live| Arc::clone(&live.hosts));
        let keeps = union(&live.unwrap_or_default(), &entry.wish.hosts);
        self.stand(key, standing);
        self.keep_hosts(key, &keeps);
    }

    fn translate(&self, key: &Key) -> Result<Change, Untranslated> {
        let Some(entry) = self.ingresses.get(key) else {
            return Ok(Change::gone());
        };
        let spec = entry.wish.spec().map_err(Untranslated::Failed)?;
        let wanted = Wanted {
            key,
            spec: &spec,
            hash: &entry.wish.hash,
        };
        let mut translation = translate(wanted, &self.cluster, &self.identity.names)?;
        if let Some(live) = &entry.live {
            // What is there goes on until what comes can be served; if it cannot be served now, it
            // need not be kept for that.
            let new = |key: &&Key| !live.revisions.contains(*key);
            let mut new = translation.backends.keys().filter(new);
            let idle = |key: &&Key| !translation.backends[*key].is_usable(&self.cluster);
            if let Some(idle) = new.find(idle) {
                let missing = format!("{idle} has no ready endpoint");
                return Err(Untranslated::NotYet(missing.into()));
            }
        }
        let live = Live {
            hash: entry.wish.hash.clone(),
            hosts: Arc::clone(&entry.wish.hosts),
            revisions: translation.backends.keys().cloned().collect(),
            probes: std::mem::take(&mut translation.probes).into(),
        };
        let routes = std::mem::take(&mut translation.routes);
        let routes = Some(routes.into_iter().map(At::nowhere).collect());
        let routes = says(Document {
            routes,
            ..Document::default()
        });
        Ok(Change {
            routes,
            live: Some(live),
            translation,
        })
    }

    fn edit_uses(&self, edits: &mut BTreeMap<Key, Edit>, key: &Key, translation: &Translation) {
        let entry = self.ingresses.get(key);
        let live = match entry {
            Some(entry) => entry.live.as_ref(),
            None => self.removed.get(key).and_then(|gone| gone.live.as_ref()),
        };
        for revision in live.iter().flat_map(|live| &live.revisions) {
            self.uses.edit(edits, revision, Some(key), None);
        }
        let http1 = entry.is_some_and(|entry| entry.wish.http1);
        for (revision, backend) in &translation.backends {
            self.uses
                .edit(edits, revision, Some(key), Some((backend, http1)));
        }
    }

    /// What became of a batch.
    pub(in super::super) fn heard(&mut self, batch: Batch, verdict: &Verdict) {
        self.judge(batch, verdict);
        let offered = std::mem::take(&mut self.offered);
        // Some of what an ingress could not have because of the offer it may have now.
        for key in offered {
            let Some(entry) = self.ingresses.get(&key) else {
                continue;
            };
            match (&entry.standing, &entry.live) {
                (Standing::Conflict, _) => self.claim(&key),
                (Standing::HandedOver, Some(live)) => {
                    let keeps = Arc::clone(&live.hosts);
                    self.keep_hosts(&key, &keeps);
                }
                _ => {}
            }
        }
    }

    fn judge(&mut self, batch: Batch, verdict: &Verdict) {
        match verdict {
            Verdict::Accepted { .. } => self.accepted(batch),
            Verdict::Rejected(problems) => self.rejected(batch, problems),
            // Nobody else speaks for these origins; if it came to that, all is said again.
            Verdict::Superseded => {
                let Batch {
                    parts,
                    placed,
                    edits,
                    ..
                } = batch;
                self.dirty.extend(parts.into_keys());
                self.unplaced.extend(placed);
                let gone = self.uses.abandon(edits, &self.cluster);
                self.forgotten.extend(gone);
            }
        }
    }

    fn accepted(&mut self, batch: Batch) {
        let Batch { parts, edits, .. } = batch;
        let gone = self.uses.commit(edits);
        self.forgotten.extend(gone);
        for (key, part) in parts {
            match part {
                Part::Put(live) => self.is_live(&key, live),
                Part::Gone => self.is_gone(&key),
            }
        }
    }

    fn is_live(&mut self, key: &Key, live: Live) {
        let hosts = Arc::clone(&live.hosts);
        let Some(entry) = self.ingresses.get_mut(key) else {
            // It went while it came, with all hosts it had.
            let before = self.removed.remove(key).unwrap_or_default();
            let all = union(&before.hosts, &hosts);
            let removed = Removed {
                live: Some(live),
                hosts: all,
            };
            self.removed.insert(key.clone(), removed);
            self.dirty.insert(key.clone());
            self.serve(key, before.live.as_ref(), &hosts);
            return;
        };
        let before = entry.live.replace(live);
        self.serve(key, before.as_ref(), &hosts);
        let Some(entry) = self.ingresses.get_mut(key) else {
            return;
        };
        if entry.is_live() {
            let ready = entry
                .status
                .is_ready(entry.generation, &self.identity.balancers);
            let standing = if ready {
                Standing::Ready
            } else {
                Standing::Asking
            };
            if !entry.is_to_stay() {
                entry.standing = standing;
                self.unasked.insert(key.clone());
            }
            let wanted = Arc::clone(&entry.wish.hosts);
            let keeps = if *wanted == *hosts {
                hosts
            } else {
                union(&hosts, &wanted)
            };
            self.keep_hosts(key, &keeps);
        } else {
            let claimed = !entry.is_to_stay();
            let keeps = match claimed {
                true => union(&hosts, &entry.wish.hosts),
                false => hosts,
            };
            self.keep_hosts(key, &keeps);
        }
    }

    fn is_gone(&mut self, key: &Key) {
        let removed = self.removed.remove(key);
        if let Some(entry) = self.ingresses.get_mut(key) {
            // It came back while it went.
            let live = entry.live.take();
            self.dirty.insert(key.clone());
            self.serve(key, live.as_ref(), &BTreeSet::new());
            return;
        }
        self.uncertified.insert(key.clone());
        if let Some(removed) = removed {
            self.serve(key, removed.live.as_ref(), &BTreeSet::new());
            self.release(key, &removed.hosts, &BTreeSet::new());
        }
    }

    /// Those who are to blame are named, and the others offered again without them; where nobody
    /// is, each is offered by itself.
    fn rejected(&mut self, batch: Batch, problems: &[Problem]) {
        let Batch {
            parts,
            placed,
            edits,
            alone,
        } = batch;
        let alone = alone || parts.len() == 1;
        // Nobody but files speaks of the same, and those win.
        let is_ours = |file: &str| file.starts_with("ingress ") || file.starts_with("revision ");
        let in_a_file = problems.iter().any(|problem| !is_ours(&problem.file))
            && problems.iter().any(|problem| is_ours(&problem.file));
        let mut blamed = BTreeMap::<Key, Arc<str>>::new();
        for key in parts.keys() {
            let ingress = format!("ingress {key}");
            let named = |problem: &&Problem| {
                *problem.file == ingress || is_of_revision(problem, key, &edits)
            };
            let first = problems
                .iter()
                .find(named)
                .or_else(|| problems.first().filter(|_| alone));
            if let Some(problem) = first {
                blamed.insert(key.clone(), text_of(problem).into());
            }
        }
        let (bad, good): (Vec<_>, Vec<_>) = placed.into_iter().partition(|key| {
            let revision = format!("revision {key}");
            problems.iter().any(|problem| *problem.file == revision)
        });
        for key in &bad {
            tracing::warn!(revision = %key, ?problems, "revision refused");
        }
        let gone = self.uses.abandon(edits, &self.cluster);
        self.forgotten.extend(gone);
        let nobody = blamed.is_empty() && bad.is_empty();
        if nobody && parts.is_empty() {
            tracing::error!(?problems, "revisions refused");
        } else {
            self.unplaced.extend(good);
        }
        for key in parts.into_keys() {
            match blamed.remove(&key) {
                // Who stands against a file is found out one by one.
                Some(_) if in_a_file && !alone => drop(self.alone.insert(key)),
                Some(error) => {
                    let standing = match in_a_file {
                        true => Standing::Overruled,
                        false => Standing::Failed(error),
                    };
                    let known = self.ingresses.get(&key).map(|entry| &entry.standing);
                    if known != Some(&standing) {
                        tracing::warn!(ingress = %key, ?standing, "ingress refused");
                    }
                    self.stand(&key, standing);
                }
                None if nobody => drop(self.alone.insert(key)),
                None => drop(self.dirty.insert(key)),
            }
        }
    }

    /// What the table had for an ingress has given way to a file.
    pub(in super::super) fn overruled(&mut self, key: &Key) {
        if let Some(live) = self.ingresses.get_mut(key).and_then(|e| e.live.as_mut()) {
            live.hash = Box::default();
        }
        tracing::warn!(ingress = %key, "a file has one of its hosts: it is served no more");
        self.stand(key, Standing::Overruled);
    }

    pub(super) fn stand(&mut self, key: &Key, standing: Standing) {
        let entry = self.ingresses.get_mut(key);
        if let Some(entry) = entry.filter(|entry| entry.standing != Standing::HandedOver) {
            entry.standing = standing;
            self.unsaid.insert(key.clone());
        }
    }
}

/// What a batch says of one ingress.
pub(super) struct Change {
    routes: Content,
    pub(super) live: Option<Live>,
    translation: Translation,
}

impl Change {
    fn gone() -> Change {
        Change {
            routes: Content::Gone,
            live: None,
            translation: Translation::default(),
        }
    }
}

fn union(one: &BTreeSet<Box<str>>, other: &BTreeSet<Box<str>>) -> Arc<BTreeSet<Box<str>>> {
    Arc::new(one.union(other).cloned().collect())
}

fn is_of_revision(problem: &Problem, ingress: &Key, edits: &BTreeMap<Key, Edit>) -> bool {
    let named = |key: &&Key| problem.file == format!("revision {key}");
    let edit = edits.keys().find(named).and_then(|key| edits.get(key));
    edit.is_some_and(|edit| edit.is_used_by(ingress))
}

/// A problem as a status shows it.
fn text_of(problem: &Problem) -> String {
    format!(
        "{}: {} ({}); {}",
        problem.path, problem.problem, problem.value, problem.hint
    )
}

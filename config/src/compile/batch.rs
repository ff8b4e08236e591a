//! One batch of changes on its way into the state.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::report::Path;
use super::{DOMAIN, State, check, gateway, revision, route, shift};
use crate::fragment::Fragment;
use crate::merge::{Item, Touched, Written, report_for};
use crate::problem::Problem;
use crate::revision::{Backend, Key, Revision, RevisionId};
use crate::route::{Claimant, Edit, claims_of};
use crate::snapshot::{Known, Route, RouteId};

pub(super) struct Batch<'w> {
    pub(super) state: State,
    pub(super) problems: Vec<Problem>,
    touched: Touched,
    changed_revisions: Vec<Key>,
    removed_revisions: BTreeSet<Key>,
    /// By how much the uses of a revision change.
    uses: HashMap<Key, i64>,
    edits: BTreeMap<String, Edit>,
    /// Whether a revision can take requests now.
    warm: &'w dyn Fn(&Key) -> bool,
}

impl<'w> Batch<'w> {
    /// Works everything out on `state`, a clone.
    pub(super) fn of(
        state: State,
        changes: Vec<Fragment>,
        warm: &'w dyn Fn(&Key) -> bool,
    ) -> Batch<'w> {
        let mut batch = Batch::new(state, warm);
        batch.touched = batch.state.merged.take_in(changes, &mut batch.problems);
        batch.domain();
        batch.settings();
        batch.revisions();
        batch.routes();
        batch.hosts();
        batch.count_uses();
        batch.drop_revisions();
        batch
    }

    /// Compiles these routes once more, because revisions have become warm.
    pub(super) fn again(
        state: State,
        routes: Vec<Key>,
        warm: &'w dyn Fn(&Key) -> bool,
    ) -> Batch<'w> {
        let mut batch = Batch::new(state, warm);
        batch.touched.routes.extend(routes);
        batch.routes();
        batch.hosts();
        batch.count_uses();
        batch
    }

    fn new(state: State, warm: &'w dyn Fn(&Key) -> bool) -> Batch<'w> {
        Batch {
            state,
            problems: Vec::new(),
            touched: Touched::default(),
            changed_revisions: Vec::new(),
            removed_revisions: BTreeSet::new(),
            uses: HashMap::new(),
            edits: BTreeMap::new(),
            warm,
        }
    }

    /// The new state, keys of revisions added or changed, and of those removed.
    pub(super) fn finish(mut self) -> Result<(State, Vec<Key>, Vec<Key>), Vec<Problem>> {
        if self.problems.is_empty() {
            let removed = self.removed_revisions.into_iter().collect();
            return Ok((self.state, self.changed_revisions, removed));
        }
        self.problems.sort();
        self.problems.dedup();
        Err(self.problems)
    }

    pub(super) fn says_settings(&self) -> bool {
        self.touched.gateway
    }

    fn domain(&mut self) {
        if !self.touched.domain {
            return;
        }
        let State { merged, domain, .. } = &mut self.state;
        let given = merged.domain(&mut self.problems);
        let new = given.map_or_else(
            || DOMAIN.into(),
            |(origin, at)| {
                let mut report = report_for(origin, &mut self.problems);
                check::domain(&mut report, &Path::Root.key("domain"), at)
            },
        );
        if new != *domain {
            *domain = new;
            let all = merged.routes.iter().map(|item| item.key().clone());
            self.touched.routes.extend(all);
        }
    }

    fn settings(&mut self) {
        if !self.touched.gateway {
            return;
        }
        let given = self.state.merged.gateway(&mut self.problems);
        let defaults = &self.state.defaults;
        let settings = given.map(|(origin, written)| {
            let mut report = report_for(origin, &mut self.problems);
            Arc::new(gateway::compile(&mut report, written, defaults))
        });
        self.state.settings = settings.unwrap_or_else(|| Arc::clone(defaults));
    }

    /// Compiles revisions that may have changed; those that are gone go last, when no route can
    /// name them any more.
    fn revisions(&mut self) {
        for (key, written) in std::mem::take(&mut self.touched.revisions) {
            let snapshot = &mut self.state.snapshot;
            let known = snapshot.known(&key).cloned();
            let Some(written) = written else {
                if known.is_some() {
                    self.removed_revisions.insert(key);
                    // Its share may be kept by a route that names it no longer.
                    let shifting = self.state.shifting.iter().cloned();
                    self.touched.routes.extend(shifting);
                }
                continue;
            };
            if self.state.kept.contains(&key) {
                Arc::make_mut(&mut self.state.kept).remove(&key);
            }
            let id = match &known {
                Some(known) => known.revision.id,
                None => RevisionId(snapshot.revisions.reserve()),
            };
            let new = self.compile_revision(&written, key.clone(), id);
            if known.as_ref().is_some_and(|known| *known.revision == new) {
                if new.tls.is_some() {
                    self.changed_revisions.push(key);
                }
                continue;
            }
            let revision = Arc::new(new);
            let uses = known.map_or(0, |known| known.uses);
            let snapshot = &mut self.state.snapshot;
            snapshot.revisions.set(id.0, Arc::clone(&revision));
            let is = |known: &Known| known.revision.key == key;
            snapshot.revisions_by_key.put(Known { revision, uses }, is);
            self.changed_revisions.push(key);
        }
        for written in std::mem::take(&mut self.touched.surplus_revisions) {
            let key = written.item.key().clone();
            self.compile_revision(&written, key, RevisionId(0));
        }
    }

    fn compile_revision(&mut self, written: &Written, key: Key, id: RevisionId) -> Revision {
        let list = Path::Root.key("revisions");
        let path = list.item(written.item.index());
        let mut report = report_for(&written.item.said.origin, &mut self.problems);
        revision::compile(&mut report, &path, &written.revision.value, key, id)
    }

    fn routes(&mut self) {
        for key in std::mem::take(&mut self.touched.routes) {
            let old = self.state.snapshot.route_by_key(&key).cloned();
            let new = self.state.merged.route(&key).cloned();
            let new = new.and_then(|item| {
                let id = match &old {
                    Some(old) => old.id,
                    None => RouteId(self.state.snapshot.routes.reserve()),
                };
                self.compile_route(&key, &item, id, old.as_deref())
            });
            if old.is_some() && old.as_deref() == new.as_ref() {
                // It may stand elsewhere now, which decides between rules of equal precedence.
                let hosts = &self.state.snapshot.hosts;
                let listed = old.iter().flat_map(|route| &route.hosts);
                let shared = listed.filter(|host| hosts.is_shared(host));
                let shared = shared.map(|host| (host.to_string(), Edit::default()));
                for (host, edit) in shared {
                    self.edits.entry(host).or_insert(edit);
                }
                continue;
            }
            let shifts = new
                .as_ref()
                .is_some_and(|new| new.warming().next().is_some());
            self.note_shift(&key, shifts);
            self.replace_route(old, new.map(Arc::new));
        }
        for item in std::mem::take(&mut self.touched.surplus_routes) {
            self.compile_route(item.key(), &item, RouteId(0), None);
        }
    }

    /// `old`: the version in force.
    fn compile_route(
        &mut self,
        key: &Key,
        item: &Item,
        id: RouteId,
        old: Option<&Route>,
    ) -> Option<Route> {
        let State {
            snapshot,
            domain,
            kept,
            ..
        } = &self.state;
        let written = item.route()?.value;
        let removed = |key: &Key| self.removed_revisions.contains(key) || kept.contains(key);
        let context = route::Context {
            domain,
            origin: &item.said.origin,
            known: &|key| {
                let known = snapshot.known(key).filter(|_| !removed(key));
                known.cloned()
            },
            names: &|namespace| {
                let all = snapshot.revisions().map(|revision| &revision.key);
                all.filter(|key| &*key.namespace == namespace && !removed(key))
                    .map(|key| Arc::clone(&key.name))
                    .collect()
            },
            incomplete: self.touched.incomplete,
        };
        let list = Path::Root.key("routes");
        let path = list.item(item.index());
        let mut report = report_for(&item.said.origin, &mut self.problems);
        let key = key.clone();
        let mut route = route::compile(&mut report, &path, &written, &context, key, id);
        if route.warm_before_shift
            && let Some(old) = old
        {
            let terms = shift::Terms {
                warm: self.warm,
                there: &|key| {
                    let known = snapshot.known(key);
                    known.is_some_and(|known| !removed(key) || may_be_kept(known))
                },
            };
            shift::hold(&mut route, old, &terms);
        }
        Some(route)
    }

    /// Notes what follows from a route's change for hosts and revisions, and enters it.
    fn replace_route(&mut self, old: Option<Arc<Route>>, new: Option<Arc<Route>>) {
        let snapshot = &mut self.state.snapshot;
        if let Some(old) = &old {
            for (host, _) in claims_of(old) {
                self.edits.entry(host).or_default().leave.push(old.id);
            }
            for target in old.targets() {
                *self.uses.entry(target.revision_key.clone()).or_default() -= 1;
            }
        }
        if let Some(new) = &new {
            for (host, kind) in claims_of(new) {
                let route = Arc::clone(new);
                let edit = self.edits.entry(host).or_default();
                edit.join.push(Claimant { route, kind });
            }
            for target in new.targets() {
                *self.uses.entry(target.revision_key.clone()).or_default() += 1;
            }
        }
        match (old, new) {
            (_, Some(new)) => {
                snapshot.routes.set(new.id.0, Arc::clone(&new));
                let key = new.key.clone();
                snapshot.routes_by_key.put(new, |route| route.key == key);
            }
            (Some(old), None) => {
                snapshot.routes.clear(old.id.0);
                let is = |route: &Arc<Route>| route.key == old.key;
                snapshot.routes_by_key.remove(old.key.hash(), is);
            }
            (None, None) => {}
        }
    }

    /// Notes whether some of its targets wait until they are warm.
    fn note_shift(&mut self, key: &Key, shifts: bool) {
        if self.state.shifting.contains(key) != shifts {
            let shifting = Arc::make_mut(&mut self.state.shifting);
            match shifts {
                true => shifting.insert(key.clone()),
                false => shifting.remove(key),
            };
        }
    }

    fn hosts(&mut self) {
        for (host, edit) in std::mem::take(&mut self.edits) {
            let State {
                merged, snapshot, ..
            } = &mut self.state;
            let merged = &*merged;
            let place = |route: &Route| merged.route(&route.key).map(|item| item.place());
            let order = |a: &Route, b: &Route| place(a).cmp(&place(b));
            if let Err(conflicts) = snapshot.hosts.edit(&host, edit, order) {
                for conflict in conflicts {
                    self.report_conflict(&host, &conflict);
                }
            }
        }
    }

    fn count_uses(&mut self) {
        for (key, change) in std::mem::take(&mut self.uses) {
            let table = &mut self.state.snapshot.revisions_by_key;
            let is = |known: &Known| known.revision.key == key;
            let Some(known) = table.get(key.hash(), is) else {
                continue;
            };
            let uses = u32::try_from(i64::from(known.uses) + change).unwrap_or(0);
            if uses != known.uses {
                let revision = Arc::clone(&known.revision);
                table.put(Known { revision, uses }, is);
            }
        }
    }

    /// Lets go of revisions that are gone, unless a route still names them or a shift needs them.
    fn drop_revisions(&mut self) {
        let mut gone = std::mem::take(&mut self.removed_revisions);
        gone.extend(self.state.kept.iter().cloned());
        for key in gone {
            let is = |known: &Known| known.revision.key == key;
            let table = &self.state.snapshot.revisions_by_key;
            let Some(known) = table.get(key.hash(), is).cloned() else {
                continue;
            };
            let keeps = may_be_kept(&known) && known.uses > 0 && known.uses == self.kept_uses(&key);
            if self.state.kept.contains(&key) != keeps {
                let kept = Arc::make_mut(&mut self.state.kept);
                match keeps {
                    true => kept.insert(key.clone()),
                    false => kept.remove(&key),
                };
            }
            if keeps {
                continue;
            }
            let snapshot = &mut self.state.snapshot;
            snapshot.revisions_by_key.remove(key.hash(), is);
            snapshot.revisions.clear(known.revision.id.0);
            if known.uses > 0 && !self.touched.incomplete {
                self.report_users(&key);
            }
            self.removed_revisions.insert(key);
        }
    }

    /// How many targets are for this revision only until others are warm.
    fn kept_uses(&self, key: &Key) -> u32 {
        let State {
            shifting, snapshot, ..
        } = &self.state;
        let routes = shifting.iter().filter_map(|key| snapshot.route_by_key(key));
        let targets = routes.flat_map(|route| route.targets());
        let kept = targets.filter(|target| target.is_kept() && target.revision_key == *key);
        u32::try_from(kept.count()).unwrap_or(u32::MAX)
    }
}

/// Whether a revision that was removed can go on until others are warm: nobody else ends its processes,
/// while addresses that are taken out may be nobody's by now.
fn may_be_kept(known: &Known) -> bool {
    matches!(known.revision.backend, Backend::Process(_))
}

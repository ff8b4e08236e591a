//! Revisions: which ingresses use them, what was said of them, and whose endpoints are theirs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::document::{At, Document};
use crate::revision::Key;
use crate::source::feed::Addresses;
use crate::source::kubernetes::cluster::Cluster;
use crate::source::kubernetes::translate::Backend;
use crate::source::{Content, Fragment, Origin};

/// All revisions that a table names, or is to name.
#[derive(Debug, Default)]
pub(super) struct Uses {
    revisions: HashMap<Key, Use>,
    /// Revisions by the Services whose endpoints are theirs.
    by_service: HashMap<Key, BTreeSet<Key>>,
}

#[derive(Debug, Default)]
struct Use {
    users: Users,
    /// What the table has, and whether without HTTP/2.
    said: Option<(Backend, bool)>,
    /// Whose endpoints it has now: that of the newest translation, accepted or not.
    source: Option<Backend>,
    services: Vec<Key>,
    fed: Option<Addresses>,
}

/// The ingresses in the table that name a revision, and whether they refuse HTTP/2. `None`: it is
/// there without them, for those who send requests to activators.
type Users = BTreeMap<Option<Key>, bool>;

/// How a batch changes one revision.
#[derive(Clone, Debug, Default)]
pub(super) struct Edit {
    users: Users,
    backend: Option<Backend>,
}

impl Uses {
    /// Begins or goes on with the edit of a revision: `user`, an ingress or nobody, names it from
    /// now on (as what, and whether it refuses HTTP/2), or not any more.
    pub(super) fn edit(
        &self,
        edits: &mut BTreeMap<Key, Edit>,
        revision: &Key,
        user: Option<&Key>,
        backend: Option<(&Backend, bool)>,
    ) {
        let edit = edits.entry(revision.clone()).or_insert_with(|| {
            let known = self.revisions.get(revision);
            known.map_or_else(Edit::default, |known| Edit {
                users: known.users.clone(),
                backend: known.said.as_ref().map(|(backend, _)| backend.clone()),
            })
        });
        match backend {
            Some((backend, http1)) => {
                edit.users.insert(user.cloned(), http1);
                edit.backend = Some(backend.clone());
            }
            None => {
                edit.users.remove(&user.cloned());
            }
        }
    }

    /// What is to be said of the revisions of a batch, if it is not what was said before.
    pub(super) fn fragments(&self, edits: &BTreeMap<Key, Edit>) -> Vec<Fragment> {
        let mut fragments = Vec::new();
        for (key, edit) in edits {
            let said = self
                .revisions
                .get(key)
                .and_then(|known| known.said.as_ref());
            let content = match edit.wanted() {
                Some(wanted) if said == Some(&wanted) => continue,
                Some((backend, http1)) => says(Document {
                    revisions: Some(vec![At::nowhere(backend.document(key, http1))]),
                    ..Document::default()
                }),
                None if said.is_some() => Content::Gone,
                None => continue,
            };
            let origin = Origin::Kubernetes(format!("revision {key}").into());
            fragments.push(Fragment { origin, content });
        }
        fragments
    }

    /// Takes the sources of what a batch names, so that endpoints are there when the table is.
    pub(super) fn prepare(&mut self, edits: &BTreeMap<Key, Edit>, cluster: &Cluster) {
        for (key, edit) in edits {
            if let Some((backend, _)) = edit.wanted() {
                self.set_source(key, backend, cluster);
            }
        }
    }

    fn set_source(&mut self, key: &Key, backend: Backend, cluster: &Cluster) {
        let known = self.revisions.entry(key.clone()).or_default();
        let services = backend.services(key, cluster);
        known.source = Some(backend);
        if known.services == services {
            return;
        }
        let before = std::mem::replace(&mut known.services, services.clone());
        self.unlist(key, &before);
        for service in services {
            self.by_service
                .entry(service)
                .or_default()
                .insert(key.clone());
        }
    }

    fn unlist(&mut self, key: &Key, services: &[Key]) {
        for service in services {
            let Some(revisions) = self.by_service.get_mut(service) else {
                continue;
            };
            revisions.remove(key);
            if revisions.is_empty() {
                self.by_service.remove(service);
            }
        }
    }

    /// The table is as the edits say; hands back the revisions that are no more.
    pub(super) fn commit(&mut self, edits: BTreeMap<Key, Edit>) -> Vec<Key> {
        for (key, edit) in &edits {
            let wanted = edit.wanted();
            let known = self.revisions.entry(key.clone()).or_default();
            known.users.clone_from(&edit.users);
            known.said = wanted;
        }
        self.sweep(edits.into_keys())
    }

    /// The table is as before; hands back revisions that came to nothing.
    pub(super) fn abandon(&mut self, edits: BTreeMap<Key, Edit>, cluster: &Cluster) -> Vec<Key> {
        for key in edits.keys() {
            let said = self.revisions.get(key).and_then(|known| known.said.clone());
            if let Some((backend, _)) = said {
                self.set_source(key, backend, cluster);
            }
        }
        self.sweep(edits.into_keys())
    }

    fn sweep(&mut self, keys: impl Iterator<Item = Key>) -> Vec<Key> {
        let mut gone = Vec::new();
        for key in keys {
            if self
                .revisions
                .get(&key)
                .is_none_or(|known| known.said.is_some())
            {
                continue;
            }
            if let Some(known) = self.revisions.remove(&key) {
                self.unlist(&key, &known.services);
                if known.fed.is_some() {
                    gone.push(key);
                }
            }
        }
        gone
    }

    /// The addresses of a revision, if they are others than those that were handed out last.
    pub(super) fn feed(&mut self, key: &Key, cluster: &Cluster) -> Option<Addresses> {
        let known = self.revisions.get_mut(key)?;
        let now = known.source.as_ref()?.addresses(key, cluster)?;
        if known.fed.as_ref() == Some(&now) {
            return None;
        }
        known.fed = Some(now.clone());
        Some(now)
    }

    /// The revisions whose addresses depend on the endpoints of a Service.
    pub(super) fn fed_by(&self, service: &Key) -> Vec<Key> {
        self.by_service
            .get(service)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    /// All that have pods of Knative: where activators are decides about them.
    pub(super) fn of_knative(&self) -> Vec<Key> {
        let knative = |known: &&Use| known.source.as_ref().is_some_and(Backend::is_knative);
        let all = self.revisions.iter().filter(|(_, known)| knative(known));
        all.map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn is_usable(&self, key: &Key, cluster: &Cluster) -> bool {
        let source = self
            .revisions
            .get(key)
            .and_then(|known| known.source.as_ref());
        source.is_some_and(|source| source.is_usable(cluster))
    }

    /// Whether a revision is there without an ingress.
    pub(super) fn is_placed(&self, key: &Key) -> bool {
        self.revisions
            .get(key)
            .is_some_and(|known| known.users.contains_key(&None))
    }

    /// The ingresses in the table that name a revision.
    pub(super) fn users(&self, revision: &Key) -> impl Iterator<Item = &Key> {
        self.revisions
            .get(revision)
            .into_iter()
            .flat_map(|known| known.users.keys().flatten())
    }
}

impl Edit {
    pub(super) fn is_used_by(&self, ingress: &Key) -> bool {
        self.users.contains_key(&Some(ingress.clone()))
    }

    /// What is to be said of it, if anybody still names it.
    fn wanted(&self) -> Option<(Backend, bool)> {
        let http1 = self.users.values().any(|http1| *http1);
        let backend = self.backend.clone().filter(|_| !self.users.is_empty())?;
        Some((backend, http1))
    }
}

/// What an object says, which has no text that people wrote.
pub(super) fn says(document: Document) -> Content {
    Content::Documents {
        documents: vec![document],
        text: Arc::from(""),
    }
}

//! What ConfigMaps of Knative's namespace say, and what follows from it.

use k8s_openapi::api::core::v1 as core;

use super::State;
use crate::revision::Key;
use crate::source::kubernetes::cluster::{BUNDLE, Trust};
use crate::source::kubernetes::config_maps::{self, Data, Settings};

impl State {
    pub(super) fn put_map(&mut self, object: &core::ConfigMap) {
        let key = self.cluster.key_of(&object.metadata);
        let labels = object.metadata.labels.as_ref();
        let is_bundle = labels.is_some_and(|labels| labels.contains_key(BUNDLE));
        let change = self
            .cluster
            .put_bundle(&key.name, is_bundle.then_some(object));
        self.follow(change);
        if config_maps::NAMES.contains(&&*key.name) {
            let nothing = Data::new();
            self.take_map(&key.name, Some(object.data.as_ref().unwrap_or(&nothing)));
        } else if !is_bundle {
            self.maps.remove(&key);
            return;
        }
        self.maps.insert(key);
    }

    pub(super) fn remove_map(&mut self, key: &Key) {
        self.maps.remove(key);
        let change = self.cluster.put_bundle(&key.name, None);
        self.follow(change);
        self.take_map(&key.name, None);
    }

    fn take_map(&mut self, name: &str, data: Option<&Data>) {
        match self.settings.take(name, data) {
            Ok(changed) => self.settings_changed |= changed,
            Err(error) => tracing::warn!(%error, "what the map said before still holds"),
        }
        let internal_tls = self.settings.network.system_internal_tls;
        let change = self.cluster.enable_internal_tls(internal_tls);
        self.follow(change);
    }

    /// What ConfigMaps say, if it is something else than before.
    pub(in super::super) fn take_settings(&mut self) -> Option<Settings> {
        std::mem::take(&mut self.settings_changed).then(|| self.settings.clone())
    }

    /// Pods of Knative's revisions are spoken to in another way: those revisions are said anew, and
    /// with them the ingresses that waited for it. Without an authority nothing is, and ingresses
    /// say why; what is served goes on as it was.
    pub(super) fn follow_trust(&mut self) {
        let stuck = *self.cluster.trust() == Trust::Nobody;
        for revision in self.uses.of_knative() {
            if stuck || !self.uses.is_placed(&revision) {
                self.dirty.extend(self.uses.users(&revision).cloned());
            }
        }
        self.unplaced.extend(self.cluster.revision_keys().cloned());
        self.retry();
    }
}

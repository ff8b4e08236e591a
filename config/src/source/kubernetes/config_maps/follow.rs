//! Follows the maps in a cluster.

use std::collections::{BTreeMap, HashSet};
use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio::sync::watch;

use super::{NAMES, Settings, Unheeded};

/// Watches the maps of this namespace and tells what they say whenever that changes, until nobody
/// listens. What was said holds however long the API server is away.
///
/// # Cancel safety
///
/// May be dropped at any point.
pub(in crate::source::kubernetes) async fn follow(
    client: Client,
    namespace: String,
    settings: Settings,
    told: watch::Sender<Arc<Settings>>,
) {
    let maps = Api::<ConfigMap>::namespaced(client, &namespace);
    let events = watcher::watcher(maps, watcher::Config::default()).default_backoff();
    let mut events = pin!(events);
    let mut reader = Reader {
        settings,
        told,
        listed: HashSet::new(),
        warned: HashSet::new(),
    };
    let mut well = true;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                well = true;
                reader.hear(event);
            }
            // It is asked again and again.
            Err(error) if well => {
                well = false;
                tracing::warn!(namespace, %error, "cannot watch ConfigMaps: what they said holds");
            }
            Err(error) => tracing::debug!(namespace, %error, "cannot watch ConfigMaps"),
        }
        if reader.told.is_closed() {
            return;
        }
    }
}

struct Reader {
    settings: Settings,
    told: watch::Sender<Arc<Settings>>,
    /// Those a list has held so far.
    listed: HashSet<&'static str>,
    warned: HashSet<Unheeded>,
}

impl Reader {
    fn hear(&mut self, event: Event<ConfigMap>) {
        let name = |map: &ConfigMap| {
            let name = map.metadata.name.as_deref().unwrap_or_default();
            NAMES.into_iter().find(|known| *known == name)
        };
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(map) | Event::Apply(map) => {
                if let Some(name) = name(&map) {
                    self.listed.insert(name);
                    self.take(name, Some(&map.data.unwrap_or_default()));
                }
            }
            Event::InitDone => {
                for name in NAMES {
                    if !self.listed.contains(name) {
                        self.take(name, None);
                    }
                }
            }
            Event::Delete(map) => {
                if let Some(name) = name(&map) {
                    self.take(name, None);
                }
            }
        }
    }

    fn take(&mut self, name: &str, data: Option<&BTreeMap<String, String>>) {
        match self.settings.take(name, data) {
            Ok(false) => return,
            Ok(true) => tracing::info!("ConfigMap {name} taken in"),
            Err(bad) => {
                tracing::warn!("{bad}; what it said before holds");
                return;
            }
        }
        let unheeded: HashSet<_> = self.settings.unheeded().into_iter().collect();
        for key in unheeded.difference(&self.warned) {
            tracing::warn!("{key}");
        }
        self.warned = unheeded;
        self.told.send_replace(Arc::new(self.settings.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(name: &str, key: &str, value: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        map.data = Some([(key.to_owned(), value.to_owned())].into());
        map
    }

    #[test]
    fn a_map_that_is_missing_from_a_list_or_deleted_says_nothing_any_more() {
        let told = watch::Sender::new(Arc::new(Settings::default()));
        let said = told.subscribe();
        let mut reader = Reader {
            settings: Settings::default(),
            told,
            listed: HashSet::new(),
            warned: HashSet::new(),
        };
        let key = "enable-service-access-logging";
        let off = || map("config-kourier", key, "false");
        let is_on = || said.borrow().kourier.access_log;
        for event in [Event::Init, Event::InitApply(off()), Event::InitDone] {
            reader.hear(event);
        }
        assert!(!is_on());
        reader.hear(Event::Apply(map("config-kourier", key, "perhaps")));
        assert!(!is_on(), "the last good one");
        for event in [Event::Init, Event::InitDone] {
            reader.hear(event);
        }
        assert!(is_on());
        reader.hear(Event::Apply(off()));
        assert!(!is_on());
        reader.hear(Event::Delete(map("config-other", "a", "b")));
        reader.hear(Event::Delete(off()));
        assert!(is_on());
    }
}

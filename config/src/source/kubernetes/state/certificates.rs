//! Certificates that come with ingresses. They are handed out before the routes, and taken back
//! after them.

use std::sync::Arc;

use super::{Standing, State};
use crate::revision::Key;
use crate::settings::Audience;
use crate::source::feed::Certificate;
use crate::source::kubernetes::translate::certificates;

impl State {
    /// Certificates that are others than before, by ingress. Each is to be handed out before the
    /// next offer, and [`State::refuse`]d if it cannot be.
    pub(in super::super) fn take_certificates(&mut self) -> Vec<(Key, Vec<Certificate>)> {
        if !self.synced {
            return Vec::new();
        }
        let mut keys = std::mem::take(&mut self.uncertified);
        let dirty = self.dirty.iter().filter(|key| {
            let entry = self.ingresses.get(*key);
            entry.is_some_and(|entry| !entry.wish.secrets.is_empty())
                || self.certified.contains_key(*key)
        });
        keys.extend(dirty.cloned());
        keys.into_iter()
            .filter_map(|key| self.certificates(key))
            .collect()
    }

    fn certificates(&mut self, key: Key) -> Option<(Key, Vec<Certificate>)> {
        let Some(entry) = self.ingresses.get(&key) else {
            // What is still in the table needs them still.
            let gone = !self.removed.contains_key(&key) && self.certified.remove(&key).is_some();
            return gone.then(|| (key, Vec::new()));
        };
        if entry.is_to_stay() {
            return None;
        }
        let spec = entry.wish.spec().ok()?;
        let waits = matches!(
            entry.standing,
            Standing::Failed(_) | Standing::Overruled | Standing::NotYet(_)
        );
        match certificates(&spec, &self.cluster) {
            Err(secret) => {
                self.dirty.remove(&key);
                let missing = format!("Secret {secret} is missing");
                self.stand(&key, Standing::NotYet(missing.into()));
                None
            }
            Ok(now) => {
                if waits {
                    self.dirty.insert(key.clone());
                }
                if self.certified.get(&key).map_or(&[][..], |before| before) == now {
                    return None;
                }
                match now.is_empty() {
                    true => self.certified.remove(&key),
                    false => self.certified.insert(key.clone(), now.clone()),
                };
                Some((key, now))
            }
        }
    }

    /// What listeners of activators are to show, if it is something else than before, and the Secret
    /// that it comes from. What is used goes on while it is missing.
    pub(in super::super) fn take_certificate_inside(&mut self) -> Option<(Key, Vec<Certificate>)> {
        if !self.synced {
            return None;
        }
        let now = match self.cluster.shown_inside() {
            (true, None) => return None,
            (_, shown) => shown.map(|secret| Certificate {
                hosts: vec!["*".into()],
                audience: Audience::Activator,
                chain: Arc::clone(&secret.chain),
                key: Arc::clone(&secret.key),
            }),
        };
        if self.certified_inside == now {
            return None;
        }
        self.certified_inside.clone_from(&now);
        let (secret, _) = self.cluster.internal_secret();
        Some((secret, now.into_iter().collect()))
    }

    /// The certificates of an ingress cannot be used: it waits for others.
    pub(in super::super) fn refuse(&mut self, key: &Key, error: String) {
        let standing = Standing::Failed(error.into());
        if self
            .ingresses
            .get(key)
            .is_some_and(|entry| entry.standing != standing)
        {
            tracing::warn!(ingress = %key, ?standing, "certificate refused");
        }
        self.certified.remove(key);
        self.dirty.remove(key);
        self.stand(key, standing);
    }
}

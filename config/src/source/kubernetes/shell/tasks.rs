//! What whoever holds the lease does beside the loop: questions to other replicas, and writes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use tokio::sync::Notify;

use super::Shell;
use crate::revision::Key;
use crate::source::kubernetes::ingress::Ingress;
use crate::source::kubernetes::state::{Ask, Identity, Write};
use crate::source::kubernetes::watch::text_of;
use crate::source::kubernetes::write;

/// Writes at a time.
const WRITES: usize = 32;
/// For one write, with all its attempts.
const ANSWER: Duration = Duration::from_secs(10);
/// Before a write is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// What a task has to say.
pub(super) enum Told {
    Passed(Ask),
    /// A status, worked out when the object had that version; the object as it was then.
    Wrote(Key, Box<str>, Option<Box<Ingress>>),
    NotWritten(Key),
    /// About a finalizer; it is gone or tried again with the next look.
    Finalized(Key),
}

/// Questions that are not answered at once: each ingress at most once.
#[derive(Default)]
pub(super) struct Slow {
    ingresses: Mutex<BTreeSet<Key>>,
    pub(super) news: Notify,
}

impl Slow {
    fn say(&self, ingress: Key) {
        self.ingresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(ingress);
        self.news.notify_one();
    }

    pub(super) fn take(&self) -> BTreeSet<Key> {
        std::mem::take(
            &mut *self
                .ingresses
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

impl Shell {
    pub(super) fn ask(&mut self) {
        for ask in self.state.take_asks() {
            let asked = self.asking.get(&ask.ingress).map(|(hash, _)| hash);
            if asked == Some(&ask.hash) {
                continue;
            }
            let (peers, slow) = (Arc::clone(&self.peers), Arc::clone(&self.slow));
            let (key, hash) = (ask.ingress.clone(), ask.hash.clone());
            let task = self.asks.spawn(async move {
                peers.ask(&ask, || slow.say(ask.ingress.clone())).await;
                Told::Passed(ask)
            });
            if let Some((_, before)) = self.asking.insert(key, (hash, task)) {
                before.abort();
            }
        }
    }

    /// An ingress may not be what is asked about any more.
    pub(super) fn stop_asking(&mut self, ingress: &Key) {
        let Some((hash, task)) = self.asking.get(ingress) else {
            return;
        };
        if !self.state.is_asking(ingress, hash) {
            task.abort();
            self.asking.remove(ingress);
        }
    }

    pub(super) fn write(&mut self) {
        while self.writing.len() < WRITES {
            let free = self
                .to_write
                .iter()
                .find(|key| !self.writing.contains(*key));
            let Some(key) = free.cloned() else { return };
            self.to_write.remove(&key);
            let Some(write) = self.state.unsaid(&key, &write::now()) else {
                continue;
            };
            self.writing.insert(key);
            let (client, identity) = (self.client.clone(), Arc::clone(&self.identity));
            self.writes.spawn(write_status(client, identity, write));
        }
    }

    pub(super) fn finalize(&mut self) {
        for key in self.state.finalizers() {
            if self.writing.len() >= WRITES || !self.writing.insert(key.clone()) {
                continue;
            }
            let (client, identity) = (self.client.clone(), Arc::clone(&self.identity));
            let key = key.clone();
            self.writes.spawn(async move {
                let removing = write::finalizer(&client, &identity, &key);
                if let Ok(Err(error)) = tokio::time::timeout(ANSWER, removing).await {
                    tracing::warn!(ingress = %key, error = text_of(&error), "finalizer not removed");
                }
                Told::Finalized(key)
            });
        }
    }

    pub(super) fn told(&mut self, told: Told) {
        match told {
            Told::Passed(Ask { ingress, hash, .. }) => {
                if self
                    .asking
                    .get(&ingress)
                    .is_some_and(|(asked, _)| *asked == hash)
                {
                    self.asking.remove(&ingress);
                    self.state.passed(&ingress, &hash);
                }
            }
            Told::Wrote(key, version, object) => {
                self.writing.remove(&key);
                if let Some(object) = object {
                    self.state.wrote(&key, &version, &object);
                }
            }
            Told::NotWritten(key) => {
                self.writing.remove(&key);
                self.state.say_again(&key);
            }
            Told::Finalized(key) => {
                self.writing.remove(&key);
            }
        }
    }
}

async fn write_status(client: Client, identity: Arc<Identity>, write: Write) -> Told {
    let (key, version) = (write.ingress.clone(), write.version.clone());
    let writing = write::status(&client, &identity, write);
    let error = match tokio::time::timeout(ANSWER, writing).await {
        Ok(Ok(object)) => return Told::Wrote(key, version, object.map(Box::new)),
        Ok(Err(error)) => text_of(&error),
        Err(_) => format!("no answer in {ANSWER:?}"),
    };
    tracing::warn!(ingress = %key, error, "status not written");
    tokio::time::sleep(AGAIN).await;
    Told::NotWritten(key)
}

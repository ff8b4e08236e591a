//! Asks the pods of all revisions, and tells throttles which of them can serve.
//!
//! One task decides for all; each probe is a task of its own. So many probes are under way at a time,
//! and revisions take turns: one whose thousand pods say nothing does not keep another waiting.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use config::revision::Key;
use config::source::feed::Addresses;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::followed::Followed;
use super::pods::{Manner, Pods};
use super::probe::{Outcome, fields, probe};
use super::shares::Replicas;

/// Probes under way at a time, over all revisions and of one.
const PROBES_MAX: usize = 256;
pub(super) const PROBES_OF_ONE_MAX: usize = 32;

/// What was said and not heard yet; the newest of each kind counts.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    news: Mutex<News>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct News {
    revisions: HashMap<Key, About>,
    replicas: Option<Arc<[IpAddr]>>,
}

/// What was said about one revision.
#[derive(Debug, Default)]
struct About {
    /// `Some(None)`: released.
    owner: Option<Option<Arc<Followed>>>,
    /// `Some(None)`: its source says nothing any more.
    addresses: Option<Option<Addresses>>,
    /// Pods that failed a request.
    suspects: BTreeSet<SocketAddr>,
}

impl Inbox {
    pub(super) fn owner(&self, key: &Key, owner: Option<Arc<Followed>>) {
        self.say(key, |about| about.owner = Some(owner));
    }

    pub(super) fn addresses(&self, key: &Key, addresses: Option<Addresses>) {
        self.say(key, |about| about.addresses = Some(addresses));
    }

    /// The pod failed a request: it is to be asked again.
    pub(super) fn suspected(&self, key: &Key, address: SocketAddr) {
        self.say(key, |about| {
            about.suspects.insert(address);
        });
    }

    pub(super) fn replicas(&self, replicas: Arc<[IpAddr]>) {
        self.lock().replicas = Some(replicas);
        self.notify.notify_one();
    }

    fn say(&self, key: &Key, what: impl FnOnce(&mut About)) {
        let mut news = self.lock();
        what(news.revisions.entry(key.clone()).or_default());
        drop(news);
        self.notify.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(super) struct Prober {
    inbox: Arc<Inbox>,
    manner: Manner,
    passthrough: bool,
    replicas: Replicas,
    revisions: HashMap<Key, Entry>,
    /// When each revision's next pod is to be asked.
    timers: BTreeSet<(Instant, Key)>,
    /// Those with pods to ask now, in the order of their turns.
    turns: VecDeque<Key>,
    /// Those whose usable pods have changed.
    changed: HashSet<Key>,
    probes: JoinSet<Answer>,
    tickets: u64,
}

#[derive(Debug)]
struct Entry {
    pods: Pods,
    proxied: bool,
    /// Kubernetes knows of pods, ready or not.
    addressed: bool,
    /// Why it cannot start, as Kubernetes says.
    failure: Option<Arc<str>>,
    /// `None`: not adopted yet, or released.
    owner: Option<Arc<Followed>>,
    /// A source speaks about it.
    fed: bool,
    timer: Option<Instant>,
    in_turn: bool,
}

#[derive(Debug)]
struct Answer {
    key: Key,
    ticket: u64,
    address: SocketAddr,
    outcome: Outcome,
}

impl Prober {
    pub(super) fn new(inbox: Arc<Inbox>, manner: Manner, passthrough: bool, own: IpAddr) -> Prober {
        Prober {
            inbox,
            manner,
            passthrough,
            replicas: Replicas::new(own),
            revisions: HashMap::new(),
            timers: BTreeSet::new(),
            turns: VecDeque::new(),
            changed: HashSet::new(),
            probes: JoinSet::new(),
            tickets: 0,
        }
    }

    /// Works for ever. Dropped, it stops all probes.
    pub(super) async fn run(mut self) {
        let inbox = Arc::clone(&self.inbox);
        // Every turn waits for something to do.
        loop {
            self.take_turns();
            self.publish();
            let timer = self.timers.first().map(|(at, _)| *at);
            tokio::select! {
                () = inbox.notify.notified() => self.hear(),
                Some(answer) = self.probes.join_next() => {
                    if let Ok(answer) = answer {
                        self.answered(&answer);
                    }
                    // Many end at once when many pods begin to serve.
                    while let Some(Ok(answer)) = self.probes.try_join_next() {
                        self.answered(&answer);
                    }
                }
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {}
            }
            self.expire();
        }
    }

    fn hear(&mut self) {
        let news = std::mem::take(&mut *self.inbox.lock());
        for (key, about) in news.revisions {
            self.heed(&key, about);
        }
        if let Some(replicas) = news.replicas
            && self.replicas.set(&replicas)
        {
            let limited = self
                .revisions
                .iter()
                .filter(|(_, entry)| entry.is_limited());
            self.changed.extend(limited.map(|(key, _)| key.clone()));
        }
    }

    fn heed(&mut self, key: &Key, about: About) {
        let manner = self.manner;
        let entry = self
            .revisions
            .entry(key.clone())
            .or_insert_with(|| Entry::new(manner));
        let now = now();
        if let Some(addresses) = about.addresses {
            entry.fed = addresses.is_some();
            let addresses = addresses.unwrap_or_default();
            entry.proxied = addresses.proxied;
            entry.addressed = !addresses.ready.is_empty() || !addresses.unready.is_empty();
            entry.failure.clone_from(&addresses.failure);
            entry.pods.set(&addresses, now);
        }
        if let Some(owner) = about.owner {
            if let Some(owner) = &owner {
                entry.pods.use_unready(owner.terms().unready_pods, now);
            }
            entry.owner = owner;
        }
        for address in about.suspects {
            entry.pods.doubt(address, now);
        }
        if let Some(owner) = &entry.owner {
            owner.is_addressed(entry.addressed, now);
        }
        if entry.owner.is_none() && !entry.fed {
            self.forget(key);
            return;
        }
        self.changed.insert(key.clone());
        self.schedule(key);
    }

    fn forget(&mut self, key: &Key) {
        if let Some(entry) = self.revisions.remove(key)
            && let Some(at) = entry.timer
        {
            self.timers.remove(&(at, key.clone()));
        }
        self.changed.remove(key);
    }

    /// Sets the revision's timer, or gives it a turn, after its pods were told something.
    fn schedule(&mut self, key: &Key) {
        let Some(entry) = self.revisions.get_mut(key) else {
            return;
        };
        // Nobody asks for pods that nobody uses.
        let next = match &entry.owner {
            Some(_) if !entry.in_turn && entry.pods.asked() < PROBES_OF_ONE_MAX => {
                entry.pods.next_due()
            }
            _ => None,
        };
        let next = next.map(Instant::from_std);
        if entry.timer == next {
            return;
        }
        if let Some(at) = entry.timer.take() {
            self.timers.remove(&(at, key.clone()));
        }
        entry.timer = next;
        if let Some(at) = next {
            self.timers.insert((at, key.clone()));
        }
    }

    /// Gives turns to those whose time has come.
    fn expire(&mut self) {
        let now = Instant::now();
        while let Some((at, _)) = self.timers.first()
            && *at <= now
            && let Some((_, key)) = self.timers.pop_first()
        {
            if let Some(entry) = self.revisions.get_mut(&key) {
                entry.timer = None;
                entry.in_turn = true;
                self.turns.push_back(key);
            }
        }
    }

    /// Starts probes, one of each revision in turn, while there is room.
    fn take_turns(&mut self) {
        while self.probes.len() < PROBES_MAX
            && let Some(key) = self.turns.pop_front()
        {
            if self.ask_one(&key) {
                self.turns.push_back(key);
                continue;
            }
            if let Some(entry) = self.revisions.get_mut(&key) {
                entry.in_turn = false;
            }
            self.schedule(&key);
        }
    }

    /// False when no more pods of this revision can be asked now.
    fn ask_one(&mut self, key: &Key) -> bool {
        let Some(entry) = self.revisions.get_mut(key) else {
            return false;
        };
        if entry.owner.is_none() || entry.pods.asked() >= PROBES_OF_ONE_MAX {
            return false;
        }
        self.tickets += 1;
        let ticket = self.tickets;
        let Some(question) = entry.pods.ask(ticket, now()) else {
            return false;
        };
        let (key, address) = (key.clone(), question.address);
        let fields = fields(&key, address, self.passthrough);
        self.probes.spawn(async move {
            let outcome = probe(address, &fields, question.within).await;
            Answer {
                key,
                ticket,
                address,
                outcome,
            }
        });
        true
    }

    fn answered(&mut self, answer: &Answer) {
        let Answer {
            key,
            ticket,
            address,
            outcome,
        } = answer;
        let Some(entry) = self.revisions.get_mut(key) else {
            return;
        };
        if entry.pods.answered(*ticket, *address, *outcome, now()) {
            self.changed.insert(key.clone());
        }
        if let (Outcome::Passed { .. }, Some(owner)) = (outcome, &entry.owner) {
            owner.trust(*address);
        }
        self.schedule(key);
    }

    /// Tells throttles what has changed for them.
    fn publish(&mut self) {
        for key in self.changed.drain() {
            if let Some(entry) = self.revisions.get(&key)
                && let Some(owner) = &entry.owner
            {
                let usable = entry.pods.usable();
                owner.supply(&usable, entry.proxied, &self.replicas, now());
                let failure = entry.failure.as_ref().filter(|_| usable.is_empty());
                owner.set_failure(failure, now());
            }
        }
    }
}

impl Entry {
    fn new(manner: Manner) -> Entry {
        Entry {
            pods: Pods::new(manner),
            proxied: false,
            addressed: false,
            failure: None,
            owner: None,
            fed: false,
            timer: None,
            in_turn: false,
        }
    }

    fn is_limited(&self) -> bool {
        let owner = self.owner.as_ref();
        owner.is_some_and(|owner| owner.terms().concurrency != 0)
    }
}

/// The pure parts are told the time; the runtime's clock can be paused.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

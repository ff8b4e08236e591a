//! The loop around the state: events in; addresses, certificates and fragments out; and where we
//! hold the lease, questions to other replicas and writes.
//!
//! One task owns the state. Whatever has arrived is taken in together, then everything that follows
//! goes out. One offer is out at a time; while its verdict is awaited, addresses go on.

mod tasks;
mod watches;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use kube::Client;
use tokio::sync::{mpsc, watch as signal};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use self::tasks::{Slow, Told};
use self::watches::watch_all;
use super::config_maps::{Settings, Unheeded};
use super::peers::Peers;
use super::state::{Batch, Identity, Kind, Object, State};
use super::watch::Event;
use super::{Kubernetes, Options, leader};
use crate::revision::Key;
use crate::source::feed::Feed;
use crate::source::{Origin, Sink, Verdict};

/// Events that wait for the loop; watches wait beyond it.
const EVENTS_QUEUED: usize = 256;
/// Most events that are taken in before something goes out.
const EVENTS_A_TURN: usize = 4096;
/// Between two looks at what has not been listed yet, and two words about it.
const LOOK: Duration = Duration::from_secs(1);
const WORD: Duration = Duration::from_secs(5);
/// Between two offers of what was refused: who stood against it may be gone.
const RETRY: Duration = Duration::from_secs(30);
/// A kind that cannot be seen is done without after this, once ingresses and Services have been
/// listed: while an API server starts, it knows no kinds but its own.
const BELIEF: Duration = Duration::from_secs(2);
/// Between two warnings about the same watch.
const WARNING: Duration = Duration::from_secs(30);
/// How long whoever holds the lease may take to let go of it.
const GOODBYE: Duration = Duration::from_secs(6);

pub(super) struct Shell {
    state: State,
    identity: Arc<Identity>,
    client: Client,
    options: Options,
    sink: Sink,
    feed: Arc<dyn Feed>,
    synced: signal::Sender<bool>,
    settings: signal::Sender<Arc<Settings>>,
    /// What ConfigMaps set without effect; each is told once.
    unheeded: BTreeSet<Unheeded>,
    /// Kinds that have not been listed yet, and why, where that is known.
    unlisted: HashMap<Kind, Option<String>>,
    /// Kinds that we may not see, or that are not there.
    denied: HashSet<Kind>,
    /// Since when nothing else is missing.
    without_since: Option<Instant>,
    warned: HashMap<Kind, Instant>,
    offer: Option<(Batch, BoxFuture<'static, Option<Verdict>>)>,
    known_peers: signal::Sender<Arc<BTreeSet<std::net::SocketAddr>>>,
    peers: Arc<Peers>,
    leads: bool,
    asks: JoinSet<Told>,
    asking: HashMap<Key, (Box<str>, AbortHandle)>,
    slow: Arc<Slow>,
    to_write: BTreeSet<Key>,
    writes: JoinSet<Told>,
    writing: HashSet<Key>,
}

/// What happened.
enum Happened {
    Event(Event),
    Verdict(Option<Verdict>),
    Told(Told),
    Slow,
    Leads(bool),
    Look,
    /// A task was cut off.
    Nothing,
    End,
}

impl Shell {
    pub(super) fn new(source: Kubernetes, identity: Identity) -> Shell {
        let Kubernetes {
            client,
            options,
            sink,
            feed,
            synced,
            settings,
            check_template,
        } = source;
        let known_peers = signal::Sender::new(Arc::default());
        let kinds = [
            Kind::Ingress,
            Kind::Service,
            Kind::Slice,
            Kind::Endpoints,
            Kind::Revision,
            Kind::Secret,
            Kind::ConfigMap,
            Kind::InternalSecret,
        ];
        Shell {
            state: State::new(identity.clone(), check_template),
            identity: Arc::new(identity),
            client,
            options,
            sink,
            feed,
            synced,
            settings,
            unheeded: BTreeSet::new(),
            unlisted: kinds.into_iter().map(|kind| (kind, None)).collect(),
            denied: HashSet::new(),
            without_since: None,
            warned: HashMap::new(),
            offer: None,
            peers: Arc::new(Peers::new(known_peers.subscribe())),
            known_peers,
            leads: false,
            asks: JoinSet::new(),
            asking: HashMap::new(),
            slow: Arc::default(),
            to_write: BTreeSet::new(),
            writes: JoinSet::new(),
            writing: HashSet::new(),
        }
    }

    pub(super) async fn run(mut self, shutdown: impl Future<Output = ()> + Send) {
        let (sender, mut events) = mpsc::channel(EVENTS_QUEUED);
        let mut watches = JoinSet::new();
        watches.spawn(watch_all(
            self.client.clone(),
            self.options.system_namespace.clone(),
            sender,
        ));
        let leads = signal::Sender::new(false);
        let mut leading = leads.subscribe();
        let (stop, stopped) = signal::channel(false);
        let (client, options) = (self.client.clone(), &self.options);
        let (namespace, us) = (options.namespace.clone(), options.pod_name.clone());
        let settings = self.settings.subscribe();
        let place = leader::Place {
            namespace,
            us,
            settings,
        };
        let leader = tokio::spawn(leader::lead(client, place, leads, stopped));
        let mut shutdown = pin!(shutdown);
        let started = Instant::now();
        let mut look = tokio::time::interval(LOOK);
        loop {
            self.bring_out();
            let happened = tokio::select! {
                () = &mut shutdown => Happened::End,
                () = self.sink.closed() => Happened::End,
                verdict = verdict_of(&mut self.offer) => Happened::Verdict(verdict),
                Some(event) = events.recv() => Happened::Event(event),
                Some(told) = self.asks.join_next() => told.map_or(Happened::Nothing, Happened::Told),
                Some(told) = self.writes.join_next() => told.map_or(Happened::Nothing, Happened::Told),
                () = self.slow.news.notified() => Happened::Slow,
                Ok(()) = leading.changed() => Happened::Leads(*leading.borrow()),
                _ = look.tick() => Happened::Look,
            };
            match happened {
                Happened::End => break,
                Happened::Event(event) => {
                    self.take_in(event);
                    for _ in 0..EVENTS_A_TURN {
                        let Ok(event) = events.try_recv() else { break };
                        self.take_in(event);
                    }
                }
                Happened::Verdict(verdict) => self.heard(verdict),
                Happened::Told(told) => self.told(told),
                Happened::Slow => {
                    for ingress in self.slow.take() {
                        self.state.is_slow(&ingress);
                    }
                }
                Happened::Leads(now) => self.leads(now),
                Happened::Look => self.look(started.elapsed()),
                Happened::Nothing => {}
            }
        }
        stop.send_replace(true);
        // Watches and tasks end as they are dropped.
        if tokio::time::timeout(GOODBYE, leader).await.is_err() {
            tracing::debug!("the lease was not let go in {GOODBYE:?}");
        }
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::Put(object) => {
                let of_ingress = matches!(object, Object::Ingress(_));
                let key = self.state.put(&object);
                if of_ingress {
                    self.stop_asking(&key);
                }
            }
            Event::Gone(kind, key) => {
                self.state.remove(kind, &key);
                if kind == Kind::Ingress {
                    self.stop_asking(&key);
                }
            }
            Event::Listed(kind, names) => {
                self.state.listed(kind, &names);
                tracing::debug!(?kind, count = names.len(), "listed");
                let asked: Vec<Key> = self.asking.keys().cloned().collect();
                for key in asked {
                    self.stop_asking(&key);
                }
                self.unlisted.remove(&kind);
                self.denied.remove(&kind);
                self.warned.remove(&kind);
                self.sync_if_listed();
            }
            Event::Trouble(kind, error) => self.trouble(kind, error),
            Event::Denied(kind, error) => {
                self.denied.insert(kind);
                self.trouble(kind, error);
            }
        }
    }

    fn trouble(&mut self, kind: Kind, error: String) {
        let now = Instant::now();
        let last = self.warned.get(&kind);
        if last.is_none_or(|last| now.duration_since(*last) >= WARNING) {
            self.warned.insert(kind, now);
            tracing::warn!(?kind, error, "watch interrupted; what is known still holds");
        }
        self.unlisted
            .entry(kind)
            .and_modify(|why| *why = Some(error));
    }

    /// Goes without what cannot be had, once it is sure that the API server knows everything else.
    fn do_without(&mut self) {
        if self.unlisted.contains_key(&Kind::Ingress) || self.unlisted.contains_key(&Kind::Service)
        {
            self.without_since = None;
            return;
        }
        if self
            .without_since
            .get_or_insert_with(Instant::now)
            .elapsed()
            < BELIEF
        {
            return;
        }
        for kind in std::mem::take(&mut self.denied) {
            if let Some(why) = self.unlisted.remove(&kind) {
                let why = why.unwrap_or_default();
                tracing::warn!(
                    ?kind,
                    why,
                    "going without these objects, until they can be seen"
                );
            }
        }
        self.sync_if_listed();
    }

    fn sync_if_listed(&mut self) {
        if self.unlisted.is_empty() && !self.state.is_synced() {
            tracing::info!("the cluster has been listed");
            self.state.sync();
        }
    }

    /// Every second: says what is still missing, and looks after what has to be tried again.
    fn look(&mut self, elapsed: Duration) {
        if self.leads {
            self.finalize();
        }
        let seconds = elapsed.as_secs();
        if self.state.is_synced() {
            if seconds.is_multiple_of(RETRY.as_secs()) {
                self.state.retry();
            }
            return;
        }
        self.do_without();
        if seconds > 0 && seconds.is_multiple_of(WORD.as_secs()) {
            for (kind, why) in &self.unlisted {
                let why = why.as_deref().unwrap_or("the list has not ended yet");
                tracing::info!(?kind, why, seconds, "not everything has been listed yet");
            }
        }
    }

    /// Everything that follows from what is known.
    fn bring_out(&mut self) {
        if self.offer.is_none() {
            // Whatever gave way did so after the last verdict.
            for origin in self.feed.take_overruled() {
                let key = origin.name().strip_prefix("ingress ");
                if let Some((namespace, name)) = key.and_then(|key| key.split_once('/')) {
                    let (namespace, name) = (namespace.into(), name.into());
                    self.state.overruled(&Key { namespace, name });
                }
            }
            // Certificates and endpoints first, so that the table finds them.
            self.certify();
            let batch = self.state.take_batch();
            self.feed();
            if let Some((batch, fragments)) = batch {
                let sink = self.sink.clone();
                let verdict = Box::pin(async move { sink.offer(fragments).await });
                self.offer = Some((batch, verdict));
            }
        }
        self.feed();
        if let Some(settings) = self.state.take_settings() {
            let unheeded: BTreeSet<Unheeded> = settings.unheeded().into_iter().collect();
            for new in unheeded.difference(&self.unheeded) {
                tracing::warn!("{new}");
            }
            self.unheeded = unheeded;
            self.settings.send_replace(Arc::new(settings));
        }
        if let Some(replicas) = self.state.take_replicas() {
            let ips: BTreeSet<_> = replicas.iter().map(std::net::SocketAddr::ip).collect();
            self.feed.replicas(&ips.into_iter().collect::<Vec<_>>());
            let pod = self.options.pod_ip;
            let peers = replicas.into_iter().filter(|at| Some(at.ip()) != pod);
            self.known_peers.send_replace(Arc::new(peers.collect()));
        }
        if self.leads && self.state.is_synced() {
            self.ask();
            self.to_write.append(&mut self.state.take_unsaid());
            self.write();
        }
        let done = self.state.is_synced() && self.offer.is_none();
        if done && !*self.synced.borrow() {
            self.synced.send_replace(true);
        }
    }

    fn certify(&mut self) {
        if let Some((secret, certificates)) = self.state.take_certificate_inside() {
            let origin = Origin::Kubernetes(format!("secret {secret}").into());
            if let Err(error) = self.feed.certificates(&origin, &certificates) {
                tracing::warn!(%secret, error, "certificate refused: the one before is still used");
            }
        }
        for (ingress, certificates) in self.state.take_certificates() {
            let origin = Origin::Kubernetes(format!("ingress {ingress}").into());
            if let Err(error) = self.feed.certificates(&origin, &certificates) {
                self.state.refuse(&ingress, error);
            }
        }
    }

    fn feed(&mut self) {
        let (fed, forgotten) = self.state.take_addresses();
        for revision in forgotten {
            self.feed.forget(&revision);
        }
        for (revision, addresses) in fed {
            self.feed.addresses(&revision, addresses);
        }
    }

    fn heard(&mut self, verdict: Option<Verdict>) {
        let Some((batch, _)) = self.offer.take() else {
            return;
        };
        // Nobody listens any more: the loop ends.
        let Some(verdict) = verdict else { return };
        if let Verdict::Accepted { version } = &verdict {
            tracing::info!(
                version,
                changed = batch.len(),
                "configuration of the cluster taken in"
            );
        }
        self.state.heard(batch, &verdict);
    }

    fn leads(&mut self, now: bool) {
        self.leads = now;
        if now {
            self.state.lead();
        } else {
            self.asks.abort_all();
            self.asking.clear();
            self.to_write.clear();
        }
    }
}

async fn verdict_of(
    offer: &mut Option<(Batch, BoxFuture<'static, Option<Verdict>>)>,
) -> Option<Verdict> {
    match offer {
        Some((_, verdict)) => verdict.await,
        None => std::future::pending().await,
    }
}

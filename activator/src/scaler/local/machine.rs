//! What a revision's fleet asks of the world: processes, probes, and the throttle.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use config::revision::{Key, Process, Readiness};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tracing::info;

use super::fleet::Host;
use super::link::{News, Request, StartRequest};
use super::port::Ports;
use super::probe::{Proof, Seen, until_ready};
use super::protocol::{Id, Refusal, Start};
use crate::admission::{SUSPICION_MAX, Throttle};

/// Between SIGTERM and SIGKILL.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(10);

/// A process that failed a request is asked so long after it: one that fails every request and
/// passes every probe must not be tried all the time.
const CHECK_AFTER: Duration = Duration::from_millis(100);

/// What all revisions of one [`super::Local`] share.
#[derive(Debug)]
pub(super) struct Means {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) ports: Ports,
    pub(super) ids: AtomicU64,
}

/// A revision's side of its throttle. Closed while the revision is released, so that what its task
/// still does cannot undo what the next owner of the throttle says.
#[derive(Debug)]
pub(super) struct Outlet(Mutex<Open>);

#[derive(Debug)]
struct Open {
    throttle: Arc<Throttle>,
    open: bool,
}

impl Outlet {
    pub(super) fn new(throttle: Arc<Throttle>) -> Outlet {
        Outlet(Mutex::new(Open {
            throttle,
            open: true,
        }))
    }

    pub(super) fn open(&self, throttle: Arc<Throttle>) {
        let mut inner = self.lock();
        inner.throttle = throttle;
        inner.open = true;
    }

    /// Takes all endpoints away, and says nothing any more.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.open = false;
        inner.throttle.set_endpoints(&[]);
    }

    pub(super) fn throttle(&self) -> Arc<Throttle> {
        Arc::clone(&self.lock().throttle)
    }

    pub(super) fn say(&self, what: impl FnOnce(&Throttle)) {
        let inner = self.lock();
        if inner.open {
            what(&inner.throttle);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(super) struct Machine {
    key: Key,
    pub(super) means: Arc<Means>,
    outlet: Arc<Outlet>,
    /// Where draining requests are counted; the outlet may have another one by now.
    throttle: Arc<Throttle>,
    news: mpsc::Sender<News>,
    /// Requests the link has not taken yet: at most two per process.
    pub(super) outbox: VecDeque<Request>,
    /// Processes that were asked for and are not ready.
    starts: HashMap<Id, Starting>,
    pub(super) probes: JoinSet<(Id, Proof)>,
    /// Of processes that failed a request.
    pub(super) checks: JoinSet<Option<SocketAddr>>,
    /// Those that are being checked.
    checked: HashMap<SocketAddr, AbortHandle>,
}

#[derive(Debug)]
struct Starting {
    address: SocketAddr,
    readiness: Readiness,
    seen: Arc<Seen>,
    probe: Option<AbortHandle>,
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(probe) = &self.probe {
            probe.abort();
        }
    }
}

impl Machine {
    pub(super) fn new(
        key: Key,
        means: Arc<Means>,
        outlet: Arc<Outlet>,
        news: mpsc::Sender<News>,
    ) -> Machine {
        let throttle = outlet.throttle();
        Machine {
            key,
            means,
            outlet,
            throttle,
            news,
            outbox: VecDeque::new(),
            starts: HashMap::new(),
            probes: JoinSet::new(),
            checks: JoinSet::new(),
            checked: HashMap::new(),
        }
    }

    /// Takes the outlet's throttle, and tells it what is published.
    pub(super) fn renew(&mut self, published: &[SocketAddr]) {
        self.throttle = self.outlet.throttle();
        self.set_endpoints(published);
    }

    pub(super) fn throttle(&self) -> &Throttle {
        &self.throttle
    }

    /// The process runs: ask it whether it is ready.
    pub(super) fn probe(&mut self, id: Id) {
        if let Some(starting) = self.starts.get_mut(&id) {
            let (address, readiness) = (starting.address, starting.readiness.clone());
            let seen = Arc::clone(&starting.seen);
            let probe = self
                .probes
                .spawn(async move { (id, until_ready(address, &readiness, &seen).await) });
            starting.probe = Some(probe);
        }
    }

    /// The process failed a request: ask it until it is well or any suspicion is over.
    pub(super) fn check(&mut self, address: SocketAddr, readiness: Readiness) {
        self.checked.retain(|_, check| !check.is_finished());
        let running = self.checked.entry(address);
        let checks = &mut self.checks;
        running.or_insert_with(|| {
            checks.spawn(async move {
                tokio::time::sleep(CHECK_AFTER).await;
                let seen = Seen::default();
                let well = until_ready(address, &readiness, &seen);
                let well = tokio::time::timeout(SUSPICION_MAX, well).await;
                well.is_ok().then_some(address)
            })
        });
    }

    /// It is no suspect any more.
    pub(super) fn trust(&mut self, address: SocketAddr) {
        self.outlet.say(|throttle| throttle.trust(address));
    }

    /// The process needs no probe any more; whether it was starting.
    pub(super) fn forget(&mut self, id: Id) -> bool {
        self.starts.remove(&id).is_some()
    }

    /// Sends what the link has room for; whether a process was among it.
    pub(super) fn send_requests(&mut self) -> bool {
        let mut asked = false;
        while !self.outbox.is_empty() {
            let Ok(permit) = self.means.requests.try_reserve() else {
                break;
            };
            if let Some(request) = self.outbox.pop_front() {
                asked |= matches!(request, Request::Start(_));
                permit.send(request);
            }
        }
        asked
    }
}

impl Host for Machine {
    fn start(&mut self, process: &Arc<Process>) -> Result<(Id, SocketAddr), Refusal> {
        let address = self.means.ports.free_address().map_err(|error| Refusal {
            cause: "there is no port for it".to_owned(),
            detail: error.to_string(),
        })?;
        let id = self.means.ids.fetch_add(1, Ordering::Relaxed);
        info!(revision = %self.key, %address, "starting a process");
        let start = Start {
            id,
            command: process.command.clone(),
            env: process.env.clone(),
            directory: process.directory.clone(),
            port: address.port(),
        };
        let starting = Starting {
            address,
            readiness: process.readiness.clone(),
            seen: Arc::default(),
            probe: None,
        };
        self.starts.insert(id, starting);
        self.outbox.push_back(Request::Start(Box::new(StartRequest {
            key: self.key.clone(),
            start,
            news: self.news.clone(),
        })));
        Ok((id, address))
    }

    fn stop(&mut self, id: Id) {
        self.forget(id);
        let grace = STOP_GRACE;
        self.outbox.push_back(Request::Stop { id, grace });
    }

    fn lacks(&self, id: Id) -> String {
        let seen = self.starts.get(&id).map(|starting| &starting.seen);
        seen.map_or_else(String::new, |seen| seen.lacks())
    }

    fn set_endpoints(&mut self, ready: &[SocketAddr]) {
        self.outlet.say(|throttle| throttle.set_endpoints(ready));
    }

    fn busy_at(&self, address: SocketAddr) -> u32 {
        self.throttle.busy_at(address)
    }

    fn in_flight_at(&self, address: SocketAddr) -> u32 {
        self.throttle.in_flight_at(address)
    }

    fn fail(&mut self, why: &str, until: Instant) {
        self.outlet.say(|throttle| throttle.fail(why.into(), until));
    }

    fn clear_failure(&mut self) {
        self.outlet.say(Throttle::clear_failure);
    }
}

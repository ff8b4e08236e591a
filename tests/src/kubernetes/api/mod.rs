//! An API server in the test's own process, over real sockets: what clients rely on, and what
//! goes wrong with one.
//!
//! Objects of any shape are taken: nothing is defaulted, validated or pruned, as webhooks and
//! schemas do it for a real one.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub use self::faults::Seen;
use self::faults::{Failing, Mishap};
pub(super) use self::server::{Ask, Server};
use super::cluster::Cluster;
use super::kind::{KNOWN, Kind};
use super::port::Port;
use crate::backend::accept;
use crate::wait::{PATIENCE, eventually};

mod discovery;
mod failure;
mod faults;
mod record;
mod rules;
mod selector;
mod server;
mod store;
mod target;
mod view;
mod watch;

/// A running API server. What it keeps outlives a stop; dropped, it is gone.
pub struct Api {
    server: Arc<Server>,
    port: Port,
    cluster: Cluster,
}

impl Deref for Api {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Api({})", self.port.address)
    }
}

impl Api {
    /// Empty, on a free port.
    ///
    /// # Panics
    /// Outside of a runtime.
    #[must_use]
    pub fn start() -> Api {
        let server = Arc::new(Server::new(&KNOWN));
        let port = Port::free();
        let cluster = Cluster::of_fake(server.clone(), port.address);
        let api = Api {
            server,
            port,
            cluster,
        };
        api.restart();
        api
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// Serves one more kind.
    pub fn register(&self, kind: Kind) {
        self.server.store.lock().unwrap().register(kind);
        self.cluster.learn(kind);
    }

    // --- what it saw ---

    /// All requests since the start, or since they were forgotten; without those that the test
    /// makes through [`Cluster`].
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.server.seen.lock().unwrap().clone()
    }

    pub fn forget_requests(&self) {
        self.server.seen.lock().unwrap().clear();
    }

    /// Requests that were to change something.
    #[must_use]
    pub fn writes(&self) -> Vec<Seen> {
        let mut requests = self.requests();
        requests.retain(Seen::writes);
        requests
    }

    /// Waits for such a request.
    pub async fn until_asked(&self, what: &str, wanted: impl Fn(&Seen) -> bool) -> Seen {
        eventually(PATIENCE, what, async || {
            let seen = self.server.seen.lock().unwrap();
            seen.iter().find(|seen| wanted(seen)).cloned()
        })
        .await
    }

    /// How many watches are open.
    #[must_use]
    pub fn watches(&self) -> usize {
        self.server.watches.load(Ordering::SeqCst)
    }

    /// Waits until as many are open.
    pub async fn until_watches(&self, wanted: impl Fn(usize) -> bool) {
        eventually(PATIENCE, "watches are as wanted", async || {
            wanted(self.watches()).then_some(())
        })
        .await;
    }

    // --- what goes wrong ---

    /// Closes the port and every connection, as the kernel does after kill -9. Objects stay, and
    /// the test may go on to change them.
    pub async fn stop(&self) {
        self.port.stop().await;
    }

    /// Listens on the same port again.
    ///
    /// # Panics
    /// When it was not stopped.
    pub fn restart(&self) {
        let server = self.server.clone();
        let handler = move |request| server.clone().answer(request);
        self.port.serve(|listener| accept(listener, false, handler));
    }

    /// Closes every connection. For a moment none is taken either.
    pub async fn cut(&self) {
        self.stop().await;
        self.restart();
    }

    /// Forgets what changed until now: a watch or the rest of a list that goes on from before is
    /// told 410 Gone. Watches that are open go on.
    pub fn compact(&self) {
        let mut store = self.server.store.lock().unwrap();
        store.compact();
        self.server.changed.send_replace(store.version());
    }

    /// Ends every open watch with 410 Gone.
    pub fn expire_watches(&self) {
        self.server
            .faults
            .send_modify(|faults| faults.expiries += 1);
    }

    /// Sends every open watch that allows it a bookmark.
    pub fn bookmark(&self) {
        self.server
            .faults
            .send_modify(|faults| faults.bookmarks += 1);
    }

    /// Watches stay open and tell nothing until this is taken back; then they tell everything.
    pub fn silence(&self, silent: bool) {
        self.server
            .faults
            .send_modify(|faults| faults.silent = silent);
    }

    /// Watches tell one change in that time.
    pub fn slow_watches(&self, pace: Duration) {
        self.server.faults.send_modify(|faults| faults.pace = pace);
    }

    /// Every answer comes that much later.
    pub fn delay(&self, delay: Duration) {
        self.server
            .faults
            .send_modify(|faults| faults.delay = delay);
    }

    /// Requests are read and not answered until this is taken back. Open watches go on.
    pub fn hold(&self, held: bool) {
        self.server.faults.send_modify(|faults| faults.held = held);
    }

    /// Refuses streaming lists, as servers without the feature do.
    pub fn refuse_streaming_lists(&self) {
        self.server.faults.send_modify(|faults| faults.old = true);
    }

    /// The next `count` requests of these fail with `code`.
    pub fn fail(&self, count: usize, code: u16, which: impl Fn(&Seen) -> bool + Send + 'static) {
        self.befall(count, Mishap::Refused(code), which);
    }

    /// The next `count` requests of these are read and never answered, as by a network that loses
    /// what comes back. Their connections stand.
    pub fn swallow(&self, count: usize, which: impl Fn(&Seen) -> bool + Send + 'static) {
        self.befall(count, Mishap::Swallowed, which);
    }

    /// The next `count` requests of these are carried out, and answered that much later.
    pub fn answer_late(
        &self,
        count: usize,
        pause: Duration,
        which: impl Fn(&Seen) -> bool + Send + 'static,
    ) {
        self.befall(count, Mishap::Late(pause), which);
    }

    /// Waits until all late answers are on their way.
    pub async fn until_nothing_is_late(&self) {
        eventually(PATIENCE, "nothing is late", async || {
            (self.server.late.load(Ordering::SeqCst) == 0).then_some(())
        })
        .await;
    }

    fn befall(&self, count: usize, mishap: Mishap, which: impl Fn(&Seen) -> bool + Send + 'static) {
        self.server.failing.lock().unwrap().push(Failing {
            left: count,
            mishap,
            which: Box::new(which),
        });
    }
}

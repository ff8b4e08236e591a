//! The embedded scaler: starts a revision's own processes on this machine and stops them again.
//!
//! [`Local`] has one task per revision (`task`), which waits for nudges, news and the clock, and
//! lets two pure parts decide: the autoscaler how many processes there should be, `fleet` which to
//! start, publish and let go. Processes belong to a child of ours (`supervise`), reached through
//! `link`; so this process forks once, and nothing of what it started outlives it.

mod backoff;
mod fleet;
mod link;
mod machine;
mod port;
mod probe;
mod protocol;
mod status;
mod supervise;
mod task;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::revision::{Key, Process, Revision};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::warn;

use self::link::{CLOSE_WITHIN, Link, Request};
use self::machine::{Means, Outlet};
use self::port::Ports;
use self::task::{Order, Parts, Task, Wake};
use crate::admission::{Supply, Throttle};
use crate::scaler::autoscale::Floor;

pub use self::status::LocalStatus;
pub use self::supervise::supervise;

/// How long [`Local::shutdown`] waits for processes that were told to end, before it has them
/// killed: the gateway has served its last request by then, and exits within a second.
pub const SHUTDOWN_WITHIN: Duration = Duration::from_millis(500);
/// Requests that wait for the link.
const REQUESTS: usize = 256;

/// The scaler of all revisions with a `process`.
///
/// Dropping it kills their processes at once; [`Local::shutdown`] lets them end.
#[derive(Debug)]
pub struct Local {
    shared: Arc<Shared>,
    link: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    runtime: Handle,
    means: Arc<Means>,
    tasks: Mutex<HashMap<Key, Entry>>,
}

#[derive(Debug)]
struct Entry {
    orders: watch::Sender<Order>,
    outlet: Arc<Outlet>,
    wake: Arc<Wake>,
    status: Arc<Mutex<LocalStatus>>,
    task: JoinHandle<()>,
}

impl Local {
    /// A scaler whose tasks run on the current runtime. `program` with `arguments` must call
    /// [`supervise()`]; it is started with the first revision that is adopted.
    ///
    /// # Errors
    /// When `program` is not a file.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(program: PathBuf, arguments: &[&str]) -> io::Result<Local> {
        if !program.metadata()?.is_file() {
            let why = format!("{} is not a program", program.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let link = Link {
            program,
            arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
        };
        let (requests, receiver) = mpsc::channel(REQUESTS);
        Ok(Local {
            link: tokio::spawn(link.run(receiver)),
            shared: Shared::new(requests),
        })
    }

    /// Brings endpoints for this revision from now on, to this throttle, whose supply it becomes.
    /// Adopted again, a changed scale takes effect in place; a changed command, environment or
    /// directory is started before processes of the old one drain.
    ///
    /// A revision without a process is released instead.
    pub fn adopt(&self, revision: Arc<Revision>, throttle: Arc<Throttle>) {
        self.shared.adopt(revision, throttle);
    }

    /// Takes the revision's endpoints away at once; its processes end when their requests have.
    /// The supply of the throttle is the caller's to change, before or after. Without effect for
    /// a revision that was not adopted.
    pub fn release(&self, key: &Key) {
        self.shared.release(key);
    }

    /// Requests are expected: until then there are at least so many processes, or as many as the
    /// revision may have. Without effect for a revision that was not adopted.
    pub fn expect(&self, key: &Key, floor: Floor) {
        self.shared.expect(key, floor);
    }

    /// What is known of this revision's processes; `None` when it was not adopted, or is released
    /// and all its processes are gone.
    pub fn status(&self, key: &Key) -> Option<LocalStatus> {
        let tasks = self.shared.lock();
        let status = tasks.get(key)?.status.lock();
        Some(status.unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Tells all processes to end, whatever they still serve, waits for at most
    /// [`SHUTDOWN_WITHIN`], and has what is left killed. Takes three quarters of a second at most.
    /// Not cancel safe: dropped half-way, everything is killed at once.
    pub async fn shutdown(mut self) {
        let tasks: Vec<Entry> = self.shared.lock().drain().map(|(_, entry)| entry).collect();
        for entry in &tasks {
            entry.outlet.close();
            entry.orders.send_replace(Order::Shutdown);
        }
        let all_ended = async {
            for entry in tasks {
                if let Err(error) = entry.task.await {
                    warn!("a revision's task failed: {error}");
                }
            }
        };
        if timeout(SHUTDOWN_WITHIN, all_ended).await.is_err() {
            warn!("killing processes that did not end when told to");
        }
        let close = async {
            // An error means that the link has ended already.
            if self
                .shared
                .means
                .requests
                .send(Request::Close)
                .await
                .is_ok()
                && let Err(error) = (&mut self.link).await
            {
                warn!("the supervisor's task failed: {error}");
            }
        };
        if timeout(CLOSE_WITHIN, close).await.is_err() {
            warn!("the supervisor is still killing processes");
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // Tasks end as their orders do; the child kills everything as its socket closes.
        self.shared.lock().clear();
        self.link.abort();
    }
}

impl Shared {
    fn new(requests: mpsc::Sender<Request>) -> Arc<Shared> {
        Arc::new(Shared {
            runtime: Handle::current(),
            means: Arc::new(Means {
                requests,
                ports: Ports::new(),
                ids: AtomicU64::new(1),
            }),
            tasks: Mutex::new(HashMap::new()),
        })
    }

    fn adopt(self: &Arc<Self>, revision: Arc<Revision>, throttle: Arc<Throttle>) {
        let Some(process) = task::process(&revision) else {
            self.release(&revision.key);
            return;
        };
        let supplied = Arc::clone(&throttle);
        let mut tasks = self.lock();
        let wake = match tasks.get(&revision.key) {
            Some(entry) => {
                entry.outlet.open(throttle);
                entry.orders.send_replace(Order::Adopt(revision));
                Arc::clone(&entry.wake)
            }
            None => {
                let entry = self.spawn(&revision, process, throttle);
                let wake = Arc::clone(&entry.wake);
                tasks.insert(revision.key.clone(), entry);
                wake
            }
        };
        drop(tasks);
        supplied.set_supply(Supply::Scaled(wake));
    }

    fn spawn(
        self: &Arc<Self>,
        revision: &Arc<Revision>,
        process: &Process,
        throttle: Arc<Throttle>,
    ) -> Entry {
        let (orders, received) = watch::channel(Order::Adopt(Arc::clone(revision)));
        let outlet = Arc::new(Outlet::new(throttle));
        let wake = Arc::new(Wake::default());
        let status = Arc::new(Mutex::new(LocalStatus::default()));
        let parts = Parts {
            means: Arc::clone(&self.means),
            orders: received,
            outlet: Arc::clone(&outlet),
            wake: Arc::clone(&wake),
            status: Arc::clone(&status),
        };
        let (shared, key) = (Arc::downgrade(self), revision.key.clone());
        // An order that comes while the task ends is either seen here or starts a new task.
        let may_end = move |orders: &watch::Receiver<Order>| {
            let Some(shared) = shared.upgrade() else {
                return true;
            };
            let mut tasks = shared.lock();
            let may_end = !orders.has_changed().unwrap_or(false);
            if may_end {
                tasks.remove(&key);
            }
            may_end
        };
        // When there is no room for it, the child has been asked for already.
        drop(self.means.requests.try_send(Request::Open));
        let _guard = self.runtime.enter();
        let task = Task::new(revision, process, parts);
        Entry {
            orders,
            outlet,
            wake,
            status,
            task: self.runtime.spawn(task.run(may_end)),
        }
    }

    fn release(&self, key: &Key) {
        if let Some(entry) = self.lock().get(key) {
            entry.outlet.close();
            entry.orders.send_replace(Order::Release);
        }
    }

    fn expect(&self, key: &Key, floor: Floor) {
        if let Some(entry) = self.lock().get(key) {
            entry.wake.expect(floor);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;

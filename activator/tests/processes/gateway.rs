//! The scaler as a whole, with requests that wait for it.

use std::future::Future;
use std::net::TcpStream;
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use activator::admission::{AcquireError, Claim, Clock, Gate, Holding, Limits, Supply, Throttle};
use activator::scaler::local::Local;
use activator::starts::{News, Start, Witness};
use config::revision::{Backend, Key, Process, Readiness, Revision, Scale};
use rustix::process::Signal;
use tokio::runtime::Runtime;

use crate::Test;
use crate::world::{descendants, is_alive, kill, own_path, until};

pub(crate) const TESTS: &[Test] = &[
    (
        "a_request_wakes_a_revision_and_shutdown_ends_it",
        a_request_wakes_a_revision_and_shutdown_ends_it,
    ),
    ("no_child_without_a_revision", no_child_without_a_revision),
    (
        "a_request_hears_why_a_process_does_not_start",
        a_request_hears_why_a_process_does_not_start,
    ),
    (
        "a_killed_gateway_leaves_nothing_behind",
        a_killed_gateway_leaves_nothing_behind,
    ),
    (
        "a_killed_supervisor_is_replaced",
        a_killed_supervisor_is_replaced,
    ),
    ("shutdown_asks_first", shutdown_asks_first),
    (
        "a_dropped_scaler_kills_everything",
        a_dropped_scaler_kills_everything,
    ),
    (
        "output_is_logged_under_the_name_of_its_revision",
        output_is_logged_under_the_name_of_its_revision,
    ),
    ("shutdown_waits_for_nobody", shutdown_waits_for_nobody),
];

/// Runs beside its descendants: sleepers in its group, in another session, and orphaned.
const FAMILY: &str = "sleep 1000 & setsid sleep 1000 & \
                      (setsid sh -c 'sleep 1000 & exec sleep 1000' &) ; exec \"$0\" serve";
const FAMILY_SIZE: usize = 5;

/// The starts that brought an endpoint.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<Start>>);

impl Witness for Told {
    fn hear(&self, start: &Start, news: News) {
        if news == News::Up {
            self.0.lock().unwrap().push(start.clone());
        }
    }
}

struct World {
    local: Local,
    throttle: Arc<Throttle>,
    told: Arc<Told>,
    runtime: Runtime,
}

fn revision(command: &[&str], min: u32) -> Arc<Revision> {
    Arc::new(Revision {
        concurrency: 10,
        queue: config::revision::Queue {
            depth: 100,
            wait: config::revision::Wait::For(Duration::from_secs(60)),
            ..Default::default()
        }
        .into(),
        ..Revision::plain(
            key(),
            Backend::Process(Box::new(Process {
                command: command.iter().map(|&word| word.to_owned()).collect(),
                env: vec![],
                directory: None,
                readiness: Readiness::Tcp,
                scale: Scale {
                    min,
                    max: 1,
                    target: 7.0,
                    window: Duration::from_secs(60),
                    grace: Duration::from_secs(60),
                },
            })),
        )
    })
}

fn key() -> Key {
    Key {
        namespace: "default".into(),
        name: "a".into(),
    }
}

impl World {
    fn new() -> World {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let guard = runtime.enter();
        let local = Local::start(own_path().into(), &["supervise"]).unwrap();
        let limits = Limits::new(10, 100);
        let throttle = Throttle::new(
            limits,
            Supply::None,
            &Holding::new(100, 0).namespace("default"),
            1,
        );
        drop(guard);
        let told = Arc::<Told>::default();
        throttle.starts().set_witness(told.clone());
        World {
            told,
            runtime,
            local,
            throttle,
        }
    }

    fn adopt(&self, command: &[&str], min: u32) {
        let throttle = Arc::clone(&self.throttle);
        self.local.adopt(revision(command, min), throttle);
    }

    /// A request: the error it got, or nothing after it connected to its endpoint.
    fn request(&self) -> Result<(), AcquireError> {
        let now = Instant::now();
        let gate = Gate::new(Arc::clone(&self.throttle), 0, Clock::new(now));
        let waiting = Rc::clone(&gate).wait(Claim::new(now))?;
        let slot = self.runtime.block_on(patiently(waiting))?;
        TcpStream::connect(slot.address()).unwrap();
        Ok(())
    }

    fn shutdown(self) {
        let below = descendants(own_pid());
        self.runtime.block_on(patiently(self.local.shutdown()));
        for pid in below {
            until("it ended", || !is_alive(pid));
        }
    }
}

async fn patiently<F: Future>(future: F) -> F::Output {
    let bound = Duration::from_secs(20);
    tokio::time::timeout(bound, future).await.unwrap()
}

fn own_pid() -> i32 {
    std::process::id().try_into().unwrap()
}

fn a_request_wakes_a_revision_and_shutdown_ends_it() {
    let world = World::new();
    world.adopt(&["tidegate", "serve"], 0);
    world.request().unwrap();
    let told = Arc::clone(&world.told);
    let told = told.0.lock().unwrap();
    let [start] = &told[..] else {
        panic!("{told:?}");
    };
    assert!(start.phases().endpoint.unwrap() > Duration::ZERO);
    assert_eq!(descendants(own_pid()).len(), 2);
    world.shutdown();
}

fn no_child_without_a_revision() {
    let world = World::new();
    assert!(descendants(own_pid()).is_empty());
    world.shutdown();
}

fn a_request_hears_why_a_process_does_not_start() {
    let world = World::new();
    world.adopt(&["sh", "-c", "echo boom >&2; exit 1"], 0);
    let why = "exited with status 1 before it was ready";
    let expected = AcquireError::StartFailed(why.into());
    assert_eq!(world.request().unwrap_err(), expected);
    world.shutdown();
    let world = World::new();
    world.adopt(&["/no/such/program"], 0);
    let AcquireError::StartFailed(why) = world.request().unwrap_err() else {
        panic!("it cannot have started");
    };
    assert_eq!(&*why, "its command was not found");
    world.shutdown();
}

/// A gateway for [`a_killed_gateway_leaves_nothing_behind`].
pub(crate) fn main() -> ExitCode {
    let world = World::new();
    world.adopt(&["sh", "-c", FAMILY, &own_path()], 1);
    world.runtime.block_on(std::future::pending())
}

fn a_killed_gateway_leaves_nothing_behind() {
    let mut gateway = Command::new(own_path()).arg("gateway").spawn().unwrap();
    let pid = gateway.id().try_into().unwrap();
    let mut family = descendants(pid);
    until("the whole family and its supervisor run", || {
        family = descendants(pid);
        family.len() == FAMILY_SIZE + 1
    });
    kill(pid, Signal::KILL);
    gateway.wait().unwrap();
    for pid in family {
        until("it was killed", || !is_alive(pid));
    }
}

fn a_killed_supervisor_is_replaced() {
    let world = World::new();
    world.adopt(&["tidegate", "serve"], 1);
    world.request().unwrap();
    let before = descendants(own_pid());
    let supervisor = before
        .iter()
        .find(|&&pid| descendants(pid).len() == 1)
        .unwrap();
    kill(*supervisor, Signal::KILL);
    for pid in before {
        until("it is gone", || !is_alive(pid));
    }
    until("it was replaced", || descendants(own_pid()).len() == 2);
    until("requests are served", || {
        world
            .throttle
            .endpoints()
            .iter()
            .any(|endpoint| TcpStream::connect(endpoint.address).is_ok())
    });
    world.request().unwrap();
    world.shutdown();
}

fn shutdown_waits_for_nobody() {
    let world = World::new();
    let script = "trap '' TERM; \"$0\" serve";
    world.adopt(&["sh", "-c", script, &own_path()], 1);
    world.request().unwrap();
    world.shutdown();
}

fn shutdown_asks_first() {
    let world = World::new();
    let directory = tempfile::tempdir().unwrap();
    let farewell = directory.path().join("farewell");
    let script = "trap 'echo bye > \"$1\"; exit' TERM; \"$0\" serve & wait";
    let path = farewell.to_str().unwrap();
    world.adopt(&["sh", "-c", script, &own_path(), path], 1);
    world.request().unwrap();
    world.shutdown();
    assert_eq!(std::fs::read_to_string(farewell).unwrap(), "bye\n");
}

fn a_dropped_scaler_kills_everything() {
    let world = World::new();
    world.adopt(&["sh", "-c", FAMILY, &own_path()], 1);
    until("the whole family and its supervisor run", || {
        descendants(own_pid()).len() == FAMILY_SIZE + 1
    });
    let family = descendants(own_pid());
    drop(world.local);
    for pid in family {
        until("it was killed", || !is_alive(pid));
    }
}

fn output_is_logged_under_the_name_of_its_revision() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let file = std::fs::File::create(&path).unwrap();
    tracing_subscriber::fmt().json().with_writer(file).init();
    let world = World::new();
    let script = "echo hello; echo oops >&2; exec \"$0\" serve";
    world.adopt(&["sh", "-c", script, &own_path()], 1);
    for (stream, line) in [("stdout", "hello"), ("stderr", "oops")] {
        until("the line is in the log", || {
            let log = std::fs::read_to_string(&path).unwrap();
            log.lines().any(|entry| {
                let Ok(entry) = serde_json::from_str::<serde_json::Value>(entry) else {
                    return false;
                };
                let fields = &entry["fields"];
                entry["target"] == "process"
                    && fields["message"] == line
                    && fields["stream"] == stream
                    && fields["revision"] == "default/a"
            })
        });
    }
    world.shutdown();
}

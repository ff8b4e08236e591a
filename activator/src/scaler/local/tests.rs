//! The scaler with its real throttle under a paused clock; only the child is played by the test.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use config::revision::{Backend, Process, Protocol, Readiness, RevisionId, Scale};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::link::{News, StartRequest};
use super::machine::STOP_GRACE;
use super::protocol::{Exit, Id};
use super::*;
use crate::admission::{AcquireError, Clock, Gate, Holding, Limits, Slot, Waiting};

const TARGET: f64 = 2.0;
const WINDOW: Duration = Duration::from_secs(10);
const GRACE: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

fn scale() -> Scale {
    Scale {
        min: 0,
        max: 10,
        target: TARGET,
        window: WINDOW,
        grace: GRACE,
    }
}

fn revision(command: &str, scale: Scale) -> Arc<Revision> {
    Arc::new(Revision {
        id: RevisionId(0),
        key: key(),
        protocol: Protocol::Http1,
        tls: None,
        concurrency: 2,
        timeout: None,
        max_duration: None,
        idle: None,
        queue_depth: 1000,
        queue_bytes: None,
        queue_wait: Duration::from_secs(300),
        backend: Backend::Process(Box::new(Process {
            command: vec![command.to_owned()],
            env: vec![("A".to_owned(), "b".to_owned())],
            directory: Some("/app".into()),
            readiness: Readiness::Tcp,
            scale,
        })),
    })
}

fn key() -> Key {
    Key {
        namespace: "default".into(),
        name: "a".into(),
    }
}

struct World {
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
    throttle: Arc<Throttle>,
    gate: Rc<Gate>,
    clock: Rc<Clock>,
    /// What the processes listen on.
    listeners: Vec<(Id, TcpListener)>,
}

impl World {
    fn new() -> World {
        let (sender, requests) = mpsc::channel(REQUESTS);
        let limits = Limits {
            concurrency: 2,
            queue_depth: 1000,
            queue_bytes: None,
        };
        let holding = Holding::new(1000, 0);
        let throttle = Throttle::new(limits, Supply::None, &holding.namespace("default"), 1);
        let clock = Clock::new(Instant::now().into_std());
        World {
            shared: Shared::new(sender),
            requests,
            gate: Gate::new(Arc::clone(&throttle), 0, Rc::clone(&clock)),
            throttle,
            clock,
            listeners: vec![],
        }
    }

    fn adopt(&self, revision: Arc<Revision>) {
        self.shared.adopt(revision, Arc::clone(&self.throttle));
    }

    fn wait(&self) -> Waiting {
        let now = Instant::now().into_std();
        self.clock.set(now);
        self.gate.wait(now, None).unwrap()
    }

    /// Gives back a slot, as of now.
    fn free<T>(&self, slot: T) {
        self.clock.set(Instant::now().into_std());
        drop(slot);
    }

    async fn request(&mut self) -> Request {
        loop {
            match self.requests.recv().await.unwrap() {
                Request::Open => {}
                request => return request,
            }
        }
    }

    async fn start(&mut self) -> StartRequest {
        match self.request().await {
            Request::Start(start) => *start,
            request => panic!("{request:?}"),
        }
    }

    async fn stop(&mut self) -> Id {
        match self.request().await {
            Request::Stop { id, grace } => {
                assert_eq!(grace, STOP_GRACE);
                id
            }
            request => panic!("{request:?}"),
        }
    }

    /// Plays a process that listens.
    async fn run(&mut self, start: &StartRequest) -> SocketAddr {
        let address = SocketAddr::from(([127, 0, 0, 1], start.start.port));
        let listener = TcpListener::bind(address).await.unwrap();
        self.listeners.push((start.start.id, listener));
        let news = News::Started(start.start.id);
        start.news.send(news).await.unwrap();
        address
    }

    async fn exit(&mut self, start: &StartRequest, exit: Exit) {
        let id = start.start.id;
        self.listeners.retain(|(listening, _)| *listening != id);
        start.news.send(News::Exited(id, exit)).await.unwrap();
    }

    /// A request at zero, and the process that was started for it.
    async fn cold_start(&mut self) -> (Slot, StartRequest) {
        let waiting = self.wait();
        let start = self.start().await;
        self.run(&start).await;
        (waiting.await.unwrap(), start)
    }

    fn status(&self) -> Option<LocalStatus> {
        let tasks = self.shared.lock();
        let status = tasks.get(&key())?.status.lock().unwrap().clone();
        Some(status)
    }

    async fn nothing_for(&mut self, time: Duration) {
        let request = timeout(time, self.request()).await;
        assert!(request.is_err(), "{request:?}");
    }
}

fn failed() -> Exit {
    Exit {
        status: Some(1),
        signal: None,
        tail: "boom".to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_request_starts_a_process_at_once_and_gets_its_slot() {
    let mut world = World::new();
    world.adopt(revision("app", scale()));
    world.nothing_for(WINDOW * 10).await;
    let before = Instant::now();
    let waiting = world.wait();
    let start = world.start().await;
    assert_eq!(Instant::now(), before, "no tick was waited for");
    assert_eq!(start.key, key());
    assert_eq!(start.start.command, ["app"]);
    assert_eq!(start.start.env, [("A".to_owned(), "b".to_owned())]);
    assert_eq!(start.start.directory.as_deref(), Some("/app".as_ref()));
    assert_eq!(world.status().unwrap().starting.len(), 1);
    let address = world.run(&start).await;
    let slot = waiting.await.unwrap();
    assert_eq!(slot.address(), address);
    assert!(before.elapsed() < SECOND);

    let status = world.status().unwrap();
    assert_eq!((status.cold_starts, status.wanted), (1, 1));
    assert!(status.starting.is_empty());
    let phases = status.last_start.unwrap().phases;
    assert_eq!(status.total, phases);
    assert_eq!(phases.nudge + phases.act, Duration::ZERO);
    world.free(slot);
}

#[tokio::test(start_paused = true)]
async fn an_idle_revision_goes_to_zero_after_window_and_grace() {
    let mut world = World::new();
    world.adopt(revision("app", scale()));
    let (slot, start) = world.cold_start().await;
    world.nothing_for(Duration::from_secs(100)).await;
    world.free(slot);
    let idle_since = Instant::now();
    assert_eq!(world.stop().await, start.start.id);
    let idle = idle_since.elapsed();
    assert!(idle >= WINDOW + GRACE && idle <= WINDOW + GRACE + 2 * SECOND);
    assert!(world.throttle.endpoints().is_empty());
    world.exit(&start, Exit::default()).await;
    world.nothing_for(WINDOW * 10).await;
    let (slot, _) = world.cold_start().await;
    assert_eq!(world.status().unwrap().cold_starts, 2);
    world.free(slot);
}

#[tokio::test(start_paused = true)]
async fn the_least_number_is_there_before_any_request() {
    let mut world = World::new();
    let least = Scale { min: 2, ..scale() };
    world.adopt(revision("app", least));
    for _ in 0..2 {
        let start = world.start().await;
        world.run(&start).await;
    }
    world.nothing_for(WINDOW * 10).await;
    assert_eq!(world.throttle.endpoints().len(), 2);
    assert_eq!(world.status().unwrap().cold_starts, 0);
}

#[tokio::test(start_paused = true)]
async fn a_queue_is_met_within_two_ticks() {
    let mut world = World::new();
    world.adopt(revision("app", scale()));
    let waiting: Vec<Waiting> = (0..12).map(|_| world.wait()).collect();
    let before = Instant::now();
    let mut starts = vec![];
    for _ in 0..6 {
        starts.push(world.start().await);
    }
    assert!(before.elapsed() <= 2 * SECOND);
    for start in &starts {
        world.run(start).await;
    }
    let mut slots = vec![];
    for waiting in waiting {
        slots.push(waiting.await.unwrap());
    }
    world.free(slots);
}

#[tokio::test(start_paused = true)]
async fn waiting_requests_are_told_why_a_process_does_not_start() {
    let mut world = World::new();
    world.adopt(revision("app", scale()));
    let mut waiting = world.wait();
    for round in 0..3 {
        let start = world.start().await;
        assert_ne!(start.start.port, 0);
        let pending = std::future::poll_fn(|context| {
            Poll::Ready(Pin::new(&mut waiting).poll(context).is_pending())
        });
        assert!(pending.await, "round {round}");
        world.exit(&start, failed()).await;
    }
    let Err(AcquireError::StartFailed(why)) = waiting.await else {
        panic!("it must be told");
    };
    assert_eq!(&*why, "exited with status 1 before it was ready: boom");
    // It is tried again as long as the window remembers the demand, and works at last.
    let start = world.start().await;
    world.run(&start).await;
    while world.throttle.endpoints().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let slot = world.wait().await.unwrap();
    world.free(slot);
}

#[tokio::test(start_paused = true)]
async fn a_program_that_cannot_be_executed_is_tried_anew_for_a_later_request() {
    let mut world = World::new();
    world.adopt(revision("nope", scale()));
    let waiting = world.wait();
    let before = Instant::now();
    let refuse = async |start: StartRequest| {
        let news = News::Refused(start.start.id, "cannot execute it".to_owned());
        start.news.send(news).await.unwrap();
    };
    let start = world.start().await;
    refuse(start).await;
    let error = waiting.await.unwrap_err();
    assert_eq!(error, AcquireError::StartFailed("cannot execute it".into()));
    assert!(before.elapsed() < SECOND);
    // Nobody asks any more: after window and grace it is no longer tried, nor known to fail.
    let mut last = Instant::now();
    while let Ok(start) = timeout(WINDOW * 10, world.start()).await {
        refuse(start).await;
        last = Instant::now();
    }
    assert!(last - before <= WINDOW + GRACE + 2 * SECOND);
    let waiting = world.wait();
    let start = world.start().await;
    world.run(&start).await;
    let slot = waiting.await.unwrap();
    world.free(slot);
}

#[tokio::test(start_paused = true)]
async fn a_released_revision_loses_its_endpoints_at_once_and_its_processes_after_their_requests() {
    let mut world = World::new();
    world.adopt(revision("app", scale()));
    let (slot, start) = world.cold_start().await;
    world.shared.release(&key());
    assert!(world.gate.try_acquire(0).is_none());
    world.nothing_for(Duration::from_secs(60)).await;
    world.free(slot);
    assert_eq!(world.stop().await, start.start.id);
    assert!(world.status().is_some());
    world.exit(&start, Exit::default()).await;
    while world.status().is_some() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_revision_adopted_again_keeps_the_processes_that_still_drain() {
    let mut world = World::new();
    world.adopt(revision("app", scale()));
    let (slot, _) = world.cold_start().await;
    world.shared.release(&key());
    world.nothing_for(SECOND).await;
    world.adopt(revision("app", scale()));
    let second = world.wait().await.unwrap();
    assert_eq!(second.address(), slot.address());
    world.nothing_for(SECOND).await;
    world.free((slot, second));
}

#[tokio::test(start_paused = true)]
async fn a_changed_command_is_ready_before_the_old_one_ends() {
    let mut world = World::new();
    world.adopt(revision("old", scale()));
    let (slot, old) = world.cold_start().await;
    world.adopt(revision("new", scale()));
    let new = world.start().await;
    assert_eq!(new.start.command, ["new"]);
    let during = world.wait().await.unwrap();
    assert_eq!(during.address(), slot.address());
    let address = world.run(&new).await;
    world.nothing_for(SECOND).await;
    let after = world.wait().await.unwrap();
    assert_eq!(after.address(), address);
    world.free((slot, during));
    assert_eq!(world.stop().await, old.start.id);
    world.free(after);
}

#[tokio::test(start_paused = true)]
async fn a_changed_scale_takes_effect_in_place() {
    let mut world = World::new();
    world.adopt(revision("app", Scale { min: 3, ..scale() }));
    for _ in 0..3 {
        let start = world.start().await;
        world.run(&start).await;
    }
    world.nothing_for(SECOND).await;
    world.adopt(revision("app", Scale { max: 1, ..scale() }));
    let stopped = [world.stop().await, world.stop().await];
    assert_ne!(stopped[0], stopped[1]);
    assert_eq!(world.throttle.endpoints().len(), 1);
    world.adopt(revision("app", Scale { min: 2, ..scale() }));
    world.start().await;
}

#[tokio::test(start_paused = true)]
async fn processes_lost_with_the_supervisor_are_replaced_on_demand() {
    let mut world = World::new();
    world.adopt(revision("app", scale()));
    let (slot, start) = world.cold_start().await;
    world.free(slot);
    world.listeners.clear();
    let news = News::Lost(start.start.id);
    start.news.send(news).await.unwrap();
    let start = world.start().await;
    let address = world.run(&start).await;
    let slot = world.wait().await.unwrap();
    assert_eq!(slot.address(), address);
    world.free(slot);
}

#[tokio::test(start_paused = true)]
async fn tasks_end_when_the_scaler_is_dropped() {
    let mut world = World::new();
    world.adopt(revision("app", scale()));
    let (slot, _) = world.cold_start().await;
    let tasks = std::mem::take(&mut *world.shared.lock());
    for entry in tasks.into_values() {
        drop(entry.orders);
        entry.task.await.unwrap();
    }
    world.free(slot);
}

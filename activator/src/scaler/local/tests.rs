//! The scaler with its real throttle under a paused clock; only the child is played by the test.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use config::revision::{Backend, Process, Readiness, Scale};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::fleet::CRASHES;
use super::link::{News, StartRequest};
use super::machine::STOP_GRACE;
use super::protocol::{Exit, Id, Refusal};
use super::*;
use crate::admission::{AcquireError, Claim, Clock, Gate, Holding, Limits, Slot, Waiting};
use crate::starts::{self, Outcome, Start, Witness};

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
        concurrency: 2,
        ..Revision::plain(
            key(),
            Backend::Process(Box::new(Process {
                command: vec![command.to_owned()],
                env: vec![("A".to_owned(), "b".to_owned())],
                directory: Some("/app".into()),
                readiness: Readiness::Tcp,
                scale,
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

struct World {
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
    throttle: Arc<Throttle>,
    gate: Rc<Gate>,
    clock: Rc<Clock>,
    /// What the processes listen on.
    listeners: Vec<(Id, TcpListener)>,
    starts: Arc<Told>,
}

/// What was told of starts.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<(Start, starts::News)>>);

impl Witness for Told {
    fn hear(&self, start: &Start, news: starts::News) {
        self.0.lock().unwrap().push((start.clone(), news));
    }
}

impl Told {
    /// How often an endpoint came.
    fn count(&self) -> usize {
        let told = self.0.lock().unwrap();
        told.iter()
            .filter(|(_, news)| *news == starts::News::Up)
            .count()
    }

    fn last(&self) -> (Start, starts::News) {
        self.0.lock().unwrap().last().unwrap().clone()
    }
}

impl World {
    fn new() -> World {
        let (sender, requests) = mpsc::channel(REQUESTS);
        let limits = Limits::new(2, 1000);
        let holding = Holding::new(1000, 0);
        let throttle = Throttle::new(limits, Supply::None, &holding.namespace("default"), 1);
        let clock = Clock::new(Instant::now().into_std());
        let starts = Arc::<Told>::default();
        throttle.starts().set_witness(starts.clone());
        World {
            starts,
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
        self.gate.wait(Claim::new(now)).unwrap()
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
    assert_eq!(status.wanted, 1);
    assert!(status.starting.is_empty());
    let (start, news) = world.starts.last();
    assert_eq!((start.outcome, news), (Some(Outcome::Ok), starts::News::Up));
    let phases = start.phases();
    assert_eq!(
        (phases.nudge, phases.act),
        (Some(Duration::ZERO), Some(Duration::ZERO))
    );
    assert!(
        phases.endpoint.is_some() && phases.probe.is_some(),
        "{phases:?}"
    );
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
    assert_eq!(world.starts.count(), 2);
    world.free(slot);
}

#[tokio::test(start_paused = true)]
async fn what_is_expected_is_started_at_once_and_ends_when_nothing_came() {
    let mut world = World::new();
    world.adopt(revision("app", scale()));
    let floor = |world: &World, endpoints, time| {
        let floor = Floor::new(endpoints, Instant::now().into_std(), time, 300 * SECOND);
        world.shared.expect(&key(), floor);
    };
    let start = Instant::now();
    floor(&world, 2, 60 * SECOND);
    let starts = [world.start().await, world.start().await];
    assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
    for start in &starts {
        world.run(start).await;
    }
    world.nothing_for(55 * SECOND).await;
    assert_eq!(world.throttle.ready(), 2);
    let stopped = [world.stop().await, world.stop().await];
    assert_eq!(stopped.len(), 2);
    let elapsed = start.elapsed();
    assert!(elapsed < 66 * SECOND, "{elapsed:?}");
    // A revision that is there no longer expects nothing.
    world.shared.release(&key());
    floor(&world, 1, 60 * SECOND);
    world.nothing_for(5 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_expected_for_less_than_its_start_takes_is_there_for_that_long() {
    let mut world = World::new();
    world.adopt(revision("app", scale()));
    let now = Instant::now().into_std();
    let floor = Floor::new(1, now, 20 * SECOND, 300 * SECOND);
    world.shared.expect(&key(), floor);
    let start = world.start().await;
    world.nothing_for(75 * SECOND).await;
    world.run(&start).await;
    let ready = Instant::now();
    world.nothing_for(19 * SECOND).await;
    assert_eq!(world.throttle.ready(), 1);
    world.stop().await;
    let kept = ready.elapsed();
    assert!(kept >= 20 * SECOND && kept < 30 * SECOND, "{kept:?}");
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
    assert_eq!(world.starts.count(), 0);
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
async fn a_start_whose_processes_crash_at_their_first_request_has_failed() {
    let mut world = World::new();
    world.adopt(revision("app", Scale { max: 1, ..scale() }));
    let mut waiting = world.wait();
    for round in 1..=CRASHES {
        let start = world.start().await;
        world.run(&start).await;
        let slot = waiting.await.unwrap();
        world.clock.set(Instant::now().into_std());
        slot.suspect();
        drop(slot);
        waiting = world.wait();
        let (told, news) = world.starts.last();
        assert_eq!(
            (told.outcome, news),
            (Some(Outcome::Ok), starts::News::Up),
            "round {round}"
        );
        world.exit(&start, failed()).await;
    }
    let Err(AcquireError::StartFailed(why)) = waiting.await else {
        panic!("it must be told");
    };
    assert_eq!(&*why, "exited with status 1 soon after it was ready");
    let (told, news) = world.starts.last();
    assert_eq!(
        (told.outcome, told.cause, news),
        (Some(Outcome::Failed), Some(why), starts::News::Ended)
    );
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
    assert_eq!(&*why, "exited with status 1 before it was ready");
    let (told, _) = world.starts.last();
    assert_eq!(
        (told.outcome, told.cause),
        (Some(Outcome::Failed), Some(why))
    );
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
        let refusal = Refusal {
            cause: "not found".to_owned(),
            detail: "/secret".to_owned(),
        };
        let news = News::Refused(start.start.id, refusal);
        start.news.send(news).await.unwrap();
    };
    let start = world.start().await;
    refuse(start).await;
    let error = waiting.await.unwrap_err();
    assert_eq!(error, AcquireError::StartFailed("not found".into()));
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

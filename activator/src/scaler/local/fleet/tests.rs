use super::*;
use config::revision::{Backend, Protocol, Readiness, Scale};
use std::collections::HashMap;

/// Does what it is asked and writes it down.
#[derive(Default)]
struct FakeHost {
    next: Id,
    /// Asked for and not ended, with the first word of the command.
    running: Vec<(Id, String)>,
    stopped: Vec<Id>,
    endpoints: Vec<SocketAddr>,
    in_flight: HashMap<SocketAddr, u32>,
    /// Of those.
    resting: HashMap<SocketAddr, u32>,
    failure: Option<String>,
    /// Until when.
    fails_until: Option<Instant>,
    portless: bool,
}

fn address(id: Id) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1000 + u16::try_from(id).unwrap()))
}

impl Host for FakeHost {
    fn start(&mut self, process: &Arc<Process>) -> Result<(Id, SocketAddr), Refusal> {
        if self.portless {
            return Err(refusal("no port"));
        }
        self.next += 1;
        self.running.push((self.next, process.command[0].clone()));
        Ok((self.next, address(self.next)))
    }

    fn stop(&mut self, id: Id) {
        self.stopped.push(id);
    }

    fn lacks(&self, _id: Id) -> String {
        "it sleeps".to_owned()
    }

    fn set_endpoints(&mut self, ready: &[SocketAddr]) {
        self.endpoints = ready.to_vec();
    }

    fn busy_at(&self, address: SocketAddr) -> u32 {
        let resting = self.resting.get(&address).copied().unwrap_or(0);
        self.in_flight_at(address) - resting
    }

    fn in_flight_at(&self, address: SocketAddr) -> u32 {
        self.in_flight.get(&address).copied().unwrap_or(0)
    }

    fn fail(&mut self, why: &str, until: Instant) {
        self.failure = Some(why.to_owned());
        self.fails_until = Some(until);
    }

    fn clear_failure(&mut self) {
        self.failure = None;
        self.fails_until = None;
    }
}

struct World {
    fleet: Fleet,
    host: FakeHost,
    now: Instant,
    revision: Revision,
}

fn process(command: &str) -> Process {
    Process {
        command: vec![command.to_owned()],
        env: vec![],
        directory: None,
        readiness: Readiness::Tcp,
        scale: Scale {
            min: 0,
            max: 10,
            target: 1.0,
            window: Duration::from_secs(60),
            grace: Duration::from_secs(30),
        },
    }
}

fn refusal(cause: &str) -> Refusal {
    Refusal {
        cause: cause.to_owned(),
        detail: "/secret".to_owned(),
    }
}

fn exit(status: i32, tail: &str) -> Exit {
    Exit {
        status: Some(status),
        signal: None,
        tail: tail.to_owned(),
    }
}

impl World {
    fn new() -> World {
        let key = Key {
            namespace: "default".into(),
            name: "a".into(),
        };
        let queue = config::revision::Queue {
            // Less than a start may take.
            wait: config::revision::Wait::For(Duration::from_secs(5)),
            ..Default::default()
        };
        let revision = Revision {
            queue: queue.into(),
            ..Revision::plain(key, Backend::None)
        };
        World {
            fleet: Fleet::new(&revision, &process("first")),
            host: FakeHost::default(),
            now: Instant::now(),
            revision,
        }
    }

    /// With this many ready processes, ids from 1.
    fn with_ready(count: u32) -> World {
        let mut world = World::new();
        world.want(count);
        world.all_ready();
        assert_eq!(world.host.endpoints.len(), count as usize);
        world
    }

    fn want(&mut self, wanted: u32) {
        self.fleet.want(wanted, self.now, &mut self.host);
    }

    fn ready(&mut self, id: Id) {
        self.fleet.ready(id, self.now, &mut self.host);
    }

    /// Every process that starts becomes ready, until none starts.
    fn all_ready(&mut self) {
        loop {
            let starting: Vec<_> = self.fleet.starting().collect();
            if starting.is_empty() {
                return;
            }
            for started in starting {
                self.ready(Id::from(started.port() - 1000));
            }
        }
    }

    fn exited(&mut self, id: Id, exit: &Exit) {
        self.host.running.retain(|(running, _)| *running != id);
        self.fleet.exited(id, exit, self.now, &mut self.host);
    }

    fn configure(&mut self, process: &Process) {
        let (now, host) = (self.now, &mut self.host);
        self.fleet.configure(&self.revision, process, now, host);
    }

    /// Lets time pass, as the task does: from deadline to deadline.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.fleet.next_deadline(self.now).filter(|&at| at <= end) {
            self.now = at.max(self.now + Duration::from_millis(1));
            self.fleet.expire(self.now, &mut self.host);
        }
        self.now = self.now.max(end);
        self.fleet.expire(self.now, &mut self.host);
    }

    fn last(&self) -> Id {
        self.host.next
    }
}

fn addresses(ids: &[Id]) -> Vec<SocketAddr> {
    ids.iter().map(|&id| address(id)).collect()
}

#[test]
fn wanted_processes_start_and_are_published_once_ready() {
    let mut world = World::new();
    world.want(3);
    assert_eq!(world.host.running.len(), 3);
    assert!(world.host.endpoints.is_empty());
    assert_eq!(world.fleet.starting().count(), 3);
    world.ready(2);
    assert_eq!(world.host.endpoints, addresses(&[2]));
    world.ready(2);
    world.ready(1);
    assert_eq!(world.host.endpoints, addresses(&[1, 2]));
    assert_eq!(world.fleet.ready_count(), 2);
    world.want(3);
    assert_eq!(world.last(), 3, "nothing is started twice");
}

#[test]
fn only_so_many_start_at_the_same_time() {
    let mut world = World::new();
    world.want(100);
    assert_eq!(world.host.running.len(), STARTS_AT_ONCE);
    world.ready(1);
    assert_eq!(world.host.running.len(), STARTS_AT_ONCE + 1);
    world.all_ready();
    assert_eq!(world.fleet.ready_count(), 100);
}

#[test]
fn early_exits_pause_longer_and_longer_and_are_told_after_three_rounds() {
    let mut world = World::new();
    world.want(1);
    let mut starts = vec![];
    for round in 1..=4 {
        starts.push(world.now);
        let id = world.last();
        world.exited(id, &exit(1, "no such module"));
        let why = "exited with status 1 before it was ready";
        let told = (round >= 3).then_some(why);
        assert_eq!(world.host.failure.as_deref(), told, "round {round}");
        let pause = Duration::from_millis(250 << (round - 1));
        let until = told.map(|_| world.now + pause);
        assert_eq!(world.host.fails_until, until, "round {round}");
        world.pass(pause - Duration::from_millis(1));
        assert_eq!(world.last(), id, "too early in round {round}");
        assert_eq!(world.host.failure.as_deref(), told, "round {round}");
        world.pass(Duration::from_millis(1));
        assert_eq!(world.last(), id + 1, "too late in round {round}");
        assert_eq!(world.host.failure, None, "requests may wait for it");
    }
    let id = world.last();
    world.ready(id);
    assert_eq!(world.host.failure, None);
    assert_eq!(world.host.endpoints, addresses(&[id]));
}

#[test]
fn a_round_of_many_counts_once_and_one_tries_next() {
    let mut world = World::new();
    world.want(5);
    for id in 1..=5 {
        world.exited(id, &exit(1, ""));
    }
    assert_eq!(world.host.failure, None);
    world.pass(Duration::from_millis(250));
    assert_eq!(world.host.running.len(), 1);
    world.ready(6);
    world.all_ready();
    assert_eq!(world.fleet.ready_count(), 5);
}

#[test]
fn a_program_that_cannot_be_executed_is_told_at_once() {
    let mut world = World::new();
    world.want(1);
    let why = refusal("its command was not found");
    world.fleet.refused(1, &why, world.now, &mut world.host);
    assert_eq!(world.host.failure, Some(why.cause));
    assert_eq!(world.last(), 1);
    world.pass(Duration::from_millis(250));
    assert_eq!(world.last(), 2, "it is tried again");

    let mut world = World::new();
    world.host.portless = true;
    world.want(3);
    assert_eq!(world.host.failure.as_deref(), Some("no port"));
    world.host.portless = false;
    world.pass(Duration::from_millis(250));
    assert_eq!(world.last(), 1);
}

#[test]
fn a_failure_lasts_as_long_as_its_pause_whoever_wants_the_revision() {
    let mut world = World::new();
    world.want(1);
    for _ in 0..2 {
        let id = world.last();
        world.exited(id, &exit(1, ""));
        world.pass(Duration::from_secs(1));
    }
    let id = world.last();
    world.exited(id, &exit(1, ""));
    world.want(0);
    world.pass(Duration::from_millis(999));
    assert!(world.host.failure.is_some());
    world.pass(Duration::from_millis(1));
    assert_eq!(world.host.failure, None);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.last(), id, "nothing is tried while nobody wants it");
    world.want(1);
    assert_eq!(world.last(), id + 1);
    world.exited(id + 1, &exit(1, ""));
    assert!(world.host.failure.is_some(), "it is known to fail");
}

#[test]
fn a_taken_port_is_replaced_without_a_pause_a_few_times() {
    let mut world = World::new();
    world.want(1);
    for _ in 0..PORT_RETRIES {
        let id = world.last();
        world.exited(id, &exit(1, "OSError: [Errno 98] Address already in use"));
        assert_eq!(world.last(), id + 1);
    }
    let id = world.last();
    world.exited(id, &exit(1, "listen EADDRINUSE: 127.0.0.1:80"));
    assert_eq!(world.last(), id);
    world.pass(Duration::from_millis(250));
    assert_eq!(world.last(), id + 1);
}

#[test]
fn what_is_not_ready_in_time_is_stopped_and_replaced() {
    let mut world = World::new();
    world.want(1);
    world.pass(START_TIMEOUT - Duration::from_millis(1));
    assert!(world.host.stopped.is_empty());
    world.pass(Duration::from_millis(1));
    assert_eq!(world.host.stopped, [1]);
    let why = "was not ready within 60 s: it sleeps";
    assert_eq!(world.host.failure.as_deref(), Some(why));
    world.pass(Duration::from_millis(250));
    assert_eq!(world.last(), 2);
    assert_eq!(world.host.failure, None);
    world.ready(1);
    assert!(world.host.endpoints.is_empty(), "too late");
}

#[test]
fn a_start_may_take_as_long_as_requests_wait_for_it() {
    let mut world = World::new();
    let queue = Arc::make_mut(&mut world.revision.queue);
    queue.wait = config::revision::Wait::For(Duration::from_secs(600));
    world.configure(&process("first"));
    world.want(1);
    world.pass(Duration::from_secs(599));
    assert!(world.host.stopped.is_empty());
    world.pass(Duration::from_secs(1));
    assert_eq!(world.host.stopped, [1]);
}

#[test]
fn a_ready_process_that_exits_is_taken_away_and_replaced_at_once() {
    let mut world = World::with_ready(2);
    world.pass(HEALTHY);
    world.exited(1, &exit(137, ""));
    assert_eq!(world.host.endpoints, addresses(&[2]));
    assert_eq!(world.last(), 3);
}

#[test]
fn a_process_that_crashes_soon_after_it_was_ready_is_replaced_with_a_pause() {
    let mut world = World::with_ready(1);
    for round in 1..=6 {
        let id = world.last();
        world.exited(id, &exit(1, ""));
        assert_eq!(world.last(), id);
        // The first pauses are waited for.
        let why = "exited with status 1 soon after it was ready";
        let told = (round >= CRASHES).then_some(why);
        assert_eq!(world.host.failure.as_deref(), told, "round {round}");
        assert!(world.host.endpoints.is_empty());
        world.pass(Duration::from_secs(8));
        assert_eq!(world.last(), id + 1);
        assert_eq!(world.host.failure, None, "round {round}");
        world.ready(id + 1);
    }
    // Having been well for a while, it is trusted again.
    world.pass(HEALTHY);
    let id = world.last();
    world.exited(id, &exit(1, ""));
    assert_eq!(world.last(), id + 1);
}

#[test]
fn the_least_busy_leave_first_and_end_when_their_requests_have() {
    let mut world = World::with_ready(3);
    world.host.in_flight.insert(address(1), 2);
    world.host.in_flight.insert(address(2), 1);
    world.host.in_flight.insert(address(3), 5);
    world.want(1);
    assert_eq!(world.host.endpoints, addresses(&[3]));
    assert!(world.host.stopped.is_empty());
    world.host.in_flight.insert(address(1), 0);
    world.pass(DRAIN_POLL);
    assert_eq!(world.host.stopped, [1]);
    world.host.in_flight.insert(address(2), 0);
    world.pass(DRAIN_POLL);
    assert_eq!(world.host.stopped, [1, 2]);
    world.exited(1, &Exit::default());
    world.exited(2, &Exit::default());
    assert_eq!(world.last(), 3, "they are not replaced");
}

#[test]
fn an_idle_process_is_stopped_in_the_same_turn_that_takes_it_away() {
    let mut world = World::with_ready(1);
    world.want(0);
    assert!(world.host.endpoints.is_empty());
    assert_eq!(world.host.stopped, [1]);
    assert!(!world.fleet.is_empty());
    world.exited(1, &Exit::default());
    assert!(world.fleet.is_empty());
}

#[test]
fn draining_is_bounded() {
    let mut world = World::with_ready(1);
    world.host.in_flight.insert(address(1), 1);
    world.want(0);
    world.pass(DRAIN_MAX - Duration::from_millis(1));
    assert!(world.host.stopped.is_empty());
    world.pass(Duration::from_millis(1));
    assert_eq!(world.host.stopped, [1]);
}

#[test]
fn streams_at_rest_keep_no_process() {
    let mut world = World::with_ready(3);
    for (id, in_flight, resting) in [(1, 2, 2), (2, 1, 1), (3, 2, 1)] {
        world.host.in_flight.insert(address(id), in_flight);
        world.host.resting.insert(address(id), resting);
    }
    // Of two that nothing keeps, the one goes that has fewer streams to lose.
    world.want(2);
    assert_eq!(world.host.stopped, [2]);
    world.want(0);
    assert_eq!(world.host.stopped, [2, 1]);
    world.host.resting.insert(address(3), 2);
    world.pass(DRAIN_POLL);
    assert_eq!(world.host.stopped, [2, 1, 3]);
}

#[test]
fn a_draining_process_is_revived_before_another_is_started() {
    let mut world = World::with_ready(2);
    world.host.in_flight.insert(address(1), 1);
    world.host.in_flight.insert(address(2), 1);
    world.want(0);
    assert!(world.host.endpoints.is_empty());
    world.want(1);
    assert_eq!(world.host.endpoints.len(), 1);
    world.want(3);
    assert_eq!(world.last(), 3);
    assert_eq!(world.host.endpoints, addresses(&[1, 2]));
    assert!(world.host.stopped.is_empty());
}

#[test]
fn surplus_starts_end_before_anything_ready_does() {
    let mut world = World::with_ready(1);
    world.want(4);
    world.want(2);
    assert_eq!(world.host.stopped, [4, 3]);
    assert_eq!(world.host.endpoints, addresses(&[1]));
    world.exited(4, &Exit::default());
    world.exited(3, &Exit::default());
    assert_eq!(world.last(), 4);
    world.ready(2);
    assert_eq!(world.fleet.ready_count(), 2);
}

#[test]
fn a_changed_program_takes_over_one_by_one() {
    let mut world = World::with_ready(2);
    world.configure(&process("second"));
    assert_eq!(world.last(), 4);
    assert_eq!(world.host.endpoints, addresses(&[1, 2]));
    world.ready(3);
    assert_eq!(world.host.endpoints.len(), 2);
    assert!(world.host.endpoints.contains(&address(3)));
    world.ready(4);
    assert_eq!(world.host.endpoints, addresses(&[3, 4]));
    assert_eq!(world.host.stopped, [1, 2]);
    assert!(
        world.host.running[2..]
            .iter()
            .all(|(_, name)| name == "second")
    );
}

#[test]
fn a_changed_program_that_fails_leaves_the_old_one_serving() {
    let mut world = World::with_ready(1);
    world.configure(&process("second"));
    for _ in 0..5 {
        let id = world.last();
        world.exited(id, &exit(1, ""));
        world.pass(Duration::from_secs(30));
        assert_eq!(world.host.endpoints, addresses(&[1]));
    }
}

#[test]
fn starts_of_an_old_program_end_at_once() {
    let mut world = World::new();
    world.want(1);
    world.configure(&process("second"));
    assert_eq!(world.host.stopped, [1]);
    assert_eq!(world.host.running[1].1, "second");
    world.exited(1, &exit(1, ""));
    assert_eq!(world.host.failure, None);
    assert_eq!(world.last(), 2);
}

#[test]
fn a_changed_scale_or_readiness_restarts_nothing() {
    let mut world = World::with_ready(1);
    let mut changed = process("first");
    changed.scale.max = 3;
    changed.readiness = Readiness::Http {
        path: "/".into(),
        protocol: Protocol::Http1,
    };
    world.configure(&changed);
    assert_eq!(world.last(), 1);
    assert!(world.host.stopped.is_empty());
}

#[test]
fn what_the_supervisor_lost_is_replaced() {
    let mut world = World::with_ready(2);
    world.want(3);
    for id in 1..=3 {
        world.fleet.lost(id, world.now, &mut world.host);
    }
    assert!(world.host.endpoints.is_empty());
    world.pass(Duration::from_secs(1));
    world.all_ready();
    assert_eq!(world.fleet.ready_count(), 3);
    assert_eq!(world.host.failure, None);
}

#[test]
fn stopping_everything_waits_for_no_request() {
    let mut world = World::with_ready(2);
    world.host.in_flight.insert(address(1), 1);
    world.want(3);
    world.fleet.stop_all(&mut world.host);
    assert!(world.host.endpoints.is_empty());
    assert_eq!(world.host.stopped, [1, 2, 3]);
    for id in 1..=3 {
        world.exited(id, &exit(0, ""));
    }
    assert!(world.fleet.is_empty());
}

#[test]
fn an_old_healthy_process_does_not_end_the_pauses_of_those_that_fail() {
    let mut world = World::with_ready(1);
    world.pass(HEALTHY * 2);
    world.want(2);
    for round in 0..6 {
        let id = world.last();
        world.exited(id, &exit(1, ""));
        world.pass(Duration::from_millis((250 << round) - 1));
        assert_eq!(world.last(), id, "too early in round {round}");
        world.pass(Duration::from_millis(1));
        assert_eq!(world.last(), id + 1);
    }
    assert_eq!(world.host.endpoints, addresses(&[1]));
    let id = world.last();
    world.ready(id);
    world.pass(HEALTHY);
    world.want(4);
    assert_eq!(world.last(), id + 2, "all at once again");
}

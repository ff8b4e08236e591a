//! Starts as they go, told by hand.

use config::revision::{Backend, Key, Queue};

use super::start::CAUSE_MAX;
use super::*;

/// What was heard of starts: which, what, and how far each had come.
#[derive(Debug, Default)]
struct Heard(Mutex<Vec<(StartId, News, Start)>>);

impl Witness for Heard {
    fn hear(&self, start: &Start, news: News) {
        self.0.lock().unwrap().push((start.id, news, start.clone()));
    }
}

fn waiting(wait: Wait) -> Arc<Queue> {
    Arc::new(Queue {
        wait,
        ..Queue::default()
    })
}

/// One that learns how long to wait.
fn revision() -> Revision {
    Revision {
        queue: waiting(Wait::Auto),
        ..Revision::plain(
            Key {
                namespace: "default".into(),
                name: "a".into(),
            },
            Backend::None,
        )
    }
}

struct World {
    revision: Revision,
    starts: Starts,
    heard: Arc<Heard>,
    begin: Instant,
}

impl World {
    fn new() -> World {
        let (starts, heard) = (Starts::default(), Arc::<Heard>::default());
        starts.set_witness(heard.clone());
        World {
            revision: revision(),
            starts,
            heard,
            begin: Instant::now(),
        }
    }

    fn wait(&self, timeout: Option<Duration>) -> Duration {
        self.starts.wait(&self.revision, timeout)
    }

    fn at(&self, millis: u64) -> Instant {
        self.begin + Duration::from_millis(millis)
    }

    fn news(&self) -> Vec<News> {
        let heard = self.heard.0.lock().unwrap();
        heard.iter().map(|(_, news, _)| *news).collect()
    }

    fn last(&self) -> Start {
        self.heard.0.lock().unwrap().last().unwrap().2.clone()
    }

    /// A start that takes so long, and is answered at once.
    fn start(&self, from: u64, millis: u64) {
        self.starts.held(1, self.at(from));
        let id = self.starts.current().unwrap();
        self.starts.passed(self.at(from + millis));
        self.starts.came(1);
        self.starts.answered(id, self.at(from + millis));
    }
}

fn millis(phase: Option<Duration>) -> Option<u128> {
    phase.map(|length| length.as_millis())
}

const LONG: Duration = Duration::from_secs(300);

#[test]
fn the_phases_of_a_start_add_up_to_its_length() {
    let world = World::new();
    let World { starts, .. } = &world;
    assert_eq!(starts.current(), None);
    starts.held(1, world.at(0));
    let id = starts.current().unwrap();
    starts.nudged(world.at(1));
    starts.held(7, world.at(2));
    starts.held(3, world.at(2));
    starts.nudged(world.at(3));
    starts.acted(world.at(4));
    starts.seen(world.at(50));
    starts.passed(world.at(80));
    assert_eq!(starts.took(id), None);
    starts.came(3);
    starts.written(id, world.at(81));
    starts.written(id, world.at(85));
    starts.answered(id, world.at(100));
    assert_eq!(world.news(), [News::Up, News::Written, News::Settled]);
    let start = world.last();
    assert_eq!(
        (start.outcome, start.cause.clone()),
        (Some(Outcome::Ok), None)
    );
    assert_eq!((start.held, start.trigger), (7, Trigger::Request));
    let lengths = start.phases().named().map(|(_, length)| millis(length));
    assert_eq!(lengths, [1, 3, 46, 30, 1, 19].map(Some));
    let ends = start.phases().offsets().named().map(|(_, end)| millis(end));
    assert_eq!(ends, [1, 4, 50, 80, 81, 100].map(Some));
    assert_eq!(starts.current(), None);
    assert_eq!(
        millis(starts.took(id)),
        Some(80),
        "for those who come after"
    );
    world.start(200, 10);
    assert_eq!(starts.took(id), None, "another has come");
}

#[test]
fn steps_that_nobody_tells_of_are_left_out_and_those_taken_before_last_no_time() {
    let world = World::new();
    let World { starts, .. } = &world;
    starts.addressed(true, world.at(0));
    starts.held(1, world.at(10));
    starts.nudged(world.at(20));
    starts.passed(world.at(35));
    starts.came(1);
    let lengths = world
        .last()
        .phases()
        .named()
        .map(|(_, length)| millis(length));
    assert_eq!(lengths, [Some(10), None, Some(0), Some(15), None, None]);
    let ends = world.last().phases().offsets();
    let ends = ends.named().map(|(_, end)| millis(end));
    assert_eq!(ends, [Some(10), None, Some(10), Some(25), None, None]);
}

#[test]
fn addresses_that_go_again_are_not_seen() {
    let world = World::new();
    let World { starts, .. } = &world;
    starts.held(1, world.at(0));
    starts.addressed(true, world.at(10));
    starts.addressed(false, world.at(20));
    starts.addressed(true, world.at(30));
    starts.addressed(true, world.at(40));
    starts.passed(world.at(50));
    starts.came(1);
    assert_eq!(millis(world.last().phases().endpoint), Some(30));
}

#[test]
fn a_late_answer_of_a_start_does_not_count_for_the_next() {
    let world = World::new();
    let World { starts, .. } = &world;
    starts.held(2, world.at(0));
    let first = starts.current().unwrap();
    starts.passed(world.at(10));
    starts.came(2);
    starts.answered(first, world.at(20));
    starts.held(1, world.at(100));
    let second = starts.current().unwrap();
    assert_ne!(first, second);
    starts.written(first, world.at(110));
    starts.answered(first, world.at(120));
    starts.passed(world.at(130));
    starts.came(1);
    starts.answered(second, world.at(140));
    let start = world.last();
    assert_eq!(start.id, second);
    let ends = start.phases().offsets();
    assert_eq!(millis(ends.first_byte), Some(40));
    assert_eq!(ends.wire, None);
}

#[test]
fn a_failure_ends_a_start_with_its_cause() {
    let world = World::new();
    world.starts.held(1, world.at(0));
    let why = AcquireError::StartFailed("exited with status 3".into());
    world.starts.refused(&why);
    world.starts.refused(&why);
    assert_eq!(world.news(), [News::Ended]);
    let start = world.last();
    assert_eq!(start.outcome, Some(Outcome::Failed));
    assert_eq!(start.cause.as_deref(), Some("exited with status 3"));
    assert_eq!(world.wait(None), LONG, "it teaches nothing");
    world.starts.held(1, world.at(10));
    assert_ne!(world.starts.current(), Some(start.id));
}

#[test]
fn a_long_cause_is_cut_between_characters() {
    let world = World::new();
    world.starts.held(1, world.at(0));
    let why = AcquireError::StartFailed(format!("x{}", "é".repeat(1000)).into());
    world.starts.refused(&why);
    assert_eq!(world.last().cause.unwrap().len(), CAUSE_MAX - 1);
}

#[test]
fn a_start_that_all_gave_up_teaches_when_its_endpoint_comes() {
    let world = World::new();
    let World { starts, .. } = &world;
    starts.held(1, world.at(0));
    let id = starts.current().unwrap();
    starts.left(world.at(1_000));
    starts.gave_up(id, "client_gone");
    assert_eq!(world.last().outcome, Some(Outcome::GaveUp));
    assert_eq!(world.last().cause.as_deref(), Some("client_gone"));
    starts.passed(world.at(30_000));
    starts.came(0);
    assert_eq!(world.news(), [News::Ended, News::Ended, News::Settled]);
    let start = world.last();
    assert_eq!((start.id, start.outcome), (id, Some(Outcome::GaveUp)));
    assert_eq!(starts.current(), None);
    assert_eq!(world.wait(None), Duration::from_secs(105));
}

#[test]
fn a_request_takes_up_a_start_that_others_gave_up() {
    let world = World::new();
    let World { starts, .. } = &world;
    starts.held(1, world.at(0));
    let id = starts.current().unwrap();
    starts.left(world.at(1_000));
    starts.held(1, world.at(2_000));
    assert_eq!(starts.current(), Some(id));
    starts.gave_up(id, "client_gone");
    starts.passed(world.at(4_000));
    starts.came(1);
    let start = world.last();
    assert_eq!(
        (start.outcome, start.cause.clone()),
        (Some(Outcome::Ok), None)
    );
    assert_eq!(millis(start.phases().probe), Some(4_000));
    assert_eq!(world.news(), [News::Ended, News::Up]);
}

#[test]
fn what_nobody_has_waited_for_in_a_long_time_is_another_start() {
    let world = World::new();
    let World { starts, .. } = &world;
    starts.held(1, world.at(0));
    let first = starts.current().unwrap();
    starts.left(world.at(1_000));
    let later = 1_000 + 120_000;
    starts.held(1, world.at(later));
    assert_ne!(starts.current(), Some(first));
    starts.left(world.at(later));
    starts.passed(world.at(later + 120_000));
    starts.came(0);
    assert_eq!(world.wait(None), LONG, "nor does it teach");
}

#[test]
fn a_start_that_is_called_off_is_over() {
    let world = World::new();
    world.starts.called_off("nothing");
    assert!(world.news().is_empty());
    world.starts.held(1, world.at(0));
    world.starts.called_off("the revision was removed");
    let start = world.last();
    assert_eq!(start.outcome, Some(Outcome::GaveUp));
    assert_eq!(start.cause.as_deref(), Some("the revision was removed"));
    assert_eq!(world.starts.current(), None);
}

#[test]
fn a_prewarm_needs_nobody_who_waits() {
    let world = World::new();
    let World { starts, .. } = &world;
    starts.prewarmed(world.at(0));
    let id = starts.current().unwrap();
    starts.held(1, world.at(10));
    starts.left(world.at(20));
    starts.gave_up(id, "client_gone");
    starts.passed(world.at(30));
    starts.came(0);
    let start = world.last();
    assert_eq!(
        (start.outcome, start.trigger),
        (Some(Outcome::Ok), Trigger::Prewarm)
    );
    assert_eq!(world.news(), [News::Settled]);
    // Endpoints that come beside others start nothing.
    starts.came(5);
    starts.passed(world.at(40));
    assert_eq!(world.news().len(), 1);
}

#[test]
fn the_wait_is_learned_where_that_is_wished_and_capped() {
    let mut world = World::new();
    let seconds = Duration::from_secs;
    assert_eq!(world.wait(None), LONG);
    assert_eq!(world.wait(Some(seconds(40))), seconds(40));
    world.start(0, 4_000);
    assert_eq!(world.wait(None), seconds(14));
    assert_eq!(world.wait(Some(seconds(12))), seconds(12));
    // A short limit of a route holds even where the least wait is longer.
    assert_eq!(world.wait(Some(seconds(1))), seconds(1));
    world.revision.queue = waiting(Wait::For(seconds(100)));
    assert_eq!(world.wait(Some(seconds(1))), seconds(100));
}

#[test]
fn a_start_is_expected_to_take_as_long_as_others_did() {
    let world = World::new();
    let World { starts, .. } = &world;
    let seconds = Duration::from_secs;
    starts.held(1, world.at(0));
    assert_eq!(starts.comes_in(world.at(1)), None, "nothing is known");
    starts.left(world.at(1));
    starts.passed(world.at(4_000));
    starts.came(0);
    assert_eq!(starts.comes_in(world.at(5_000)), None, "it is there");
    starts.held(1, world.at(10_000));
    assert_eq!(starts.comes_in(world.at(11_000)), Some(seconds(3)));
    assert_eq!(starts.comes_in(world.at(14_000)), None, "it takes longer");
    starts.passed(world.at(15_000));
    starts.came(1);
    assert_eq!(starts.comes_in(world.at(15_000)), None);
}

#[test]
fn a_prewarm_that_nobody_has_waited_for_in_a_long_time_is_no_start_of_the_next_request() {
    let world = World::new();
    let World { starts, .. } = &world;
    starts.prewarmed(world.at(0));
    let prewarm = starts.current().unwrap();
    starts.held(1, world.at(10));
    starts.left(world.at(20));
    starts.held(1, world.at(20 + 120_000));
    assert_ne!(starts.current(), Some(prewarm));
}

/// A revision whose endpoint went before it answered anybody: the start, and how many wait for it.
fn crashed(waiting: u32) -> (World, StartId) {
    let world = World::new();
    let World { starts, .. } = &world;
    starts.held(2, world.at(0));
    let id = starts.current().unwrap();
    starts.passed(world.at(10));
    starts.came(2);
    starts.written(id, world.at(11));
    starts.gone(waiting, 1);
    (world, id)
}

#[test]
fn a_start_whose_endpoint_crashed_before_its_first_answer_may_still_fail() {
    for waiting in [0, 2] {
        let (world, id) = crashed(waiting);
        world.starts.held(2, world.at(20));
        let why = AcquireError::StartFailed("exited with status 3".into());
        world.starts.refused(&why);
        assert_eq!(world.news(), [News::Up, News::Written, News::Ended]);
        let start = world.last();
        assert_eq!((start.id, start.outcome), (id, Some(Outcome::Failed)));
        assert_eq!(start.cause.as_deref(), Some("exited with status 3"));
        assert_eq!(world.starts.current(), None);
        assert_eq!(world.wait(None), LONG, "it teaches nothing");
    }
}

#[test]
fn a_start_goes_on_until_an_endpoint_answers() {
    let (world, id) = crashed(0);
    let World { starts, .. } = &world;
    starts.held(1, world.at(2_000));
    starts.passed(world.at(4_000));
    starts.came(1);
    starts.written(id, world.at(4_001));
    starts.answered(id, world.at(4_002));
    let news = world.news();
    assert_eq!(news[2..], [News::Up, News::Written, News::Settled]);
    let start = world.last();
    assert_eq!((start.id, start.outcome), (id, Some(Outcome::Ok)));
    let ends = start.phases().offsets();
    assert_eq!(
        (millis(ends.probe), millis(ends.wire)),
        (Some(4_000), Some(4_001))
    );
    assert_eq!(world.wait(None), Duration::from_secs(14));
}

#[test]
fn a_start_that_somebody_was_answered_after_cannot_fail() {
    let world = World::new();
    let World { starts, .. } = &world;
    starts.proved();
    starts.held(2, world.at(0));
    starts.passed(world.at(10));
    starts.came(2);
    starts.proved();
    starts.proved();
    starts.gone(1, 0);
    starts.refused(&AcquireError::StartFailed("exited".into()));
    assert_eq!(world.news(), [News::Up, News::Settled]);
    assert_eq!(world.last().outcome, Some(Outcome::Ok));
    starts.held(1, world.at(100));
    assert_ne!(starts.current(), Some(world.last().id));
}

#[test]
fn a_start_that_nobody_is_left_of_has_come_up() {
    let world = World::new();
    let World { starts, .. } = &world;
    starts.held(1, world.at(0));
    starts.passed(world.at(10));
    starts.came(1);
    starts.gone(0, 0);
    assert_eq!(world.news(), [News::Up, News::Settled]);
    assert_eq!(starts.current(), None);
    let (world, id) = crashed(0);
    world.starts.called_off("nothing asked for it any more");
    let start = world.last();
    assert_eq!((start.id, start.outcome), (id, Some(Outcome::Ok)));
    assert_eq!(world.news().last(), Some(&News::Settled));
    // Nor does it go on when somebody comes much later.
    let (world, id) = crashed(0);
    world.starts.held(1, world.at(11 + 120_000));
    assert_ne!(world.starts.current(), Some(id));
    assert_eq!(world.news().last(), Some(&News::Settled));
}

#[test]
fn a_late_answer_of_an_endpoint_that_went_ends_its_start() {
    let (world, id) = crashed(0);
    world.starts.answered(id, world.at(50));
    assert_eq!(world.news().last(), Some(&News::Settled));
    assert_eq!(world.last().outcome, Some(Outcome::Ok));
    assert_eq!(world.starts.current(), None);
}

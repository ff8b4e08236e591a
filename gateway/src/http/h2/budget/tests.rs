use super::*;

/// Of a client, and its clock.
fn budget() -> (Budget, Rc<Clock>) {
    let clock = Clock::new(Instant::now());
    (Budget::new(Peer::Client, &clock), clock)
}

fn frame(kind: u8, stream: u32) -> Frame {
    Frame {
        kind,
        flags: 0,
        stream,
        length: 4,
        code: 0,
    }
}

fn flagged(kind: u8, stream: u32, flags: u8) -> Frame {
    Frame {
        flags,
        ..frame(kind, stream)
    }
}

fn empty(kind: u8) -> Frame {
    Frame {
        length: 0,
        ..frame(kind, 1)
    }
}

/// Whether it may still go on after these.
fn receive(budget: &mut Budget, frames: impl IntoIterator<Item = Frame>) -> bool {
    let mut tally = Tally::default();
    for frame in frames {
        budget.count(frame, &mut tally);
    }
    budget.admit(tally)
}

/// What carries nothing: PRIORITY, RST_STREAM of no stream, SETTINGS, PING, GOAWAY, WINDOW_UPDATE,
/// CONTINUATION, ORIGIN, empty DATA, an empty head.
fn idle_frames() -> Vec<Frame> {
    let mut all: Vec<_> = [2, 3, 4, 6, 7, 8, 9, 12].map(|kind| frame(kind, 0)).into();
    all.extend([empty(DATA), empty(HEADERS)]);
    all
}

#[test]
fn a_burst_of_idle_frames_is_borne_and_not_one_more() {
    for idle in idle_frames() {
        let (mut budget, _clock) = budget();
        for _ in 0..BURST {
            // Resets have a measure of their own.
            budget.over.set(idle.stream, true);
            assert!(receive(&mut budget, [idle]), "{idle:?}");
        }
        assert!(!receive(&mut budget, [idle]), "{idle:?}");
        assert_eq!(budget.abuse(), Some(Abuse::Frames));
    }
}

#[test]
fn what_carries_something_costs_nothing() {
    let (mut budget, _clock) = budget();
    let end = flagged(DATA, 1, END_STREAM);
    let last = Frame { length: 0, ..end };
    for stream in (1..10_000).step_by(2) {
        let busy = [frame(HEADERS, stream), frame(DATA, stream), last];
        assert!(receive(&mut budget, busy));
    }
    assert_eq!(budget.left, BURST);
}

#[test]
fn time_fills_the_purse_to_a_burst_and_no_further() {
    let (mut budget, clock) = budget();
    let begin = clock.now();
    assert!(receive(&mut budget, vec![frame(PING, 0); 1000]));
    // 50 in a second, however often they are counted.
    for tenth in 1..=100 {
        clock.set(begin + Duration::from_millis(100 * tenth));
        assert!(receive(&mut budget, vec![frame(PING, 0); 5]));
    }
    assert_eq!(budget.left, 0);
    clock.set(begin + Duration::from_secs(3600));
    assert!(receive(&mut budget, vec![frame(PING, 0); 1000]));
    assert!(!receive(&mut budget, [frame(PING, 0)]));
}

#[test]
fn windows_and_pings_for_what_we_sent_are_free() {
    let (mut budget, _clock) = budget();
    for _ in 0..100_000 {
        budget.sent(frame(DATA, 1));
        let back = [frame(WINDOW_UPDATE, 1), frame(WINDOW_UPDATE, 0)];
        assert!(receive(&mut budget, back));
        assert!(receive(&mut budget, [frame(PING, 0)]));
    }
    // An answer that carried nothing earns nothing.
    budget.left = 0;
    budget.sent(empty(DATA));
    assert!(!receive(&mut budget, [frame(WINDOW_UPDATE, 1)]));
}

#[test]
fn windows_may_be_given_back_for_every_4_kib_however_late() {
    let (mut budget, _clock) = budget();
    for length in [16 * 1024, 64 * 1024] {
        for _ in 0..10_000 {
            budget.sent(Frame {
                length,
                ..frame(DATA, 1)
            });
        }
        for _ in 0..10_000 * length / 4096 {
            let back = [frame(WINDOW_UPDATE, 1), frame(WINDOW_UPDATE, 0)];
            assert!(receive(&mut budget, back), "{length}");
        }
    }
    assert_eq!(budget.left, BURST);
}

#[test]
fn window_given_in_crumbs_does_not_pay_for_itself() {
    let (mut budget, _clock) = budget();
    let mut rounds = 0;
    while budget.abuse().is_none() {
        receive(&mut budget, [frame(WINDOW_UPDATE, 1)]);
        budget.crumb();
        budget.sent(frame(DATA, 1));
        rounds += 1;
    }
    assert!(rounds <= BURST, "{rounds}");
}

#[test]
fn an_answer_is_free_once_it_was_asked_for() {
    for kind in [SETTINGS, PING] {
        let (mut budget, _clock) = budget();
        budget.sent(frame(kind, 0));
        let answer = flagged(kind, 0, ACK);
        assert!(receive(&mut budget, [answer]));
        assert_eq!(budget.left, BURST);
        assert!(receive(&mut budget, [answer]));
        assert_eq!(budget.left, BURST - 1);
    }
}

/// One stream begun and reset.
fn reset(stream: u32) -> [Frame; 2] {
    [frame(HEADERS, stream), frame(RST_STREAM, stream)]
}

#[test]
fn a_client_that_resets_most_of_what_it_asks_is_left_also_if_it_takes_its_time() {
    let (mut budget, clock) = budget();
    let begin = clock.now();
    // 200 in half a minute are borne, however long that goes on.
    for number in 0..1000 {
        clock.set(begin + Duration::from_millis(200 * u64::from(number)));
        assert!(receive(&mut budget, reset(2 * number + 1)), "{number}");
    }
    let later = clock.now();
    let mut borne = 0;
    while receive(&mut budget, reset(3001 + 2 * borne)) {
        borne += 1;
        clock.set(later + Duration::from_millis(140 * u64::from(borne)));
        assert!(borne < 400);
    }
    assert_eq!(budget.abuse(), Some(Abuse::Resets));
}

#[test]
fn resets_we_were_made_to_send_count_as_the_clients_own() {
    let (mut budget, _clock) = budget();
    for number in 0..=RESETS {
        assert_eq!(budget.abuse(), None);
        receive(&mut budget, [frame(HEADERS, 2 * number + 1)]);
        budget.sent(Frame {
            code: FAULTS[number as usize % FAULTS.len()],
            ..frame(RST_STREAM, 2 * number + 1)
        });
        // What crosses it on its way is not counted again.
        receive(&mut budget, [frame(RST_STREAM, 2 * number + 1)]);
    }
    assert_eq!(budget.abuse(), Some(Abuse::Resets));
}

#[test]
fn our_own_refusals_and_late_resets_are_no_fault_of_the_client() {
    let (mut budget, _clock) = budget();
    for stream in (1..2_000).step_by(2) {
        receive(&mut budget, [frame(HEADERS, stream)]);
        budget.taken(stream);
        if stream % 4 == 1 {
            // REFUSED_STREAM.
            let code = 7;
            budget.sent(Frame {
                code,
                ..frame(RST_STREAM, stream)
            });
        } else {
            budget.sent(flagged(HEADERS, stream, END_STREAM));
        }
        assert!(receive(&mut budget, [frame(RST_STREAM, stream)]));
    }
}

#[test]
fn half_of_all_streams_may_be_reset() {
    let (mut budget, _clock) = budget();
    for stream in (1..8_000).step_by(4) {
        // Answered, which pays for what a reset costs.
        assert!(receive(&mut budget, [frame(HEADERS, stream)]));
        budget.taken(stream);
        budget.sent(flagged(HEADERS, stream, END_STREAM));
        assert!(receive(&mut budget, reset(stream + 2)));
    }
}

/// A hundred streams at a time, all of them taken back after `age`, ten times over.
fn given_up(age: Duration) -> Option<Abuse> {
    let (mut budget, clock) = budget();
    let mut at = clock.now();
    for round in 0..10 {
        let streams = (0..100).map(|number| 2 * (100 * round + number) + 1);
        for stream in streams.clone() {
            at += Duration::from_millis(1);
            clock.set(at);
            receive(&mut budget, [frame(HEADERS, stream)]);
            budget.taken(stream);
        }
        at += age;
        clock.set(at);
        receive(&mut budget, streams.map(|stream| frame(RST_STREAM, stream)));
    }
    budget.abuse()
}

#[test]
fn requests_that_were_waited_for_may_be_given_up_as_often_as_one_likes() {
    assert_eq!(given_up(3 * RAPID), None);
    assert_eq!(given_up(RAPID / 2), Some(Abuse::Resets));
}

#[test]
fn a_stream_is_given_up_once() {
    let (mut budget, clock) = budget();
    receive(&mut budget, [frame(HEADERS, 1)]);
    clock.set(clock.now() + 3 * RAPID);
    assert!(receive(&mut budget, [frame(RST_STREAM, 1)]));
    for _ in 0..BURST {
        assert!(receive(&mut budget, [frame(RST_STREAM, 1)]));
    }
    assert!(!receive(&mut budget, [frame(RST_STREAM, 1)]));
    assert_eq!(budget.abuse(), Some(Abuse::Frames));
}

#[test]
fn resets_of_streams_long_ago_hide_none_of_later_ones() {
    let (mut budget, clock) = budget();
    for stream in (1..2 * Over::SPAN).step_by(2) {
        receive(&mut budget, [frame(HEADERS, stream)]);
        budget.taken(stream);
        budget.sent(flagged(HEADERS, stream, END_STREAM));
    }
    clock.set(clock.now() + 30 * RAPID);
    let mut stream = 2 * Over::SPAN + 1;
    while budget.abuse().is_none() {
        let old = frame(RST_STREAM, stream - Over::SPAN);
        receive(&mut budget, [frame(HEADERS, stream), old]);
        receive(&mut budget, [frame(RST_STREAM, stream)]);
        stream += 2;
        assert!(stream < 20_000);
    }
    assert_eq!(budget.abuse(), Some(Abuse::Frames));
}

#[test]
fn ages_of_streams_are_at_most_two_spans_behind() {
    let start = Instant::now();
    let mut random = fastrand::Rng::with_seed(7);
    let mut ages = Ages::new(start);
    let (mut now, mut opened) = (start, Vec::<Instant>::new());
    for _ in 0..100_000 {
        now += RAPID * random.u32(0..100) / 80;
        let highest = u32::try_from(opened.len()).unwrap();
        ages.turn(now, highest);
        let old = ages.old as usize;
        assert!(opened[..old].iter().all(|at| now - *at >= RAPID));
        assert!(opened[old..].iter().all(|at| now - *at < 3 * RAPID));
        opened.push(now);
        if opened.len() > 50 {
            opened.clear();
            ages = Ages::new(now);
        }
    }
}

#[test]
fn the_fourth_head_that_is_too_large_is_the_last() {
    let (mut budget, _clock) = budget();
    budget.taken(5);
    budget.sent(frame(HEADERS, 5));
    // Never taken up: answered by the library.
    for stream in [7, 9, 11] {
        budget.sent(flagged(HEADERS, stream, END_STREAM));
        assert_eq!(budget.abuse(), None);
    }
    budget.large_head();
    assert_eq!(budget.abuse(), Some(Abuse::Heads));
}

#[test]
fn a_head_of_many_frames_is_heard_as_far_as_any_could_go() {
    let part = |kind, length| Frame {
        length,
        ..frame(kind, 1)
    };
    let (mut budget, _clock) = budget();
    for _ in 0..10 {
        let parts = [
            part(HEADERS, 16_384),
            part(CONTINUATION, 16_384),
            part(CONTINUATION, BLOCK_MAX - 32_768),
        ];
        assert!(receive(&mut budget, parts), "each for itself");
    }
    assert!(!receive(&mut budget, [part(CONTINUATION, 1)]));
    assert_eq!(budget.abuse(), Some(Abuse::Heads));
}

#[test]
fn interim_answers_without_end_use_up_what_requests_have_paid() {
    let clock = Clock::new(Instant::now());
    let mut budget = Budget::new(Peer::Endpoint, &clock);
    for stream in (1..10_000).step_by(2) {
        budget.sent(frame(HEADERS, stream));
        let answer = [frame(HEADERS, stream), flagged(HEADERS, stream, END_STREAM)];
        assert!(receive(&mut budget, answer));
    }
    budget.sent(frame(HEADERS, 1));
    assert!(receive(&mut budget, vec![frame(HEADERS, 1); 1000]));
    assert!(!receive(&mut budget, [frame(HEADERS, 1)]));
}

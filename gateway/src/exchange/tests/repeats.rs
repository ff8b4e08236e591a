//! What is sent twice, how soon, and by how many at a time.

use std::cell::Cell;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What an endpoint does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// Ends it without a look.
    Closes,
    /// Resets it without a look.
    Resets,
    /// Ends it when the head is there.
    ClosesAfterHead,
    /// Ends it when all is there.
    ClosesAfterAll,
    /// Begins an answer, and ends it.
    Begins,
    Answers,
}

const DEEDS: [Deed; 6] = [
    Deed::Closes,
    Deed::Resets,
    Deed::ClosesAfterHead,
    Deed::ClosesAfterAll,
    Deed::Begins,
    Deed::Answers,
];

/// A request: its method, bytes of its body, and how many of them come with its head.
#[derive(Clone, Debug)]
struct Asked {
    method: &'static str,
    body: usize,
    first: usize,
}

impl Asked {
    fn is_idempotent(&self) -> bool {
        self.method != "POST" && self.method != "PATCH"
    }
}

fn asked() -> impl Strategy<Value = Asked> {
    let method = prop_oneof![
        Just("GET"),
        Just("PUT"),
        Just("DELETE"),
        Just("POST"),
        Just("PATCH")
    ];
    (method, 0..100usize, 0..100usize).prop_map(|(method, body, first)| Asked {
        method,
        body,
        first: first.min(body),
    })
}

/// What an endpoint saw of each connection, in order.
type Seen = Rc<std::cell::RefCell<Vec<usize>>>;

/// An endpoint that does with its connections what it is told, and answers when that is used up.
async fn scripted(deeds: Vec<Deed>, body: usize) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let log = seen.clone();
    spawn_local(async move {
        for deed in deeds.into_iter().chain(std::iter::repeat(Deed::Answers)) {
            let (mut stream, _) = listener.accept().await.unwrap();
            let place = log.borrow().len();
            log.borrow_mut().push(0);
            let read = obey(&mut stream, deed, body).await;
            log.borrow_mut()[place] = read;
        }
    });
    (address, seen)
}

/// Does so; how many bytes of the request were read.
async fn obey(stream: &mut TcpStream, deed: Deed, body: usize) -> usize {
    if matches!(deed, Deed::Closes | Deed::Resets) {
        if deed == Deed::Resets {
            socket2::SockRef::from(&*stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
        return 0;
    }
    let head = read_head(stream).await.len();
    if deed == Deed::ClosesAfterHead {
        return head;
    }
    stream.read_exact(&mut vec![0; body]).await.unwrap();
    let _gone = match deed {
        Deed::Begins => stream.write_all(b"HTTP/1.1 200 ").await,
        Deed::Answers => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .await
        }
        _ => Ok(()),
    };
    head + body
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn what_cannot_be_done_twice_is_never_seen_twice(
        asked in asked(),
        deeds in vec(proptest::sample::select(&DEEDS[..]), 0..4),
        stale in any::<bool>(),
    ) {
        let (seen, status) = run(async {
            let (address, seen) = scripted(deeds.clone(), asked.body).await;
            let world = World::at(address, "", "");
            if stale {
                // The connection there is has ended, and nothing can be written to it.
                drop(world.endpoint());
            }
            let mut client = world.client();
            let Asked { method, body, first } = &asked;
            let head = format!(
                "{method} / HTTP/1.1\r\nhost: a.default.example.com\r\ncontent-length: {body}\r\n\r\n"
            );
            say(&mut client, head).await;
            say(&mut client, vec![b'x'; *first]).await;
            tokio::time::sleep(MILLISECOND).await;
            // It may have been answered, and ended, already.
            let _over = client.write_all(&vec![b'x'; body - first]).await;
            let head = read_head(&mut client).await;
            world.in_flight(0).await;
            (seen.borrow().clone(), head[9..12].to_owned())
        });
        prop_assert!(status == "200" || status == "502", "{}", status);
        prop_assert!(seen.len() <= 3, "{:?}", seen);
        // Of others a body that was not whole at first may come whole before the next attempt.
        if !asked.is_idempotent() {
            let read = seen.iter().filter(|bytes| **bytes > 0);
            prop_assert!(read.count() <= 1, "{:?}", seen);
        }
        let begun = deeds.iter().position(|deed| matches!(deed, Deed::Begins | Deed::Answers));
        prop_assert!(begun.is_none_or(|at| seen.len() <= at + 1), "{:?}", seen);
        if seen.last().is_some_and(|bytes| *bytes == 0) {
            prop_assert_eq!(status, "502");
        }
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);

/// Asks as often at the same time; the answers' heads come as they come.
fn ask_together(world: &World, count: usize) -> Vec<JoinHandle<String>> {
    let ask = |mut client: DuplexStream| async move {
        say(&mut client, GET).await;
        read_head(&mut client).await
    };
    (0..count)
        .map(|_| spawn_local(ask(world.client())))
        .collect()
}

/// Ends the first connections once they have all asked, and lets the others wait for an answer
/// until it is told to give it; how many of these there are at most at a time.
struct Flaky {
    address: SocketAddr,
    waiting: Rc<Cell<usize>>,
    answers: Rc<tokio::sync::Notify>,
}

impl Flaky {
    async fn new(first: usize) -> Flaky {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let waiting = Rc::new(Cell::new(0));
        let answers = Rc::new(tokio::sync::Notify::new());
        let flaky = Flaky {
            address,
            waiting: waiting.clone(),
            answers: answers.clone(),
        };
        spawn_local(async move {
            let mut ended = Vec::new();
            for _ in 0..first {
                let (mut stream, _) = listener.accept().await.unwrap();
                read_head(&mut stream).await;
                ended.push(stream);
            }
            drop(ended);
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (waiting, answers) = (waiting.clone(), answers.clone());
                spawn_local(async move {
                    read_head(&mut stream).await;
                    waiting.set(waiting.get() + 1);
                    answers.notified().await;
                    let answer = "HTTP/1.1 204 Done\r\nconnection: close\r\n\r\n";
                    say(&mut stream, answer).await;
                });
            }
        });
        flaky
    }
}

async fn count(answers: Vec<JoinHandle<String>>, begin: &str, holds: &str) -> usize {
    let mut count = 0;
    for answer in answers {
        let head = answer.await.unwrap();
        count += usize::from(head.starts_with(begin) && head.contains(holds));
    }
    count
}

#[test]
fn when_everything_fails_a_fifth_and_three_are_made_again_and_the_others_told_why() {
    run(async {
        for (together, again) in [(60, 15), (1, 1), (4, 3), (5, 4)] {
            let flaky = Flaky::new(together).await;
            let world = World::at(flaky.address, "", "");
            let mut answers = ask_together(&world, together);
            tokio::time::sleep(seconds(6)).await;
            assert_eq!(flaky.waiting.get(), again);
            // These have heard what happened to theirs; the others wait.
            let (over, waiting): (Vec<_>, Vec<_>) =
                answers.drain(..).partition(JoinHandle::is_finished);
            assert_eq!(waiting.len(), again);
            let told = "tidegate-reason: upstream_closed\r\n";
            assert_eq!(count(over, "HTTP/1.1 502 ", told).await, together - again);
            flaky.answers.notify_waiters();
            assert_eq!(count(waiting, "HTTP/1.1 204 ", "").await, again);
        }
    });
}

#[test]
fn with_fixed_endpoints_who_may_not_be_made_again_yet_waits_for_it_a_while() {
    run(async {
        let flaky = Flaky::new(60).await;
        let world = World::at(flaky.address, "", "");
        let answers = ask_together(&world, 60);
        while !answers.iter().all(JoinHandle::is_finished) {
            tokio::time::sleep(MILLISECOND * 50).await;
            flaky.answers.notify_waiters();
        }
        assert_eq!(count(answers, "HTTP/1.1 204 ", "").await, 60);
    });
}

#[test]
fn with_a_scaler_who_may_not_be_made_again_yet_waits_for_it() {
    run(async {
        let flaky = Flaky::new(20).await;
        let world = World::scaled(flaky.address, "");
        let answers = ask_together(&world, 20);
        let mut answered = 0;
        // Fewer are under way each time, and so may be repeated.
        for again in [7, 5, 4, 3, 1] {
            tokio::time::sleep(seconds(10)).await;
            assert_eq!(flaky.waiting.get() - answered, again);
            answered += again;
            flaky.answers.notify_waiters();
        }
        assert_eq!(count(answers, "HTTP/1.1 204 ", "").await, 20);
    });
}

#[test]
fn with_a_scaler_who_may_not_be_made_again_until_its_deadline_is_told_so() {
    run(async {
        let flaky = Flaky::new(20).await;
        let world = World::scaled(flaky.address, "queue: { wait: 5s }");
        let start = Instant::now();
        let answers = ask_together(&world, 20);
        tokio::time::sleep(seconds(4)).await;
        assert!(!answers.iter().any(JoinHandle::is_finished));
        tokio::time::sleep(seconds(2)).await;
        let (over, waiting): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(JoinHandle::is_finished);
        let told = "tidegate-reason: start_timeout\r\n";
        assert_eq!(count(over, "HTTP/1.1 504 ", told).await, 13);
        took(start, seconds(6));
        flaky.answers.notify_waiters();
        assert_eq!(count(waiting, "HTTP/1.1 204 ", "").await, 7);
    });
}

#[test]
fn what_was_answered_the_second_time_keeps_nobody_from_being_asked_again() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = World::at(listener.local_addr().unwrap(), "", "");
        // More long answers, each to a second attempt, than there may be repeats.
        let mut streaming = Vec::new();
        for _ in 0..10 {
            let mut client = world.client();
            say(&mut client, GET).await;
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream).await;
            drop(stream);
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream).await;
            say(&mut stream, "HTTP/1.1 200 OK\r\n\r\nbegun").await;
            read_until(&mut client, "begun\r\n").await;
            streaming.push((client, stream));
        }
        world.in_flight(10).await;
    });
}

#[test]
fn a_connection_that_was_in_use_and_ended_is_replaced_at_once() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = World::at(listener.local_addr().unwrap(), "", "");
        let mut client = world.client();
        say(&mut client, GET).await;
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        say(&mut stream, "HTTP/1.1 204 Done\r\n\r\n").await;
        read_head(&mut client).await;
        let start = Instant::now();
        say(&mut client, GET).await;
        read_head(&mut stream).await;
        drop(stream);
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    });
}

#[test]
fn a_connection_that_was_refused_is_tried_again_after_a_pause() {
    run(async {
        let mut pauses = Vec::new();
        for _ in 0..20 {
            // Two pauses between three attempts at nobody.
            let world = World::new("", "");
            let mut client = world.client();
            let start = Instant::now();
            say(&mut client, GET).await;
            refusal(&mut client, 502, "connect_failed").await;
            pauses.push(start.elapsed());
        }
        let (least, most) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
        assert!(
            *least >= MILLISECOND * 10 && *most <= MILLISECOND * 70 && least < most,
            "{pauses:?}"
        );
    });
}

#[test]
fn who_leaves_between_two_attempts_is_not_asked_for_again() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = World::at(listener.local_addr().unwrap(), "", "");
        let mut client = world.client();
        say(&mut client, GET).await;
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        drop(stream);
        tokio::time::sleep(MILLISECOND).await;
        drop(client);
        let again = tokio::time::timeout(seconds(1), listener.accept()).await;
        assert!(again.is_err());
        assert_eq!(world.counted(499, "client_gone"), 1);
    });
}

/// Takes one request after the other and ends its connection after that time. How many it has taken.
fn hang_up_on_each(listener: TcpListener, after: Duration) -> Rc<Cell<u32>> {
    let attempts = Rc::new(Cell::new(0));
    let count = attempts.clone();
    spawn_local(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            count.set(count.get() + 1);
            read_head(&mut stream).await;
            tokio::time::sleep(after).await;
        }
    });
    attempts
}

#[test]
fn with_a_scaler_no_attempt_begins_after_the_deadline() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = World::scaled(listener.local_addr().unwrap(), "queue: { wait: 5s }");
        let attempts = hang_up_on_each(listener, seconds(3));
        let mut client = world.client();
        say(&mut client, GET).await;
        refusal(&mut client, 502, "upstream_closed").await;
        assert!(attempts.get() <= 2);
    });
}

#[test]
fn with_a_scaler_a_request_that_ends_whatever_it_reaches_is_given_up() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = World::scaled(listener.local_addr().unwrap(), "");
        let attempts = hang_up_on_each(listener, Duration::ZERO);
        let mut client = world.client();
        say(&mut client, GET).await;
        refusal(&mut client, 502, "upstream_closed").await;
        assert_eq!(attempts.get(), 3);
    });
}

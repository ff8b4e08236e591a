//! What is given up as memory runs short, step by step, and what is not.

use super::*;
use crate::memory::{Level, Pressure};

/// After so long a peer that takes nothing is stuck.
const AWHILE: Duration = Duration::from_millis(200);

fn at(level: Level) -> Pressure {
    Pressure {
        level,
        ..Pressure::default()
    }
}

/// Exchanges that pin so much must end.
fn cutting(bytes: u64) -> Pressure {
    Pressure {
        level: Level::Cutting,
        cut: Some(bytes),
        cuts: 1,
    }
}

/// A request that runs at the endpoint, of which the client waits for the answer.
async fn running(world: &World) -> (DuplexStream, DuplexStream) {
    let (mut client, mut endpoint) = (world.client(), world.endpoint());
    say(&mut client, GET).await;
    read_head(&mut endpoint).await;
    (client, endpoint)
}

async fn answer(endpoint: &mut DuplexStream) {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    say(endpoint, answer).await;
}

#[test]
fn first_what_lies_idle_goes_and_clients_are_asked_to_leave() {
    run(async {
        let world = World::new("", "");
        let _unused = world.endpoint();
        let (mut idle, io) = sockets().await;
        world.serve(io);
        let (mut client, mut endpoint) = running(&world).await;
        // It had been served once, and is kept for another request.
        say(
            &mut idle,
            "GET /empty HTTP/1.1\r\nhost: b.default.example.com\r\n\r\n",
        )
        .await;
        assert!(read_head(&mut idle).await.starts_with("HTTP/1.1 204 "));

        let start = Instant::now();
        world.worker.heed(at(Level::Shrinking));
        let id = world.throttle.endpoints()[0].id;
        assert!(world.worker.pool.take(id, None).is_none());
        assert_eq!(read_all(&mut idle).await, "");
        took(start, Duration::from_millis(500));
        answer(&mut endpoint).await;
        let head = read_until(&mut client, "ok").await;
        assert!(head.contains("connection: close\r\n"), "{head}");
        assert_eq!(read_all(&mut client).await, "");

        world.worker.heed(at(Level::Normal));
        let (mut client, mut endpoint) = running(&world).await;
        answer(&mut endpoint).await;
        let head = read_until(&mut client, "ok").await;
        assert!(!head.contains("connection: close\r\n"), "{head}");
    });
}

#[test]
fn who_comes_while_memory_is_short_has_time_to_ask() {
    run(async {
        let world = World::new("", "");
        world.worker.heed(at(Level::Shrinking));
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        tokio::time::sleep(seconds(5)).await;
        say(&mut client, GET).await;
        read_head(&mut endpoint).await;
        answer(&mut endpoint).await;
        let head = read_until(&mut client, "ok").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    });
}

#[test]
fn who_comes_in_http2_and_asks_nothing_has_no_longer_than_others_while_memory_is_short() {
    run(async {
        let world = World::new("", "");
        let caller = streams::Caller::new(&world).await;
        tokio::time::sleep(seconds(1)).await;
        let start = Instant::now();
        world.worker.heed(at(Level::Shrinking));
        let mut asking = streams::Caller::new(&world).await;
        tokio::time::sleep(seconds(5)).await;
        assert!(!caller.driven.is_finished() && !asking.driven.is_finished());
        let mut endpoint = world.endpoint();
        let (response, _body) = asking.ask(streams::asks("GET"), true).await;
        read_head(&mut endpoint).await;
        answer(&mut endpoint).await;
        assert_eq!(response.await.unwrap().status(), 200);
        caller.driven.await.unwrap().unwrap();
        took(start, seconds(9));
    });
}

#[test]
fn then_nobody_is_held_any_more_who_is_not_yet() {
    run(async {
        let world = World::new("", "concurrency: 1");
        let (mut first, mut endpoint) = running(&world).await;
        let mut held = world.client();
        say(&mut held, GET).await;
        while world.throttle.waiting() != 1 {
            tokio::time::sleep(TICK).await;
        }
        world.worker.heed(at(Level::NotHolding));
        let mut refused = world.client();
        say(&mut refused, GET).await;
        let head = read_head(&mut refused).await;
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert!(head.contains("tidegate-reason: overloaded\r\n"), "{head}");
        assert!(head.contains("retry-after: 1\r\n"), "{head}");
        assert_eq!(world.throttle.waiting(), 1);
        answer(&mut endpoint).await;
        read_until(&mut first, "ok").await;
        world.in_flight(1).await;
        drop(held);
        world.in_flight(0).await;
        // There is room: nobody has to be held.
        let (mut client, mut endpoint) = running(&world).await;
        answer(&mut endpoint).await;
        read_until(&mut client, "ok").await;
    });
}

#[test]
fn then_new_requests_are_refused_and_running_ones_go_on() {
    run(async {
        let world = World::new("", "");
        let (mut client, mut endpoint) = running(&world).await;
        world.worker.heed(at(Level::Rejecting));
        for request in [
            GET,
            b"GET /empty HTTP/1.1\r\nhost: b.default.example.com\r\n\r\n",
        ] {
            let mut refused = world.client();
            say(&mut refused, request).await;
            refusal(&mut refused, 503, "overloaded").await;
        }
        answer(&mut endpoint).await;
        let head = read_until(&mut client, "ok").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    });
}

#[test]
fn in_the_end_those_go_that_pin_most_and_nobody_else() {
    run(async {
        let world = World::new("", "");
        // Waits for its answer, and pins nothing.
        let (mut waiting, mut answers) = running(&world).await;
        // Reads nothing of a long one.
        let (mut stalled, _serving) = world.client_holding(64 * 1024);
        let mut endpoint = world.endpoint();
        say(&mut stalled, GET).await;
        read_head(&mut endpoint).await;
        let long = "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n";
        say(&mut endpoint, long).await;
        say(&mut endpoint, vec![b'x'; 200_000]).await;
        tokio::time::sleep(AWHILE).await;

        world.worker.heed(cutting(1024 * 1024));
        tokio::time::sleep(TICK).await;
        assert_eq!(world.throttle.in_flight(), 2);
        let start = Instant::now();
        world.worker.heed(cutting(16 * 1024));
        world.in_flight(1).await;
        took(start, Duration::ZERO);
        assert_eq!(world.counted(200, "overloaded"), 1);
        let head = read_head(&mut stalled).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(read_all(&mut stalled).await.len() < 200_000);

        world.worker.heed(cutting(4 * 1024));
        answer(&mut answers).await;
        let head = read_until(&mut waiting, "ok").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    });
}

#[test]
fn a_held_request_goes_for_the_sake_of_its_body() {
    run(async {
        let world = World::new("", "concurrency: 1");
        let (mut first, mut endpoint) = running(&world).await;
        let (mut large, mut small) = (world.client(), world.client());
        say(&mut large, post(50_000)).await;
        say(&mut small, GET).await;
        while world.throttle.waiting() != 2 {
            tokio::time::sleep(TICK).await;
        }
        world.worker.heed(cutting(16 * 1024));
        refusal(&mut large, 503, "overloaded").await;
        assert_eq!(
            (world.throttle.waiting(), world.throttle.held_bytes()),
            (1, 0)
        );
        answer(&mut endpoint).await;
        read_until(&mut first, "ok").await;
        world.in_flight(1).await;
    });
}

#[test]
fn an_upload_that_the_endpoint_does_not_take_goes_too() {
    run(async {
        let world = World::new("bodyMinRate: 0", "");
        let mut client = world.client();
        let mut endpoint = world.endpoint_holding(64 * 1024);
        say(&mut client, post(1_000_000)).await;
        say(&mut client, vec![b'x'; 100_000]).await;
        read_head(&mut endpoint).await;
        tokio::time::sleep(AWHILE).await;
        let start = Instant::now();
        world.worker.heed(cutting(16 * 1024));
        refusal(&mut client, 503, "overloaded").await;
        took(start, Duration::ZERO);
        world.in_flight(0).await;
    });
}

#[test]
fn a_tunnel_that_is_stuck_goes_and_one_that_is_silent_stays() {
    run(async {
        let world = World::new("", "");
        let (mut silent, mut silent_end) = (world.client(), world.endpoint());
        upgraded(&mut silent, &mut silent_end).await;
        let (mut stuck, _serving) = world.client_holding(64 * 1024);
        let mut endpoint = world.endpoint();
        upgraded(&mut stuck, &mut endpoint).await;
        say(&mut endpoint, vec![b'x'; 200_000]).await;
        tokio::time::sleep(AWHILE).await;
        let start = Instant::now();
        world.worker.heed(cutting(16 * 1024));
        world.in_flight(1).await;
        took(start, Duration::ZERO);
        say(&mut silent_end, "ping").await;
        assert_eq!(read_until(&mut silent, "ping").await, "ping");
    });
}

#[test]
fn a_slot_that_lingers_stays_when_its_connection_goes() {
    run(async {
        let world = World::new("abortLinger: 30s", "concurrency: 1");
        let (client, mut endpoint) = running(&world).await;
        let start = Instant::now();
        drop(client);
        // Our side has ended; the endpoint is still at work.
        assert_eq!(read_all(&mut endpoint).await, "");
        world.worker.heed(cutting(4 * 1024));
        assert!(endpoint.write_all(&[b'x'; 64]).await.is_ok());
        tokio::time::sleep(TICK * 4).await;
        assert!(
            endpoint.write_all(b"x").await.is_err(),
            "the connection is kept"
        );
        assert_eq!(world.throttle.in_flight(), 1);
        world.in_flight(0).await;
        took(start, seconds(30));
    });
}

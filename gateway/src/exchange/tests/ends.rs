//! What an exchange that ended early leaves behind, and what may be sent twice.

use std::future::poll_fn;

use super::*;
use crate::serve::tls::testing::connected;

/// A client that leaves; the endpoint then says `answer` and stays.
async fn slot_is_free_after(request: &[u8], answer: &[u8]) {
    let world = World::new("", "concurrency: 1");
    let (mut client, mut endpoint) = (world.client(), world.endpoint());
    say(&mut client, request).await;
    read_head(&mut endpoint).await;
    drop(client);
    assert_eq!(read_all(&mut endpoint).await, "");
    tokio::time::sleep(seconds(3)).await;
    assert_eq!(world.throttle.in_flight(), 1);
    let start = Instant::now();
    say(&mut endpoint, answer).await;
    world.in_flight(0).await;
    took(start, seconds(0));
}

#[test]
fn an_abandoned_slot_is_free_once_the_endpoint_has_answered() {
    const HEAD: &[u8] = b"HEAD / HTTP/1.1\r\nhost: a.default.example.com\r\n\r\n";
    run(async {
        slot_is_free_after(GET, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        slot_is_free_after(GET, b"HTTP/1.1 204 No Content\r\n\r\n").await;
        slot_is_free_after(
            GET,
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 304 No\r\ncontent-length: 7\r\n\r\n",
        )
        .await;
        slot_is_free_after(
            GET,
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        )
        .await;
        slot_is_free_after(HEAD, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await;
    });
}

#[test]
fn an_abandoned_slot_stays_until_the_end_of_the_answer() {
    run(async {
        let world = World::new("", "concurrency: 1");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        say(&mut client, GET).await;
        say(&mut endpoint, "HTTP/1.1 200 OK\r\n\r\nbegun").await;
        read_until(&mut client, "\r\n5\r\nbegun\r\n").await;
        drop(client);
        read_head(&mut endpoint).await;
        assert_eq!(read_all(&mut endpoint).await, "");
        say(&mut endpoint, "more").await;
        tokio::time::sleep(seconds(3)).await;
        assert_eq!(world.throttle.in_flight(), 1);
        let start = Instant::now();
        drop(endpoint);
        world.in_flight(0).await;
        took(start, seconds(0));
    });
}

#[test]
fn a_whole_answer_that_nobody_takes_frees_the_slot() {
    run(async {
        let world = World::new("", "concurrency: 1");
        let (mut client, _served) = world.client_holding(64);
        let mut endpoint = world.endpoint();
        say(&mut client, GET).await;
        read_head(&mut endpoint).await;
        say(
            &mut endpoint,
            "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n",
        )
        .await;
        say(&mut endpoint, [b'x'; 100]).await;
        tokio::time::sleep(seconds(1)).await;
        let start = Instant::now();
        drop(client);
        world.in_flight(0).await;
        took(start, seconds(0));
    });
}

#[test]
fn a_request_of_which_nothing_was_written_is_sent_whole_elsewhere() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for (body, first) in [("0123456789", 10), ("0123456789", 4), ("0123456789", 0)] {
            let world = World::at(address, "", "");
            drop(world.endpoint());
            let mut client = world.client();
            say(&mut client, post(body.len())).await;
            say(&mut client, &body[..first]).await;
            let (mut endpoint, _) = listener.accept().await.unwrap();
            say(&mut client, &body[first..]).await;
            let head = read_head(&mut endpoint).await;
            assert!(head.starts_with("POST / HTTP/1.1\r\n"), "{head}");
            assert_eq!(read_until(&mut endpoint, "9").await, body);
            say(
                &mut endpoint,
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            )
            .await;
            assert!(
                read_until(&mut client, "ok")
                    .await
                    .starts_with("HTTP/1.1 200 ")
            );
        }
    });
}

#[test]
fn a_post_that_was_written_is_never_sent_again() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = World::at(listener.local_addr().unwrap(), "", "");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        say(&mut client, post(2)).await;
        say(&mut client, "ab").await;
        read_until(&mut endpoint, "ab").await;
        drop(endpoint);
        refusal(&mut client, 502, "upstream_closed").await;
        assert!(
            tokio::time::timeout(seconds(5), listener.accept())
                .await
                .is_err()
        );
    });
}

#[test]
fn a_get_that_was_written_is_sent_again_if_nothing_came_back() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = World::at(listener.local_addr().unwrap(), "", "");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        say(&mut client, GET).await;
        read_head(&mut endpoint).await;
        drop(endpoint);
        let (mut endpoint, _) = listener.accept().await.unwrap();
        read_head(&mut endpoint).await;
        say(
            &mut endpoint,
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        )
        .await;
        assert!(
            read_until(&mut client, "ok")
                .await
                .starts_with("HTTP/1.1 200 ")
        );
    });
}

#[test]
fn a_put_whose_body_was_not_whole_here_is_not_sent_again() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = World::at(listener.local_addr().unwrap(), "", "");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        say(
            &mut client,
            "PUT / HTTP/1.1\r\nhost: a.default.example.com\r\ncontent-length: 4\r\n\r\nab",
        )
        .await;
        read_until(&mut endpoint, "ab").await;
        drop(endpoint);
        refusal(&mut client, 502, "upstream_closed").await;
        assert!(
            tokio::time::timeout(seconds(5), listener.accept())
                .await
                .is_err()
        );
    });
}

#[test]
fn an_endpoint_that_dies_within_its_head_is_not_asked_again() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = World::at(listener.local_addr().unwrap(), "", "");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        say(&mut client, GET).await;
        read_head(&mut endpoint).await;
        say(&mut endpoint, "HTTP/1.1 20").await;
        drop(endpoint);
        refusal(&mut client, 502, "upstream_invalid").await;
        assert!(
            tokio::time::timeout(seconds(5), listener.accept())
                .await
                .is_err()
        );
    });
}

#[test]
fn a_connection_after_a_refusal_keeps_nothing_of_the_request() {
    run(async {
        let world = World::new("", "timeout: 1s");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        say(&mut client, GET).await;
        refusal(&mut client, 504, "response_timeout").await;
        read_until(&mut client, ".\n").await;
        read_head(&mut endpoint).await;
        let mut endpoint = world.endpoint_holding(1024);
        let body = vec![b'x'; 900_000];
        say(&mut client, post(body.len())).await;
        say(&mut client, &body).await;
        let mut got = vec![0; 600_000];
        read_head(&mut endpoint).await;
        endpoint.read_exact(&mut got).await.unwrap();
        let largest = world.worker.buffers.largest.get();
        assert!(largest <= 64 * 1024, "{largest}");
    });
}

#[test]
fn a_connection_whose_answer_came_before_the_request_ended_is_not_used_again() {
    run(async {
        let world = World::new("", "");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        say(&mut client, post(10)).await;
        read_head(&mut endpoint).await;
        say(
            &mut endpoint,
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno",
        )
        .await;
        assert!(
            read_until(&mut client, "no")
                .await
                .starts_with("HTTP/1.1 403 ")
        );
        assert_eq!(read_all(&mut endpoint).await, "");
        // The rest of the body is dropped, and the next request served.
        let mut endpoint = world.endpoint();
        say(&mut client, "0123456789").await;
        say(&mut client, GET).await;
        assert!(read_head(&mut endpoint).await.starts_with("GET / "));
    });
}

#[test]
fn a_client_that_leaves_while_a_connection_is_made_gives_its_slot_back() {
    run(async {
        let full = Full::new();
        let world = World::at(full.address, "connect: 20s", "concurrency: 1");
        let (mut client, io) = sockets().await;
        world.serve(io);
        say(&mut client, GET).await;
        world.in_flight(1).await;
        let start = Instant::now();
        drop(client);
        world.in_flight(0).await;
        took(start, seconds(0));
        assert_eq!(world.counted(499, "client_gone"), 1);
    });
}

#[test]
fn the_time_of_a_request_is_over_while_a_connection_is_made_too() {
    run(async {
        let full = Full::new();
        for (keys, fields) in [
            ("timeout: 2s", ""),
            ("maxDuration: 2s", ""),
            (
                "timeout: 3s",
                "content-type: application/grpc\r\ngrpc-timeout: 2S\r\n",
            ),
        ] {
            let world = World::at(full.address, "connect: 20s", keys);
            let mut client = world.client();
            let start = Instant::now();
            let request = format!("GET / HTTP/1.1\r\nhost: a.default.example.com\r\n{fields}\r\n");
            say(&mut client, request).await;
            let head = read_head(&mut client).await;
            let told = head.contains("tidegate-reason: response_timeout\r\n");
            assert!(told, "{keys}: {head}");
            took(start, seconds(2));
        }
    });
}

#[test]
fn an_answer_without_content_says_nothing_of_its_length() {
    run(async {
        let world = World::new("", "");
        let mut client = world.client();
        let request = "GET /empty HTTP/1.1\r\nhost: b.default.example.com\r\n\r\n";
        say(&mut client, request).await;
        let head = read_head(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
        assert!(!head.contains("content-length"), "{head}");
    });
}

#[test]
fn a_header_that_a_rule_sets_takes_the_place_of_ours() {
    run(async {
        let world = World::new("", "");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        say(
            &mut client,
            "GET /set HTTP/1.1\r\nhost: b.default.example.com\r\n\r\n",
        )
        .await;
        let head = read_head(&mut endpoint).await;
        assert_eq!(head.matches("x-forwarded-proto: ").count(), 1, "{head}");
        assert!(head.contains("x-forwarded-proto: https\r\n"), "{head}");
    });
}

#[test]
fn an_endpoint_that_says_nothing_but_interim_responses_is_given_up() {
    run(async {
        let world = World::new("", "");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        say(&mut client, GET).await;
        let early = "HTTP/1.1 103 Early Hints\r\n\r\n";
        say(&mut endpoint, early.repeat(101)).await;
        let mut last = read_head(&mut client).await;
        while last == early {
            last = read_head(&mut client).await;
        }
        assert!(
            last.contains("tidegate-reason: upstream_invalid\r\n"),
            "{last}"
        );
    });
}

#[test]
fn half_an_interim_response_is_followed_by_nothing() {
    run(async {
        let world = World::new("", "timeout: 5s");
        let (mut client, _served) = world.client_holding(16);
        let mut endpoint = world.endpoint();
        let asking = spawn_local(async move {
            say(&mut client, GET).await;
            client
        });
        read_head(&mut endpoint).await;
        let mut client = asking.await.unwrap();
        say(
            &mut endpoint,
            "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n",
        )
        .await;
        tokio::time::sleep(seconds(6)).await;
        assert_eq!(read_all(&mut client).await, "HTTP/1.1 103 Ear");
    });
}

#[test]
fn who_leaves_while_held_leaves_the_queue_whatever_they_have_sent() {
    run(async {
        let world = World::new("", "concurrency: 1");
        let (mut first, mut endpoint) = (world.client(), world.endpoint());
        say(&mut first, GET).await;
        read_head(&mut endpoint).await;
        let whole = format!("{}{}", post(10), "0123456789");
        let partial = format!("{}{}", post(100_000), "x".repeat(32 * 1024));
        let pipelined = String::from_utf8(GET.repeat(1000)).unwrap();
        let expecting = post(10).replace("content-", "expect: 100-continue\r\ncontent-");
        for request in [whole, partial, pipelined, expecting] {
            let (mut client, io) = sockets().await;
            world.serve(io);
            say(&mut client, &request).await;
            while world.throttle.waiting() != 1 {
                tokio::time::sleep(TICK).await;
            }
            let start = Instant::now();
            drop(client);
            while world.throttle.waiting() != 0 {
                tokio::time::sleep(TICK).await;
            }
            took(start, seconds(0));
        }
        assert_eq!(world.worker.shared.holding.bytes(), 0);
    });
}

#[test]
fn who_leaves_while_an_answer_streams_ends_it() {
    run(async {
        let world = World::new("", "");
        let mut endpoint = world.endpoint();
        let (mut client, io) = sockets().await;
        world.serve(io);
        say(&mut client, GET).await;
        read_head(&mut endpoint).await;
        say(&mut endpoint, "HTTP/1.1 200 OK\r\n\r\nbegun").await;
        read_until(&mut client, "begun\r\n").await;
        let start = Instant::now();
        drop(client);
        assert_eq!(read_all(&mut endpoint).await, "");
        took(start, seconds(0));
        assert_eq!(world.counted(200, "client_gone"), 1);
    });
}

#[test]
fn the_end_of_the_drain_ends_what_runs_and_refuses_what_waits() {
    run(async {
        let world = World::new("", "concurrency: 1");
        let (mut first, mut endpoint) = (world.client(), world.endpoint());
        say(&mut first, GET).await;
        read_head(&mut endpoint).await;
        say(&mut endpoint, "HTTP/1.1 200 OK\r\n\r\nbegun").await;
        read_until(&mut first, "begun\r\n").await;
        let mut second = world.client();
        say(&mut second, GET).await;
        while world.throttle.waiting() != 1 {
            tokio::time::sleep(TICK).await;
        }
        tokio::time::sleep(seconds(1)).await;
        world.worker.phase.set(Phase::Ended);
        world.worker.timers.wake_all();
        refusal(&mut second, 503, "shutting_down").await;
        assert_eq!(read_all(&mut first).await, "");
        assert_eq!(world.counted(200, "stream_timeout"), 1);
    });
}

#[test]
fn while_draining_a_client_that_does_not_close_is_not_waited_for_long() {
    run(async {
        let world = World::new("", "");
        let (mut client, served) = world.client_holding(PLENTY);
        let mut endpoint = world.endpoint();
        say(&mut client, GET).await;
        read_head(&mut endpoint).await;
        world.worker.phase.set(Phase::Closing);
        say(
            &mut endpoint,
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        )
        .await;
        let head = read_until(&mut client, "ok").await;
        assert!(head.contains("connection: close\r\n"), "{head}");
        let start = Instant::now();
        served.await.unwrap();
        took(start, Duration::from_millis(500));
        assert_eq!(world.worker.connections.get(), 0);
    });
}

#[test]
fn a_body_that_grows_beyond_its_bound_is_refused_and_sent_no_further() {
    run(async {
        let world = World::new("bodyBytes: 10", "concurrency: 1");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        let head =
            "POST / HTTP/1.1\r\nhost: a.default.example.com\r\ntransfer-encoding: chunked\r\n\r\n";
        say(&mut client, head).await;
        say(&mut client, "8\r\n01234567\r\n").await;
        read_until(&mut endpoint, "01234567\r\n").await;
        say(&mut client, "8\r\n01234567\r\n").await;
        refusal(&mut client, 413, "body_too_large").await;
        // The endpoint may still be at work on what it has.
        assert_eq!(read_all(&mut endpoint).await, "");
        assert_eq!(world.throttle.in_flight(), 1);
        drop(endpoint);
        world.in_flight(0).await;
    });
}

#[test]
fn continue_is_said_once_however_often_an_attempt_is_made() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = World::at(listener.local_addr().unwrap(), "", "");
        drop(world.endpoint());
        let mut client = world.client();
        say(
            &mut client,
            post(2).replace("content-", "expect: 100-continue\r\ncontent-"),
        )
        .await;
        assert_eq!(
            read_head(&mut client).await,
            "HTTP/1.1 100 Continue\r\n\r\n"
        );
        let (mut endpoint, _) = listener.accept().await.unwrap();
        let head = read_head(&mut endpoint).await;
        assert!(!head.contains("expect"), "{head}");
        say(&mut client, "ab").await;
        read_until(&mut endpoint, "ab").await;
        say(
            &mut endpoint,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        )
        .await;
        assert!(
            read_until(&mut client, "ok")
                .await
                .starts_with("HTTP/1.1 200 ")
        );
    });
}

#[test]
fn an_idle_connection_takes_less_than_a_kibibyte_and_no_buffers() {
    run(async {
        let world = World::new("", "");
        let (mut asking, io) = sockets().await;
        let serving = serve(world.worker.clone(), io, world_client());
        let size = size_of_val(&serving);
        assert!(size < 1024, "{size}");
        spawn_local(serving);
        tokio::time::sleep(seconds(1)).await;
        assert_eq!(world.worker.buffers.lent.get(), 0);
        say(&mut asking, "GET / HTTP/1.1\r\nhost: nowhere\r\n\r\n").await;
        assert!(read_head(&mut asking).await.starts_with("HTTP/1.1 404 "));
    });
}

#[test]
fn a_tls_client_that_ends_in_good_order_is_told_the_same() {
    run(async {
        let world = World::new("", "");
        let (ours, theirs) = connected().await;
        let serving = world.serve(Io::Tls(Box::new(ours)));
        let mut client = Io::Tls(Box::new(theirs));
        let (mut read, mut write) = client.split();
        poll_fn(|cx| write.poll_shutdown(cx)).await.unwrap();
        // An end without a word would be an error.
        let end = poll_fn(|cx| read.poll_read(cx, &mut [0; 10])).await;
        assert_eq!(end.unwrap(), 0);
        serving.await.unwrap();
    });
}

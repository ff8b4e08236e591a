//! What an exchange that ended early leaves behind, and what may be sent twice.

use super::*;

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

//! Every time limit: when it fires, and what the client reads then.

use super::*;

#[test]
fn a_head_that_does_not_end_is_refused_however_it_drips() {
    run(async {
        let world = World::new("headTimeout: 10s", "");
        let mut client = world.client();
        let start = Instant::now();
        say(&mut client, "GET / HT").await;
        tokio::time::sleep(seconds(9)).await;
        say(&mut client, "TP/1.1\r\n").await;
        refusal(&mut client, 408, "header_timeout").await;
        took(start, seconds(10));
    });
}

#[test]
fn a_client_that_says_nothing_is_closed_without_an_answer() {
    run(async {
        let world = World::new("headTimeout: 10s", "");
        let mut client = world.client();
        let start = Instant::now();
        assert_eq!(read_all(&mut client).await, "");
        took(start, seconds(10));
    });
}

#[test]
fn an_idle_connection_is_closed_after_keep_alive() {
    run(async {
        let world = World::new("keepAlive: 75s", "");
        let mut endpoint = world.endpoint();
        let (mut client, io) = sockets().await;
        world.serve(io);
        say(&mut client, GET).await;
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
        let start = Instant::now();
        assert_eq!(read_all(&mut client).await, "");
        took(start, seconds(75));
    });
}

#[test]
fn a_body_that_stops_is_refused() {
    run(async {
        let world = World::new("bodyIdle: 60s, bodyMinRate: 0", "");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        say(&mut client, post(10)).await;
        say(&mut client, "ab").await;
        read_until(&mut endpoint, "ab").await;
        let start = Instant::now();
        refusal(&mut client, 408, "body_timeout").await;
        took(start, seconds(60));
    });
}

#[test]
fn a_body_that_drips_is_refused_after_the_grace() {
    run(async {
        let world = World::new("bodyMinRate: 240", "");
        let (client, mut endpoint) = (world.client(), world.endpoint());
        let (mut read, mut write) = tokio::io::split(client);
        let start = Instant::now();
        let drip = spawn_local(async move {
            say(&mut write, post(1000)).await;
            loop {
                say(&mut write, "a").await;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
        read_head(&mut endpoint).await;
        let head = read_head(&mut read).await;
        drip.abort();
        assert!(head.contains("tidegate-reason: body_timeout"), "{head}");
        // Ten bytes earn 42 ms beyond the grace of 5 s.
        assert!(start.elapsed() >= seconds(5) && start.elapsed() < Duration::from_millis(5200));
    });
}

#[test]
fn a_client_whose_body_is_not_read_is_not_slow() {
    run(async {
        let world = World::new("bodyIdle: 1s, writeStall: 60s", "");
        let mut client = world.client();
        let mut endpoint = world.endpoint_holding(1024);
        let body = vec![b'x'; 300_000];
        say(&mut client, post(body.len())).await;
        say(&mut client, &body).await;
        tokio::time::sleep(seconds(30)).await;
        read_head(&mut endpoint).await;
        let mut got = vec![0; body.len()];
        endpoint.read_exact(&mut got).await.unwrap();
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
fn an_endpoint_that_does_not_read_is_given_up() {
    run(async {
        let world = World::new("writeStall: 60s", "");
        let mut client = world.client();
        let _endpoint = world.endpoint_holding(1024);
        say(&mut client, post(300_000)).await;
        say(&mut client, vec![b'x'; 300_000]).await;
        let start = Instant::now();
        refusal(&mut client, 504, "response_timeout").await;
        took(start, seconds(60));
    });
}

#[test]
fn an_endpoint_that_does_not_answer_in_time_is_given_up() {
    run(async {
        let world = World::new("", "timeout: 7s");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        let start = Instant::now();
        say(&mut client, GET).await;
        read_head(&mut endpoint).await;
        refusal(&mut client, 504, "response_timeout").await;
        took(start, seconds(7));
    });
}

#[test]
fn interim_responses_do_not_prolong_the_wait_for_the_answer() {
    run(async {
        let world = World::new("", "timeout: 7s");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        let start = Instant::now();
        say(&mut client, GET).await;
        tokio::time::sleep(seconds(5)).await;
        say(
            &mut endpoint,
            "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n",
        )
        .await;
        assert!(read_head(&mut client).await.starts_with("HTTP/1.1 103 "));
        refusal(&mut client, 504, "response_timeout").await;
        took(start, seconds(7));
    });
}

#[test]
fn the_whole_duration_ends_a_stream() {
    run(async {
        let world = World::new("", "maxDuration: 20s, timeout: 10s");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        let start = Instant::now();
        say(&mut client, GET).await;
        say(
            &mut endpoint,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        )
        .await;
        let stream = spawn_local(async move {
            while endpoint.write_all(b"1\r\nx\r\n").await.is_ok() {
                tokio::time::sleep(seconds(1)).await;
            }
        });
        let all = read_all(&mut client).await;
        assert!(all.ends_with("1\r\nx\r\n"), "{all}");
        took(start, seconds(20));
        stream.await.unwrap();
        assert_eq!(world.counted(200, "stream_timeout"), 1);
    });
}

#[test]
fn silence_after_the_head_ends_a_stream() {
    run(async {
        let world = World::new("", "idle: 5s, timeout: 2s");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        say(&mut client, GET).await;
        say(
            &mut endpoint,
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab",
        )
        .await;
        read_until(&mut client, "ab").await;
        tokio::time::sleep(seconds(4)).await;
        let start = Instant::now();
        say(&mut endpoint, "cd").await;
        assert_eq!(read_all(&mut client).await, "cd");
        took(start, seconds(5));
        assert_eq!(world.counted(200, "stream_timeout"), 1);
    });
}

#[test]
fn a_client_that_does_not_read_is_given_up() {
    run(async {
        let world = World::new("writeStall: 60s", "concurrency: 1");
        let (mut client, served) = world.client_holding(1024);
        let mut endpoint = world.endpoint();
        say(&mut client, GET).await;
        say(
            &mut endpoint,
            "HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n",
        )
        .await;
        say(&mut endpoint, vec![b'x'; 300_000]).await;
        let start = Instant::now();
        world.in_flight(1).await;
        world.in_flight(0).await;
        took(start, seconds(60));
        assert_eq!(world.counted(200, "stream_timeout"), 1);
        drop(client);
        served.await.unwrap();
    });
}

#[test]
fn a_silent_tunnel_ends() {
    run(async {
        let world = World::new("tunnelIdle: 600s", "timeout: 5s");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        upgraded(&mut client, &mut endpoint).await;
        tokio::time::sleep(seconds(500)).await;
        say(&mut client, "ping").await;
        read_until(&mut endpoint, "ping").await;
        let start = Instant::now();
        assert_eq!(read_all(&mut client).await, "");
        took(start, seconds(600));
        assert_eq!(world.counted(101, "stream_timeout"), 1);
    });
}

#[test]
fn a_revision_s_own_limits_hold_for_its_tunnels() {
    run(async {
        for (limit, wanted) in [("idle: 30s", 30), ("maxDuration: 40s", 40)] {
            let world = World::new("tunnelIdle: 600s", limit);
            let (mut client, mut endpoint) = (world.client(), world.endpoint());
            let start = Instant::now();
            upgraded(&mut client, &mut endpoint).await;
            assert_eq!(read_all(&mut client).await, "");
            took(start, seconds(wanted));
        }
    });
}

#[test]
fn a_half_closed_tunnel_ends_soon() {
    run(async {
        let world = World::new("tunnelIdle: 600s", "");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        upgraded(&mut client, &mut endpoint).await;
        let start = Instant::now();
        client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut endpoint).await, "");
        assert_eq!(read_all(&mut client).await, "");
        took(start, seconds(10));
    });
}

#[test]
fn who_waits_too_long_for_a_slot_is_told_so() {
    run(async {
        let world = World::new(
            "bodyIdle: 1s",
            "concurrency: 1, queue: { wait: 12s }, timeout: 60s",
        );
        let (mut first, mut endpoint) = (world.client(), world.endpoint());
        say(&mut first, GET).await;
        read_head(&mut endpoint).await;
        let mut second = world.client();
        let start = Instant::now();
        // Nobody reads the body of who is held, so nobody may call it slow.
        say(&mut second, post(10)).await;
        refusal(&mut second, 504, "start_timeout").await;
        took(start, seconds(12));
        assert_eq!(world.throttle.waiting(), 0);
    });
}

#[test]
fn the_slot_of_an_abandoned_request_stays_until_the_linger_is_over() {
    run(async {
        let world = World::new("abortLinger: 30s", "concurrency: 1");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        say(&mut client, GET).await;
        read_head(&mut endpoint).await;
        let start = Instant::now();
        drop(client);
        assert_eq!(read_all(&mut endpoint).await, "");
        assert_eq!(world.throttle.in_flight(), 1);
        world.in_flight(0).await;
        took(start, seconds(30));
        assert_eq!(world.counted(499, "client_gone"), 1);
    });
}

#[test]
fn an_unlimited_endpoint_s_slot_is_free_at_once() {
    run(async {
        let world = World::new("", "");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        say(&mut client, GET).await;
        read_head(&mut endpoint).await;
        let start = Instant::now();
        drop(client);
        world.in_flight(0).await;
        took(start, seconds(0));
    });
}

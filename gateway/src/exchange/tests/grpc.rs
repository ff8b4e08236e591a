//! Deadlines that gRPC clients set themselves.

use super::*;

fn call(timeout: &str) -> String {
    format!(
        "POST /a.B/C HTTP/1.1\r\nhost: a.default.example.com\r\ncontent-type: application/grpc\r\n\
         te: trailers\r\ngrpc-timeout: {timeout}\r\ncontent-length: 2\r\n\r\nhi"
    )
}

/// An error of ours as gRPC has it.
async fn told(client: &mut DuplexStream, reason: &str) {
    let head = read_head(client).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("grpc-status: 4\r\n"), "{head}");
    assert!(
        head.contains(&format!("tidegate-reason: {reason}\r\n")),
        "{head}"
    );
}

#[test]
fn a_call_waits_for_a_slot_no_longer_than_its_deadline() {
    run(async {
        let world = World::new("", "concurrency: 1, queue: { wait: 60s }, timeout: 600s");
        let (mut first, mut endpoint) = (world.client(), world.endpoint());
        say(&mut first, GET).await;
        read_head(&mut endpoint).await;
        let start = Instant::now();
        let mut client = world.client();
        say(&mut client, call("7S")).await;
        told(&mut client, "start_timeout").await;
        took(start, seconds(7));
    });
}

#[test]
fn a_deadline_beyond_our_own_bounds_moves_none_of_them() {
    run(async {
        let world = World::new("", "concurrency: 1, queue: { wait: 12s }, timeout: 600s");
        let (mut first, mut endpoint) = (world.client(), world.endpoint());
        say(&mut first, GET).await;
        read_head(&mut endpoint).await;
        for timeout in ["99999999H", "1M", "nonsense", "5s"] {
            let start = Instant::now();
            let mut client = world.client();
            say(&mut client, call(timeout)).await;
            told(&mut client, "start_timeout").await;
            took(start, seconds(12));
        }
    });
}

#[test]
fn the_time_a_call_has_waited_counts() {
    run(async {
        let world = World::new("bodyIdle: 600s", "concurrency: 1, timeout: 600s");
        let (mut first, mut endpoint) = (world.client(), world.endpoint());
        say(&mut first, GET).await;
        read_head(&mut endpoint).await;
        let start = Instant::now();
        let mut client = world.client();
        say(&mut client, call("7S")).await;
        tokio::time::sleep(seconds(4)).await;
        say(&mut endpoint, "HTTP/1.1 204 No Content\r\n\r\n").await;
        assert!(
            read_head(&mut endpoint)
                .await
                .contains("grpc-timeout: 7S\r\n")
        );
        told(&mut client, "response_timeout").await;
        took(start, seconds(7));
        assert_eq!(
            world.throttle.in_flight(),
            1,
            "the endpoint still works at it"
        );
    });
}

#[test]
fn an_answer_that_has_begun_is_cut_at_the_deadline() {
    run(async {
        let world = World::new("", "");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        let start = Instant::now();
        say(&mut client, call("1500m")).await;
        read_head(&mut endpoint).await;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n";
        say(&mut endpoint, head).await;
        read_head(&mut client).await;
        assert_eq!(read_all(&mut client).await, "");
        took(start, Duration::from_millis(1500));
        assert_eq!(world.counted(200, "stream_timeout"), 1);
    });
}

#[test]
fn only_grpc_has_such_deadlines() {
    run(async {
        let world = World::new("", "timeout: 9s");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        let start = Instant::now();
        let call = call("1S").replace("application/grpc", "application/json");
        say(&mut client, call).await;
        read_head(&mut endpoint).await;
        refusal(&mut client, 504, "response_timeout").await;
        took(start, seconds(9));
    });
}

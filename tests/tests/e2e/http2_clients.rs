//! What HTTP/2 clients may do, and what they are told when they may not.

use h2::Reason;
use tests::body::full;
use tests::client::{carrying, with};
use tests::frames::{self, Frames, Outcome, get};
use tests::http2::{Http2, pull, push};
use tests::{Backend, Client, Gateway, PATIENCE, Wire, eventually, request, within};

use crate::{HELLO, hello, hello_h2c};

fn limits(limits: &str) -> String {
    format!("gateway: {{ limits: {{ {limits} }} }}\n")
}

/// A connection on which nothing was asked yet.
async fn frames(gateway: &Gateway) -> Frames {
    let mut client = Frames::connect(gateway.public()).await;
    client.settled().await;
    client
}

#[tokio::test]
async fn bounds_are_announced() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = Frames::connect(gateway.public()).await;
    client.settled().await;
    assert_eq!(client.set(frames::MAX_CONCURRENT_STREAMS), Some(100));
    assert_eq!(client.set(frames::INITIAL_WINDOW_SIZE), Some(64 * 1024));
    assert_eq!(client.set(frames::MAX_HEADER_LIST_SIZE), Some(32 * 1024));
    // As it is where nothing else is said: 16 KiB and 4 KiB.
    let usual = [
        (frames::MAX_FRAME_SIZE, 16_384),
        (frames::HEADER_TABLE_SIZE, 4096),
    ];
    for (name, value) in usual {
        assert!(client.set(name).is_none_or(|said| said == value));
    }
    let window = loop {
        let frame = client.any().await.unwrap();
        if frame.kind == frames::WINDOW_UPDATE {
            break 65_535 + frame.number(0);
        }
    };
    assert_eq!(window, 1024 * 1024);
}

#[tokio::test]
async fn as_many_streams_are_taken_as_are_announced() {
    let backend = Backend::start("one");
    for (config, most) in [(String::new(), 100), (limits("http2Streams: 3"), 3)] {
        let gateway = Gateway::start(&(config + &hello(&backend))).await;
        let mut client = frames(&gateway).await;
        assert_eq!(client.set(frames::MAX_CONCURRENT_STREAMS), Some(most));
        let last = 2 * most + 1;
        for stream in (1..=last).step_by(2) {
            client.get(stream, HELLO, "/?hold").await;
        }
        // Those that were taken are not disturbed by the one that was not.
        assert_eq!(
            client.outcome(last).await,
            Outcome::Reset(frames::REFUSED_STREAM)
        );
        eventually(PATIENCE, "all others arrive", async || {
            (backend.running() == u64::from(most)).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn streams_are_answered_in_any_order_on_one_connection() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = frames(&gateway).await;
    client.get(1, HELLO, "/?hold").await;
    for stream in (3..200).step_by(2) {
        client.get(stream, HELLO, "/").await;
        assert_eq!(client.outcome(stream).await, Outcome::Status(200));
    }
    backend.open_gate();
    assert_eq!(client.outcome(1).await, Outcome::Status(200));
}

#[tokio::test]
async fn idle_connection_is_left_with_a_goaway() {
    let backend = Backend::start("one");
    // Longer than the machine may pause between a connection and its first request.
    let gateway = Gateway::start(&(limits("http2Idle: 2s") + &hello(&backend))).await;
    let mut busy = frames(&gateway).await;
    busy.get(1, HELLO, "/?hold").await;
    let mut idle = frames(&gateway).await;
    idle.get(1, HELLO, "/").await;
    assert_eq!(idle.outcome(1).await, Outcome::Status(200));
    assert_eq!(idle.goaway().await.1, frames::NO_ERROR);
    idle.end().await;
    // One with a request under way is not idle, though nothing moves.
    backend.open_gate();
    assert_eq!(busy.outcome(1).await, Outcome::Status(200));
}

/// Sends a request of these fields and another one after it: the first is refused by a reset or
/// with 400, the second is answered.
async fn malformed(gateway: &Gateway, fields: &[(&str, &str)]) {
    let mut client = frames(gateway).await;
    client.head(1, fields, true).await;
    let outcome = client.outcome(1).await;
    assert!(
        matches!(
            outcome,
            Outcome::Reset(frames::PROTOCOL_ERROR) | Outcome::Status(400)
        ),
        "{fields:?}: {outcome:?}"
    );
    client.get(3, HELLO, "/").await;
    assert_eq!(
        client.outcome(3).await,
        Outcome::Status(200),
        "after {fields:?}"
    );
}

#[tokio::test]
async fn malformed_heads_cost_their_stream_only() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let more = [
        ("connection", "keep-alive"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        (":path", "/twice"),
        ("host", "other.example.com"),
        ("content-length", "1"),
        ("content-length", "x"),
    ];
    for field in more {
        let mut fields = get(HELLO, "/").to_vec();
        fields.push(field);
        malformed(&gateway, &fields).await;
    }
    // Only the requests in between.
    assert_eq!(backend.total(), more.len() as u64);
}

#[tokio::test]
async fn malformed_pseudo_fields_cost_their_stream_only() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let whole = get(HELLO, "/");
    for missing in [":method", ":scheme", ":path"] {
        let rest = whole.into_iter().filter(|(name, _)| *name != missing);
        malformed(&gateway, &rest.collect::<Vec<_>>()).await;
    }
    let changes = [
        (":path", ""),
        (":path", "no-slash"),
        (":path", "/a b"),
        (":path", "/a\r\nb: c"),
        (":authority", "a b"),
        (":authority", "user@hello.default.example.com"),
    ];
    for change in changes {
        let changed = whole.map(|field| if field.0 == change.0 { change } else { field });
        malformed(&gateway, &changed).await;
    }
    let mut late = vec![("x-first", "1")];
    late.extend(whole);
    malformed(&gateway, &late).await;
    assert_eq!(backend.total(), 3 + changes.len() as u64 + 1);
}

#[tokio::test]
async fn heads_that_cannot_be_read_cost_their_connection_at_most() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    for field in [
        ("X-Upper", "1"),
        ("x-nul", "a\0b"),
        ("x-line", "a\r\nb: c"),
        (":late", "1"),
        ("", "1"),
        ("x y", "1"),
        ("x-colon:", "1"),
        (":method", "G T"),
        (":method", ""),
        (":protocol", "websocket"),
    ] {
        let mut client = frames(&gateway).await;
        let mut fields = get(HELLO, "/").to_vec();
        match fields.iter_mut().find(|(name, _)| *name == field.0) {
            Some(same) => *same = field,
            None if field.0 == ":protocol" => fields.insert(0, field),
            None => fields.push(field),
        }
        client.head(1, &fields, true).await;
        let outcome = client.outcome(1).await;
        let refused = [
            Outcome::Reset(frames::PROTOCOL_ERROR),
            Outcome::GoAway(frames::PROTOCOL_ERROR),
            Outcome::Status(400),
        ];
        assert!(refused.contains(&outcome), "{field:?}: {outcome:?}");
    }
    assert_eq!(
        backend.total(),
        0,
        "a malformed request reached the endpoint"
    );
}

#[tokio::test]
async fn host_may_stand_for_the_authority_or_repeat_it() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = frames(&gateway).await;
    let [method, scheme, path, authority] = get(HELLO, "/");
    let host = ("host", HELLO);
    client.head(1, &[method, scheme, path, host], true).await;
    assert_eq!(client.outcome(1).await, Outcome::Status(200));
    client
        .head(3, &[method, scheme, path, authority, host], true)
        .await;
    assert_eq!(client.outcome(3).await, Outcome::Status(200));
    // Without either nobody can say whom it is for.
    client.head(5, &[method, scheme, path], true).await;
    let outcome = client.outcome(5).await;
    assert!(
        matches!(
            outcome,
            Outcome::Status(400 | 404) | Outcome::Reset(frames::PROTOCOL_ERROR)
        ),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn body_that_is_not_as_long_as_it_says_is_refused() {
    for config in [hello, hello_h2c] {
        let backend = Backend::start("one");
        let gateway = Gateway::start(&config(&backend)).await;
        let mut client = frames(&gateway).await;
        for (stream, data) in [(1, "abc"), (3, "abcdefg")] {
            let mut fields = get(HELLO, "/").to_vec();
            fields[0].1 = "POST";
            fields.push(("content-length", "5"));
            client.head(stream, &fields, false).await;
            client.data(stream, data.as_bytes(), true).await;
            let outcome = client.outcome(stream).await;
            assert!(
                matches!(
                    outcome,
                    Outcome::Reset(frames::PROTOCOL_ERROR) | Outcome::Status(400)
                ),
                "{data}: {outcome:?}"
            );
        }
        client.get(5, HELLO, "/").await;
        assert_eq!(client.outcome(5).await, Outcome::Status(200));
    }
}

#[tokio::test]
async fn plain_connect_is_not_a_method_here() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = frames(&gateway).await;
    let connect = [(":method", "CONNECT"), (":authority", HELLO)];
    client.head(1, &connect, true).await;
    assert_eq!(client.outcome(1).await, Outcome::Status(405));
    client.get(3, HELLO, "/").await;
    assert_eq!(client.outcome(3).await, Outcome::Status(200));
}

#[tokio::test]
async fn too_many_or_too_large_fields_are_told_so() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = frames(&gateway).await;
    let large = "x".repeat(40_000);
    for (stream, name, value, count, status) in [
        (1, "x-many", "1", 90, 200),
        (3, "x-many", "1", 101, 431),
        (5, "cookie", "a=1", 101, 431),
        (7, "x-large", &large[..20_000], 1, 200),
        (9, "x-large", &large, 1, 431),
        (11, "x-fine", "1", 1, 200),
    ] {
        let mut fields = get(HELLO, "/").to_vec();
        fields.extend(vec![(name, value); count]);
        client.head(stream, &fields, true).await;
        assert_eq!(
            client.outcome(stream).await,
            Outcome::Status(status),
            "{count} {name}"
        );
    }
}

#[tokio::test]
async fn answers_of_our_own_are_as_on_http1() {
    let backend = Backend::start("one");
    let config = limits("bodyBytes: 1000, targetBytes: 100") + &hello(&backend);
    let gateway = Gateway::start(&config).await;
    let mut client = Client::speaking(Wire::Http2, gateway.public()).await;
    let answer = client
        .get("nobody.example.com", "/")
        .await
        .refused(404, "no_route");
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert!(!answer.text().is_empty() && !answer.header("date").is_empty());
    assert_eq!(answer.header("connection"), "");
    let head = client
        .send(request("HEAD", "nobody.example.com", "/"))
        .await;
    assert_eq!(head.refused(404, "no_route").text(), "");
    let asked = with(
        request("GET", "nobody.example.com", "/"),
        "accept",
        "application/problem+json",
    );
    let problem = client.send(asked).await.refused(404, "no_route");
    assert_eq!(problem.header("content-type"), "application/problem+json");
    let long = format!("/{}", "x".repeat(200));
    client.get(HELLO, &long).await.refused(414, "uri_too_long");
    client
        .get(HELLO, "/a/../b")
        .await
        .refused(400, "bad_request");
    let large = carrying(request("POST", HELLO, "/"), full("x".repeat(2000)));
    client.send(large).await.refused(413, "body_too_large");
    // All of it on one connection, which is as good as new.
    client.get(HELLO, "/").await.expect(200);
}

#[tokio::test]
async fn head_that_is_never_finished_is_waited_for_no_longer_than_any() {
    let gateway = Gateway::start(&limits("headTimeout: 2s")).await;
    let mut client = frames(&gateway).await;
    let block = frames::block(&get(HELLO, "/"));
    client
        .send(frames::HEADERS, frames::END_STREAM, 1, &block)
        .await;
    client.end().await;
}

#[tokio::test]
async fn frame_that_is_never_finished_is_waited_for_no_longer_than_a_head() {
    let gateway = Gateway::start(&limits("headTimeout: 2s")).await;
    let mut client = frames(&gateway).await;
    client.flood(&[0, 0, 8, frames::HEADERS, 0]).await;
    client.end().await;
}

#[tokio::test]
async fn upload_that_stops_is_waited_for_no_longer_than_any() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&(limits("bodyIdle: 200ms") + &hello(&backend))).await;
    let mut client = Http2::connect(gateway.public()).await;
    let mut call = client.open(request("POST", HELLO, "/"), false).await;
    // On a busy machine it may be too late even for that.
    let _begun = within("window", push(&mut call.upload, "begun".into())).await;
    let answer = call.head().await;
    assert_eq!(answer.status(), 408);
    assert_eq!(answer.headers()["tidegate-reason"], "body_timeout");
    let call = client.open(request("GET", HELLO, "/"), true).await;
    assert_eq!(call.answer().await.0, 200);
}

#[tokio::test]
async fn answer_that_is_not_read_is_kept_no_longer_than_any() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&(limits("writeStall: 300ms") + &hello(&backend))).await;
    let mut client = Http2::connect(gateway.public()).await;
    let asked = request("GET", HELLO, "/?size=10000000");
    let mut body = client.open(asked, true).await.head().await.into_body();
    // The window is never given back.
    let stalled = async { while let Some(Ok(_)) = body.data().await {} };
    within("the stream to end", stalled).await;
    let idle = [("revision", "hello-1")];
    gateway
        .until_metric("tidegate_inflight", &idle, |n| n == 0.0)
        .await;
    let call = client.open(request("GET", HELLO, "/"), true).await;
    assert_eq!(call.answer().await.0, 200);
}

#[tokio::test]
async fn window_is_given_stream_by_stream() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = Http2::connect(gateway.public()).await;
    // One answer that is not read does not keep others from coming.
    let asked = request("GET", HELLO, "/?size=10000000");
    let mut stalled = client.open(asked, true).await.head().await.into_body();
    for _ in 0..10 {
        let call = client
            .open(request("GET", HELLO, "/?size=300000"), true)
            .await;
        assert_eq!(call.answer().await.1.len(), 300_000);
    }
    let mut length = 0;
    while let Some(data) = within("the rest", pull(&mut stalled)).await.unwrap() {
        length += data.len();
    }
    assert_eq!(length, 10_000_000);
}

#[tokio::test]
async fn cancelled_requests_leave_the_connection_as_it_was() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello_h2c(&backend)).await;
    let mut client = Http2::connect(gateway.public()).await;
    for round in 0..20 {
        let mut call = client.open(request("GET", HELLO, "/?hold"), true).await;
        eventually(PATIENCE, "it arrives", async || {
            (backend.running() == 1).then_some(())
        })
        .await;
        call.upload.send_reset(Reason::CANCEL);
        eventually(PATIENCE, "it leaves", async || {
            (backend.running() == 0).then_some(())
        })
        .await;
        let call = client.open(request("GET", HELLO, "/"), true).await;
        assert_eq!(call.answer().await.0, 200, "round {round}");
    }
}

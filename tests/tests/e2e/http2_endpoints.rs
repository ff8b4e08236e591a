//! Endpoints that speak HTTP/2 get few connections with many streams, and none of their ways to
//! say no costs a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use h2::Reason;
use tests::body::full;
use tests::client::carrying;
use tests::frames::{self, Frames};
use tests::http2::{Http2, Http2Backend, Stream, Terms};
use tests::load::{Reconnect, assert_only_200};
use tests::{Backend, Client, Gateway, Load, PATIENCE, RawBackend, Wire, eventually, request};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::{HELLO, hello_h2c};

/// With one worker, whose connections are its own.
fn one_worker(endpoint: &Http2Backend) -> String {
    "gateway: { workers: 1 }\n".to_owned() + &hello_h2c(endpoint)
}

/// Requests at once, each from a client of its own, which all wait for the endpoint.
async fn crowd(gateway: &Gateway, count: usize) -> JoinSet<u16> {
    let mut crowd = JoinSet::new();
    for _ in 0..count {
        let mut client = gateway.connect().await;
        crowd.spawn(async move { client.get(HELLO, "/").await.status });
    }
    crowd
}

async fn running(backend: &Http2Backend, count: usize) {
    eventually(PATIENCE, "as many are under way as asked", async || {
        (backend.running() == count).then_some(())
    })
    .await;
}

/// An endpoint on those terms that answers once for every permit.
fn gated(terms: Terms) -> (Http2Backend, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let backend = Http2Backend::on_terms(terms, move |mut stream| {
        let gate = gate.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            stream.status(200);
        }
    });
    (backend, opened)
}

#[tokio::test]
async fn many_requests_share_few_connections() {
    let (backend, gate) = gated(Terms::default());
    let gateway = Gateway::start(&one_worker(&backend)).await;
    let crowd = crowd(&gateway, 150).await;
    running(&backend, 150).await;
    let (connections, peak) = (backend.connections(), backend.peak());
    assert!((2..=4).contains(&connections), "{connections} connections");
    assert!(peak <= 100, "{peak} streams on one connection");
    gate.add_permits(150);
    assert!(crowd.join_all().await.iter().all(|status| *status == 200));
    // They stay for whoever comes next.
    gate.add_permits(10);
    for _ in 0..10 {
        gateway.get(HELLO, "/").await.expect(200);
    }
    assert_eq!(backend.connections(), connections);
}

#[tokio::test]
async fn no_connection_gets_more_streams_than_its_endpoint_takes() {
    let terms = Terms {
        streams: 5,
        ..Terms::default()
    };
    let (backend, gate) = gated(terms);
    let gateway = Gateway::start(&one_worker(&backend)).await;
    let crowd = crowd(&gateway, 40).await;
    running(&backend, 40).await;
    assert_eq!(backend.peak(), 5);
    gate.add_permits(40);
    assert!(crowd.join_all().await.iter().all(|status| *status == 200));
}

#[tokio::test]
async fn endpoint_that_leaves_again_and_again_costs_nothing() {
    let backend = Http2Backend::scripted(|mut stream: Stream| async move {
        stream.body().await;
        stream.status(200);
    });
    let gateway = Gateway::start(&hello_h2c(&backend)).await;
    let load = Load::start(gateway.public(), 10, Reconnect::Always, || {
        carrying(request("POST", HELLO, "/"), full("x"))
    });
    for round in 1..10 {
        load.more(100).await;
        backend.leave();
        eventually(PATIENCE, "another connection stands", async || {
            (backend.connections() > round).then_some(())
        })
        .await;
    }
    assert_only_200(&load.stop().await);
    // Those that were left are closed.
    eventually(PATIENCE, "one for each worker at most", async || {
        (backend.open() <= 2 + std::thread::available_parallelism().unwrap().get()).then_some(())
    })
    .await;
}

/// Its first connection takes one of five requests and turns the others away. How many there were is
/// counted.
pub(crate) fn leaving_once() -> (RawBackend, Arc<AtomicUsize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let backend = RawBackend::scripted(move |number, raw| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            let mut server = Frames::accept(raw).await;
            let answer = [(":status", "200")];
            if number == 0 {
                for _ in 0..5 {
                    server.asked().await;
                }
                let last = [1_u32.to_be_bytes(), frames::NO_ERROR.to_be_bytes()].concat();
                server.send(frames::GOAWAY, 0, 0, &last).await;
                server.respond(1, &answer).await;
            }
            while let Some(stream) = server.asked().await {
                server.respond(stream, &answer).await;
            }
        }
    });
    (backend, connections)
}

#[tokio::test]
async fn what_a_goaway_does_not_cover_is_sent_again_whatever_it_is() {
    let (backend, _connections) = leaving_once();
    let config = "gateway: { workers: 1 }\n".to_owned() + &hello_h2c(&backend);
    let gateway = Gateway::start(&config).await;
    let client = Client::speaking(Wire::Http2, gateway.public()).await;
    let mut calls = JoinSet::new();
    for _ in 0..5 {
        let mut sibling = client.sibling();
        calls.spawn(async move {
            let asked = carrying(request("POST", HELLO, "/"), full("x"));
            sibling.try_send(asked).await.map(|answer| answer.status)
        });
    }
    for outcome in calls.join_all().await {
        assert_eq!(outcome.unwrap(), 200);
    }
}

/// Refuses that many streams, then answers those whose body is `once`.
fn reluctant(refusals: usize) -> Http2Backend {
    let left = Arc::new(AtomicUsize::new(refusals));
    Http2Backend::scripted(move |mut stream| {
        let left = left.clone();
        async move {
            let less = |left: usize| left.checked_sub(1);
            if left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
                .is_ok()
            {
                return stream.reset(Reason::REFUSED_STREAM);
            }
            assert_eq!(stream.body().await, "once");
            stream.status(200);
        }
    })
}

#[tokio::test]
async fn refused_stream_is_sent_again_whatever_it_is() {
    for wire in [Wire::Http1, Wire::Http2] {
        let backend = reluctant(2);
        let gateway = Gateway::start(&hello_h2c(&backend)).await;
        let mut client = Client::speaking(wire, gateway.public()).await;
        let asked = carrying(request("POST", HELLO, "/"), full("once"));
        client.send(asked).await.expect(200);
        assert_eq!(backend.streams(), 3, "{wire:?}");
    }
}

#[tokio::test]
async fn refused_stream_is_sent_again_though_its_body_came_later() {
    let backend = reluctant(1);
    let gateway = Gateway::start(&hello_h2c(&backend)).await;
    let mut client = Http2::connect(gateway.public()).await;
    let mut call = client.open(request("POST", HELLO, "/"), false).await;
    // A body that came before the refusal is known could be on its way already.
    eventually(PATIENCE, "it is refused, and asked again", async || {
        (backend.streams() == 2).then_some(())
    })
    .await;
    call.send("once").await;
    call.finish();
    assert_eq!(call.answer().await.0, 200);
    assert_eq!(backend.streams(), 2);
}

#[tokio::test]
async fn endpoint_that_always_refuses_is_not_asked_without_end() {
    let backend = reluctant(usize::MAX);
    let gateway = Gateway::start(&hello_h2c(&backend)).await;
    let answer = gateway.send(request("DELETE", HELLO, "/")).await;
    answer.refused(502, "upstream_closed");
    assert_eq!(backend.streams(), 3);
}

#[tokio::test]
async fn endpoint_that_does_not_speak_http2_is_a_bad_gateway() {
    for bytes in ["HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", ""] {
        let backend = RawBackend::scripted(move |_, mut connection| async move {
            connection.exactly(24).await;
            connection.send(bytes).await;
        });
        let gateway = Gateway::start(&hello_h2c(&backend)).await;
        let answer = gateway.get(HELLO, "/").await.expect(502);
        let reason = answer.reason();
        // It failed as soon as it was opened.
        let words = ["connect_failed", "upstream_invalid", "upstream_closed"];
        assert!(words.contains(&reason), "{reason}");
    }
}

#[tokio::test]
async fn connection_that_went_silent_is_replaced() {
    // Takes the first request and never says anything again, not even to a PING.
    let backend = RawBackend::scripted(|number, raw| async move {
        let mut server = Frames::accept(raw).await;
        while let Some(stream) = server.asked().await {
            if number == 0 {
                return std::future::pending().await;
            }
            server.respond(stream, &[(":status", "200")]).await;
        }
    });
    let config = "gateway: { workers: 1 }\n".to_owned() + &hello_h2c(&backend);
    let gateway = Gateway::start(&(config + "    timeout: 500ms\n")).await;
    gateway
        .get(HELLO, "/")
        .await
        .refused(504, "response_timeout");
    // Whether the next goes to it as well or not, soon one is answered.
    eventually(PATIENCE, "a request is answered", async || {
        (gateway.get(HELLO, "/").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn endpoint_that_is_too_slow_is_told_to_stop() {
    let backend = Http2Backend::scripted(|mut stream| async move {
        match stream.path() {
            "/slow" => assert_eq!(stream.cancelled().await, Reason::CANCEL),
            _ => stream.status(200),
        }
    });
    // Time enough for the others on a busy machine, who have as much as they want.
    let rules = "    rules:
      - path: /slow
        timeout: 2s
        traffic: [{ revision: hello-1 }]
      - traffic: [{ revision: hello-1 }]
    traffic:\n";
    let config = one_worker(&backend).replace("    traffic:\n", rules);
    let gateway = Gateway::start(&config).await;
    for _ in 0..3 {
        let before = backend.streams();
        let (slow, ()) = tokio::join!(gateway.get(HELLO, "/slow"), async {
            eventually(PATIENCE, "it has begun", async || {
                (backend.streams() > before).then_some(())
            })
            .await;
            // Others hear from it meanwhile.
            gateway.get(HELLO, "/").await.expect(200);
        });
        slow.refused(504, "response_timeout");
        running(&backend, 0).await;
    }
    // It costs the stream, not the connection.
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn limit_of_an_endpoint_holds_on_a_shared_connection() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&(hello_h2c(&backend) + "    concurrency: 3\n")).await;
    let client = Client::speaking(Wire::Http2, gateway.public()).await;
    let mut calls = JoinSet::new();
    for _ in 0..60 {
        let mut sibling = client.sibling();
        let asked = request("GET", HELLO, "/?sleep=5");
        calls.spawn(async move { sibling.try_send(asked).await.map(|answer| answer.status) });
    }
    for outcome in calls.join_all().await {
        assert_eq!(outcome.unwrap(), 200);
    }
    assert!(backend.peak() <= 3, "{}", backend.peak());
    // Who leaves while it runs gives its slot back at once.
    for _ in 0..10 {
        let mut held = JoinSet::new();
        for _ in 0..3 {
            let mut sibling = client.sibling();
            let asked = request("GET", HELLO, "/?hold");
            held.spawn(async move { drop(sibling.try_send(asked).await) });
        }
        eventually(PATIENCE, "they arrive", async || {
            (backend.running() == 3).then_some(())
        })
        .await;
        held.shutdown().await;
        gateway.until_idle().await;
        eventually(PATIENCE, "the endpoint has heard of it", async || {
            (backend.running() == 0).then_some(())
        })
        .await;
    }
    assert_eq!(backend.peak(), 3);
}

#[tokio::test]
async fn endpoint_that_closes_without_a_word_costs_no_safe_request() {
    let backend = RawBackend::scripted(|_, raw| async move {
        let mut server = Frames::accept(raw).await;
        if let Some(stream) = server.asked().await {
            server.respond(stream, &[(":status", "200")]).await;
        }
    });
    let gateway = Gateway::start(&hello_h2c(&backend)).await;
    let mut client = gateway.connect().await;
    for _ in 0..30 {
        client.get(HELLO, "/").await.expect(200);
    }
}

#[tokio::test]
async fn answer_that_is_not_as_long_as_it_says_is_broken_off() {
    for (length, data) in [("10", &b"short"[..]), ("3", b"longer")] {
        let backend = RawBackend::scripted(move |_, raw| async move {
            let mut server = Frames::accept(raw).await;
            while let Some(stream) = server.asked().await {
                let head = frames::block(&[(":status", "200"), ("content-length", length)]);
                let mut answer =
                    frames::encode(frames::HEADERS, frames::END_HEADERS, stream, &head);
                answer.extend(frames::encode(
                    frames::DATA,
                    frames::END_STREAM,
                    stream,
                    data,
                ));
                server.flood(&answer).await;
            }
        });
        let gateway = Gateway::start(&hello_h2c(&backend)).await;
        for wire in [Wire::Http1, Wire::Http2] {
            let mut client = Client::speaking(wire, gateway.public()).await;
            let answer = client.try_send(request("GET", HELLO, "/")).await;
            let whole = answer.is_ok_and(|answer| answer.status == 200);
            assert!(!whole, "{length}: passed on as if it were whole");
        }
    }
}

#[tokio::test]
async fn malformed_answers_are_not_passed_on() {
    for fields in [
        &[(":status", "abc")][..],
        &[(":status", "101")],
        &[("x-no", "status")],
        &[(":status", "200"), ("connection", "close")],
        &[(":status", "200"), ("X-Upper", "1")],
        &[(":status", "200"), ("content-length", "5")],
    ] {
        let backend = RawBackend::scripted(move |_, raw| async move {
            let mut server = Frames::accept(raw).await;
            while let Some(stream) = server.asked().await {
                server.respond(stream, fields).await;
            }
        });
        let gateway = Gateway::start(&hello_h2c(&backend)).await;
        let answer = gateway.get(HELLO, "/").await;
        let reason = answer.reason();
        let fine = ["upstream_invalid", "upstream_closed"].contains(&reason);
        assert!(answer.status == 502 && fine, "{fields:?}: {answer:?}");
    }
}

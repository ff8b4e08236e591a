//! HTTP/2 on either side: what meets at the same moment, what comes late, and what no honest peer
//! sends.

use std::task::Poll;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Request, Response};

use super::streams::{Answerer, Caller, asks, between, ok, reset_with, status};
use super::*;

/// Reads a body to its end; how long it was.
async fn take(mut body: h2::RecvStream) -> usize {
    let mut seen = 0;
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        seen += data.len();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    seen
}

/// Lets every task run that can, once.
async fn step() {
    let mut stepped = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut stepped, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[test]
fn a_request_let_in_as_it_was_to_be_evicted_is_served() {
    for steps in 0..12 {
        run(async {
            let (world, mut endpoint, mut caller) =
                between("", "concurrency: 1, protocol: h2c").await;
            let (_first, _) = caller.get().await;
            let mut served = vec![endpoint.next().await.1];
            let mut held = Vec::new();
            for count in 1..=9 {
                let (response, mut body) = caller.ask(asks("POST"), false).await;
                while world.throttle.waiting() < count {
                    tokio::task::yield_now().await;
                }
                // Read ahead and a window.
                body.send_data(Bytes::from(vec![0; 80_000]), true).unwrap();
                if count < 9 {
                    tokio::time::sleep(seconds(1)).await;
                }
                held.push((response, body));
            }
            let throttle = world.throttle.clone();
            spawn_local(async move {
                for _ in 0..steps {
                    step().await;
                }
                throttle.configure(Limits::new(100, 100));
            });
            tokio::time::sleep(seconds(1)).await;
            while let Ok((request, respond)) = endpoint.asked.try_recv() {
                served.push(respond);
                spawn_local(take(request.into_body()));
            }
            tokio::time::sleep(seconds(1)).await;
            let refused = world.counted(503, "overloaded");
            // The endpoint has one, the first, and all that were held but those refused.
            assert_eq!(
                (
                    served.len() as u64 + refused,
                    world.counted(499, "client_gone")
                ),
                (10, 0),
                "after {steps} steps"
            );
            let (newest, _body) = held.pop().unwrap();
            if refused > 0 {
                assert_eq!(reset_with(newest).await, Some(Reason::REFUSED_STREAM));
            }
        });
    }
}

#[test]
fn a_reset_is_heard_while_the_endpoint_does_not_read() {
    run(async {
        let (world, mut endpoint, mut caller) = between("", "protocol: h2c").await;
        let (_response, mut body) = caller.ask(asks("POST"), false).await;
        body.send_data(Bytes::from(vec![0; 1 << 20]), false)
            .unwrap();
        let (_request, mut respond) = endpoint.next().await;
        // All windows on the way are full.
        tokio::time::sleep(seconds(1)).await;
        let start = Instant::now();
        body.send_reset(Reason::CANCEL);
        let cancelled = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
        assert_eq!(cancelled.unwrap(), Reason::CANCEL);
        took(start, seconds(0));
        assert_eq!(world.counted(499, "client_gone"), 1);
    });
}

#[test]
fn an_answer_that_is_still_being_sent_is_not_cut_by_a_drain() {
    run(async {
        let world = World::new("", "protocol: h2c");
        let mut endpoint = Answerer::new(&world).await;
        let (theirs, _served) = world.client_holding(1024);
        let (requests, connection) = h2::client::handshake(theirs).await.unwrap();
        let mut connection = Box::pin(connection);
        let mut requests = requests;
        let (response, _) = requests.send_request(asks("GET"), true).unwrap();
        let (_request, mut respond) = tokio::select! {
            asked = endpoint.next() => asked,
            _ = &mut connection => panic!("ended"),
        };
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data(Bytes::from(vec![7; 50_000]), true).unwrap();
        // The client reads nothing for a while.
        tokio::time::sleep(seconds(1)).await;
        assert_eq!(world.counted(200, ""), 1);
        world.worker.phase.set(Phase::Closing);
        world.worker.timers.wake_idle();
        tokio::time::sleep(seconds(3)).await;
        let _driven = spawn_local(connection);
        assert_eq!(take(response.await.unwrap().into_body()).await, 50_000);
        drop(requests);
        while world.worker.connections.get() > 0 {
            tokio::time::sleep(TICK).await;
        }
    });
}

#[test]
fn an_answer_that_nobody_reads_is_given_up() {
    run(async {
        let world = World::new("writeStall: 10s", "protocol: h2c");
        let mut endpoint = Answerer::new(&world).await;
        let (theirs, _served) = world.client_holding(1024);
        let (requests, connection) = h2::client::handshake(theirs).await.unwrap();
        let mut connection = Box::pin(connection);
        let mut requests = requests;
        let (_response, _) = requests.send_request(asks("GET"), true).unwrap();
        let (_request, mut respond) = tokio::select! {
            asked = endpoint.next() => asked,
            _ = &mut connection => panic!("ended"),
        };
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data(Bytes::from(vec![7; 50_000]), true).unwrap();
        let start = Instant::now();
        while world.worker.connections.get() > 0 {
            tokio::time::sleep(TICK).await;
        }
        took(start, seconds(10));
    });
}

#[test]
fn an_endpoint_that_takes_no_streams_is_not_connected_to_for_ever() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = World::at(listener.local_addr().unwrap(), "", "protocol: h2c");
        let accepted = Rc::new(std::cell::Cell::new(0));
        let count = accepted.clone();
        spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.set(count.get() + 1);
                spawn_local(async move {
                    let mut connection = h2::server::Builder::new()
                        .max_concurrent_streams(0)
                        .handshake::<_, Bytes>(stream)
                        .await
                        .unwrap();
                    while let Some(Ok(_)) = connection.accept().await {}
                });
            }
        });
        let mut caller = Caller::new(&world).await;
        let (response, _) = caller.get().await;
        assert_eq!(status(response).await, (502, "connect_failed".into()));
        assert!(accepted.get() <= 3, "{} connections", accepted.get());
    });
}

#[test]
fn an_answer_with_too_many_trailers_is_not_passed_on_as_whole() {
    run(async {
        let (_world, mut endpoint, mut caller) = between("", "protocol: h2c").await;
        let (response, _) = caller.get().await;
        let (_request, mut respond) = endpoint.next().await;
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        let mut answer = response.await.unwrap().into_body();
        let mut trailers = HeaderMap::new();
        for number in 0..65 {
            let name = http::HeaderName::try_from(format!("x-{number}")).unwrap();
            trailers.insert(name, "1".parse().unwrap());
        }
        body.send_trailers(trailers).unwrap();
        let end = answer.data().await;
        let error = end.expect("not a whole body").unwrap_err();
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
    });
}

#[test]
fn a_websocket_announces_no_body() {
    run(async {
        let world = World::new("", "");
        let _endpoint = world.endpoint();
        let mut caller = Caller::new(&world).await;
        tokio::time::sleep(TICK).await;
        let request = Request::connect("http://a.default.example.com/chat")
            .extension(h2::ext::Protocol::from_static("websocket"))
            .header("content-length", "40");
        let (response, _up) = caller.ask(request.body(()).unwrap(), false).await;
        // An endpoint would take the next request on its connection for that body.
        assert_eq!(status(response).await, (400, "bad_request".into()));
    });
}

#[test]
fn an_early_answer_is_whole_whatever_becomes_of_the_body() {
    run(async {
        let (_world, mut endpoint, mut caller) = between("", "protocol: h2c").await;
        let (response, mut body) = caller.ask(asks("POST"), false).await;
        body.send_data(Bytes::from(vec![0; 200_000]), false)
            .unwrap();
        let (request, mut respond) = endpoint.next().await;
        let mut answer = respond.send_response(Response::new(()), false).unwrap();
        answer
            .send_data(Bytes::from(vec![1; 60_000]), true)
            .unwrap();
        drop((request, respond, answer));
        assert_eq!(take(response.await.unwrap().into_body()).await, 60_000);
        // The connection goes on.
        let (next, _) = caller.get().await;
        let (_request, mut respond) = endpoint.next().await;
        ok(&mut respond);
        assert_eq!(status(next).await.0, 200);
    });
}

#[test]
fn who_may_not_send_because_of_others_is_not_slow() {
    run(async {
        let (_world, mut endpoint, mut caller) = between("bodyIdle: 10s", "protocol: h2c").await;
        // Uploads that their endpoint does not read take up the client's whole window.
        let mut stalled = Vec::new();
        for _ in 0..20 {
            let (response, mut body) = caller.ask(asks("POST"), false).await;
            body.send_data(Bytes::from(vec![0; 200_000]), false)
                .unwrap();
            stalled.push((response, body, endpoint.next().await));
        }
        let (response, mut body) = caller.ask(asks("POST"), false).await;
        body.send_data(Bytes::from_static(b"small"), true).unwrap();
        let (mut request, mut respond) = endpoint.next().await;
        tokio::time::sleep(seconds(30)).await;
        // Now they are read, and there is room for all.
        drop(stalled);
        assert_eq!(request.body_mut().data().await.unwrap().unwrap(), "small");
        ok(&mut respond);
        assert_eq!(status(response).await.0, 200);
    });
}

#[test]
fn a_head_that_does_not_end_ends_its_connection() {
    run(async {
        let world = World::new("headTimeout: 5s", "");
        let mut client = world.client();
        say(&mut client, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        say(&mut client, [0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
        tokio::time::sleep(seconds(20)).await;
        assert_eq!(world.worker.connections.get(), 1);
        let start = Instant::now();
        // A HEADERS frame without END_HEADERS, then a byte of the next now and then.
        say(&mut client, [0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82]).await;
        for byte in [0, 0] {
            tokio::time::sleep(seconds(2)).await;
            say(&mut client, [byte]).await;
        }
        while world.worker.connections.get() > 0 {
            tokio::time::sleep(TICK).await;
        }
        took(start, seconds(5));
    });
}

/// A client that has been told to leave, and after which our side has ended.
async fn parted(world: &World) -> DuplexStream {
    let mut client = world.client();
    say(&mut client, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    // Settings, and an error of the connection: a stream of number 0.
    say(&mut client, [0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
    say(&mut client, [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]).await;
    let mut said = Vec::new();
    client.read_to_end(&mut said).await.unwrap();
    client
}

#[test]
fn what_a_client_still_says_meets_no_closed_socket() {
    run(async {
        let world = World::new("", "");
        let mut client = parted(&world).await;
        tokio::time::sleep(seconds(1)).await;
        say(&mut client, [0; 1000]).await;
        assert_eq!(world.worker.connections.get(), 1);
        let start = Instant::now();
        drop(client);
        while world.worker.connections.get() > 0 {
            tokio::time::sleep(TICK).await;
        }
        took(start, seconds(0));
    });
}

#[test]
fn a_client_that_does_not_end_is_not_listened_to_for_ever() {
    run(async {
        for (phase, patience) in [(Phase::Serving, 2000), (Phase::Closing, 500)] {
            let world = World::new("", "");
            world.worker.phase.set(phase);
            let start = Instant::now();
            let _client = parted(&world).await;
            while world.worker.connections.get() > 0 {
                tokio::time::sleep(TICK).await;
            }
            took(start, Duration::from_millis(patience));
        }
    });
}

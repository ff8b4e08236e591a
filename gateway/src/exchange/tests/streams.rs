//! HTTP/2 on either side: resets, refusals, a shared window, the ways a connection ends.

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};
use tokio::sync::{Notify, mpsc};

use super::*;
use crate::http::h2::link::Link;

pub(super) type Asked = (ResponseFuture, SendStream<Bytes>);

/// An HTTP/2 client.
pub(super) struct Caller {
    pub(super) requests: SendRequest<Bytes>,
    pub(super) driven: JoinHandle<Result<(), h2::Error>>,
}

impl Caller {
    pub(super) async fn new(world: &World) -> Caller {
        let (requests, connection) = h2::client::handshake(world.client()).await.unwrap();
        let driven = spawn_local(connection);
        Caller { requests, driven }
    }

    pub(super) async fn ask(&mut self, request: Request<()>, ended: bool) -> Asked {
        std::future::poll_fn(|cx| self.requests.poll_ready(cx))
            .await
            .unwrap();
        self.requests.send_request(request, ended).unwrap()
    }

    pub(super) async fn get(&mut self) -> Asked {
        self.ask(asks("GET"), true).await
    }
}

/// A client and an endpoint, both of HTTP/2, with the gateway between them.
pub(super) async fn between(limits: &str, revision: &str) -> (World, Answerer, Caller) {
    let world = World::new(limits, revision);
    let endpoint = Answerer::new(&world).await;
    let caller = Caller::new(&world).await;
    (world, endpoint, caller)
}

pub(super) fn asks(method: &str) -> Request<()> {
    let request = Request::builder()
        .method(method)
        .uri("http://a.default.example.com/");
    request.body(()).unwrap()
}

/// Ends the connection of a client, so that its streams end.
pub(super) fn hang_up(caller: &Caller) {
    caller.driven.abort();
}

/// An HTTP/2 endpoint's end of a connection in the pool.
pub(super) struct Answerer {
    pub(super) asked: mpsc::Receiver<(Request<RecvStream>, SendResponse<Bytes>)>,
    pub(super) leave: Rc<Notify>,
    pub(super) hang: Rc<Notify>,
}

impl Answerer {
    pub(super) async fn new(world: &World) -> Answerer {
        let (io, theirs) = Io::memory(PLENTY);
        let worker = &world.worker;
        let endpoint = world.throttle.endpoints()[0].id;
        let quota = worker.pool.quota(endpoint);
        let link = Link::open(io, &worker.clock, worker.timers.timer(), &quota);
        let (link, connection) = tokio::join!(link, h2::server::handshake(theirs));
        worker.pool.share(endpoint, link.unwrap());
        let mut connection = connection.unwrap();
        let (hand_over, asked) = mpsc::channel(100);
        let leave = Rc::new(Notify::new());
        let told = leave.clone();
        let hang = Rc::new(Notify::new());
        let hung = hang.clone();
        spawn_local(async move {
            loop {
                tokio::select! {
                    () = hung.notified() => std::future::pending().await,
                    request = connection.accept() => match request {
                        Some(Ok(request)) => hand_over.try_send(request).unwrap(),
                        _ => return,
                    },
                    () = told.notified() => connection.graceful_shutdown(),
                }
            }
        });
        Answerer { asked, leave, hang }
    }

    pub(super) async fn next(&mut self) -> (Request<RecvStream>, SendResponse<Bytes>) {
        self.asked.recv().await.unwrap()
    }
}

pub(super) fn ok(respond: &mut SendResponse<Bytes>) {
    respond.send_response(Response::new(()), true).unwrap();
}

/// The status of an answer, and why if it is ours.
pub(super) async fn status(response: ResponseFuture) -> (u16, String) {
    let response = response.await.unwrap();
    let reason = response.headers().get("tidegate-reason");
    let reason = reason.map_or("", |reason| reason.to_str().unwrap());
    (response.status().as_u16(), reason.to_owned())
}

pub(super) async fn reset_with(response: ResponseFuture) -> Option<Reason> {
    response.await.unwrap_err().reason()
}

#[test]
fn a_reset_frees_the_place_of_a_held_request() {
    run(async {
        let world = World::new("", "concurrency: 1");
        let mut endpoint = world.endpoint();
        let mut caller = Caller::new(&world).await;
        let (first, _) = caller.get().await;
        read_head(&mut endpoint).await;
        let (_second, mut held) = caller.get().await;
        while world.throttle.waiting() == 0 {
            tokio::time::sleep(TICK).await;
        }
        held.send_reset(Reason::CANCEL);
        while world.throttle.waiting() > 0 {
            tokio::time::sleep(TICK).await;
        }
        say(&mut endpoint, "HTTP/1.1 204 Done\r\n\r\n").await;
        assert_eq!(status(first).await.0, 204);
        assert_eq!(world.counted(499, "client_gone"), 1);
    });
}

#[test]
fn a_client_that_hangs_up_leaves_nothing_behind() {
    run(async {
        let (world, mut endpoint, mut caller) = between("", "concurrency: 1, protocol: h2c").await;
        let (_first, _) = caller.get().await;
        let (_request, mut respond) = endpoint.next().await;
        let (_second, _) = caller.get().await;
        while world.throttle.waiting() == 0 {
            tokio::time::sleep(TICK).await;
        }
        hang_up(&caller);
        // The endpoint hears that nobody waits, and the slot is free at once.
        let cancelled = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
        assert_eq!(cancelled.unwrap(), Reason::CANCEL);
        world.in_flight(0).await;
        assert_eq!(
            (world.throttle.waiting(), world.worker.connections.get()),
            (0, 0)
        );
        assert_eq!(world.counted(499, "client_gone"), 2);
    });
}

#[test]
fn what_an_endpoint_refused_is_asked_again_whatever_it_was() {
    run(async {
        let (_world, mut endpoint, mut caller) = between("", "protocol: h2c").await;
        let (response, mut body) = caller.ask(asks("POST"), false).await;
        body.send_data(Bytes::from_static(b"once"), true).unwrap();
        let (_request, mut respond) = endpoint.next().await;
        respond.send_reset(Reason::REFUSED_STREAM);
        let (mut request, mut respond) = endpoint.next().await;
        assert_eq!(request.body_mut().data().await.unwrap().unwrap(), "once");
        ok(&mut respond);
        assert_eq!(status(response).await.0, 200);
    });
}

#[test]
fn what_comes_while_it_is_sent_can_be_sent_again_as_well() {
    run(async {
        let (_world, mut endpoint, mut caller) = between("", "protocol: h2c").await;
        let (response, mut body) = caller.ask(asks("POST"), false).await;
        let (mut request, mut respond) = endpoint.next().await;
        body.send_data(Bytes::from_static(b"one"), false).unwrap();
        assert_eq!(request.body_mut().data().await.unwrap().unwrap(), "one");
        respond.send_reset(Reason::REFUSED_STREAM);
        body.send_data(Bytes::from_static(b"two"), true).unwrap();
        let (request, mut respond) = endpoint.next().await;
        let (mut all, mut body) = (Vec::new(), request.into_body());
        while let Some(data) = body.data().await {
            all.extend_from_slice(&data.unwrap());
        }
        assert_eq!(all, b"onetwo");
        ok(&mut respond);
        assert_eq!(status(response).await.0, 200);
    });
}

#[test]
fn an_answer_to_head_is_passed_on_whatever_the_endpoint_sends_behind_it() {
    run(async {
        let world = World::new("", "protocol: h2c");
        let mut endpoint = Answerer::new(&world).await;
        let mut client = world.client();
        say(
            &mut client,
            "HEAD / HTTP/1.1\r\nhost: a.default.example.com\r\n\r\n",
        )
        .await;
        let (_request, mut respond) = endpoint.next().await;
        let answer = Response::builder()
            .header("content-length", "4")
            .body(())
            .unwrap();
        let mut body = respond.send_response(answer, false).unwrap();
        body.send_data(Bytes::from_static(b"body"), true).unwrap();
        let head = read_head(&mut client).await;
        assert!(
            head.starts_with("HTTP/1.1 200 ") && head.contains("content-length: 4\r\n"),
            "{head}"
        );
        say(&mut client, GET).await;
        let (_request, mut respond) = endpoint.next().await;
        ok(&mut respond);
        let head = read_head(&mut client).await;
        assert!(head.contains("content-length: 0\r\n"), "{head}");
    });
}

#[test]
fn a_connection_on_which_nothing_is_heard_is_not_used_again() {
    run(async {
        let world = World::new("", "protocol: h2c, timeout: 2s");
        let silent = Answerer::new(&world).await;
        let mut other = Answerer::new(&world).await;
        let mut caller = Caller::new(&world).await;
        silent.hang.notify_one();
        let (response, _) = caller.get().await;
        assert_eq!(status(response).await, (504, "response_timeout".into()));
        let (response, _) = caller.get().await;
        let (_request, mut respond) = other.next().await;
        ok(&mut respond);
        assert_eq!(status(response).await.0, 200);
    });
}

#[test]
fn what_an_endpoint_broke_off_is_asked_again_only_if_that_is_harmless() {
    run(async {
        let (_world, mut endpoint, mut caller) = between("", "protocol: h2c").await;
        let (response, _) = caller.ask(asks("POST"), true).await;
        let (_request, mut respond) = endpoint.next().await;
        respond.send_reset(Reason::INTERNAL_ERROR);
        assert_eq!(status(response).await, (502, "upstream_closed".into()));
    });
}

#[test]
fn requests_go_to_another_connection_once_one_is_going_away() {
    run(async {
        let world = World::new("", "protocol: h2c");
        let mut leaving = Answerer::new(&world).await;
        let mut staying = Answerer::new(&world).await;
        let mut caller = Caller::new(&world).await;
        let (first, _) = caller.get().await;
        let (_request, mut respond) = leaving.next().await;
        leaving.leave.notify_one();
        ok(&mut respond);
        assert_eq!(status(first).await.0, 200);
        for _ in 0..3 {
            let (next, _) = caller.ask(asks("POST"), true).await;
            let (_request, mut respond) = staying.next().await;
            ok(&mut respond);
            let answered = status(next);
            tokio::select! {
                biased;
                (status, _) = answered => assert_eq!(status, 200),
                _ = staying.next() => panic!("nobody asked"),
            }
        }
    });
}

#[test]
fn a_connection_without_streams_is_ended_when_its_time_is_over() {
    run(async {
        let (world, mut endpoint, mut caller) = between("http2Idle: 20s", "protocol: h2c").await;
        let (response, _) = caller.get().await;
        let (_request, mut respond) = endpoint.next().await;
        tokio::time::sleep(seconds(30)).await;
        ok(&mut respond);
        assert_eq!(status(response).await.0, 200);
        let start = Instant::now();
        let ended = caller.driven.await.unwrap();
        // GOAWAY, no error.
        assert!(ended.is_ok(), "{ended:?}");
        took(start, seconds(20));
        assert_eq!(world.worker.connections.get(), 0);
    });
}

#[test]
fn a_client_that_answers_no_ping_is_gone() {
    run(async {
        let world = World::new("", "concurrency: 1");
        let _endpoint = world.endpoint();
        let mut caller = Caller::new(&world).await;
        let (_response, _) = caller.get().await;
        world.in_flight(1).await;
        // It is there for as long as it answers.
        tokio::time::sleep(seconds(200)).await;
        assert_eq!(world.worker.connections.get(), 1);
        let start = Instant::now();
        let Caller { requests, driven } = caller;
        // Its process hangs: the connection stays, nothing is read.
        let (stuck, frozen) = tokio::sync::oneshot::channel::<()>();
        let freeze = spawn_local(async move {
            let _held = requests;
            let _never = frozen.await;
        });
        driven.abort();
        let _ended = driven.await;
        world.in_flight(0).await;
        assert!(start.elapsed() < seconds(60));
        drop((stuck, freeze));
    });
}

#[test]
fn a_drain_lets_streams_finish_and_takes_no_new_ones_in_the_end() {
    run(async {
        let (world, mut endpoint, mut caller) = between("", "protocol: h2c").await;
        let (response, _) = caller.get().await;
        let (_request, mut respond) = endpoint.next().await;
        world.worker.phase.set(Phase::Closing);
        world.worker.timers.wake_idle();
        tokio::time::sleep(seconds(3)).await;
        assert_eq!(world.worker.connections.get(), 1);
        ok(&mut respond);
        assert_eq!(status(response).await.0, 200);
        assert!(caller.driven.await.unwrap().is_ok());
        assert_eq!(world.worker.connections.get(), 0);
    });
}

#[test]
fn a_client_that_does_not_read_is_cut_and_holds_up_no_other() {
    run(async {
        let (world, mut endpoint, mut caller) = between("writeStall: 10s", "protocol: h2c").await;
        let (slow, _) = caller.get().await;
        let (_request, mut respond) = endpoint.next().await;
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.reserve_capacity(1 << 20);
        let sending = spawn_local(async move {
            // More than the client's window, and than ours beside it.
            body.send_data(Bytes::from(vec![0; 1 << 20]), false)
                .unwrap();
            std::future::poll_fn(|cx| body.poll_reset(cx)).await
        });
        let mut answer = slow.await.unwrap();
        let start = Instant::now();
        let (fast, _) = caller.get().await;
        let (_request, mut respond) = endpoint.next().await;
        ok(&mut respond);
        assert_eq!(status(fast).await.0, 200);
        assert_eq!(sending.await.unwrap().unwrap(), Reason::CANCEL);
        took(start, seconds(10));
        let body = answer.body_mut();
        let broken = loop {
            match body.data().await {
                Some(Ok(data)) => drop(data),
                other => break other,
            }
        };
        assert_eq!(
            broken.unwrap().unwrap_err().reason(),
            Some(Reason::INTERNAL_ERROR)
        );
        assert_eq!(world.counted(200, "stream_timeout"), 1);
    });
}

#[test]
fn held_bodies_do_not_take_up_the_window_that_others_need() {
    run(async {
        let world = World::new("", "concurrency: 1");
        let mut endpoint = world.endpoint();
        let mut caller = Caller::new(&world).await;
        let (first, _) = caller.get().await;
        read_head(&mut endpoint).await;
        let mut held = Vec::new();
        while world.throttle.waiting() as usize == held.len() {
            let (response, mut body) = caller.ask(asks("POST"), false).await;
            let bytes = Bytes::from(vec![0; 100_000]);
            body.send_data(bytes, false).unwrap();
            held.push((response, body));
            // What fits into its window has come.
            tokio::time::sleep(seconds(1)).await;
        }
        // Half of 1 MiB holds eight of 64 KiB; the newest had to go, and may come again elsewhere.
        assert_eq!(held.len(), 9);
        let (newest, _body) = held.pop().unwrap();
        assert_eq!(reset_with(newest).await, Some(Reason::REFUSED_STREAM));
        assert_eq!(world.counted(503, "overloaded"), 1);
        assert_eq!(world.throttle.waiting(), 8);
        say(&mut endpoint, "HTTP/1.1 204 Done\r\n\r\n").await;
        assert_eq!(status(first).await.0, 204);
    });
}

#[test]
fn a_websocket_over_http2_reaches_an_http1_endpoint() {
    run(async {
        let world = World::new("", "");
        let mut endpoint = world.endpoint();
        let mut caller = Caller::new(&world).await;
        // The server's settings must have come.
        tokio::time::sleep(TICK).await;
        let request = Request::connect("http://a.default.example.com/chat")
            .extension(h2::ext::Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13");
        let (response, mut up) = caller.ask(request.body(()).unwrap(), false).await;
        up.send_data(Bytes::from_static(b"early"), false).unwrap();
        let head = read_head(&mut endpoint).await;
        assert!(head.starts_with("GET /chat HTTP/1.1\r\n"), "{head}");
        assert!(
            head.contains("\r\nsec-websocket-key: ") && head.contains("\r\nupgrade: websocket\r\n")
        );
        tokio::time::sleep(seconds(1)).await;
        let answer = "HTTP/1.1 101 Up\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                      sec-websocket-accept: x\r\n\r\nframe";
        say(&mut endpoint, answer).await;
        let mut response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers().get("sec-websocket-accept"), None);
        let down = response.body_mut();
        assert_eq!(down.data().await.unwrap().unwrap(), "frame");
        // Nothing was passed on before there was a tunnel.
        read_until(&mut endpoint, "early").await;
        up.send_data(Bytes::from_static(b"bye"), true).unwrap();
        read_until(&mut endpoint, "bye").await;
        assert_eq!(read_all(&mut endpoint).await, "");
        drop(endpoint);
        while let Some(end) = down.data().await {
            assert_eq!(end.unwrap(), "");
        }
        world.in_flight(0).await;
    });
}

#[test]
fn a_websocket_that_is_refused_is_answered_as_it_was() {
    run(async {
        let world = World::new("", "");
        let mut endpoint = world.endpoint();
        let mut caller = Caller::new(&world).await;
        tokio::time::sleep(TICK).await;
        let request = Request::connect("http://a.default.example.com/chat")
            .extension(h2::ext::Protocol::from_static("websocket"));
        let (response, _up) = caller.ask(request.body(()).unwrap(), false).await;
        read_head(&mut endpoint).await;
        say(
            &mut endpoint,
            "HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n",
        )
        .await;
        assert_eq!(status(response).await, (403, String::new()));
    });
}

#[test]
fn a_body_that_comes_too_slowly_is_refused() {
    run(async {
        let (_world, mut endpoint, mut caller) = between("bodyIdle: 10s", "protocol: h2c").await;
        let start = Instant::now();
        let (response, _body) = caller.ask(asks("POST"), false).await;
        let (_request, _respond) = endpoint.next().await;
        assert_eq!(status(response).await, (408, "body_timeout".into()));
        took(start, seconds(5));
    });
}

#[test]
fn via_says_how_the_request_came() {
    run(async {
        let (_world, mut endpoint, mut caller) = between("", "protocol: h2c").await;
        let (_response, _) = caller.get().await;
        let (request, _respond) = endpoint.next().await;
        let via = request.headers()["via"].to_str().unwrap();
        assert!(via.starts_with("2.0 tidegate"), "{via}");
    });
}

#[test]
fn many_small_messages_may_wait_with_a_held_request() {
    run(async {
        let (_world, mut endpoint, mut caller) = between("", "concurrency: 1, protocol: h2c").await;
        let (first, _) = caller.get().await;
        let (_busy, mut answer) = endpoint.next().await;
        let (_held, mut body) = caller.ask(asks("POST"), false).await;
        for _ in 0..5000 {
            body.send_data(Bytes::from_static(b"ten bytes!"), false)
                .unwrap();
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(TICK * 4).await;
        ok(&mut answer);
        assert_eq!(status(first).await.0, 200);
    });
}

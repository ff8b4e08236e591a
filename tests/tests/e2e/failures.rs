//! Endpoints fail; clients see it only where repeating would not be safe.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hyper::Response;
use tests::body::{empty, full};
use tests::client::carrying;
use tests::load::{Reconnect, assert_only_200, distribution};
use tests::process::Program;
use tests::raw::length;
use tests::{Backend, Gateway, Load, PATIENCE, RawBackend, backend, eventually, request, sized};

use crate::{HELLO, SERVICE, hello};

#[tokio::test]
async fn killed_endpoint_is_not_noticed_by_clients_that_read() {
    let _alone = tests::heavy().await;
    let mut programs = ["a", "b", "c"].map(|name| Program::start(SERVICE, name));
    let [a, b, c] = &programs;
    let gateway = Gateway::start(&hello(&format!("{a}', '{b}', '{c}"))).await;
    let load = Load::start(gateway.public(), 30, Reconnect::Always, || {
        request("GET", HELLO, "/?sleep=10")
    });
    load.more(200).await;
    programs[1].kill();
    load.more(sized(1_000, 20_000)).await;
    assert_only_200(&load.stop().await);
    gateway.until_idle().await;
}

#[tokio::test]
async fn endpoint_that_comes_back_is_used_again() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let gateway = Gateway::start(&hello(&format!("{one}', '{two}"))).await;
    let socket = two.kill_for_now().await;
    let counts = distribution(gateway.public(), 50, |_| request("GET", HELLO, "/")).await;
    assert_eq!(counts, [("one".to_owned(), 50)].into());
    let app = Arc::new(tests::app::App::new("back"));
    let listener = socket.listen(1024).unwrap();
    let server = tokio::spawn(backend::accept(listener, false, move |request| {
        app.clone().answer(request)
    }));
    eventually(PATIENCE, "the second endpoint answers again", async || {
        (gateway.get(HELLO, "/").await.expect(200).backend() == "back").then_some(())
    })
    .await;
    server.abort();
}

/// An endpoint that reads whole requests and then closes, and how many it has read.
fn closing() -> (RawBackend, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = requests.clone();
    let backend = RawBackend::scripted(move |_, mut connection| {
        let counter = counter.clone();
        async move {
            let head = connection.head().await;
            if !head.is_empty() {
                connection.exactly(length(&head)).await;
                counter.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    (backend, requests)
}

#[tokio::test]
async fn written_post_is_never_sent_twice() {
    let (one, read_by_one) = closing();
    let (two, read_by_two) = closing();
    let gateway = Gateway::start(&hello(&format!("{one}', '{two}"))).await;
    for (count, body) in ["", "a small body", &"large ".repeat(50_000)]
        .into_iter()
        .enumerate()
    {
        let post = carrying(request("POST", HELLO, "/"), full(body.to_owned()));
        gateway.send(post).await.refused(502, "upstream_closed");
        let read = read_by_one.load(Ordering::SeqCst) + read_by_two.load(Ordering::SeqCst);
        assert_eq!(read, count + 1);
    }
}

#[tokio::test]
async fn get_is_tried_three_times_at_most() {
    let (one, read_by_one) = closing();
    let (two, read_by_two) = closing();
    let gateway = Gateway::start(&hello(&format!("{one}', '{two}"))).await;
    gateway
        .get(HELLO, "/")
        .await
        .refused(502, "upstream_closed");
    let read = read_by_one.load(Ordering::SeqCst) + read_by_two.load(Ordering::SeqCst);
    assert!((2..=3).contains(&read), "{read}");
    gateway.until_idle().await;
}

#[tokio::test]
async fn safe_and_idempotent_requests_are_repeated_elsewhere() {
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        let (bad, _) = closing();
        let good = Backend::start("good");
        let gateway = Gateway::start(&hello(&format!("{bad}', '{good}"))).await;
        for _ in 0..10 {
            let asked = request(method, HELLO, "/");
            assert_eq!(
                gateway.send(asked).await.expect(200).backend(),
                "good",
                "{method}"
            );
        }
    }
}

#[tokio::test]
async fn whatever_was_not_written_is_sent_elsewhere() {
    let (_socket, refusing) = backend::refusing();
    let good = Backend::start("good");
    let gateway = Gateway::start(&hello(&format!("{refusing}', '{good}"))).await;
    for _ in 0..20 {
        let post = carrying(request("POST", HELLO, "/"), full("once"));
        assert_eq!(gateway.send(post).await.expect(200).backend(), "good");
    }
    assert_eq!(good.total(), 20);
}

#[tokio::test]
async fn post_on_a_connection_that_the_endpoint_closed_meanwhile_is_not_lost() {
    // Closes each connection after its answer without a word; the gateway keeps it and must see.
    let backend = RawBackend::scripted(|_, mut connection| async move {
        let head = connection.head().await;
        connection.exactly(length(&head)).await;
        connection.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    });
    let gateway = Gateway::start(&hello(&backend)).await;
    for _ in 0..20 {
        let post = carrying(request("POST", HELLO, "/"), full("once"));
        gateway.send(post).await.expect(204);
        // A busy kernel may deliver the end after what is sent later on another connection.
        eventually(PATIENCE, "the end has reached the gateway", async || {
            (!is_connected_to(backend.address.port())).then_some(())
        })
        .await;
    }
}

/// Whether the kernel knows a connection to this local port of which the other side has not ended.
fn is_connected_to(port: u16) -> bool {
    const ESTABLISHED: &str = "01";
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table of sockets");
    let remote = format!(":{port:04X}");
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(2);
        fields
            .next()
            .is_some_and(|address| address.ends_with(&remote))
            && fields.next() == Some(ESTABLISHED)
    })
}

#[tokio::test]
async fn names_are_resolved() {
    let backend = Backend::start("one");
    let port = backend.address.port();
    let gateway = Gateway::start(&hello(&format!("localhost:{port}"))).await;
    assert_eq!(gateway.get(HELLO, "/").await.expect(200).backend(), "one");
}

#[tokio::test]
async fn unhealthy_endpoint_gets_nothing_until_it_is_healthy() {
    let healthy = Arc::new(AtomicBool::new(true));
    let visits = Arc::new(Mutex::new(0));
    let (state, visit) = (healthy.clone(), visits.clone());
    let sick = Backend::with(move |request| {
        let health = request.uri().path() == "/healthz";
        *visit.lock().unwrap() += usize::from(!health);
        let status = if health && !state.load(Ordering::SeqCst) {
            503
        } else {
            200
        };
        let response = Response::builder()
            .status(status)
            .header("x-backend", "sick");
        std::future::ready(response.body(empty()).unwrap())
    });
    let well = Backend::start("well");
    let config =
        hello(&format!("{sick}', '{well}")) + "    health: { path: /healthz, interval: 50ms }\n";
    let gateway = Gateway::start(&config).await;
    let visited = || *visits.lock().unwrap();
    let reached = async || {
        gateway.get(HELLO, "/").await.expect(200);
        (visited() > 0).then_some(())
    };
    eventually(PATIENCE, "the healthy endpoint is used", reached).await;
    healthy.store(false, Ordering::SeqCst);
    eventually(PATIENCE, "it is left out", async || {
        let before = visited();
        distribution(gateway.public(), 30, |_| request("GET", HELLO, "/")).await;
        (visited() == before).then_some(())
    })
    .await;
    healthy.store(true, Ordering::SeqCst);
    let before = visited();
    let reached = async || {
        gateway.get(HELLO, "/").await.expect(200);
        (visited() > before).then_some(())
    };
    eventually(PATIENCE, "it is used again", reached).await;
}

#[tokio::test]
async fn load_is_spread_over_endpoints() {
    let backends: Vec<_> = ["a", "b", "c"].into_iter().map(Backend::start).collect();
    let addresses: Vec<_> = backends.iter().map(ToString::to_string).collect();
    let gateway = Gateway::start(&(hello(&addresses.join("', '")) + "    concurrency: 4\n")).await;
    let load = Load::start(gateway.public(), 12, Reconnect::Always, || {
        request("GET", HELLO, "/?sleep=5")
    });
    load.more(600).await;
    assert_only_200(&load.stop().await);
    for backend in &backends {
        assert!(backend.peak() <= 4, "{}", backend.peak());
        assert!(backend.total() > 100, "{}", backend.total());
    }
}

//! Changes under load: nobody notices, and nothing is left of what was.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Frame;
use tests::body::channel;
use tests::load::{Reconnect, assert_only_200};
use tests::process::{open_descriptors, resident};
use tests::wait::eventually_seen;
use tests::websocket::WebSocket;
use tests::{Backend, Client, Gateway, Load, PATIENCE, eventually, request, sized, within};

use crate::{COLD, HELLO, cold};

/// Weights, routes and endpoints that change with `number`; what clients ask for is always there.
fn config(number: u32, stream: &Backend, backends: &[Backend; 3]) -> String {
    let [a, b, c] = backends;
    let percent = number * 7 % 101;
    let endpoints = match number % 3 {
        0 => format!("['{a}', '{b}']"),
        1 => format!("['{b}', '{c}']"),
        _ => format!("['{c}', '{a}', '{b}']"),
    };
    let mut yaml = format!(
        "
routes:
  - name: hello
    hosts: ['own{}.example.org']
    traffic:
      - {{ revision: r-1, percent: {percent}, tag: current }}
      - {{ revision: r-2, percent: {}, tag: latest }}
    rules:
      - {{ path: /stream, traffic: [{{ revision: stream }}] }}
      - path: /{number}
        traffic: [{{ revision: r-1 }}]
      - traffic:
          - {{ revision: r-1, percent: {percent} }}
          - {{ revision: r-2, percent: {} }}
revisions:
  - {{ name: stream, endpoints: ['{stream}'] }}
  - {{ name: r-1, endpoints: {endpoints}, concurrency: {} }}
  - {{ name: r-2, endpoints: ['{a}', '{b}', '{c}'] }}
",
        number % 5,
        100 - percent,
        100 - percent,
        200 + number % 3
    );
    yaml += "---\nroutes:\n";
    for other in 0..20 + number % 10 {
        yaml += &format!(
            "  - {{ name: other-{other}, traffic: [{{ revision: extra-{} }}] }}\n",
            number % 4
        );
    }
    yaml + &format!(
        "revisions: [{{ name: extra-{}, endpoints: ['{a}'] }}]\n",
        number % 4
    )
}

/// Waits until its memory is what it was, a quarter and these bytes aside: tables that nobody needs any
/// more are freed a little later.
async fn until_small(gateway: &Gateway, before: u64, more: u64) {
    eventually_seen(PATIENCE, "its memory is given back", async || {
        let now = resident(gateway.pid());
        match now < before + before / 4 + more {
            true => Ok(()),
            false => Err(format!("it grew from {before} to {now} bytes")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_swaps_under_load_fail_no_request_and_cut_no_stream() {
    let _alone = tests::heavy().await;
    let (events, stream) = channel();
    let stream = Arc::new(Mutex::new(Some(stream)));
    let streaming = Backend::with(move |_| {
        let stream = stream.lock().unwrap().take().unwrap();
        std::future::ready(Response::new(stream))
    });
    let backends = ["a", "b", "c"].map(Backend::start);
    let gateway = Gateway::start(&config(0, &streaming, &backends)).await;

    let mut client = gateway.connect().await;
    let open = client.open(request("GET", HELLO, "/stream")).await.unwrap();
    let mut body = open.into_body();
    let mut sockets = Vec::new();
    for number in 0..sized(20, 100) {
        let host = if number % 2 == 0 {
            HELLO
        } else {
            "current-hello.default.example.com"
        };
        sockets.push(WebSocket::open(gateway.public(), host, "/ws").await);
    }
    let load = Load::start(gateway.public(), 20, Reconnect::Always, || {
        request("GET", HELLO, "/?size=10")
    });
    let swaps = sized(100, 500);
    let mut memory = 0;
    for number in 1..=swaps {
        gateway.apply(&config(number, &streaming, &backends)).await;
        let event = Bytes::from(number.to_string());
        events.send(Frame::data(event.clone())).await.unwrap();
        let frame = within("an event", body.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), event);
        if number % 10 == 0 {
            for socket in &mut sockets {
                socket.echo("still here").await;
            }
        }
        if number == swaps / 4 {
            memory = resident(gateway.pid());
        }
    }
    let tally = load.stop().await;
    assert_only_200(&tally);
    assert!(tally["200"] > u64::from(swaps), "{tally:?}");
    for socket in sockets {
        socket.close().await;
    }
    drop(events);
    assert!(body.frame().await.is_none());
    gateway.until_idle().await;
    until_small(&gateway, memory, 8 << 20).await;
    // What was removed on the way is gone: of four names of one revision, one is left.
    eventually(PATIENCE, "removed revisions are forgotten", async || {
        let revisions = gateway.ask("/api/revisions").await.json();
        (revisions.as_array().map(Vec::len) == Some(4)).then_some(())
    })
    .await;
}

/// A file with that many routes beside one at zero.
fn large(routes: usize, mark: &str) -> String {
    let mut yaml = cold(&[]) + "---\nroutes:\n";
    for number in 0..routes {
        yaml += &format!(
            "  - {{ name: r-{number}, rules: [{{ respond: {{ status: 200, body: '{mark}' }} }}] }}\n"
        );
    }
    yaml
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nudge_and_livez_stay_prompt_while_a_large_file_compiles() {
    // Prompt is milliseconds; this only tells it from waiting for the compiler, which takes nearly all of
    // the time, whatever the machine.
    const PROMPT: Duration = Duration::from_secs(1);
    let _alone = tests::heavy().await;
    let gateway = Gateway::start(&cold(&[])).await;
    let replaced = Instant::now();
    gateway.replace(&large(sized(20_000, 100_000), "large"));

    let mut admin = Client::connect(gateway.admin()).await;
    let (mut woken, mut slowest) = (None, Duration::ZERO);
    let host = "r-19999.default.example.com";
    let mut asked = tokio::spawn({
        let public = gateway.public();
        async move {
            let begun = Instant::now();
            Client::connect(public)
                .await
                .get(COLD, "/")
                .await
                .expect(200);
            begun.elapsed()
        }
    });
    eventually(
        Duration::from_secs(180),
        "the large file is served",
        async || {
            let begun = Instant::now();
            admin.get("admin", "/livez").await.expect(200);
            slowest = slowest.max(begun.elapsed());
            if woken.is_none() && asked.is_finished() {
                woken = Some((&mut asked).await.unwrap());
            }
            (gateway.get(host, "/").await.text() == "large").then_some(())
        },
    )
    .await;
    let half = replaced.elapsed() / 2;
    let woken = match woken {
        Some(time) => time,
        None => asked.await.unwrap(),
    };
    let told = format!("of {:?}", 2 * half);
    assert!(slowest < PROMPT.max(half), "/livez took {slowest:?} {told}");
    assert!(
        woken < half.max(5 * PROMPT),
        "the cold start took {woken:?} {told}"
    );
}

#[tokio::test]
async fn table_that_is_gone_gives_its_memory_and_descriptors_back() {
    let _alone = tests::heavy().await;
    let gateway = Gateway::start(&large(1000, "v0")).await;
    let host = "r-999.default.example.com";
    let served = async |mark: &str| {
        let what = format!("{mark} is served");
        eventually(PATIENCE, &what, async || {
            (gateway.get(host, "/").await.text() == mark).then_some(())
        })
        .await;
    };
    for number in 0..5 {
        gateway.replace(&large(1000, &format!("a{number}")));
        served(&format!("a{number}")).await;
    }
    let (memory, descriptors) = (resident(gateway.pid()), open_descriptors(gateway.pid()));
    for number in 0..10 {
        gateway.replace(&large(1000, &format!("b{number}")));
        served(&format!("b{number}")).await;
    }
    until_small(&gateway, memory, 4 << 20).await;
    eventually(PATIENCE, "descriptors are given back", async || {
        (open_descriptors(gateway.pid()) <= descriptors + 10).then_some(())
    })
    .await;
}

#[tokio::test]
async fn request_keeps_the_revision_it_drew() {
    let (old, new) = (Backend::start("old"), Backend::start("new"));
    let gateway = Gateway::start(&crate::hello(&old)).await;
    let mut client = gateway.raw().await;
    client
        .send(format!("GET /?hold HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
        .await;
    eventually(PATIENCE, "it arrives", async || {
        (old.running() == 1).then_some(())
    })
    .await;
    gateway
        .apply(&crate::hello(&new).replace("hello-1", "hello-2"))
        .await;
    assert_eq!(gateway.get(HELLO, "/").await.expect(200).backend(), "new");
    old.open_gate();
    let answer = client.answer().await;
    assert_eq!(
        (answer.status(), answer.field("x-backend")),
        (200, Some("old"))
    );
    eventually(PATIENCE, "the old revision is forgotten", async || {
        gateway.revision("hello-1").await.is_null().then_some(())
    })
    .await;
}

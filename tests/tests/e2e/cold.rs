//! From zero: a request finds nobody, waits, and is answered by what it woke.

use tests::body::full;
use tests::client::carrying;
use tests::load::Reconnect;
use tests::process::descriptors;
use tests::{Backend, Gateway, Load, PATIENCE, Raw, eventually, request, sized};

use crate::{COLD, Switch, cold, hello};

#[tokio::test]
async fn request_for_a_revision_at_zero_is_answered() {
    let gateway = Gateway::start(&cold(&[])).await;
    assert_eq!(gateway.endpoints("cold-1", "ready").await, 0);
    assert_eq!(gateway.get(COLD, "/").await.expect(200).backend(), "cold-1");
    assert_eq!(gateway.endpoints("cold-1", "ready").await, 1);

    let labels = [("namespace", "default"), ("revision", "cold-1")];
    assert_eq!(
        gateway.metric("tidegate_cold_starts_total", &labels).await,
        1.0
    );
    let revision = gateway.revision("cold-1").await;
    assert_eq!(revision["coldStarts"], 1);
    for phase in ["nudge", "act", "endpoint", "probe", "wire", "firstByte"] {
        let value = &revision["lastStart"]["phases"][phase];
        assert!(value.is_number() || value.is_null(), "{phase}: {revision}");
    }
    assert!(!revision["lastStart"]["at"].is_null(), "{revision}");
    // The second is warm.
    gateway.get(COLD, "/").await.expect(200);
    assert_eq!(
        gateway.metric("tidegate_cold_starts_total", &labels).await,
        1.0
    );
}

#[tokio::test]
async fn nobody_is_woken_without_a_request() {
    let pids = tempfile::TempDir::new().unwrap();
    let gateway = Gateway::start(&cold(&[("PIDS", pids.path().to_str().unwrap())])).await;
    gateway
        .get("nobody.example.com", "/")
        .await
        .refused(404, "no_route");
    gateway.ask("/api/revisions").await.expect(200);
    assert_eq!(std::fs::read_dir(pids.path()).unwrap().count(), 0);
}

/// Clients that have sent a request each, and wait.
async fn crowd(gateway: &Gateway, count: usize, request: impl Fn(usize) -> String) -> Vec<Raw> {
    let mut crowd = Vec::new();
    for number in 0..count {
        let mut client = gateway.raw().await;
        client.send(request(number)).await;
        crowd.push(client);
    }
    gateway.until_waiting("cold-1", count).await;
    crowd
}

#[tokio::test]
async fn thousands_held_at_once_are_all_answered_and_those_who_leave_are_gone() {
    let _alone = tests::heavy().await;
    // Either side of the gateway takes a descriptor per client in its process.
    let count = 5_000.min(descriptors() / 3);
    let left = count / 5;
    for concurrency in sized(vec![50], vec![50, 0, 1]) {
        let switch = Switch::new();
        let more = format!(
            "    concurrency: {concurrency}\n    queue: {{ depth: {count} }}\n    scale: {{ max: 2 }}\n"
        );
        let gateway = Gateway::start(&(cold(&[("GATE", &switch.path())]) + &more)).await;
        let body = "x".repeat(1000);
        let mut crowd = crowd(&gateway, count, |number| match number % 3 {
            0 => format!("POST / HTTP/1.1\r\nHost: {COLD}\r\nContent-Length: 1000\r\n\r\n{body}"),
            _ => format!("GET /{number} HTTP/1.1\r\nHost: {COLD}\r\n\r\n"),
        })
        .await;
        drop(crowd.drain(..left));
        let rest = f64::from(u32::try_from(count - left).unwrap());
        // Nothing else can end their waiting: nobody is let in, and their time is far from over.
        eventually(PATIENCE, "those who hung up are gone", async || {
            (gateway.metric("tidegate_waiting", &[]).await == rest).then_some(())
        })
        .await;
        switch.turn_on();
        for client in &mut crowd {
            let answer = client.answer().await;
            assert_eq!(answer.status(), 200, "{}", answer.head);
        }
        gateway.until_idle().await;
    }
}

#[tokio::test]
async fn thousand_clients_with_bodies_that_hang_up_leave_at_once() {
    let _alone = tests::heavy().await;
    let count = 1_000.min(descriptors() / 3);
    let switch = Switch::new();
    let gateway = Gateway::start(&cold(&[("GATE", &switch.path())])).await;
    let body = "x".repeat(32 * 1024);
    let crowd = crowd(&gateway, count, |number| {
        let size = if number % 2 == 0 { 0 } else { body.len() };
        format!(
            "POST / HTTP/1.1\r\nHost: {COLD}\r\nContent-Length: {size}\r\n\r\n{}",
            &body[..size]
        )
    })
    .await;
    drop(crowd);
    // Nothing else can end their waiting: nobody is let in, and their time is far from over.
    eventually(PATIENCE, "all of them are gone", async || {
        (gateway.metric("tidegate_waiting", &[]).await == 0.0).then_some(())
    })
    .await;
    switch.turn_on();
    gateway.get(COLD, "/").await.expect(200);
}

#[tokio::test]
async fn requests_that_may_not_wait_bring_up_what_is_not_there() {
    for bound in ["depth: 0", "bytes: 100"] {
        let config = cold(&[]) + &format!("    queue: {{ {bound} }}\n");
        let gateway = Gateway::start(&config).await;
        let upload = || carrying(request("POST", COLD, "/"), full(vec![b'x'; 5000]));
        let answer = gateway.send(upload()).await.refused(503, "queue_full");
        assert_ne!(answer.header("retry-after"), "");
        eventually(PATIENCE, "one is let in", async || {
            (gateway.send(upload()).await.status == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn held_request_follows_its_route_when_its_revision_is_removed() {
    let switch = Switch::new();
    let gateway = Gateway::start(&cold(&[("GATE", &switch.path())])).await;
    let crowd = crowd(&gateway, 5, |_| {
        format!("GET / HTTP/1.1\r\nHost: {COLD}\r\n\r\n")
    })
    .await;
    let backend = Backend::start("new");
    gateway
        .apply(
            &hello(&backend)
                .replace("hello", "cold")
                .replace("cold-1", "cold-2"),
        )
        .await;
    for mut client in crowd {
        let answer = client.answer().await;
        assert_eq!(
            (answer.status(), answer.field("x-backend")),
            (200, Some("new"))
        );
    }
}

#[tokio::test]
async fn held_request_goes_as_it_came_when_its_revision_is_removed() {
    let switch = Switch::new();
    let config = cold(&[("GATE", &switch.path())]);
    let own = "traffic:\n      - revision: cold-1\n";
    let set = "rules: [{ setHeaders: { X-User: ours, X-Forwarded-Proto: gopher, X-More: '1' }, \
               rewritePath: /elsewhere, traffic: [{ revision: cold-1 }] }]\n";
    assert!(config.contains(own), "{config}");
    let gateway = Gateway::start(&config.replace(own, set)).await;
    let mut client = gateway.raw().await;
    let head = format!("GET /here HTTP/1.1\r\nHost: {COLD}\r\nX-User: theirs\r\n\r\n");
    client.send(head).await;
    gateway.until_waiting("cold-1", 1).await;
    let backend = Backend::start("new");
    let config = hello(&backend).replace("hello", "cold");
    gateway.apply(&config.replace("cold-1", "cold-2")).await;
    let answer = client.answer().await;
    assert_eq!(answer.status(), 200);
    let seen: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
    assert_eq!(seen["target"], "/here");
    let fields = &seen["headers"];
    assert_eq!(fields["x-user"], "theirs", "{seen}");
    assert_eq!(fields["x-forwarded-proto"], "http", "{seen}");
    assert_eq!(fields["x-forwarded-for"], "127.0.0.1", "{seen}");
    assert_eq!(fields["x-more"], serde_json::Value::Null, "{seen}");
    for once in ["via", "x-request-id"] {
        let value = fields[once].as_str().unwrap_or_default();
        assert!(!value.is_empty() && !value.contains(','), "{seen}");
    }
}

#[tokio::test]
async fn held_request_gets_what_its_route_says_once_its_revision_is_removed() {
    let switch = Switch::new();
    let backend = Backend::start("new");
    for (rule, status) in [
        ("respond: { status: 418 }", 418),
        ("redirect: { host: www.example.org }", 301),
        ("httpsOnly: true, traffic: [{ revision: cold-3 }]", 301),
        ("traffic: [{ revision: cold-3 }]", 200),
    ] {
        let gateway = Gateway::start(&cold(&[("GATE", &switch.path())])).await;
        let mut client = gateway.raw().await;
        let head = format!("GET / HTTP/1.1\r\nHost: {COLD}\r\n\r\n");
        client.send(head).await;
        gateway.until_waiting("cold-1", 1).await;
        // By way of a revision that is removed as well.
        let config = cold(&[("GATE", &switch.path())]).replace("cold-1", "cold-2");
        gateway.apply(&config).await;
        gateway.until_waiting("cold-2", 1).await;
        let config = format!(
            "
routes: [{{ name: cold, rules: [{{ {rule} }}] }}]
revisions: [{{ name: cold-3, endpoints: ['{backend}'] }}]
"
        );
        gateway.apply(&config).await;
        assert_eq!(client.answer().await.status(), status, "{rule}");
    }
    assert_eq!(backend.total(), 1);
}

#[tokio::test]
async fn held_request_has_no_route_when_its_route_is_removed() {
    let switch = Switch::new();
    let gateway = Gateway::start(&cold(&[("GATE", &switch.path())])).await;
    let crowd = crowd(&gateway, 5, |_| {
        format!("GET / HTTP/1.1\r\nHost: {COLD}\r\n\r\n")
    })
    .await;
    gateway.apply("routes: []\n").await;
    for mut client in crowd {
        let answer = client.answer().await;
        assert_eq!((answer.status(), answer.reason()), (404, "no_route"));
    }
    gateway.until_idle().await;
}

#[tokio::test]
async fn held_request_survives_changes_that_do_not_concern_it() {
    let switch = Switch::new();
    let config = cold(&[("GATE", &switch.path())]);
    let gateway = Gateway::start(&config).await;
    let crowd = crowd(&gateway, 5, |_| {
        format!("GET / HTTP/1.1\r\nHost: {COLD}\r\n\r\n")
    })
    .await;
    for number in 0..5 {
        let other = format!(
            "---\nroutes: [{{ name: r{number}, rules: [{{ respond: {{ status: 200 }} }}] }}]\n"
        );
        gateway.apply(&(config.clone() + &other)).await;
    }
    gateway.until_waiting("cold-1", 5).await;
    switch.turn_on();
    for mut client in crowd {
        assert_eq!(client.answer().await.status(), 200);
    }
}

#[tokio::test]
async fn load_on_a_revision_at_zero_sees_nothing_but_answers() {
    let gateway = Gateway::start(&(cold(&[]) + "    concurrency: 5\n")).await;
    let load = Load::start(gateway.public(), 20, Reconnect::Always, || {
        request("GET", COLD, "/?sleep=5")
    });
    load.more(300).await;
    tests::load::assert_only_200(&load.stop().await);
    assert!(
        gateway
            .metric(
                "tidegate_queue_wait_seconds_count",
                &[("revision", "cold-1")]
            )
            .await
            > 0.0
    );
}

#[tokio::test]
async fn held_requests_are_counted_as_waiting_until_they_run() {
    let switch = Switch::new();
    let gateway = Gateway::start(&cold(&[("GATE", &switch.path())])).await;
    let crowd = crowd(&gateway, 7, |_| {
        format!("GET /?hold HTTP/1.1\r\nHost: {COLD}\r\n\r\n")
    })
    .await;
    let revision = gateway.revision("cold-1").await;
    assert_eq!(
        (&revision["waiting"], &revision["inFlight"]),
        (&7.into(), &0.into()),
        "{revision}"
    );
    switch.turn_on();
    gateway
        .until_metric("tidegate_inflight", &[("revision", "cold-1")], |n| n == 7.0)
        .await;
    gateway.until_waiting("cold-1", 0).await;
    drop(crowd);
    gateway.until_idle().await;
}

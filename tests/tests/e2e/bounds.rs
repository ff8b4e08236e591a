//! Every bound holds, and what goes beyond it is told so.

use tests::body::{chunks, full};
use tests::client::carrying;
use tests::{Backend, Gateway, PATIENCE, Raw, eventually, request};

use crate::{HELLO, hello};

fn limits(limits: &str) -> String {
    format!("gateway: {{ limits: {{ {limits} }} }}\n")
}

async fn holding(gateway: &Gateway, host: &str) -> Raw {
    let mut client = gateway.raw().await;
    client
        .send(format!("GET /?hold HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        .await;
    client
}

#[tokio::test]
async fn queue_takes_its_depth_and_no_more() {
    let backend = Backend::start("one");
    let keys = "    concurrency: 1\n    queue: { depth: 3 }\n";
    let gateway = Gateway::start(&(hello(&backend) + keys)).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(holding(&gateway, HELLO).await);
    }
    gateway.until_waiting("hello-1", 3).await;
    for _ in 0..5 {
        gateway.get(HELLO, "/").await.refused(503, "queue_full");
    }
    backend.open_gate();
    for mut client in clients {
        assert_eq!(client.answer().await.status(), 200);
    }
    gateway.until_idle().await;
    gateway.get(HELLO, "/").await.expect(200);
}

#[tokio::test]
async fn all_queues_together_hold_no_more_than_the_gateway_may() {
    let backend = Backend::start("one");
    let more = format!(
        "---
routes: [{{ name: other, traffic: [{{ revision: other-1 }}] }}]
revisions: [{{ name: other-1, endpoints: ['{backend}'], concurrency: 1 }}]
"
    );
    let config = limits("held: 2") + &hello(&backend) + "    concurrency: 1\n" + &more;
    let gateway = Gateway::start(&config).await;
    let other = "other.default.example.com";
    let mut clients = Vec::new();
    for host in [HELLO, other, HELLO, other] {
        clients.push(holding(&gateway, host).await);
    }
    gateway
        .until_metric("tidegate_waiting", &[], |n| n == 2.0)
        .await;
    for host in [HELLO, other] {
        let answer = gateway.get(host, "/").await.expect(503);
        assert_eq!(answer.reason(), "queue_full");
        assert_ne!(answer.header("retry-after"), "");
    }
    backend.open_gate();
    for mut client in clients {
        assert_eq!(client.answer().await.status(), 200);
    }
}

#[tokio::test]
async fn body_limit_counts_announced_and_chunked_bytes() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&(limits("bodyBytes: 1000") + &hello(&backend))).await;
    let post = |size: usize| carrying(request("POST", HELLO, "/"), full(vec![b'x'; size]));
    let chunked = |size: usize| {
        let pieces = vec![vec![b'x'; size / 4].into(); 4];
        carrying(request("POST", HELLO, "/"), chunks(pieces, None))
    };
    gateway.send(post(1000)).await.expect(200);
    gateway.send(chunked(1000)).await.expect(200);
    gateway
        .send(post(1001))
        .await
        .refused(413, "body_too_large");
    gateway
        .send(chunked(1004))
        .await
        .refused(413, "body_too_large");
    gateway.until_idle().await;
}

#[tokio::test]
async fn head_and_target_limits_are_those_of_the_file() {
    let backend = Backend::start("one");
    let config = limits("headBytes: 2000, headFields: 10, targetBytes: 100") + &hello(&backend);
    let gateway = Gateway::start(&config).await;
    let target = |length: usize| format!("/{}", "x".repeat(length - 1));
    gateway.get(HELLO, &target(100)).await.expect(200);
    gateway
        .get(HELLO, &target(101))
        .await
        .refused(414, "uri_too_long");
    for (fields, size, status) in [(8, 10, 200), (20, 10, 431), (2, 500, 200), (2, 2000, 431)] {
        let mut client = gateway.raw().await;
        let field = format!("X: {}\r\n", "x".repeat(size));
        client
            .send(format!(
                "GET / HTTP/1.1\r\nHost: {HELLO}\r\n{}\r\n",
                field.repeat(fields)
            ))
            .await;
        let answer = client.answer().await;
        assert_eq!(answer.status(), status, "{fields} of {size}");
        assert!(status == 200 || answer.reason() == "head_too_large");
    }
}

#[tokio::test]
async fn held_bodies_have_a_budget() {
    // Two of three bodies fit into it.
    let backend = Backend::start("one");
    let config = limits("heldBytes: 50000") + &hello(&backend) + "    concurrency: 1\n";
    let gateway = Gateway::start(&config).await;
    let mut first = holding(&gateway, HELLO).await;
    eventually(PATIENCE, "it arrives", async || {
        (backend.running() == 1).then_some(())
    })
    .await;
    let mut clients = Vec::new();
    for number in 1..=2 {
        let mut client = gateway.raw().await;
        client
            .send(format!(
                "POST / HTTP/1.1\r\nHost: {HELLO}\r\nContent-Length: 20000\r\n\r\n"
            ))
            .await;
        client.send(vec![b'x'; 20_000]).await;
        gateway.until_waiting("hello-1", number).await;
        clients.push(client);
    }
    let post = carrying(request("POST", HELLO, "/"), full(vec![b'x'; 20_000]));
    gateway.send(post).await.refused(503, "queue_full");
    backend.open_gate();
    for client in [&mut first].into_iter().chain(&mut clients) {
        assert_eq!(client.answer().await.status(), 200);
    }
    gateway.until_idle().await;
}

/// A second service, in a namespace of that name, whose default host is `OTHER` of it.
fn other(namespace: &str, endpoint: &Backend) -> String {
    format!(
        "---
routes: [{{ name: other, namespace: {namespace}, traffic: [{{ revision: other-1 }}] }}]
revisions: [{{ name: other-1, namespace: {namespace}, endpoints: ['{endpoint}'], concurrency: 1 }}]
"
    )
}

/// Takes the slot of a service, and then as many places as are wanted with requests like that.
async fn crowd(
    gateway: &Gateway,
    host: &str,
    backend: &Backend,
    count: usize,
    head: &str,
) -> Vec<Raw> {
    let running = backend.running();
    let mut clients = vec![holding(gateway, host).await];
    eventually(PATIENCE, "it arrives", async || {
        (backend.running() == running + 1).then_some(())
    })
    .await;
    let waiting = gateway.metric("tidegate_waiting", &[]).await;
    for number in 1..=count {
        let mut client = gateway.raw().await;
        client.send(head.replace("HOST", host)).await;
        let now = waiting + f64::from(u32::try_from(number).unwrap());
        gateway
            .until_metric("tidegate_waiting", &[], |n| n == now)
            .await;
        clients.push(client);
    }
    clients
}

#[tokio::test]
async fn bodies_held_for_one_revision_leave_half_of_the_budget_to_the_others() {
    let hosts = [HELLO, "other.default.example.com"];
    let head = "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 20000\r\n\r\n";
    for (keys, bodies) in [("", 2), ("    queue: { bytes: 20000 }\n", 1)] {
        // Its own: what runs there is counted.
        let backend = Backend::start("one");
        let config = limits("heldBytes: 100000") + &hello(&backend) + "    concurrency: 1\n";
        let config = config + keys + &other("default", &backend);
        let gateway = Gateway::start(&config).await;
        let mut clients = Vec::new();
        for (host, bodies) in hosts.into_iter().zip([bodies, 2]) {
            clients.extend(crowd(&gateway, host, &backend, bodies, head).await);
            let post = carrying(request("POST", host, "/"), full(vec![b'x'; 20_000]));
            let answer = gateway.send(post).await.refused(503, "queue_full");
            assert_eq!(answer.header("retry-after"), "1");
        }
    }
}

#[tokio::test]
async fn a_namespace_that_floods_leaves_half_of_the_places_to_the_others() {
    let backend = Backend::start("one");
    let head = "GET / HTTP/1.1\r\nHost: HOST\r\n\r\n";
    let config = limits("held: 6") + &hello(&backend) + "    concurrency: 1\n";
    let gateway = Gateway::start(&(config + &other("team", &backend))).await;
    let mut clients = Vec::new();
    for host in [HELLO, "other.team.example.com"] {
        clients.extend(crowd(&gateway, host, &backend, 3, head).await);
        let answer = gateway.get(host, "/").await.refused(503, "queue_full");
        assert_eq!(answer.header("retry-after"), "1");
    }
}

#[tokio::test]
async fn a_namespace_with_a_bound_of_its_own_gives_way_while_it_holds_most() {
    let backend = Backend::start("one");
    let head = "GET / HTTP/1.1\r\nHost: HOST\r\n\r\n";
    let config = limits("held: 6, heldPerNamespace: 4") + &hello(&backend);
    let config = config + "    concurrency: 1\n" + &other("team", &backend);
    let gateway = Gateway::start(&config).await;
    let mut flood = crowd(&gateway, HELLO, &backend, 4, head).await;
    gateway.get(HELLO, "/").await.refused(503, "queue_full");
    let team = "other.team.example.com";
    let _clients = crowd(&gateway, team, &backend, 2, head).await;
    // The process holds all it may.
    let mut another = gateway.raw().await;
    another.send(head.replace("HOST", team)).await;
    let answer = flood.pop().unwrap().answer().await;
    assert_eq!((answer.status(), answer.reason()), (503, "queue_full"));
    gateway.get(team, "/").await.refused(503, "queue_full");
}

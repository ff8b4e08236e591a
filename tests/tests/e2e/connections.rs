//! How many connections there may be, of all clients and of one, and what happens when the process
//! has no descriptor left.

use std::net::SocketAddr;
use std::time::Duration;

use tests::process::open_descriptors;
use tests::{Backend, Gateway, Launch, PATIENCE, Raw, eventually, request};
use tokio::time::Instant;

use crate::{HELLO, hello};

const REFUSED: &str = "tidegate_connections_refused_total";

/// A connection that has been served a request, after those bytes; `None` if it was closed.
async fn served(address: SocketAddr, begin: &str) -> Option<Raw> {
    let mut client = Raw::connect(address).await;
    let get = format!("{begin}GET / HTTP/1.1\r\nHost: {HELLO}\r\n\r\n");
    client.try_send(get).await.ok()?;
    let head = client.head().await;
    if head.is_empty() {
        return None;
    }
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    Some(client)
}

/// Opens connections until one is closed: how many came in. Then lets one go and comes in again.
async fn until_turned_away(address: SocketAddr, begin: &str) -> Vec<Raw> {
    let mut inside = Vec::new();
    while let Some(client) = served(address, begin).await {
        inside.push(client);
        assert!(inside.len() < 100, "there is no bound");
    }
    inside.pop();
    let again = eventually(PATIENCE, "there is room again", async || {
        served(address, begin).await
    })
    .await;
    inside.push(again);
    assert!(served(address, begin).await.is_none());
    inside
}

/// Waits until connections were turned away there, which they are before they are counted: the first,
/// and the last. No others were.
async fn turned_away(gateway: &Gateway, labels: &[(&str, &str)]) {
    gateway.until_metric(REFUSED, labels, |n| n >= 2.0).await;
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum(REFUSED, &[]), metrics.sum(REFUSED, labels));
}

async fn refused(gateway: &Gateway, why: &str) -> f64 {
    gateway.metric(REFUSED, &[("why", why)]).await
}

#[tokio::test]
async fn connections_beyond_the_bound_are_closed_at_once_and_counted() {
    let backend = Backend::start("one");
    for (options, why) in [
        ("limits: { connections: 5 }", "connections"),
        ("limits: { connectionsPerAddress: 5 }", "address"),
    ] {
        let config = format!("gateway: {{ {options} }}\n") + &hello(&backend);
        let gateway = Gateway::start(&config).await;
        let inside = until_turned_away(gateway.public(), "").await;
        assert_eq!(inside.len(), 5, "{options}");
        turned_away(&gateway, &[("why", why)]).await;
        if why == "connections" {
            gateway.until_logged("connections are turned away").await;
        }
    }
}

#[tokio::test]
async fn a_listener_that_is_full_leaves_the_others_alone() {
    let backend = Backend::start("one");
    let config = "gateway: { listeners: [ { address: '127.0.0.1:0', connections: 2 }, \
                  { address: '127.0.0.1:0' } ] }\n"
        .to_owned()
        + &hello(&backend);
    let gateway = Launch::new(&config).own_listeners().start().await;
    let (full, open) = (gateway.listeners[0].0, gateway.listeners[1].0);
    let inside = until_turned_away(full, "").await;
    assert_eq!(inside.len(), 2);
    let mut others = Vec::new();
    for _ in 0..10 {
        others.push(served(open, "").await.unwrap());
    }
    let label = full.to_string();
    turned_away(&gateway, &[("listener", &label), ("why", "listener")]).await;
}

#[tokio::test]
async fn behind_a_proxy_connections_count_for_the_client_it_names() {
    let backend = Backend::start("one");
    let config = "gateway: { listeners: [ { address: '127.0.0.1:0', proxyProtocol: v1v2, \
                  trustedProxies: [127.0.0.0/8] } ], limits: { connectionsPerAddress: 3 } }\n"
        .to_owned()
        + &hello(&backend);
    let gateway = Launch::new(&config).own_listeners().start().await;
    let from = |client: &str| {
        let kind = if client.contains(':') { "TCP6" } else { "TCP4" };
        let us = if client.contains(':') {
            "::1"
        } else {
            "192.0.2.200"
        };
        format!("PROXY {kind} {client} {us} 56324 443\r\n")
    };
    let mut inside = Vec::new();
    for client in ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1"] {
        let of_one = until_turned_away(gateway.public(), &from(client)).await;
        assert_eq!(of_one.len(), 3, "{client}");
        inside.push(of_one);
    }
    // Another address of a network whose clients are counted as one.
    let neighbour = served(gateway.public(), &from("2001:db8::ffff")).await;
    assert!(neighbour.is_none());
    // The proxy itself may look after us as often as it likes.
    for _ in 0..10 {
        let looking = served(gateway.public(), "PROXY UNKNOWN\r\n").await;
        inside.push(vec![looking.unwrap()]);
    }
}

#[tokio::test]
async fn behind_a_proxy_held_requests_count_for_the_client_it_names() {
    let backend = Backend::start("one");
    let config = "gateway: { listeners: [ { address: '127.0.0.1:0', proxyProtocol: v1v2, \
                  trustedProxies: [127.0.0.0/8] } ], limits: { heldPerAddress: 1 } }\n"
        .to_owned()
        + &hello(&backend)
        + "    concurrency: 1\n";
    let gateway = Launch::new(&config).own_listeners().start().await;
    let begin = async |proxy: &str| {
        let mut client = gateway.raw().await;
        let head = format!("GET /?hold HTTP/1.1\r\nHost: {HELLO}\r\n\r\n");
        client.send(format!("PROXY {proxy}\r\n{head}")).await;
        client
    };
    let named = "TCP4 192.0.2.1 192.0.2.200 56324 443";
    let mut clients = vec![begin(named).await];
    eventually(PATIENCE, "the endpoint is asked", async || {
        (backend.running() == 1).then_some(())
    })
    .await;
    // Whom the last two speak for, nobody knows.
    for (waiting, proxy) in [(1, named), (2, "UNKNOWN"), (3, "UNKNOWN")] {
        clients.push(begin(proxy).await);
        gateway.until_waiting("hello-1", waiting).await;
    }
    let mut refused = begin(named).await;
    assert_eq!(refused.answer().await.status(), 503);
    backend.open_gate();
    for mut client in clients {
        assert_eq!(client.answer().await.status(), 200);
    }
}

#[tokio::test]
async fn proxies_that_speak_for_many_clients_are_not_counted_as_one() {
    let backend = Backend::start("one");
    let config =
        "gateway: { trustedProxies: [127.0.0.0/8], limits: { connectionsPerAddress: 2 } }\n"
            .to_owned()
            + &hello(&backend);
    let gateway = Gateway::start(&config).await;
    let mut inside = Vec::new();
    for _ in 0..10 {
        inside.push(served(gateway.public(), "").await.unwrap());
    }
}

/// Connections that say nothing.
async fn silent(gateway: &Gateway, count: usize) -> Vec<Raw> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(gateway.raw().await);
    }
    clients
}

/// Those that the gateway has not closed.
async fn still_open(clients: Vec<Raw>) -> Vec<Raw> {
    let mut open = Vec::new();
    for mut client in clients {
        if client.silent_for(Duration::from_millis(1)).await {
            open.push(client);
        }
    }
    open
}

#[tokio::test]
async fn clients_leave_descriptors_for_files_and_endpoints() {
    let backend = Backend::start("one");
    // Who says nothing may stay for as long as this takes.
    let patient = |backend: &Backend| {
        "gateway: { limits: { headTimeout: 1h } }\n".to_owned() + &hello(backend)
    };
    let launch = Launch::new(&patient(&backend)).after("ulimit -n 200");
    let gateway = launch.start().await;
    let first = gateway.get(HELLO, "/").await;
    first.expect(200);
    // It takes the place of none of those who come now.
    gateway
        .until_metric("tidegate_connections", &[], |n| n == 0.0)
        .await;
    let clients = silent(&gateway, 300).await;
    // Four fifths of 200, less what else the process needs.
    gateway
        .until_metric(REFUSED, &[("why", "connections")], |n| n == 300.0 - 136.0)
        .await;
    assert_eq!(gateway.metric("tidegate_connections", &[]).await, 136.0);
    let other = Backend::start("other");
    gateway.apply(&patient(&other)).await;
    let mut one_of_them = still_open(clients).await.pop().unwrap();
    one_of_them
        .send(format!("GET / HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
        .await;
    let answer = one_of_them.answer().await;
    assert_eq!(answer.field("x-backend"), Some("other"));
    assert_eq!(
        gateway.metric("tidegate_accept_errors_total", &[]).await,
        0.0
    );
}

#[tokio::test]
async fn without_descriptors_connections_are_turned_away_without_a_busy_loop() {
    let backend = Backend::start("one");
    let config = format!(
        "gateway: {{ limits: {{ connections: 10000 }}, workers: 2, listeners: [ \
         {{ address: '127.0.0.1:0' }}, {{ address: '127.0.0.1:0' }} ] }}\n{}",
        hello(&backend)
    );
    let launch = Launch::new(&config).own_listeners();
    let gateway = launch.after("ulimit -n 120").start().await;
    let begun = Instant::now();
    let room = 120 - open_descriptors(gateway.pid()) + 16;
    let clients = silent(&gateway, 250).await;
    // Whoever cannot be served is told at once, though nobody has left.
    let clients = eventually(PATIENCE, "all others are turned away", {
        let mut clients = clients;
        async move || {
            clients = still_open(std::mem::take(&mut clients)).await;
            (clients.len() <= room).then(|| std::mem::take(&mut clients))
        }
    })
    .await;
    let beyond = gateway.raw().await.rest().await;
    assert!(beyond.is_empty());
    // What the process itself needs it can have.
    let other = Backend::start("other");
    let listeners = config.split("routes:").next().unwrap();
    gateway
        .apply(&(listeners.to_owned() + &hello(&other)))
        .await;
    gateway.until_logged("cannot accept connections").await;

    // Those who leave make room, on both listeners.
    drop(clients);
    for (address, _) in &gateway.listeners {
        eventually(PATIENCE, "it serves again", async || {
            served(*address, "").await
        })
        .await;
    }
    let turned_away = refused(&gateway, "descriptors").await;
    assert!(turned_away >= 100.0, "{turned_away}");
    // After each failure an accept loop rests for 50 ms.
    let errors = gateway.metric("tidegate_accept_errors_total", &[]).await;
    let waited = begun.elapsed();
    let most = 4.0 * (waited.as_secs_f64() / 0.05 + 2.0);
    assert!((1.0..=most).contains(&errors), "{errors} in {waited:?}");
    let answer = gateway.send(request("GET", HELLO, "/")).await.expect(200);
    assert_eq!(answer.backend(), "other");
}

#[tokio::test]
async fn without_descriptors_for_endpoints_requests_are_refused_as_overload() {
    let backend = Backend::start("one");
    let config = "gateway: { workers: 1, limits: { connections: 10000 } }\n".to_owned();
    let launch = Launch::new(&(config + &hello(&backend)));
    let gateway = launch.after("ulimit -n 120").start().await;
    // Half of what there is: each needs another one for its endpoint.
    let mut clients = silent(&gateway, 70).await;
    for client in &mut clients {
        let get = format!("GET /?hold HTTP/1.1\r\nHost: {HELLO}\r\n\r\n");
        drop(client.try_send(get).await);
    }
    let said = async |client: &mut Raw| client.silent_for(Duration::from_millis(1)).await;
    let mut refused = eventually(PATIENCE, "somebody hears of it", async || {
        for at in 0..clients.len() {
            if !said(&mut clients[at]).await {
                return Some(clients.swap_remove(at));
            }
        }
        None
    })
    .await;
    let answer = refused.answer().await;
    assert_eq!((answer.status(), answer.reason()), (503, "overloaded"));
    assert_eq!(answer.field("retry-after"), Some("1"));
    drop(clients);
    backend.open_gate();
    eventually(PATIENCE, "it serves again", async || {
        served(gateway.public(), "").await
    })
    .await;
    // It was not the endpoint's fault.
    let of_endpoint = [("reason", "connect_failed")];
    let failed = gateway.metric("tidegate_refused_total", &of_endpoint).await;
    assert_eq!(failed, 0.0);
}

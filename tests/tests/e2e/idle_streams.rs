//! A stream on which nothing moves is no demand: its revision goes to zero, and the stream with it. One
//! on which something moves keeps its revision up. Whoever needs the slot of an idle one gets another process.

use tests::client::with;
use tests::http2::{Http2, pull};
use tests::websocket::WebSocket;
use tests::{Gateway, PATIENCE, eventually, request};

use crate::{COLD, cold};

/// To zero a second after the last demand.
const QUICKLY: &str = "    scale: { window: 1s, grace: 0s, idleStream: 300ms }\n";

/// The same once a test has seen what there is to be seen before.
const NOT_YET: &str = "    scale: { window: 1s, grace: 1h, idleStream: 300ms }\n";

const REVISION: (&str, &str) = ("revision", "cold-1");

async fn until_idle_streams(gateway: &Gateway, count: f64) {
    gateway
        .until_metric("tidegate_idle_streams", &[REVISION], |n| n == count)
        .await;
}

/// Its process has been let go, and the stream ended for that.
async fn until_let_go(gateway: &Gateway) {
    eventually(2 * PATIENCE, "the revision is at zero", async || {
        let revision = gateway.revision("cold-1").await;
        (revision["endpoints"].as_array()?.is_empty()).then_some(())
    })
    .await;
    let ended = [REVISION, ("reason", "endpoint_gone")];
    gateway
        .until_metric("tidegate_requests_total", &ended, |n| n == 1.0)
        .await;
    until_idle_streams(gateway, 0.0).await;
    gateway.until_idle().await;
}

#[tokio::test]
async fn idle_websocket_keeps_no_process() {
    let gateway = Gateway::start(&(cold(&[]) + NOT_YET)).await;
    let mut socket = WebSocket::open(gateway.public(), COLD, "/").await;
    socket.echo("hello").await;
    until_idle_streams(&gateway, 1.0).await;
    let revision = gateway.revision("cold-1").await;
    assert_eq!(
        (&revision["inFlight"], &revision["idle"]),
        (&1.into(), &1.into())
    );
    gateway.apply(&(cold(&[]) + QUICKLY)).await;
    socket.gone().await;
    until_let_go(&gateway).await;
    // The next one starts another.
    gateway.get(COLD, "/").await.expect(200);
}

#[tokio::test]
async fn idle_websocket_on_a_stream_keeps_no_process() {
    let gateway = Gateway::start(&(cold(&[]) + NOT_YET)).await;
    let mut client = Http2::connect(gateway.public()).await;
    let mut socket = WebSocket::on_stream(&mut client, COLD, "/").await.unwrap();
    socket.echo("hello").await;
    until_idle_streams(&gateway, 1.0).await;
    gateway.apply(&(cold(&[]) + QUICKLY)).await;
    socket.gone().await;
    until_let_go(&gateway).await;
}

#[tokio::test]
async fn idle_event_stream_keeps_no_process() {
    let gateway = Gateway::start(&(cold(&[]) + NOT_YET)).await;
    let mut client = gateway.raw().await;
    let asked = format!("GET /?pieces=2&every=3600000&size=20 HTTP/1.1\r\nHost: {COLD}\r\n\r\n");
    client.send(asked).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    until_idle_streams(&gateway, 1.0).await;
    gateway.apply(&(cold(&[]) + QUICKLY)).await;
    let rest = client.rest().await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the end was not made up");
    until_let_go(&gateway).await;
}

#[tokio::test]
async fn idle_stream_of_http2_keeps_no_process() {
    for protocol in ["http1", "h2c"] {
        let more = format!("    protocol: {protocol}\n");
        let gateway = Gateway::start(&(cold(&[]) + NOT_YET + &more)).await;
        let mut client = Http2::connect(gateway.public()).await;
        let asked = with(request("POST", COLD, "/?mirror"), "te", "trailers");
        let mut call = client.open(asked, false).await;
        call.send("ping").await;
        let mut body = call.head().await.into_body();
        assert_eq!(pull(&mut body).await.unwrap().unwrap(), "ping");
        until_idle_streams(&gateway, 1.0).await;
        gateway.apply(&(cold(&[]) + QUICKLY + &more)).await;
        assert!(pull(&mut body).await.is_err(), "{protocol}: reset");
        until_let_go(&gateway).await;
    }
}

#[tokio::test]
async fn stream_that_moves_keeps_its_process() {
    let scale = "    scale: { window: 1s, grace: 0s, idleStream: 1s }\n";
    let gateway = Gateway::start(&(cold(&[]) + scale)).await;
    let mut client = gateway.raw().await;
    let asked = format!("GET /?pieces=1000&every=50&size=10000 HTTP/1.1\r\nHost: {COLD}\r\n\r\n");
    client.send(asked).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    // Longer than all of that together: 80 pieces of ten bytes, four seconds.
    client.exactly(80 * 15).await;
    assert_eq!(gateway.endpoints("cold-1", "ready").await, 1);
    until_idle_streams(&gateway, 0.0).await;
    client.exactly(15).await;
}

#[tokio::test]
async fn stream_that_moves_again_counts_again() {
    let scale = "    scale: { min: 1, idleStream: 1s }\n";
    let gateway = Gateway::start(&(cold(&[]) + scale)).await;
    let mut socket = WebSocket::open(gateway.public(), COLD, "/").await;
    for round in ["one", "two"] {
        until_idle_streams(&gateway, 1.0).await;
        // It rests again soon: who looks too late moves it once more.
        eventually(PATIENCE, "it counts again", async || {
            socket.echo(round).await;
            let idle = gateway.metric("tidegate_idle_streams", &[REVISION]);
            (idle.await == 0.0).then_some(())
        })
        .await;
    }
    socket.close().await;
    gateway.until_idle().await;
}

#[tokio::test]
async fn who_waits_for_slots_of_idle_streams_is_served_by_another_process() {
    // As long as both move, however long that is, one process carries them.
    let scale =
        "    concurrency: 2\n    scale: { grace: 1h, max: 2, target: 2, idleStream: 300ms }\n";
    let gateway = Gateway::start(&(cold(&[]) + scale)).await;
    let mut sockets = Vec::new();
    for _ in 0..2 {
        sockets.push(WebSocket::open(gateway.public(), COLD, "/").await);
    }
    until_idle_streams(&gateway, 2.0).await;
    assert_eq!(gateway.endpoints("cold-1", "ready").await, 1);
    // Long before the minute of its window is full.
    gateway.get(COLD, "/").await.expect(200);
    assert_eq!(gateway.endpoints("cold-1", "ready").await, 2);
    for mut socket in sockets {
        socket.echo("still here").await;
        socket.close().await;
    }
}

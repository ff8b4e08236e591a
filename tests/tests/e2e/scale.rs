//! Revisions of processes grow with their load and go back to zero after it.

use tests::load::{Reconnect, assert_only_200};
use tests::process::living;
use tests::{Gateway, Load, PATIENCE, eventually, request, sized};

use crate::{COLD, cold};

async fn gone(gateway: &Gateway) {
    eventually(2 * PATIENCE, "the revision is at zero", async || {
        let endpoints = gateway.revision("cold-1").await["endpoints"]
            .as_array()
            .map(Vec::len);
        (endpoints == Some(0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn ninety_connections_from_zero_scale_out_and_back_without_an_error() {
    let _alone = tests::heavy().await;
    let pids = tempfile::TempDir::new().unwrap();
    let environment = [("PIDS", pids.path().to_str().unwrap())];
    let scale = "    scale: { target: 10, window: 2s, grace: 1s, max: 10 }\n";
    let gateway = Gateway::start(&(cold(&environment) + scale)).await;
    let load = Load::start(gateway.public(), 90, Reconnect::Always, || {
        request("GET", COLD, "/?sleep=100")
    });
    // Nine endpoints are wanted; the last few may be long in coming on a busy machine.
    eventually(2 * PATIENCE, "it has scaled out", async || {
        (gateway.endpoints("cold-1", "ready").await >= 5).then_some(())
    })
    .await;
    load.more(sized(4_000, 27_000)).await;
    assert_only_200(&load.stop().await);
    gone(&gateway).await;
    gateway.until_idle().await;
    eventually(PATIENCE, "no process is left", async || {
        living(pids.path()).is_empty().then_some(())
    })
    .await;
    // And once more from there.
    assert_eq!(gateway.get(COLD, "/").await.expect(200).backend(), "cold-1");
    let labels = [("revision", "cold-1")];
    assert!(gateway.metric("tidegate_cold_starts_total", &labels).await >= 2.0);
}

#[tokio::test]
async fn minimum_is_there_before_any_request_and_stays() {
    let scale = "    scale: { min: 2, window: 2s, grace: 0s }\n";
    let gateway = Gateway::start(&(cold(&[]) + scale)).await;
    let ready = async || (gateway.endpoints("cold-1", "ready").await == 2).then_some(());
    eventually(PATIENCE, "two are ready", ready).await;
    gateway.get(COLD, "/?sleep=100").await.expect(200);
    // Longer than window and grace.
    gateway.get(COLD, "/?sleep=4000").await.expect(200);
    assert_eq!(gateway.endpoints("cold-1", "ready").await, 2);
}

#[tokio::test]
async fn maximum_is_kept() {
    let pids = tempfile::TempDir::new().unwrap();
    let environment = [("PIDS", pids.path().to_str().unwrap())];
    let more = "    concurrency: 1\n    scale: { max: 2, window: 2s }\n";
    let gateway = Gateway::start(&(cold(&environment) + more)).await;
    let load = Load::start(gateway.public(), 20, Reconnect::Always, || {
        request("GET", COLD, "/?sleep=20")
    });
    let two = async || (gateway.endpoints("cold-1", "ready").await == 2).then_some(());
    eventually(PATIENCE, "two are ready", two).await;
    load.more(200).await;
    assert_only_200(&load.stop().await);
    assert_eq!(std::fs::read_dir(pids.path()).unwrap().count(), 2);
}

#[tokio::test]
async fn request_in_flight_ends_before_its_process_does() {
    let pids = tempfile::TempDir::new().unwrap();
    let environment = [("PIDS", pids.path().to_str().unwrap())];
    let gateway = Gateway::start(&cold(&environment)).await;
    let mut client = gateway.raw().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: {COLD}\r\nContent-Length: 5\r\n\r\n"
        ))
        .await;
    gateway
        .until_metric("tidegate_inflight", &[("revision", "cold-1")], |n| n == 1.0)
        .await;
    gateway.apply("routes: []\n").await;
    gateway.get(COLD, "/").await.refused(404, "no_route");
    client.send("hello").await;
    assert_eq!(client.answer().await.status(), 200);
    eventually(PATIENCE, "no process is left", async || {
        living(pids.path()).is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn process_that_does_not_end_when_asked_is_killed() {
    let pids = tempfile::TempDir::new().unwrap();
    let environment = [("PIDS", pids.path().to_str().unwrap()), ("STAYS", "1")];
    let gateway = Gateway::start(&cold(&environment)).await;
    gateway.get(COLD, "/").await.expect(200);
    assert_eq!(living(pids.path()).len(), 1);
    gateway.apply("routes: []\n").await;
    eventually(PATIENCE, "no process is left", async || {
        living(pids.path()).is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn open_websocket_keeps_its_revision_up() {
    let scale = "    scale: { window: 2s, grace: 0s }\n";
    let gateway = Gateway::start(&(cold(&[]) + scale)).await;
    let mut socket = tests::websocket::WebSocket::open(gateway.public(), COLD, "/").await;
    socket.echo("before").await;
    // Longer than window and grace, by the other clock there is: the service's own.
    let pause = request("GET", COLD, "/?sleep=5000");
    gateway.send(pause).await.expect(200);
    socket.echo("after").await;
    socket.close().await;
    gone(&gateway).await;
}

//! The rest of what the conformance tests of Knative's ingresses ask: gRPC, WebSockets, no repeats,
//! no time limits, and splits and paths of routes for the cluster alone.

use std::collections::BTreeSet;

use futures_util::stream;
use serde_json::Value;
use tests::grpc::{Caller, GrpcBackend, Piece};
use tests::kubernetes::Api;
use tests::kubernetes::objects::{self, Pods, Service, path, rule, split};
use tests::websocket::WebSocket;
use tests::{Backend, Client, Gateway, Wire, request};
use tonic::Request;

use super::set::{inside, launch, listener, service, until_ready};

async fn serve(api: &Api, rules: &[Value]) -> Gateway {
    api.create(&objects::ingress("default", "streams", rules))
        .await;
    let gateway = launch(api).start().await;
    until_ready(api, "streams").await;
    gateway
}

fn to(prefix: &str, names: &[(&str, u32)]) -> Value {
    let splits: Vec<_> = names
        .iter()
        .map(|(name, percent)| split("default", name, 80, *percent, &[]))
        .collect();
    path(prefix, &[], &splits)
}

/// A Service `grpc` and what is behind it.
async fn grpc_service() -> (GrpcBackend, Api) {
    let (backend, api) = (GrpcBackend::start(), Api::start());
    let service = Service::new("default", "grpc", "h2c");
    api.create(&service.object()).await;
    let slices = service.slices(&Pods::ready(&[backend.address]));
    api.place("default", "grpc", &slices).await;
    (backend, api)
}

/// A hundred messages of one call.
async fn pings_come_back(caller: &mut Caller) {
    let pieces: Vec<_> = (0..100).map(|number| Piece::new("ping", number)).collect();
    let answers = caller
        .chat(Request::new(stream::iter(pieces.clone())))
        .await;
    let mut answers = answers.unwrap().into_inner();
    for piece in pieces {
        assert_eq!(answers.message().await.unwrap(), Some(piece));
    }
}

#[tokio::test]
async fn grpc_streams_pass_over_one_connection() {
    let (_backend, api) = grpc_service().await;
    let rules = [rule(
        &["grpc.example.com"],
        "ExternalIP",
        &[to("", &[("grpc", 100)])],
    )];
    let gateway = serve(&api, &rules).await;
    let mut caller = Caller::new(gateway.public(), "grpc.example.com:80");
    pings_come_back(&mut caller).await;
    for number in 0..10 {
        let piece = Piece::new("a", number);
        let answer = caller.unary(Request::new(piece.clone())).await.unwrap();
        assert_eq!(answer.into_inner(), piece);
    }
}

#[tokio::test]
async fn streams_of_one_connection_are_drawn_each_for_itself() {
    let (one, two, api) = (Backend::start("one"), Backend::start("two"), Api::start());
    service(&api, "one", "http2", &[&one]).await;
    service(&api, "two", "http2", &[&two]).await;
    let halves = to("", &[("one", 50), ("two", 50)]);
    let rules = [rule(&["split.example.com"], "ExternalIP", &[halves])];
    let gateway = serve(&api, &rules).await;
    let mut client = Client::speaking(Wire::Http2, gateway.public()).await;
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        let answer = client.get("split.example.com", "/").await.expect(200);
        seen.insert(answer.backend().to_owned());
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
}

#[tokio::test]
async fn websockets_pass_and_are_drawn_each_for_itself() {
    let (one, two, api) = (Backend::start("one"), Backend::start("two"), Api::start());
    service(&api, "one", "http", &[&one]).await;
    service(&api, "two", "http", &[&two]).await;
    let halves = to("", &[("one", 50), ("two", 50)]);
    let rules = [rule(&["ws.example.com"], "ExternalIP", &[halves])];
    let gateway = serve(&api, &rules).await;
    let mut rounds = 0;
    while one.total() == 0 || two.total() == 0 {
        let mut socket = WebSocket::open(gateway.public(), "ws.example.com", "/").await;
        for round in 0..10 {
            socket.echo(&format!("{round}")).await;
        }
        socket.close().await;
        rounds += 1;
        assert!(rounds <= 100, "one of them was never drawn");
    }
}

#[tokio::test]
async fn an_answer_is_never_asked_for_twice() {
    let (backend, api) = (Backend::start("one"), Api::start());
    service(&api, "one", "http2", &[&backend]).await;
    let rules = [rule(
        &["retry.example.com"],
        "ExternalIP",
        &[to("", &[("one", 100)])],
    )];
    let gateway = serve(&api, &rules).await;
    let refused = gateway.get("retry.example.com", "/?status=503").await;
    assert_eq!((refused.status, refused.reason()), (503, ""));
    assert_eq!(backend.total(), 1);
    assert_eq!(gateway.get("retry.example.com", "/").await.status, 200);
    assert_eq!(backend.total(), 2);
}

#[tokio::test]
async fn slow_heads_and_bodies_are_waited_for() {
    let (backend, api) = (Backend::start("one"), Api::start());
    service(&api, "one", "http", &[&backend]).await;
    let rules = [rule(
        &["slow.example.com"],
        "ExternalIP",
        &[to("", &[("one", 100)])],
    )];
    let gateway = serve(&api, &rules).await;
    let slow = tests::sized(500, 10_000);
    for asked in [
        format!("/?sleep={slow}"),
        format!("/?size=64&pieces=2&every={slow}"),
    ] {
        let mut client = gateway.connect().await;
        let answer = client
            .try_send(request("GET", "slow.example.com", &asked))
            .await;
        assert_eq!(answer.unwrap().status, 200, "{asked}");
    }
}

#[tokio::test]
async fn routes_for_the_cluster_split_and_choose_by_path() {
    let names = ["one", "two", "three"];
    let backends = names.map(Backend::start);
    let api = Api::start();
    for (name, backend) in names.into_iter().zip(&backends) {
        service(&api, name, "http", &[backend]).await;
    }
    let paths = [
        to("", &[("one", 50), ("two", 50)]),
        to("/three", &[("three", 100)]),
    ];
    let host = "near.default.svc.cluster.local";
    let gateway = serve(&api, &[rule(&[host], "ClusterLocal", &paths)]).await;
    let mut seen = BTreeSet::new();
    let mut client = Client::connect(listener(&gateway, "internal")).await;
    for _ in 0..100 {
        seen.insert(client.get(host, "/").await.expect(200).backend().to_owned());
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!(
        inside(&gateway, host, "/three").await.expect(200).backend(),
        "three"
    );
    gateway.get(host, "/three").await.refused(404, "no_route");
}

/// What a DomainMapping leads to: a host for the cluster alone, looked up again inside.
fn mapping(host: &str, local: &str) -> Value {
    let mut vanity = path(
        "",
        &[("K-Original-Host", host)],
        &[split("default", "own", 80, 100, &[])],
    );
    vanity["rewriteHost"] = local.into();
    rule(&[host], "ExternalIP", &[vanity])
}

/// A route for the cluster alone to a Service, and a vanity host that leads to it.
async fn mapped(api: &Api, name: &str) -> Gateway {
    let local = "own.default.svc.cluster.local";
    let inner = [rule(&[local], "ClusterLocal", &[to("", &[(name, 100)])])];
    api.create(&objects::ingress("default", "own", &inner))
        .await;
    let ours = format!("tidegate-internal.{}.svc.cluster.local", super::set::SYSTEM);
    api.create(&Service::external("default", "own", &ours).object())
        .await;
    serve(api, &[mapping("vanity.test", local)]).await
}

#[tokio::test]
async fn websockets_pass_through_a_domain_mapping() {
    let (backend, api) = (Backend::start("one"), Api::start());
    service(&api, "one", "http", &[&backend]).await;
    let gateway = mapped(&api, "one").await;
    let mut socket = WebSocket::open(gateway.public(), "vanity.test", "/").await;
    for round in 0..100 {
        socket.echo(&format!("{round}")).await;
    }
    socket.close().await;
}

#[tokio::test]
async fn grpc_streams_pass_through_a_domain_mapping() {
    let (_backend, api) = grpc_service().await;
    let gateway = mapped(&api, "grpc").await;
    let mut caller = Caller::new(gateway.public(), "vanity.test");
    pings_come_back(&mut caller).await;
}

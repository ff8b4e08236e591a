use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, SystemTime};

use activator::starts::{Outcome, Trigger};
use bytes::Bytes;
use config::revision::Key;
use http_body_util::{BodyExt, Empty, Full};
use hyper::{Request, StatusCode, header::HeaderMap};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::memory::Level;
use crate::observe::averages::Average;
use crate::observe::cold::example::start;
use crate::observe::facts::{Phases, Start};
use crate::observe::metrics::Registry;
use crate::observe::world::{self};
use crate::observe::world::{
    EndpointState, EndpointView, Explanation, MemoryView, NotPrewarmed, Prewarmed, Readiness,
    RevisionView, RouteView, RuleView, TargetView, Wanted, World,
};
use crate::refusal::Reason;

use super::{Desk, serve};

/// A world that says what it is told to.
#[derive(Default)]
struct Told {
    readiness: Mutex<Readiness>,
    /// While true, `revisions` does not return.
    stuck: Mutex<bool>,
    loose: Condvar,
}

impl World for Told {
    fn revisions(&self) -> Vec<RevisionView> {
        let stuck = self.stuck.lock().unwrap();
        drop(self.loose.wait_while(stuck, |stuck| *stuck).unwrap());
        ["coffee-00002", "coffee-00001"].map(revision).into()
    }

    fn routes(&self) -> Vec<RouteView> {
        vec![RouteView {
            namespace: "default".to_owned(),
            name: "coffee".to_owned(),
            hosts: vec!["coffee.default.example.com".to_owned()],
            cluster_local: true,
            source: "file coffee.yaml".to_owned(),
            rules: vec![RuleView {
                path: "/".to_owned(),
                targets: targets(),
            }],
        }]
    }

    fn readiness(&self) -> Readiness {
        self.readiness.lock().unwrap().clone()
    }

    fn prewarm(&self, asked: &world::Prewarm) -> Result<Vec<Prewarmed>, NotPrewarmed> {
        let Wanted::Revision { name, .. } = &asked.wanted else {
            return Err(NotPrewarmed::Unknown("no such route".to_owned()));
        };
        match &**name {
            "nobody" => Err(NotPrewarmed::NoScaler("default/nobody".to_owned())),
            _ => Ok(vec![prewarmed(name, asked.endpoints)]),
        }
    }

    fn look_at(&self, prewarmed: &mut [Prewarmed]) {
        for one in prewarmed {
            match &*one.name {
                "quick" => one.ready = one.endpoints,
                "broken" => one.why = Some("it exited".to_owned()),
                _ => {}
            }
        }
    }

    fn explain(&self, request: &world::Request) -> Explanation {
        assert_ne!(
            request.host, "panic.example.com",
            "as a fault of ours would"
        );
        let why = vec![format!("{} {}", request.method, request.path)];
        if request.host != "coffee.default.example.com" {
            return Explanation::Refused {
                reason: Reason::NoRoute,
                why,
            };
        }
        Explanation::Routed {
            namespace: "default".to_owned(),
            route: "coffee".to_owned(),
            rule: 1,
            targets: targets(),
            host: request.host.clone(),
            why,
        }
    }
}

fn prewarmed(name: &str, endpoints: u32) -> Prewarmed {
    Prewarmed {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        scaler: "process",
        endpoints,
        ready: 0,
        why: None,
    }
}

fn targets() -> Vec<TargetView> {
    let target = |revision: &str, percent, tag: Option<&str>| TargetView {
        revision: revision.to_owned(),
        percent,
        asked: percent,
        tag: tag.map(str::to_owned),
    };
    vec![
        target("coffee-00001", 70, Some("current")),
        target("coffee-00002", 30, None),
    ]
}

fn revision(name: &str) -> RevisionView {
    let phases = Phases {
        nudge: Some(Duration::from_micros(300)),
        first_byte: Some(Duration::from_millis(1_500)),
        ..Phases::default()
    };
    RevisionView {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        limit: 10,
        in_flight: 3,
        idle: 1,
        waiting: 2,
        queue_wait: Duration::from_secs(10),
        average: Average {
            one: 4.5,
            six: 1.0,
            sixty: 0.25,
        },
        average_waiting: Average {
            one: 1.5,
            six: 0.5,
            sixty: 0.125,
        },
        endpoints: vec![EndpointView {
            address: ([127, 0, 0, 1], 9001).into(),
            state: EndpointState::Suspect,
            in_flight: 3,
            window: Some(9),
        }],
        cold_starts: 1,
        last_start: Some(Start {
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_250),
            phases,
        }),
        concurrency_seconds: 0.0,
        knative: None,
    }
}

impl Told {
    fn ready() -> Arc<Told> {
        let told = Told::default();
        told.readiness.lock().unwrap().version = 1;
        Arc::new(told)
    }
}

async fn admin(world: Arc<Told>) -> SocketAddr {
    admin_of(world, one_registry(), None).await
}

fn one_registry() -> Arc<Registry> {
    Registry::new(1, vec!["public".to_owned()])
}

async fn admin_of(
    world: Arc<Told>,
    registry: Arc<Registry>,
    token: Option<Box<Path>>,
) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stay, leaving) = watch::channel(false);
    tokio::spawn(async move {
        let desk = Desk { listener, token };
        serve(desk, world, registry, leaving).await;
        drop(stay);
    });
    address
}

struct Got {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Got {
    fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json");
        serde_json::from_str(&self.body).unwrap()
    }
}

async fn send(address: SocketAddr, method: &str, target: &str) -> Got {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header("host", "admin")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let (head, body) = client.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Got {
        status: head.status,
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

async fn get(address: SocketAddr, target: &str) -> Got {
    send(address, "GET", target).await
}

#[tokio::test]
async fn livez_answers_ok_whatever_the_state() {
    let address = admin(Arc::default()).await;
    let got = get(address, "/livez").await;
    assert_eq!((got.status, got.body.as_str()), (StatusCode::OK, "ok"));
}

#[tokio::test]
async fn readyz_follows_the_first_snapshot_draining_and_rejected_changes() {
    let world = Arc::new(Told::default());
    let address = admin(Arc::clone(&world)).await;
    let cases = [
        (0, false, json!([]), 503),
        (1, false, json!([]), 200),
        (
            1,
            false,
            json!([{"file": "a.yaml", "line": 3, "problem": "no"}]),
            200,
        ),
        (2, true, json!([]), 503),
    ];
    for (version, draining, problems, status) in cases {
        *world.readiness.lock().unwrap() = Readiness {
            version,
            draining,
            incomplete: false,
            problems: problems.as_array().unwrap().clone(),
            memory: MemoryView {
                used: 900,
                limit: 1000,
                level: Level::Shrinking,
            },
            warming: Vec::new(),
        };
        let got = get(address, "/readyz").await;
        assert_eq!(got.status.as_u16(), status);
        let expected = json!({
            "ready": status == 200, "draining": draining, "version": version, "problems": problems,
            "memory": { "bytes": 900, "limit": 1000, "level": "shrinking" },
        });
        assert_eq!(got.json(), expected);
    }
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let address = admin(Told::ready()).await;
    let got = get(address, "/metrics").await;
    assert_eq!(got.status, StatusCode::OK);
    assert_eq!(
        got.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let line = "tidegate_inflight{namespace=\"default\",revision=\"coffee-00001\"} 3\n";
    assert!(got.body.contains(line), "{}", got.body);
}

#[tokio::test]
async fn routes_have_the_documented_shape() {
    let address = admin(Told::ready()).await;
    let expected = json!([{
        "namespace": "default", "name": "coffee", "hosts": ["coffee.default.example.com"],
        "visibility": "cluster-local", "source": "file coffee.yaml",
        "rules": [{"path": "/", "targets": [
            {"revision": "coffee-00001", "percent": 70, "tag": "current"},
            {"revision": "coffee-00002", "percent": 30, "tag": null},
        ]}],
    }]);
    assert_eq!(get(address, "/api/routes").await.json(), expected);
}

#[tokio::test]
async fn revisions_have_the_documented_shape_and_are_sorted() {
    let address = admin(Told::ready()).await;
    let got = get(address, "/api/revisions").await.json();
    let expected = json!({
        "namespace": "default", "name": "coffee-00001", "limit": 10, "inFlight": 3, "idle": 1, "waiting": 2, "queueWait": 10.0,
        "average": {"1s": 4.5, "6s": 1.0, "60s": 0.25},
        "averageWaiting": {"1s": 1.5, "6s": 0.5, "60s": 0.125},
        "endpoints": [{"address": "127.0.0.1:9001", "state": "suspect", "inFlight": 3, "window": 9}],
        "coldStarts": 1,
        "lastStart": {"at": "1970-01-01T00:00:01.250Z", "phases": {
            "nudge": 0.0003, "act": null, "endpoint": null, "probe": null, "wire": null,
            "firstByte": 1.5,
        }},
    });
    assert_eq!(got[0], expected);
    assert_eq!(got[1]["name"], "coffee-00002");
}

#[tokio::test]
async fn cold_starts_have_the_documented_shape_and_the_newest_comes_first() {
    let registry = Registry::new(1, Vec::new());
    let address = admin_of(Told::ready(), registry.clone(), None).await;
    assert_eq!(get(address, "/api/cold-starts").await.json(), json!([]));
    let key = |name: &str| Key {
        namespace: "default".into(),
        name: name.into(),
    };
    let mut failed = start();
    failed.at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_250);
    failed.outcome = Some(Outcome::Failed);
    failed.cause = Some("exited with status 3".into());
    failed.trigger = Trigger::Request;
    failed.held = 7;
    registry.last_starts().note(&key("old"), &start());
    registry.last_starts().note(&key("new"), &failed);
    let got = get(address, "/api/cold-starts").await.json();
    let expected = json!({
        "namespace": "default", "revision": "new", "at": "1970-01-01T00:00:01.250Z",
        "outcome": "failed", "cause": "exited with status 3",
        "phases": {"nudge": 0.3, "act": null, "endpoint": null, "probe": 1500.0, "wire": null,
                   "firstByte": null},
        "held": 7, "trigger": "request",
    });
    assert_eq!(got[0], expected);
    let old = &got[1];
    assert_eq!(
        (&old["revision"], &old["trigger"]),
        (&json!("old"), &json!("prewarm"))
    );
    assert_eq!(
        (&old["outcome"], &old["cause"]),
        (&json!("ok"), &json!(null))
    );
}

#[tokio::test]
async fn explain_tells_what_would_happen_and_why() {
    let address = admin(Told::ready()).await;
    let path = "/api/explain?method=POST&url=http://coffee.default.example.com/a/b%3Fq=1";
    let expected = json!({
        "namespace": "default", "route": "coffee", "rule": 1,
        "targets": [
            {"revision": "coffee-00001", "percent": 70, "tag": "current"},
            {"revision": "coffee-00002", "percent": 30, "tag": null},
        ],
        "host": "coffee.default.example.com", "why": ["POST /a/b"],
    });
    assert_eq!(get(address, path).await.json(), expected);

    let missed = get(address, "/api/explain?url=tea.default.example.com").await;
    assert_eq!(missed.status, StatusCode::OK);
    assert_eq!(
        missed.json(),
        json!({"reason": "no_route", "why": ["GET /"]})
    );

    let malformed = get(address, "/api/explain").await;
    assert_eq!(malformed.status, StatusCode::BAD_REQUEST);
    assert_eq!(malformed.json(), json!({"problem": "url is missing"}));
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere() {
    let address = admin(Told::ready()).await;
    let got = get(address, "/").await;
    assert_eq!(got.headers["content-type"], "text/html; charset=utf-8");
    let policy = got.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none';"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    for (attribute, path) in [("src", "page.js"), ("href", "page.css")] {
        assert!(got.body.contains(&format!("{attribute}=\"{path}\"")));
        let asset = get(address, &format!("/{path}")).await;
        assert_eq!(asset.status, StatusCode::OK, "{path}");
        assert_eq!(asset.headers["x-content-type-options"], "nosniff");
        assert!(!asset.body.contains("innerHTML"), "markup from data");
    }
}

#[tokio::test]
async fn anything_else_is_not_found_and_nothing_can_be_changed() {
    let address = admin(Told::ready()).await;
    for path in ["/api", "/livez/", "/page.html", "/../etc/passwd", "//"] {
        assert_eq!(
            get(address, path).await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let got = send(address, method, "/livez").await;
        assert_eq!(got.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(got.headers["allow"], "GET, HEAD");
    }
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let address = admin(Told::ready()).await;
    for path in ["/livez", "/api/revisions"] {
        let full = get(address, path).await;
        let head = send(address, "HEAD", path).await;
        assert_eq!((head.status, head.body.as_str()), (StatusCode::OK, ""));
        assert_eq!(head.headers["content-length"], full.body.len().to_string());
    }
}

#[tokio::test]
async fn livez_stays_prompt_while_renderings_are_stuck() {
    let world = Told::ready();
    *world.stuck.lock().unwrap() = true;
    let address = admin(Arc::clone(&world)).await;
    let renderings: Vec<_> = (0..8)
        .map(|_| tokio::spawn(get(address, "/metrics")))
        .collect();
    assert_eq!(get(address, "/livez").await.status, StatusCode::OK);
    assert_eq!(get(address, "/readyz").await.status, StatusCode::OK);
    assert!(renderings.iter().all(|r| !r.is_finished()));
    *world.stuck.lock().unwrap() = false;
    world.loose.notify_all();
    for rendering in renderings {
        assert_eq!(rendering.await.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_fault_while_rendering_is_one_answer() {
    let address = admin(Told::ready()).await;
    // More often than there are places to render in.
    for _ in 0..3 {
        let got = get(address, "/api/explain?url=panic.example.com").await;
        assert_eq!(got.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
    let got = get(address, "/metrics").await;
    assert_eq!(got.status, StatusCode::OK);
}

/// Asks for `/livez` on a kept connection; false when the server closed it instead.
async fn alive(stream: &mut TcpStream) -> bool {
    let asked = stream
        .write_all(b"GET /livez HTTP/1.1\r\nhost: admin\r\n\r\n")
        .await;
    let mut answer = Vec::new();
    while asked.is_ok() && !answer.ends_with(b"ok") {
        match stream.read_buf(&mut answer).await {
            Ok(0) | Err(_) => return false,
            Ok(_) => {}
        }
    }
    asked.is_ok()
}

/// Connections that have said this and nothing more.
async fn begun(address: SocketAddr, count: usize, beginning: &str) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        open.push(stream);
    }
    open
}

#[tokio::test]
async fn a_65th_connection_takes_the_place_of_the_one_idle_for_longest() {
    let address = admin(Told::ready()).await;
    let mut open = begun(address, 64, "").await;
    for stream in &mut open[..2] {
        // Now others have been idle for longer.
        assert!(alive(stream).await);
    }
    let mut further = TcpStream::connect(address).await.unwrap();
    assert!(alive(&mut further).await);
    let closed = open[2].read(&mut [0]).await;
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    for at in [0, 1, 3, 63] {
        assert!(alive(&mut open[at]).await, "the others are not disturbed");
    }
}

#[tokio::test]
async fn livez_answers_however_many_heads_do_not_end() {
    let address = admin(Told::ready()).await;
    let mut slow = Vec::new();
    for _ in 0..4 {
        slow.extend(begun(address, 50, "GET /metrics HTTP/1.1\r\nhost: a").await);
        assert_eq!(get(address, "/livez").await.status, StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_whole_head_is_closed() {
    let address = admin(Told::ready()).await;
    for beginning in ["", "GET /livez HTTP/1.1\r\nhost: a"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let began = tokio::time::Instant::now();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        let took = began.elapsed();
        assert!(took <= Duration::from_secs(11), "{took:?}");
    }
}

/// Asks with the token `abc`, which is the right one.
async fn prewarm(address: SocketAddr, query: &str, body: &'static str) -> (u16, Value) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("/api/prewarm{query}"))
        .header("host", "admin")
        .header("authorization", "Bearer abc")
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let (head, body) = client.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn prewarming_says_what_it_set_in_motion_and_how_far_it_came() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "abc\n").unwrap();
    let address = admin_of(Told::ready(), one_registry(), Some(file.into())).await;
    let said = |name: &str, ready: u32, why: Option<&str>| {
        json!({"ready": ready == 2, "revisions": [{"namespace": "default", "name": name,
               "scaler": "process", "endpoints": 2, "ready": ready, "why": why}]})
    };
    for (query, status, expected) in [
        ("?revision=slow&endpoints=2", 202, said("slow", 0, None)),
        (
            "?revision=quick&endpoints=2&wait=30s",
            200,
            said("quick", 2, None),
        ),
        (
            "?revision=broken&endpoints=2&wait=30s",
            503,
            said("broken", 0, Some("it exited")),
        ),
        (
            "?revision=slow&endpoints=2&wait=50ms",
            504,
            said("slow", 0, None),
        ),
    ] {
        assert_eq!(
            prewarm(address, query, "").await,
            (status, expected),
            "{query}"
        );
    }
    let body = r#"{"revision": "slow", "endpoints": 2, "for": "5m"}"#;
    assert_eq!(
        prewarm(address, "", body).await,
        (202, said("slow", 0, None))
    );
    for (query, status) in [
        ("?route=a.test/", 404),
        ("?revision=nobody", 409),
        ("", 400),
    ] {
        let (got, problem) = prewarm(address, query, "").await;
        assert_eq!(got, status, "{query}");
        assert!(problem["problem"].is_string(), "{problem}");
    }
}

#[tokio::test]
async fn without_a_token_nothing_can_be_changed() {
    let address = admin(Told::ready()).await;
    let got = send(address, "POST", "/api/prewarm?revision=a").await;
    assert_eq!(got.status.as_u16(), 403);
    let problem = got.json()["problem"].to_string();
    assert!(problem.contains("gateway.adminTokenFile"), "{problem}");
    let got = get(address, "/api/prewarm").await;
    assert_eq!(
        (got.status.as_u16(), &got.headers["allow"]),
        (405, &"POST".parse().unwrap())
    );

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "abc").unwrap();
    let address = admin_of(Told::ready(), one_registry(), Some(file.into())).await;
    let got = send(address, "POST", "/api/prewarm?revision=a").await;
    assert_eq!(got.status.as_u16(), 401);
    assert_eq!(got.headers["www-authenticate"], "Bearer");
}

#[tokio::test]
async fn readyz_names_targets_that_are_warmed_and_is_no_less_ready() {
    let world = Told::ready();
    let address = admin(Arc::clone(&world)).await;
    world.readiness.lock().unwrap().warming = vec![world::WarmingView {
        route: "default/coffee".to_owned(),
        revision: "default/coffee-00002".to_owned(),
        why: Some("it exited".to_owned()),
    }];
    let got = get(address, "/readyz").await;
    assert_eq!(got.status, StatusCode::OK);
    let expected = json!([{"route": "default/coffee", "revision": "default/coffee-00002",
                           "why": "it exited"}]);
    assert_eq!(got.json()["warming"], expected);
}

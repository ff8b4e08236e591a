//! Waiting is fair: the important go first, clients take turns, who holds most gives way, and nobody waits
//! longer than they said.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tests::client::with;
use tests::{Gateway, PATIENCE, Raw, Turnstile, eventually, request};

use crate::{COLD, HELLO, cold};

/// A service with one slot, which is taken; what waits for it, and the order in which it is let in.
struct Stage {
    gateway: Gateway,
    backend: Turnstile,
    clients: Vec<Raw>,
}

/// Keys of the file, each list without its braces.
#[derive(Clone, Copy, Default)]
struct Keys<'a> {
    gateway: &'a str,
    route: &'a str,
    revision: &'a str,
}

impl Stage {
    async fn new(keys: Keys<'_>) -> Stage {
        let backend = Turnstile::start();
        let Keys {
            gateway,
            route,
            revision,
        } = keys;
        let gateway = Gateway::start(&format!(
            "
gateway: {{ {gateway} }}
routes: [{{ name: hello, traffic: [{{ revision: hello-1 }}], {route} }}]
revisions: [{{ name: hello-1, concurrency: 1, endpoints: ['{backend}'], {revision} }}]
"
        ))
        .await;
        let mut stage = Stage {
            gateway,
            backend,
            clients: Vec::new(),
        };
        stage.send("/first", "").await;
        stage.backend.begun().await;
        stage
    }

    async fn send(&mut self, path: &str, fields: &str) {
        let mut client = self.gateway.raw().await;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {HELLO}\r\n{fields}\r\n");
        client.send(head).await;
        self.clients.push(client);
    }

    /// Sends one more request, which has to wait.
    async fn hold(&mut self, path: &str, fields: &str) {
        self.send(path, fields).await;
        self.until_waiting(self.clients.len() - 1).await;
    }

    async fn until_waiting(&self, count: usize) {
        self.gateway.until_waiting("hello-1", count).await;
    }

    /// Sends one more request, of which there are too many.
    async fn refused(&self, fields: &[(&'static str, &str)]) {
        let plain = request("GET", HELLO, "/too-many");
        let fields = fields.iter();
        let asked = fields.fold(plain, |request, (name, value)| with(request, name, value));
        let answer = self.gateway.send(asked).await.refused(503, "queue_full");
        assert_ne!(answer.header("retry-after"), "");
    }

    /// Lets all in, and says in which order they were.
    async fn finish(mut self) -> Vec<String> {
        self.backend.pass(self.clients.len());
        for client in &mut self.clients {
            assert_eq!(client.answer().await.status(), 200);
        }
        self.gateway.until_idle().await;
        let mut order = self.backend.order();
        assert_eq!(order.remove(0), "/first");
        order
    }
}

#[tokio::test]
async fn the_important_go_first_whoever_says_so() {
    let keys = Keys {
        route: "priority: { header: X-Class }, rules: [
            { path: /urgent, priority: 7, traffic: [{ revision: hello-1 }] },
            { path: /, traffic: [{ revision: hello-1 }] } ]",
        revision: "queue: { priority: 2 }",
        ..Keys::default()
    };
    let mut stage = Stage::new(keys).await;
    for (path, class) in [
        ("/unsaid", ""),
        ("/zero", "X-Class: 0\r\n"),
        ("/no-digit", "X-Class: 77\r\n"),
        ("/three", "X-Class: 3\r\n"),
        ("/six", "x-class: 6\r\n"),
        ("/urgent", "X-Class: 1\r\n"),
    ] {
        stage.hold(path, class).await;
    }
    let wanted = ["/urgent", "/six", "/three", "/unsaid", "/no-digit", "/zero"];
    assert_eq!(stage.finish().await, wanted);
}

#[tokio::test]
async fn the_unimportant_are_let_in_now_and_then() {
    let keys = Keys {
        route: "priority: { header: x-class }",
        ..Keys::default()
    };
    let mut stage = Stage::new(keys).await;
    stage.hold("/last", "x-class: 0\r\n").await;
    for _ in 0..40 {
        stage.hold("/important", "x-class: 7\r\n").await;
    }
    let order = stage.finish().await;
    let place = order.iter().position(|path| path == "/last").unwrap();
    assert!((1..40).contains(&place), "{order:?}");
}

/// What a client puts in front of its request, by the client's name.
type Mark = fn(&str) -> String;

fn bearer(name: &str) -> String {
    let payload = URL_SAFE_NO_PAD.encode(format!("{{\"tenant\":\"{name}\"}}"));
    format!("Authorization: Bearer e30.{payload}.c2ln\r\n")
}

fn forwarded(name: &str) -> String {
    let address = if name == "many" {
        "192.0.2.1"
    } else {
        "192.0.2.2"
    };
    format!("X-Forwarded-For: 192.0.2.9, {address}\r\n")
}

fn forwarded_ipv6(name: &str) -> String {
    let network = if name == "many" { "1" } else { "2" };
    let host = fastrand::u16(1..);
    format!("X-Forwarded-For: 2001:db8:0:{network}::{host:x}\r\n")
}

#[tokio::test]
async fn clients_take_turns_whatever_tells_them_apart() {
    let user: Mark = |name| format!("X-User: {name}\r\n");
    let unnamed: Mark = |name| forwarded(name) + "X-User:\t \r\n";
    let cases: [(&str, Mark); 7] = [
        ("header:x-user", user),
        ("claim:tenant", bearer),
        ("address", forwarded),
        ("address", forwarded_ipv6),
        // Where what is asked for is missing or empty, the address is taken.
        ("header:x-other", forwarded),
        ("header:x-user", unnamed),
        ("claim:tenant", forwarded),
    ];
    for (fair_by, mark) in cases {
        let revision = format!("queue: {{ fairBy: '{fair_by}' }}");
        let keys = Keys {
            gateway: "trustedProxies: [127.0.0.1]",
            revision: &revision,
            ..Keys::default()
        };
        let mut stage = Stage::new(keys).await;
        for number in 0..6 {
            stage.hold(&format!("/many-{number}"), &mark("many")).await;
        }
        for number in 0..2 {
            stage.hold(&format!("/few-{number}"), &mark("few")).await;
        }
        let order = stage.finish().await;
        let wanted = [
            "/many-0", "/few-0", "/many-1", "/few-1", "/many-2", "/many-3", "/many-4", "/many-5",
        ];
        assert_eq!(order, wanted, "{fair_by}");
    }
}

#[tokio::test]
async fn everybody_is_one_client_where_the_file_says_so() {
    let keys = Keys {
        gateway: "trustedProxies: [127.0.0.1]",
        revision: "queue: { fairBy: none }",
        ..Keys::default()
    };
    let mut stage = Stage::new(keys).await;
    for path in ["/many-0", "/many-1", "/many-2", "/few-0"] {
        stage.hold(path, &forwarded(&path[1..5])).await;
    }
    let order = stage.finish().await;
    assert_eq!(order, ["/many-0", "/many-1", "/many-2", "/few-0"]);
}

#[tokio::test]
async fn a_client_holds_no_more_than_its_own_bound() {
    let keys = Keys {
        revision: "queue: { perClient: 2, fairBy: 'header:x-user' }",
        ..Keys::default()
    };
    let mut stage = Stage::new(keys).await;
    stage.hold("/a-0", "x-user: a\r\n").await;
    stage.hold("/a-1", "x-user: a\r\n").await;
    stage.refused(&[("x-user", "a")]).await;
    stage.hold("/b-0", "x-user: b\r\n").await;
    assert_eq!(stage.finish().await, ["/a-0", "/b-0", "/a-1"]);
}

#[tokio::test]
async fn an_address_holds_no_more_than_its_bound_and_proxies_have_none() {
    let keys = Keys {
        gateway: "trustedProxies: [127.0.0.1], limits: { heldPerAddress: 1 }",
        ..Keys::default()
    };
    let mut stage = Stage::new(keys).await;
    stage.hold("/a", "X-Forwarded-For: 192.0.2.1\r\n").await;
    stage.refused(&[("x-forwarded-for", "192.0.2.1")]).await;
    // What stands before the last hop that we do not know may be made up.
    let made_up = [("x-forwarded-for", "192.0.2.7, 192.0.2.1")];
    stage.refused(&made_up).await;
    stage.hold("/b", "X-Forwarded-For: 192.0.2.2\r\n").await;
    stage.hold("/proxy-0", "").await;
    stage.hold("/proxy-1", "").await;
    assert_eq!(stage.finish().await.len(), 4);
}

#[tokio::test]
async fn a_refusal_names_the_bound_that_was_reached() {
    for (gateway, revision, bound) in [
        ("", "queue: { depth: 1 }", "queue.depth"),
        ("", "queue: { perClient: 1 }", "queue.perClient"),
        ("limits: { held: 1 }", "", "limits.held"),
        (
            "limits: { heldPerNamespace: 1 }",
            "",
            "limits.heldPerNamespace",
        ),
        ("limits: { heldPerAddress: 1 }", "", "limits.heldPerAddress"),
    ] {
        let keys = Keys {
            gateway,
            revision,
            ..Keys::default()
        };
        let mut stage = Stage::new(keys).await;
        stage.hold("/waits", "").await;
        let asked = with(
            request("GET", HELLO, "/"),
            "accept",
            "application/problem+json",
        );
        let answer = stage.gateway.send(asked).await.refused(503, "queue_full");
        assert_eq!(answer.json()["detail"], bound);
        let labels = [("bound", bound)];
        let count = stage
            .gateway
            .metric("tidegate_queue_full_total", &labels)
            .await;
        assert_eq!(count, 1.0, "{bound}");
        stage.finish().await;
    }
}

#[tokio::test]
async fn who_holds_most_gives_way_when_the_queue_is_full() {
    let keys = Keys {
        route: "priority: { header: x-class }",
        revision: "queue: { depth: 5, fairBy: 'header:x-user' }",
        ..Keys::default()
    };
    let mut stage = Stage::new(keys).await;
    stage.hold("/b-0", "x-user: b\r\n").await;
    for path in ["/a-0", "/a-1", "/a-2"] {
        stage.hold(path, "x-user: a\r\n").await;
    }
    stage.hold("/a-urgent", "x-user: a\r\nx-class: 7\r\n").await;
    // Its own newest is its newcomer.
    stage.refused(&[("x-user", "a")]).await;
    stage.send("/b-1", "x-user: b\r\n").await;
    // Of whoever holds most, the newest of the least important.
    let mut victim = stage.clients.remove(4);
    let answer = victim.answer().await;
    assert_eq!((answer.status(), answer.reason()), (503, "queue_full"));
    assert!(answer.field("retry-after").is_some(), "{answer:?}");
    stage.until_waiting(5).await;
    let order = stage.finish().await;
    assert_eq!(order, ["/a-urgent", "/b-0", "/a-0", "/b-1", "/a-1"]);
}

#[tokio::test]
async fn nobody_waits_longer_than_they_said() {
    let keys = Keys {
        route: "deadline: { header: X-Wait }, rules: [
            { path: /other, deadline: { header: x-other }, traffic: [{ revision: hello-1 }] },
            { path: /, traffic: [{ revision: hello-1 }] } ]",
        ..Keys::default()
    };
    let mut stage = Stage::new(keys).await;
    // What cannot be read is passed over, and so is the wrong field.
    for (path, fields) in [
        ("/a", "X-Wait: soon\r\n"),
        ("/b", "X-Wait: 0\r\n"),
        ("/c", "X-Wait: 99999999999999999999999s\r\n"),
        ("/d", "X-Wait: -1\r\n"),
        ("/other/e", "X-Wait: 1ms\r\n"),
    ] {
        stage.hold(path, fields).await;
    }
    for (path, name, time) in [
        ("/", "x-wait", "100ms"),
        ("/", "x-wait", "0.1"),
        ("/other", "x-other", "100ms"),
    ] {
        let asked = with(request("GET", HELLO, path), name, time);
        let answer = stage.gateway.send(asked).await;
        let answer = answer.refused(504, "start_timeout");
        assert_ne!(answer.header("retry-after"), "");
    }
    stage.until_waiting(5).await;
    assert_eq!(stage.finish().await.len(), 5);
}

#[tokio::test]
async fn clients_are_asked_back_when_there_will_be_room() {
    let keys = Keys {
        route: "deadline: { header: x-wait }",
        revision: "queue: { depth: 40 }",
        ..Keys::default()
    };
    let mut stage = Stage::new(keys).await;
    for number in 0..39 {
        stage.hold(&format!("/{number}"), "").await;
    }
    let impatient = || with(request("GET", HELLO, "/"), "x-wait", "500ms");
    // Nobody was let in: nothing is known.
    let answer = stage.gateway.send(impatient()).await;
    let answer = answer.refused(504, "start_timeout");
    assert_eq!(answer.header("retry-after"), "1");
    stage.backend.pass(1);
    stage.until_waiting(38).await;
    // One in the second that is over now, and 39 wait.
    let answer = stage.gateway.send(impatient()).await;
    let answer = answer.refused(504, "start_timeout");
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!((30..=120).contains(&seconds), "{seconds}");
    assert_eq!(stage.finish().await.len(), 39);
}

/// Name and parameters of what `Server-Timing` says, without the numbers.
fn timing(header: &str) -> Vec<String> {
    let metrics = header.split(", ").filter(|metric| !metric.is_empty());
    let metrics = metrics.map(|metric| {
        let mut parts = metric.split(';');
        let name = parts.next().unwrap();
        let parts: Vec<_> = parts.collect();
        let time = parts[0].strip_prefix("dur=").unwrap();
        assert!(time.parse::<f64>().unwrap() >= 0.0, "{header}");
        [&[name], &parts[1..]].concat().join(" ")
    });
    metrics.collect()
}

#[tokio::test]
async fn clients_are_told_where_the_time_went_if_the_file_says_so() {
    let keys = Keys {
        gateway: "serverTiming: true",
        route: "deadline: { header: x-wait }",
        ..Keys::default()
    };
    let mut stage = Stage::new(keys).await;
    let impatient = with(request("GET", HELLO, "/"), "x-wait", "50ms");
    let answer = stage.gateway.send(impatient).await;
    let answer = answer.refused(504, "start_timeout");
    let queue = r#"queue desc="full""#;
    assert_eq!(timing(answer.header("server-timing")), [queue]);
    let answer = stage.gateway.get("nobody.example.com", "/").await;
    assert_eq!(answer.expect(404).header("server-timing"), "");
    stage.hold("/held", "").await;
    stage.backend.pass(2);
    let answers = [
        stage.clients[0].answer().await,
        stage.clients[1].answer().await,
    ];
    let told = answers.map(|answer| timing(answer.field("server-timing").unwrap()));
    assert_eq!(told, [vec!["endpoint"], vec![queue, "endpoint"]]);
}

#[tokio::test]
async fn clients_are_told_nothing_of_time_by_default() {
    let stage = Stage::new(Keys::default()).await;
    stage.backend.pass(2);
    let answer = stage.gateway.get(HELLO, "/").await.expect(200);
    assert_eq!(answer.header("server-timing"), "");
}

/// The line of the access log about this path, once it is there.
async fn logged(gateway: &Gateway, path: &str) -> Value {
    let file = gateway.directory().join("access.log");
    eventually(PATIENCE, path, async || {
        let text = std::fs::read_to_string(&file).ok()?;
        // What comes behind the last end of a line is still being written.
        let (whole, _) = text.rsplit_once('\n')?;
        let mut lines = whole
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("a line is an object"));
        lines.find(|line| line["target"] == path)
    })
    .await
}

const LOG: &str = "accessLog: { mode: all, format: json, file: access.log }";

#[tokio::test]
async fn the_log_says_how_long_requests_waited_and_why() {
    let keys = Keys {
        gateway: LOG,
        ..Keys::default()
    };
    let mut stage = Stage::new(keys).await;
    stage.hold("/held", "").await;
    stage.backend.pass(2);
    assert_eq!(stage.clients[1].answer().await.status(), 200);
    let line = logged(&stage.gateway, "/held").await;
    assert_eq!(
        (&line["held"], &line["waitReason"]),
        (&true.into(), &"full".into())
    );
    assert!(line["queueSeconds"].as_f64().unwrap() > 0.0);
    let line = logged(&stage.gateway, "/first").await;
    assert_eq!(
        (&line["held"], &line["waitReason"]),
        (&false.into(), &"".into())
    );
}

#[tokio::test]
async fn a_wait_for_what_a_new_endpoint_may_have_is_told_apart() {
    // For as long as the test takes it gets no more but by what it answers.
    let pace = "    concurrency: 10\n    scale: { rampUp: { initial: 1, interval: 1h } }\n";
    let gateway = Gateway::start(&(format!("gateway: {{ {LOG} }}\n") + &cold(&[]) + pace)).await;
    let mut first = gateway.raw().await;
    let head = format!("POST / HTTP/1.1\r\nHost: {COLD}\r\nContent-Length: 5\r\n\r\n");
    first.send(head).await;
    gateway
        .until_metric("tidegate_inflight", &[], |count| count == 1.0)
        .await;
    let mut second = gateway.raw().await;
    second
        .send(format!("GET /paced HTTP/1.1\r\nHost: {COLD}\r\n\r\n"))
        .await;
    gateway.until_waiting("cold-1", 1).await;
    first.send("hello").await;
    assert_eq!(first.answer().await.status(), 200);
    assert_eq!(second.answer().await.status(), 200);
    let line = logged(&gateway, "/paced").await;
    assert_eq!(
        (&line["held"], &line["waitReason"]),
        (&true.into(), &"paced".into())
    );
}

#[tokio::test]
async fn a_wait_for_an_endpoint_that_failed_is_told_apart() {
    let gateway = Gateway::start(&(format!("gateway: {{ {LOG} }}\n") + &cold(&[]))).await;
    gateway.get(COLD, "/").await.expect(200);
    // The one endpoint ends the connection without an answer, each time it is tried. It is a suspect
    // for a moment only: a request that comes back to it later does not wait.
    let mut number = 0;
    let line = eventually(PATIENCE, "a request has waited", async || {
        number += 1;
        let path = format!("/?drop&number={number}");
        gateway.get(COLD, &path).await.expect(502);
        let line = logged(&gateway, &path).await;
        (line["held"] == true).then_some(line)
    })
    .await;
    assert_eq!(line["waitReason"], "suspect");
}

#[tokio::test]
async fn a_wait_for_a_start_is_told_apart() {
    let yaml = format!("gateway: {{ serverTiming: true, {LOG} }}\n") + &cold(&[]);
    let gateway = Gateway::start(&yaml).await;
    let answer = gateway.get(COLD, "/cold").await.expect(200);
    let told = timing(answer.header("server-timing"));
    assert_eq!(told, [r#"queue desc="cold""#, "start", "endpoint"]);
    let line = logged(&gateway, "/cold").await;
    assert_eq!(
        (&line["held"], &line["waitReason"]),
        (&true.into(), &"cold".into())
    );
}

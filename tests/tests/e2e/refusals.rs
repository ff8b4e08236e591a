//! Answers of our own: the right word and status, in the form that the client understands.

use std::collections::BTreeMap;

use tests::client::with;
use tests::raw::{RawAnswer, field};
use tests::{Backend, Gateway, RawBackend, backend, eventually, request};

use crate::SERVICE;

/// Status, and whether the client is told when to try again.
const WORDS: &[(&str, u16, bool)] = &[
    ("bad_request", 400, false),
    ("uri_too_long", 414, false),
    ("head_too_large", 431, false),
    ("method_not_allowed", 405, false),
    ("expectation_failed", 417, false),
    ("not_implemented", 501, false),
    ("body_too_large", 413, false),
    ("header_timeout", 408, false),
    ("body_timeout", 408, false),
    ("no_route", 404, false),
    ("queue_full", 503, true),
    ("start_timeout", 504, true),
    ("start_failed", 503, true),
    ("no_scaler", 503, false),
    ("connect_failed", 502, false),
    ("upstream_closed", 502, false),
    ("upstream_invalid", 502, false),
    ("response_timeout", 504, false),
];

/// A route per word about endpoints, named by it with dashes; everything it needs lives as long.
struct Stage {
    gateway: Gateway,
    _refusing: tokio::net::TcpSocket,
    _garbage: RawBackend,
    holding: Backend,
}

async fn stage() -> Stage {
    let (refusing, dead) = backend::refusing();
    let garbage = RawBackend::answering("what?\r\n\r\n");
    let holding = Backend::start("holding");
    let mut yaml = "
gateway:
  limits: { headTimeout: 2s, bodyIdle: 2s, bodyBytes: 100, attempts: 2 }
revisions:
"
    .to_owned();
    let revisions = [
        (
            "queue-full",
            format!("endpoints: ['{holding}'], concurrency: 1, queue: {{ depth: 1 }}"),
        ),
        (
            "start-timeout",
            "process: { command: [sleep, '1000'] }, queue: { wait: 300ms }".into(),
        ),
        (
            "start-failed",
            format!("process: {{ command: ['{SERVICE}'], env: {{ EXIT: '3' }} }}"),
        ),
        ("no-scaler", "concurrency: 1".into()),
        ("connect-failed", format!("endpoints: ['{dead}']")),
        ("upstream-closed", format!("endpoints: ['{holding}']")),
        ("upstream-invalid", format!("endpoints: ['{garbage}']")),
        (
            "response-timeout",
            format!("endpoints: ['{holding}'], timeout: 300ms"),
        ),
        ("plain", format!("endpoints: ['{holding}']")),
    ];
    let mut routes = "routes:\n".to_owned();
    for (name, keys) in revisions {
        yaml += &format!("  - {{ name: {name}, {keys} }}\n");
        routes += &format!("  - {{ name: {name}, traffic: [{{ revision: {name} }}] }}\n");
    }
    let gateway = Gateway::start(&(yaml + &routes)).await;
    Stage {
        gateway,
        _refusing: refusing,
        _garbage: garbage,
        holding,
    }
}

/// What provokes the word.
fn provocation(word: &str, more: &str) -> String {
    let name = word.replace('_', "-");
    let path = match word {
        "queue_full" | "response_timeout" => "/?hold",
        "upstream_closed" => "/?drop",
        _ => "/",
    };
    let plain = format!("Host: plain.default.example.com\r\n{more}");
    match word {
        "bad_request" => format!("GET /a b HTTP/1.1\r\n{plain}\r\n"),
        "uri_too_long" => format!("GET /{} HTTP/1.1\r\n{plain}\r\n", "x".repeat(9000)),
        "head_too_large" => format!("GET / HTTP/1.1\r\n{plain}X: {}\r\n\r\n", "x".repeat(70_000)),
        "method_not_allowed" => format!("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n{more}\r\n"),
        "expectation_failed" => {
            format!("POST / HTTP/1.1\r\n{plain}Expect: more\r\nContent-Length: 0\r\n\r\n")
        }
        "not_implemented" => {
            format!("POST / HTTP/1.1\r\n{plain}Transfer-Encoding: gzip, chunked\r\n\r\n")
        }
        "body_too_large" => format!("POST / HTTP/1.1\r\n{plain}Content-Length: 101\r\n\r\n"),
        "header_timeout" => format!("GET / HTTP/1.1\r\n{plain}"),
        "body_timeout" => format!("POST / HTTP/1.1\r\n{plain}Content-Length: 10\r\n\r\nhalf"),
        _ => format!("GET {path} HTTP/1.1\r\nHost: {name}.default.example.com\r\n{more}\r\n"),
    }
}

async fn provoke(stage: &Stage, word: &str, more: &str) -> RawAnswer {
    if word == "queue_full" {
        // One in flight and one waiting are kept until the test ends.
        for _ in 0..2 {
            let mut client = stage.gateway.raw().await;
            client.send(provocation(word, "")).await;
            tokio::spawn(async move { client.rest().await });
        }
        stage.gateway.until_waiting("queue-full", 1).await;
    }
    let mut client = stage.gateway.raw().await;
    client.send(provocation(word, more)).await;
    client.answer().await
}

#[tokio::test]
async fn every_word_comes_with_its_status_a_sentence_and_a_hint() {
    let stage = stage().await;
    for (word, status, retry) in WORDS {
        let answer = provoke(&stage, word, "").await;
        assert_eq!(
            (answer.reason(), answer.status()),
            (*word, *status),
            "{}",
            answer.head
        );
        assert_eq!(
            answer.field("content-type"),
            Some("text/plain; charset=utf-8"),
            "{word}"
        );
        assert!(
            answer
                .field("date")
                .is_some_and(|date| date.ends_with(" GMT")),
            "{word}"
        );
        let retry_after = answer.field("retry-after").map(str::parse::<u32>);
        assert_eq!(
            retry_after.is_some_and(|seconds| seconds.is_ok()),
            *retry,
            "{}",
            answer.head
        );
        let text = answer.text();
        assert!(
            (10..120).contains(&text.trim().len()) && text.trim().lines().count() == 1,
            "{text}"
        );
    }
    for (word, status, _) in WORDS {
        let code = status.to_string();
        let labels = [("reason", *word), ("code", &code)];
        stage
            .gateway
            .until_metric("tidegate_requests_total", &labels, |n| n == 1.0)
            .await;
        stage
            .gateway
            .until_metric("tidegate_refused_total", &[("reason", word)], |n| n == 1.0)
            .await;
    }
    stage.holding.open_gate();
}

#[tokio::test]
async fn programs_are_answered_as_problem_json_where_they_ask() {
    let stage = stage().await;
    for (word, status) in [
        ("no_route", 404),
        ("connect_failed", 502),
        ("body_too_large", 413),
    ] {
        let answer = provoke(
            &stage,
            word,
            "Accept: application/problem+json, */*;q=0.1\r\n",
        )
        .await;
        assert_eq!((answer.reason(), answer.status()), (word, status));
        assert_eq!(
            answer.field("content-type"),
            Some("application/problem+json")
        );
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string(), "{problem}");
        assert!(problem.to_string().contains(word), "{problem}");
    }
}

#[tokio::test]
async fn grpc_calls_are_answered_with_trailers_only() {
    let codes = BTreeMap::from([
        ("no_route", "12"),
        ("no_scaler", "14"),
        ("connect_failed", "14"),
        ("response_timeout", "4"),
        ("start_failed", "14"),
    ]);
    let stage = stage().await;
    for (word, code) in codes {
        for kind in ["application/grpc", "application/grpc+proto"] {
            let answer = provoke(&stage, word, &format!("Content-Type: {kind}\r\n")).await;
            assert_eq!(
                (answer.status(), answer.reason()),
                (200, word),
                "{}",
                answer.head
            );
            assert_eq!(answer.field("grpc-status"), Some(code), "{}", answer.head);
            assert!(
                answer
                    .field("grpc-message")
                    .is_some_and(|text| !text.is_empty())
            );
            assert!(
                answer
                    .field("content-type")
                    .unwrap()
                    .starts_with("application/grpc")
            );
            assert_eq!(answer.text(), "");
        }
    }
}

#[tokio::test]
async fn refused_head_request_gets_no_body() {
    let gateway = Gateway::start("routes: []\n").await;
    let mut client = gateway.raw().await;
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nHost: nobody\r\n\r\n").await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
        assert_eq!(field(&head, "tidegate-reason"), Some("no_route"));
    }
}

#[tokio::test]
async fn refusal_of_a_whole_request_keeps_the_connection() {
    let gateway = Gateway::start("routes: []\n").await;
    let mut client = gateway.connect().await;
    for _ in 0..3 {
        client.get("nobody", "/").await.refused(404, "no_route");
    }
}

#[tokio::test]
async fn too_many_fields_are_too_large_a_head() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&crate::hello(&backend)).await;
    for (fields, status) in [(90, 200), (101, 431)] {
        let mut asked = request("GET", crate::HELLO, "/");
        for _ in 0..fields {
            asked = with(asked, "x", "y");
        }
        assert_eq!(gateway.send(asked).await.status, status, "{fields} fields");
    }
}

#[tokio::test]
async fn request_that_comes_round_is_detected() {
    let waiting = "routes: [{ name: hello, rules: [{ respond: { status: 200 } }] }]";
    let gateway = Gateway::start(waiting).await;
    let round = crate::hello(&gateway.public());
    gateway.apply(&round).await;
    let answer = gateway.get(crate::HELLO, "/").await;
    assert_eq!(answer.status, 508, "{answer:?}");
    let detected = [("reason", "loop_detected")];
    gateway
        .until_metric("tidegate_refused_total", &detected, |n| n >= 1.0)
        .await;
    // It went round a few times at most.
    let all = gateway
        .metric("tidegate_requests_total", &[("code", "508")])
        .await;
    assert!(all <= 10.0, "{all}");
}

#[tokio::test]
async fn applications_that_pass_via_on_may_lead_through_the_gateway_again() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&crate::hello(&backend)).await;
    let mut via = "1.1 somebody".to_owned();
    for _ in 0..8 {
        let asked = with(request("GET", crate::HELLO, "/"), "via", &via);
        let seen = gateway.send(asked).await.expect(200).json();
        let passed_on = seen["headers"]["via"].as_str().unwrap();
        assert!(passed_on.starts_with("1.1 somebody"), "{passed_on}");
        via = passed_on.to_owned();
    }
    let asked = with(request("GET", crate::HELLO, "/"), "via", &via);
    gateway.send(asked).await.refused(508, "loop_detected");
}

#[tokio::test]
async fn client_that_leaves_is_logged_as_gone() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&crate::hello(&backend)).await;
    let mut client = gateway.raw().await;
    client
        .send(format!(
            "GET /?hold HTTP/1.1\r\nHost: {}\r\n\r\n",
            crate::HELLO
        ))
        .await;
    eventually(tests::PATIENCE, "it arrives", async || {
        (backend.running() == 1).then_some(())
    })
    .await;
    client.reset();
    let labels = [("reason", "client_gone"), ("code", "499")];
    gateway
        .until_metric("tidegate_requests_total", &labels, |n| n == 1.0)
        .await;
    gateway.until_logged("client_gone").await;
    // The endpoint, which may work on without a limit, is told as well.
    eventually(tests::PATIENCE, "it is told", async || {
        (backend.running() == 0).then_some(())
    })
    .await;
}

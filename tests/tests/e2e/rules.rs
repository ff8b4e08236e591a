//! Which rule of a route a request belongs to.

use tests::client::with;
use tests::{Backend, Gateway, RawBackend, request};

use crate::HELLO;

const CONFIG: &str = "
routes:
  - name: hello
    rules:
      - { path: /, respond: { status: 200, body: rest } }
      - { path: /api, respond: { status: 200, body: api } }
      - { path: /api/v2, respond: { status: 200, body: v2 } }
      - { path: /api, methods: [POST, PUT], respond: { status: 200, body: write } }
      - { path: /api, headers: { x-canary: '1' }, respond: { status: 200, body: canary } }
      - { pathExact: /api/v2, respond: { status: 200, body: exact } }
      - { path: /any, headers: { x-any: '' }, respond: { status: 200, body: any } }
      - { path: /two, headers: { x-a: '1', x-b: '2' }, respond: { status: 200, body: two } }
      - { path: /P%20q, respond: { status: 200, body: raw } }
";

/// Method, target, fields, and the rule that answers.
type Case = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
);

#[tokio::test]
async fn longest_prefix_exact_path_method_and_headers_choose() {
    let gateway = Gateway::start(CONFIG).await;
    let mut client = gateway.connect().await;
    let cases: &[Case] = &[
        ("GET", "/", &[], "rest"),
        ("GET", "/other?x=/api", &[], "rest"),
        ("GET", "/api", &[], "api"),
        ("GET", "/api?q=1", &[], "api"),
        // A prefix is a string's, not a segment's.
        ("GET", "/apix", &[], "api"),
        ("GET", "/API", &[], "rest"),
        ("GET", "/api/v1", &[], "api"),
        ("GET", "/api/v2/x", &[], "v2"),
        ("GET", "/api/v2", &[], "exact"),
        ("GET", "/api/v2?q", &[], "exact"),
        ("GET", "/api/v2/", &[], "v2"),
        ("POST", "/api", &[], "write"),
        ("PUT", "/api/x", &[], "write"),
        ("DELETE", "/api", &[], "api"),
        ("GET", "/api", &[("x-canary", "1")], "canary"),
        ("GET", "/api", &[("x-canary", "2")], "api"),
        // The longer prefix comes before headers on a shorter one.
        ("GET", "/api/v2/x", &[("x-canary", "1")], "v2"),
        ("GET", "/any", &[("x-any", "thing")], "any"),
        ("GET", "/any", &[], "rest"),
        ("GET", "/two", &[("x-a", "1")], "rest"),
        ("GET", "/two", &[("x-b", "2"), ("x-a", "1")], "two"),
        // Paths are raw bytes.
        ("GET", "/P%20q/r", &[], "raw"),
        ("GET", "/p%20q", &[], "rest"),
        ("GET", "/%61pi", &[], "rest"),
    ];
    for (method, path, headers, rule) in cases {
        let mut asked = request(method, HELLO, path);
        for (name, value) in *headers {
            asked = with(asked, name, value);
        }
        let answer = client.send(asked).await;
        assert_eq!(answer.text(), *rule, "{method} {path} {headers:?}");
    }
}

#[tokio::test]
async fn request_that_no_rule_matches_has_no_route() {
    let gateway = Gateway::start(
        "
routes:
  - name: hello
    rules:
      - { path: /a, methods: [GET], headers: { x: y }, respond: { status: 200, body: a } }
",
    )
    .await;
    let get = |path| with(request("GET", HELLO, path), "x", "y");
    assert_eq!(gateway.send(get("/a")).await.text(), "a");
    gateway.send(get("/b")).await.refused(404, "no_route");
    gateway.get(HELLO, "/a").await.refused(404, "no_route");
    gateway
        .send(with(request("POST", HELLO, "/a"), "x", "y"))
        .await
        .refused(404, "no_route");
}

#[tokio::test]
async fn rules_have_targets_of_their_own() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let gateway = Gateway::start(&format!(
        "
routes:
  - name: hello
    rules:
      - {{ path: /two, traffic: [{{ revision: r-2 }}] }}
      - {{ traffic: [{{ revision: r-1 }}] }}
revisions:
  - {{ name: r-1, endpoints: ['{one}'] }}
  - {{ name: r-2, endpoints: ['{two}'] }}
"
    ))
    .await;
    assert_eq!(gateway.get(HELLO, "/two/x").await.backend(), "two");
    assert_eq!(gateway.get(HELLO, "/x").await.backend(), "one");
}

#[tokio::test]
async fn path_goes_on_as_the_bytes_that_came() {
    let backend = RawBackend::answering("HTTP/1.1 204 No Content\r\n\r\n");
    let gateway = Gateway::start(&crate::hello(&backend)).await;
    let targets = [
        "//a//b",
        "/%41%2f%2F",
        "/a;b=c/d,e",
        "/?a?b&&=%0Ax",
        "/..a/...",
        "/a%5Cb~!$'()*+:@",
    ];
    for target in targets {
        let mut raw = gateway.raw().await;
        raw.send(format!("GET {target} HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
            .await;
        assert_eq!(raw.answer().await.status(), 204, "{target}");
        let head = backend.heads().pop().unwrap();
        assert!(
            head.starts_with(&format!("GET {target} HTTP/1.1\r\n")),
            "{head}"
        );
    }
}

const DOTS: &[(&str, &str)] = &[
    ("/a/../b", "/b"),
    ("/a/./b", "/a/b"),
    ("/a/%2e%2E/b", "/b"),
    ("/a/.%2e/b", "/b"),
    ("/a/%2e/b", "/a/b"),
    ("/../b", "/b"),
    ("/a/..", "/"),
    ("/a/b/../../../c?x=/../y", "/c?x=/../y"),
];

#[tokio::test]
async fn dot_segments_are_rejected_normalised_or_kept() {
    for mode in ["reject", "normalise", "keep"] {
        let backend = Backend::start("one");
        let limits = format!("gateway: {{ limits: {{ dotSegments: {mode} }} }}\n");
        let gateway = Gateway::start(&(limits + &crate::hello(&backend))).await;
        for (target, normal) in DOTS {
            let mut raw = gateway.raw().await;
            raw.send(format!("GET {target} HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
                .await;
            let answer = raw.answer().await;
            let seen = || serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap();
            match mode {
                "reject" => assert_eq!(answer.reason(), "bad_request", "{target}"),
                "normalise" => assert_eq!(seen()["target"], *normal, "{target}"),
                _ => assert_eq!(seen()["target"], *target),
            }
        }
    }
}

#[tokio::test]
async fn rejecting_dot_segments_is_the_default_and_zero_bytes_are_always_refused() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&crate::hello(&backend)).await;
    gateway
        .get(HELLO, "/a/../b")
        .await
        .refused(400, "bad_request");
    gateway.get(HELLO, "/a/.../b").await.expect(200);
    for mode in ["reject", "normalise", "keep"] {
        let limits = format!("gateway: {{ limits: {{ dotSegments: {mode} }} }}\n");
        let gateway = Gateway::start(&(limits + &crate::hello(&backend))).await;
        gateway
            .get(HELLO, "/a%00b")
            .await
            .refused(400, "bad_request");
    }
}

#[tokio::test]
async fn normalised_paths_are_matched_and_forwarded_alike() {
    let gateway = Gateway::start(
        "
gateway: { limits: { dotSegments: normalise } }
routes:
  - name: hello
    rules:
      - { path: /private, respond: { status: 403, body: private } }
      - { path: /, respond: { status: 200, body: public } }
",
    )
    .await;
    for target in ["/public/../private", "/public/%2e%2e/private", "/./private"] {
        let mut raw = gateway.raw().await;
        raw.send(format!("GET {target} HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
            .await;
        assert_eq!(raw.answer().await.text(), "private", "{target}");
    }
}

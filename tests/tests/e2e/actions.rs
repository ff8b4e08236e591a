//! What a rule does beside choosing a target: redirects, fixed answers, rewrites, fields.

use tests::client::with;
use tests::{Backend, Gateway, request};

use crate::HELLO;

#[tokio::test]
async fn redirect_changes_what_it_names_and_keeps_the_rest() {
    let gateway = Gateway::start(
        "
routes:
  - name: hello
    rules:
      - { path: /all, redirect: { scheme: https, host: other.example.org, path: /new, status: 308 } }
      - { path: /tls, redirect: { scheme: https, status: 301 } }
      - { path: /host, redirect: { host: other.example.org, status: 302 } }
",
    )
    .await;
    let cases = [
        ("/all", 308, "https://other.example.org/new"),
        (
            "/tls/a?b=c",
            301,
            "https://hello.default.example.com/tls/a?b=c",
        ),
        ("/host/a", 302, "http://other.example.org/host/a"),
    ];
    for (path, status, location) in cases {
        let answer = gateway.get(HELLO, path).await.expect(status);
        assert_eq!(answer.header("location"), location);
        assert_eq!(answer.reason(), "");
    }
}

#[tokio::test]
async fn respond_answers_as_written() {
    let gateway = Gateway::start(
        "
routes:
  - name: hello
    rules:
      - path: /teapot
        respond: { status: 418, body: 'short and stout', contentType: text/vnd.teapot }
        setResponseHeaders: { x-spout: here }
      - path: /empty
        respond: { status: 204 }
",
    )
    .await;
    let mut client = gateway.connect().await;
    let answer = client.get(HELLO, "/teapot").await.expect(418);
    assert_eq!(answer.text(), "short and stout");
    assert_eq!(answer.header("content-type"), "text/vnd.teapot");
    assert_eq!(answer.header("content-length"), "15");
    assert_eq!(answer.header("x-spout"), "here");
    assert_ne!(answer.header("date"), "");
    let head = client
        .send(request("HEAD", HELLO, "/teapot"))
        .await
        .expect(418);
    assert_eq!(head.text(), "");
    assert_eq!(client.get(HELLO, "/empty").await.expect(204).text(), "");
    // An upload to a fixed answer is neither lost nor taken for the next request.
    let upload = tests::client::carrying(
        request("POST", HELLO, "/teapot"),
        tests::body::full("GET /"),
    );
    client.send(upload).await.expect(418);
    client.get(HELLO, "/teapot").await.expect(418);
}

#[tokio::test]
async fn rewrites_change_host_and_matched_prefix() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&format!(
        "
routes:
  - name: hello
    rules:
      - path: /api
        traffic: [{{ revision: r-1 }}]
        rewriteHost: inner.example.org
        rewritePath: /v2
      - path: /strip/
        traffic: [{{ revision: r-1 }}]
        rewritePath: /
      - pathExact: /exact
        traffic: [{{ revision: r-1 }}]
        rewritePath: /precise
      - traffic: [{{ revision: r-1 }}]
revisions:
  - {{ name: r-1, endpoints: ['{backend}'] }}
"
    ))
    .await;
    let mut client = gateway.connect().await;
    let cases = [
        (
            "/api/users?id=/api",
            "/v2/users?id=/api",
            "inner.example.org",
        ),
        ("/api", "/v2", "inner.example.org"),
        ("/strip/a/b", "/a/b", HELLO),
        ("/strip/", "/", HELLO),
        ("/exact?q", "/precise?q", HELLO),
        ("/other/api", "/other/api", HELLO),
    ];
    for (path, target, host) in cases {
        let answer = client.get(HELLO, path).await.expect(200);
        assert_eq!(answer.json()["target"], target);
        assert_eq!(answer.seen("host"), host);
        assert_eq!(answer.seen("x-forwarded-host"), HELLO);
    }
}

#[tokio::test]
async fn fields_are_overwritten_by_rule_and_by_target() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&format!(
        "
routes:
  - name: hello
    rules:
      - setHeaders: {{ x-from: gate, x-new: rule }}
        setResponseHeaders: {{ x-a: rule, cache-control: no-store }}
        traffic:
          - {{ revision: r-1, percent: 100, setHeaders: {{ x-target: target }} }}
revisions:
  - {{ name: r-1, endpoints: ['{backend}'] }}
"
    ))
    .await;
    let asked = with(
        with(
            request("GET", HELLO, "/?header=x-a:backend"),
            "x-from",
            "client",
        ),
        "x-from",
        "again",
    );
    let answer = gateway.send(asked).await.expect(200);
    assert_eq!(answer.seen("x-from"), "gate");
    assert_eq!(answer.seen("x-new"), "rule");
    assert_eq!(answer.seen("x-target"), "target");
    assert_eq!(answer.header("x-a"), "rule");
    assert_eq!(answer.headers.get_all("x-a").iter().count(), 1);
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[tokio::test]
async fn timeout_of_a_rule_takes_the_place_of_its_targets() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&format!(
        "
routes:
  - name: hello
    rules:
      - {{ path: /short, timeout: 200ms, traffic: [{{ revision: patient }}] }}
      - {{ path: /long, timeout: 60s, traffic: [{{ revision: hasty }}] }}
revisions:
  - {{ name: patient, endpoints: ['{backend}'] }}
  - {{ name: hasty, timeout: 100ms, endpoints: ['{backend}'] }}
"
    ))
    .await;
    gateway
        .get(HELLO, "/short?hold")
        .await
        .refused(504, "response_timeout");
    gateway.get(HELLO, "/long?sleep=400").await.expect(200);
}

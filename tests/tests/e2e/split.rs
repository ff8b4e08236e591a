//! Weights and tags: who gets which share of a route.

use tests::client::with;
use tests::load::distribution;
use tests::{Backend, Gateway, request};

use crate::HELLO;

fn config(one: &Backend, two: &Backend, zero: &Backend) -> String {
    format!(
        "
routes:
  - name: hello
    hosts: [own.example.org]
    traffic:
      - {{ revision: r-1, percent: 70, tag: current }}
      - {{ revision: r-2, percent: 30, tag: latest }}
      - {{ revision: r-0, percent: 0, tag: candidate }}
revisions:
  - {{ name: r-1, endpoints: ['{one}'] }}
  - {{ name: r-2, endpoints: ['{two}'] }}
  - {{ name: r-0, endpoints: ['{zero}'] }}
"
    )
}

fn backends() -> (Backend, Backend, Backend) {
    (
        Backend::start("one"),
        Backend::start("two"),
        Backend::start("zero"),
    )
}

#[tokio::test]
async fn ten_thousand_requests_land_within_two_points_and_zero_gets_none() {
    let (one, two, zero) = backends();
    let gateway = Gateway::start(&config(&one, &two, &zero)).await;
    let path = "/?size=1";
    let counts = distribution(gateway.public(), 10_000, |_| request("GET", HELLO, path)).await;
    assert!((6800..=7200).contains(&counts["one"]), "{counts:?}");
    assert_eq!(counts["one"] + counts["two"], 10_000);
    assert_eq!(zero.total(), 0);
}

#[tokio::test]
async fn tag_hosts_reach_exactly_their_revision() {
    let (one, two, zero) = backends();
    let gateway = Gateway::start(&config(&one, &two, &zero)).await;
    for (tag, backend) in [("current", "one"), ("latest", "two"), ("candidate", "zero")] {
        let host = format!("{tag}-{HELLO}");
        let counts = distribution(gateway.public(), 100, |_| request("GET", &host, "/")).await;
        assert_eq!(counts, [(backend.to_owned(), 100)].into());
    }
    gateway
        .get(&format!("unknown-{HELLO}"), "/")
        .await
        .refused(404, "no_route");
}

#[tokio::test]
async fn tag_header_reaches_exactly_its_revision_and_is_passed_on() {
    let (one, two, zero) = backends();
    let gateway = Gateway::start(&config(&one, &two, &zero)).await;
    let asked = |tag: &str| {
        with(
            request("GET", "own.example.org", "/"),
            "knative-serving-tag",
            tag,
        )
    };
    for (tag, backend) in [("current", "one"), ("latest", "two"), ("candidate", "zero")] {
        let counts = distribution(gateway.public(), 100, |_| asked(tag)).await;
        assert_eq!(counts, [(backend.to_owned(), 100)].into());
        let answer = gateway.send(asked(tag)).await;
        assert_eq!(answer.seen("knative-serving-tag"), tag);
    }
}

#[tokio::test]
async fn unknown_tag_is_ignored() {
    let (one, two, zero) = backends();
    let gateway = Gateway::start(&config(&one, &two, &zero)).await;
    let counts = distribution(gateway.public(), 500, |_| {
        with(
            request("GET", "own.example.org", "/"),
            "knative-serving-tag",
            "unknown",
        )
    })
    .await;
    assert!((250..=450).contains(&counts["one"]), "{counts:?}");
    assert_eq!(counts["one"] + counts["two"], 500);
}

#[tokio::test]
async fn tag_names_a_target_of_the_rule_that_matched_else_of_the_route() {
    let (one, two, zero) = backends();
    let gateway = Gateway::start(&format!(
        "
routes:
  - name: hello
    traffic:
      - {{ revision: r-1, percent: 100 }}
      - {{ revision: r-0, percent: 0, tag: next }}
      - {{ revision: r-0, percent: 0, tag: other }}
    rules:
      - path: /api
        traffic:
          - {{ revision: r-1, percent: 100 }}
          - {{ revision: r-2, percent: 0, tag: next }}
      - traffic: [{{ revision: r-1 }}]
revisions:
  - {{ name: r-1, endpoints: ['{one}'] }}
  - {{ name: r-2, endpoints: ['{two}'] }}
  - {{ name: r-0, endpoints: ['{zero}'] }}
"
    ))
    .await;
    let cases = [
        ("next", "/api/x", "two"),
        ("next", "/x", "zero"),
        ("other", "/api/x", "zero"),
        ("other", "/", "zero"),
    ];
    for (tag, path, backend) in cases {
        let host = format!("{tag}-{HELLO}");
        assert_eq!(
            gateway.get(&host, path).await.backend(),
            backend,
            "{host}{path}"
        );
        let asked = with(request("GET", HELLO, path), "knative-serving-tag", tag);
        assert_eq!(gateway.send(asked).await.backend(), backend, "{tag} {path}");
    }
    assert_eq!(gateway.get(HELLO, "/api/x").await.backend(), "one");
}

#[tokio::test]
async fn revisions_are_looked_up_in_the_routes_namespace() {
    let (one, two, _) = backends();
    let gateway = Gateway::start(&format!(
        "
routes:
  - {{ name: hello, traffic: [{{ revision: r }}] }}
  - {{ name: hello, namespace: tools, traffic: [{{ revision: r }}] }}
revisions:
  - {{ name: r, endpoints: ['{one}'] }}
  - {{ name: r, namespace: tools, endpoints: ['{two}'] }}
"
    ))
    .await;
    assert_eq!(gateway.get(HELLO, "/").await.backend(), "one");
    assert_eq!(
        gateway.get("hello.tools.example.com", "/").await.backend(),
        "two"
    );
}

//! Metrics: every family is there, counts what happened, and has labels from the file only.

use std::collections::BTreeSet;

use tests::client::carrying;
use tests::metrics::Metrics;
use tests::{Backend, Gateway, RawBackend, body, request};

use crate::{COLD, HELLO, cold, hello};

/// Every family, its type where one is promised, and labels that all of its samples carry.
const FAMILIES: &[(&str, &str, &[&str])] = &[
    (
        "tidegate_requests_total",
        "counter",
        &["namespace", "revision", "route", "code", "reason"],
    ),
    (
        "tidegate_request_duration_seconds",
        "histogram",
        &["namespace", "revision"],
    ),
    ("tidegate_overhead_seconds", "", &["namespace", "revision"]),
    ("tidegate_inflight", "gauge", &["namespace", "revision"]),
    ("tidegate_idle_streams", "gauge", &["namespace", "revision"]),
    ("tidegate_waiting", "gauge", &["namespace", "revision"]),
    (
        "tidegate_queue_wait_seconds",
        "",
        &["namespace", "revision"],
    ),
    (
        "tidegate_concurrency_average",
        "gauge",
        &["namespace", "revision"],
    ),
    (
        "tidegate_cold_starts_total",
        "counter",
        &["namespace", "revision"],
    ),
    (
        "tidegate_cold_start_seconds",
        "",
        &["namespace", "revision", "phase"],
    ),
    (
        "tidegate_endpoints",
        "gauge",
        &["namespace", "revision", "state"],
    ),
    ("tidegate_refused_total", "counter", &["reason"]),
    ("tidegate_connections", "gauge", &["listener"]),
    ("tidegate_config_version", "", &[]),
    ("tidegate_config_rejected_total", "counter", &["source"]),
    ("tidegate_worker_busy_ratio", "gauge", &["worker"]),
    ("tidegate_request_bytes_total", "counter", &[]),
    ("tidegate_response_bytes_total", "counter", &[]),
    (
        "tidegate_concurrency_seconds_total",
        "counter",
        &["namespace", "revision"],
    ),
    ("tidegate_access_log_dropped_total", "counter", &[]),
    ("tidegate_panics_total", "counter", &["thread"]),
    ("activator_request_count", "counter", KNATIVE),
    ("activator_request_latencies", "histogram", KNATIVE),
    (
        "activator_request_concurrency",
        "",
        &["namespace_name", "revision_name"],
    ),
];

const KNATIVE: &[&str] = &[
    "namespace_name",
    "revision_name",
    "service_name",
    "configuration_name",
    "response_code",
    "response_code_class",
];

#[tokio::test]
async fn every_family_is_there_with_its_labels() {
    let gateway = Gateway::start(&cold(&[])).await;
    gateway.get(COLD, "/").await.expect(200);
    gateway
        .get("nobody.example.com", "/")
        .await
        .refused(404, "no_route");
    // A client hears its answer before it is counted.
    gateway
        .until_metric("tidegate_requests_total", &[], |n| n == 2.0)
        .await;
    gateway.replace("routes: [");
    gateway
        .until_metric("tidegate_config_rejected_total", &[], |n| n >= 1.0)
        .await;
    let metrics = gateway.metrics().await;
    for (family, kind, labels) in FAMILIES {
        let told = metrics
            .types
            .get(*family)
            .unwrap_or_else(|| panic!("no {family}"));
        assert!(kind.is_empty() || told == kind, "{family} is a {told}");
        let suffix = if ["histogram", "summary"].contains(&&**told) {
            "_count"
        } else {
            ""
        };
        let name = format!("{family}{suffix}");
        let samples: Vec<_> = metrics.samples(&name, &[]).collect();
        assert!(!samples.is_empty(), "{family} has no sample");
        for label in *labels {
            let missing = samples
                .iter()
                .find(|sample| !sample.labels.contains_key(*label));
            assert!(missing.is_none(), "{label} is missing: {missing:?}");
        }
    }
}

#[tokio::test]
async fn requests_are_counted_by_revision_route_code_and_reason() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = gateway.connect().await;
    for status in [200, 200, 200, 404, 503] {
        client
            .get(HELLO, &format!("/?status={status}"))
            .await
            .expect(status);
    }
    client
        .get("nobody.example.com", "/")
        .await
        .refused(404, "no_route");
    gateway
        .until_metric("tidegate_requests_total", &[], |n| n == 6.0)
        .await;
    let metrics = gateway.metrics().await;
    let own = [
        ("namespace", "default"),
        ("revision", "hello-1"),
        ("route", "hello"),
        ("reason", ""),
    ];
    let count = |code| {
        metrics.sum(
            "tidegate_requests_total",
            &[&own[..], &[("code", code)]].concat(),
        )
    };
    assert_eq!(
        [count("200"), count("404"), count("503")],
        [Some(3.0), Some(1.0), Some(1.0)]
    );
    let nobody = [
        ("namespace", ""),
        ("revision", ""),
        ("route", ""),
        ("code", "404"),
        ("reason", "no_route"),
    ];
    assert_eq!(metrics.sum("tidegate_requests_total", &nobody), Some(1.0));
    let revision = [("revision", "hello-1")];
    for family in [
        "tidegate_request_duration_seconds_count",
        "tidegate_overhead_seconds_count",
    ] {
        assert_eq!(metrics.sum(family, &revision), Some(5.0), "{family}");
    }
    let knative = [
        ("revision_name", "hello-1"),
        ("response_code", "200"),
        ("response_code_class", "2xx"),
    ];
    assert_eq!(metrics.sum("activator_request_count", &knative), Some(3.0));
}

#[tokio::test]
async fn bytes_are_counted_both_ways() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let upload = carrying(
        request("POST", HELLO, "/?mirror"),
        body::full(vec![b'x'; 50_000]),
    );
    gateway.send(upload).await.expect(200);
    let near = |least: f64| move |bytes: f64| (least..least + 5000.0).contains(&bytes);
    gateway
        .until_metric("tidegate_request_bytes_total", &[], near(50_000.0))
        .await;
    gateway
        .until_metric("tidegate_response_bytes_total", &[], near(50_000.0))
        .await;
}

#[tokio::test]
async fn durations_are_seconds_and_our_own_share_is_not_the_endpoints() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    gateway.get(HELLO, "/?sleep=500").await.expect(200);
    let count = "tidegate_request_duration_seconds_count";
    gateway
        .until_metric(count, &[("revision", "hello-1")], |n| n == 1.0)
        .await;
    let metrics = gateway.metrics().await;
    let duration = metrics
        .sum("tidegate_request_duration_seconds_sum", &[])
        .unwrap();
    assert!((0.5..30.0).contains(&duration), "{duration}");
    let overhead = metrics.sum("tidegate_overhead_seconds_sum", &[]).unwrap();
    assert!(overhead < duration - 0.45, "{overhead} of {duration}");
    let concurrency = metrics
        .sum("tidegate_concurrency_seconds_total", &[])
        .unwrap();
    assert!((0.45..30.0).contains(&concurrency), "{concurrency}");
    let latency = metrics.sum("activator_request_latencies_sum", &[]).unwrap();
    assert!((500.0..30_000.0).contains(&latency), "{latency}");
}

#[tokio::test]
async fn histograms_are_cumulative_and_complete() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    for pause in [0, 1, 20, 200] {
        gateway
            .get(HELLO, &format!("/?sleep={pause}"))
            .await
            .expect(200);
    }
    let count = "tidegate_request_duration_seconds_count";
    gateway
        .until_metric(count, &[("revision", "hello-1")], |n| n == 4.0)
        .await;
    let metrics = gateway.metrics().await;
    let buckets = metrics.samples(
        "tidegate_request_duration_seconds_bucket",
        &[("revision", "hello-1")],
    );
    let values: Vec<_> = buckets
        .map(|sample| (sample.labels["le"].clone(), sample.value))
        .collect();
    assert!(values.is_sorted_by(|a, b| a.1 <= b.1), "{values:?}");
    assert_eq!(values.last(), Some(&("+Inf".to_owned(), 4.0)), "{values:?}");
}

/// All label values of the samples that have to do with requests.
fn values(metrics: &Metrics) -> BTreeSet<String> {
    metrics
        .all()
        .iter()
        .flat_map(|sample| sample.labels.values().cloned())
        .collect()
}

#[tokio::test]
async fn clients_cannot_make_series() {
    let backend = RawBackend::answering("HTTP/1.1 799 Odd\r\nContent-Length: 0\r\n\r\n");
    let gateway = Gateway::start(&hello(&backend)).await;
    gateway.get(HELLO, "/").await.expect(799);
    gateway
        .get("nobody.example.com", "/")
        .await
        .refused(404, "no_route");
    gateway
        .until_metric("tidegate_requests_total", &[], |n| n == 2.0)
        .await;
    let before = values(&gateway.metrics().await);
    let mut client = gateway.connect().await;
    for number in 0..50 {
        client
            .get(
                &format!("host-{number}.example.com"),
                &format!("/path-{number}"),
            )
            .await;
        let odd = request(
            &format!("METHOD{number}"),
            HELLO,
            &format!("/path-{number}"),
        );
        client.send(odd).await.expect(799);
    }
    gateway
        .until_metric("tidegate_requests_total", &[], |n| n == 102.0)
        .await;
    assert_eq!(values(&gateway.metrics().await), before);
}

#[tokio::test]
async fn removed_revision_takes_its_series_with_it() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    gateway.get(HELLO, "/").await.expect(200);
    gateway
        .until_metric("tidegate_requests_total", &[("revision", "hello-1")], |n| {
            n == 1.0
        })
        .await;
    for number in 0..5 {
        gateway
            .apply(&hello(&backend).replace("hello-1", &format!("hello-1-{number}")))
            .await;
        gateway.get(HELLO, "/").await.expect(200);
    }
    tests::eventually(
        tests::PATIENCE,
        "gauges of what is gone are gone",
        async || {
            let metrics = gateway.metrics().await;
            metrics
                .samples("tidegate_inflight", &[("revision", "hello-1")])
                .next()
                .is_none()
                .then_some(())
        },
    )
    .await;
}

use crate::observe::averages::Average;
use crate::observe::facts::example::facts;
use crate::observe::world::{
    AutoscalerView, EndpointState, EndpointView, KnativeView, RevisionView,
};

use super::series::OUTCOMES;
use super::*;

/// The list of the interface page: name and labels.
const CONTRACT: &[(&str, &str)] = &[
    (
        "tidegate_requests_total",
        "namespace,revision,route,code,reason",
    ),
    ("tidegate_request_duration_seconds", "namespace,revision"),
    ("tidegate_overhead_seconds", "namespace,revision"),
    ("tidegate_inflight", "namespace,revision"),
    ("tidegate_idle_streams", "namespace,revision"),
    ("tidegate_waiting", "namespace,revision"),
    ("tidegate_queue_wait_seconds", "namespace,revision"),
    ("tidegate_concurrency_average", "namespace,revision"),
    ("tidegate_waiting_average", "namespace,revision"),
    ("tidegate_cold_starts_total", "namespace,revision"),
    ("tidegate_cold_start_seconds", "namespace,revision,phase"),
    ("tidegate_endpoints", "namespace,revision,state"),
    ("tidegate_refused_total", "reason"),
    ("tidegate_queue_full_total", "bound"),
    ("tidegate_connections", "listener"),
    ("tidegate_connections_refused_total", "listener,why"),
    ("tidegate_accept_errors_total", "listener"),
    ("tidegate_tls_handshakes_failed_total", "listener"),
    ("tidegate_http2_closed_total", "why"),
    ("tidegate_config_version", ""),
    ("tidegate_warming_targets", ""),
    ("tidegate_config_rejected_total", "source"),
    ("tidegate_worker_busy_ratio", "worker"),
    ("tidegate_memory_bytes", ""),
    ("tidegate_memory_limit_bytes", ""),
    ("tidegate_memory_level", ""),
    ("tidegate_request_bytes_total", "namespace,revision"),
    ("tidegate_response_bytes_total", "namespace,revision"),
    ("tidegate_concurrency_seconds_total", "namespace,revision"),
    ("tidegate_access_log_dropped_total", ""),
    ("tidegate_panics_total", "thread"),
    (
        "activator_request_count",
        "namespace_name,service_name,configuration_name,revision_name,response_code,\
         response_code_class",
    ),
    (
        "activator_request_latencies",
        "namespace_name,service_name,configuration_name,revision_name,response_code,\
         response_code_class",
    ),
    (
        "activator_request_concurrency",
        "namespace_name,service_name,configuration_name,revision_name",
    ),
    (
        "kn_revision_request_concurrency",
        "kn_service_name,kn_configuration_name,kn_revision_name,k8s_namespace_name",
    ),
    (
        "kn_revision_request_queued",
        "kn_revision_name,k8s_namespace_name",
    ),
    (
        "kn_revision_request_active",
        "kn_revision_name,k8s_namespace_name",
    ),
    (
        "http_server_request_duration_seconds",
        "http_request_method,http_response_status_code,kn_service_name,kn_configuration_name,\
         kn_revision_name,k8s_namespace_name",
    ),
    ("kn_activator_stats_conn_reachable", "peer"),
    ("kn_activator_stats_conn_errors_total", "peer"),
];

fn registry(workers: usize) -> (Arc<Registry>, Vec<WorkerMetrics>) {
    let registry = Registry::new(workers, vec!["0.0.0.0:8080".to_owned()]);
    let handles = (0..workers).map(|i| registry.worker(i)).collect();
    (registry, handles)
}

fn view(name: &str) -> RevisionView {
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
            sixty: 0.5,
        },
        average_waiting: Average {
            one: 1.5,
            six: 0.5,
            sixty: 0.25,
        },
        endpoints: vec![EndpointView {
            address: ([127, 0, 0, 1], 9001).into(),
            state: EndpointState::Ready,
            in_flight: 3,
            window: None,
        }],
        cold_starts: 1,
        last_start: None,
        concurrency_seconds: 12.25,
        knative: None,
    }
}

fn record(metrics: &WorkerMetrics, facts: &Facts<'_>) {
    metrics.record(&metrics.series(facts.names), facts);
}

#[track_caller]
fn assert_line(text: &str, line: &str) {
    assert!(text.lines().any(|l| l == line), "no line {line} in\n{text}");
}

fn lines<'a>(text: &'a str, family: &str) -> Vec<&'a str> {
    text.lines()
        .filter(|line| {
            line.strip_prefix(family)
                .is_some_and(|rest| rest.starts_with(['{', ' ', '_']))
        })
        .collect()
}

#[test]
fn the_families_are_those_of_the_contract() {
    let families: Vec<_> = FAMILIES
        .iter()
        .map(|family| (family.name, family.labels.join(",")))
        .collect();
    let contract = CONTRACT.iter();
    let contract = contract.map(|(name, labels)| (*name, (*labels).to_owned()));
    assert_eq!(families, contract.collect::<Vec<_>>());
}

#[test]
fn a_scrape_after_one_exchange_and_one_cold_start_has_every_family_and_label() {
    let (registry, workers) = registry(1);
    let series = workers[0].labelled_series(facts().names, Some(LABELS));
    workers[0].record(&series, &facts());
    let phases = Phases {
        nudge: Some(Duration::from_micros(300)),
        ..Phases::default()
    };
    registry.cold_start("default", "coffee-00001", SystemTime::now(), phases);
    registry.set_autoscaler(AutoscalerView {
        reachable: false,
        errors: 0,
    });
    let text = registry.scrape(&[knative_view()]);
    for family in FAMILIES {
        assert_line(&text, &format!("# HELP {} {}", family.name, family.help));
        let samples = lines(&text, family.name);
        assert!(!samples.is_empty(), "{} has no sample", family.name);
        for label in family.labels {
            let written = format!("{label}=\"");
            assert!(samples.iter().all(|s| s.contains(&written)), "{samples:?}");
        }
    }
}

#[test]
fn one_exchange_is_counted_under_its_names() {
    let (registry, workers) = registry(1);
    record(&workers[0], &facts());
    let text = registry.scrape(&[view("coffee-00001")]);
    let revision = "namespace=\"default\",revision=\"coffee-00001\"";
    for line in [
        format!(
            "tidegate_requests_total{{{revision},route=\"coffee\",code=\"200\",reason=\"\"}} 1"
        ),
        format!("tidegate_request_duration_seconds_bucket{{{revision},le=\"0.04\"}} 0"),
        format!("tidegate_request_duration_seconds_bucket{{{revision},le=\"0.1\"}} 1"),
        format!("tidegate_request_duration_seconds_sum{{{revision}}} 0.05725"),
        format!("tidegate_overhead_seconds_bucket{{{revision},le=\"0.0001\"}} 0"),
        format!("tidegate_overhead_seconds_bucket{{{revision},le=\"0.00025\"}} 1"),
        format!("tidegate_queue_wait_seconds_sum{{{revision}}} 0.012"),
        format!("tidegate_request_bytes_total{{{revision}}} 120"),
        format!("tidegate_response_bytes_total{{{revision}}} 3400"),
        format!("tidegate_inflight{{{revision}}} 3"),
        format!("tidegate_waiting{{{revision}}} 2"),
        format!("tidegate_concurrency_average{{{revision}}} 4.5"),
        format!("tidegate_waiting_average{{{revision}}} 1.5"),
        format!("tidegate_concurrency_seconds_total{{{revision}}} 12.25"),
        format!("tidegate_cold_starts_total{{{revision}}} 1"),
        format!("tidegate_endpoints{{{revision},state=\"ready\"}} 1"),
        format!("tidegate_endpoints{{{revision},state=\"suspect\"}} 0"),
    ] {
        assert_line(&text, &line);
    }
    let knative = "namespace_name=\"default\",service_name=\"coffee\",\
                   configuration_name=\"coffee\",revision_name=\"coffee-00001\"";
    let response = format!("{knative},response_code=\"200\",response_code_class=\"2xx\"");
    assert_line(&text, &format!("activator_request_count{{{response}}} 1"));
    let bucket = format!("activator_request_latencies_bucket{{{response},le=\"60\"}} 1");
    assert_line(&text, &bucket);
    let sum = format!("activator_request_latencies_sum{{{response}}} 57.25");
    assert_line(&text, &sum);
    assert_line(
        &text,
        &format!("activator_request_concurrency{{{knative}}} 4.5"),
    );
}

#[test]
fn workers_are_summed_and_unheld_requests_have_no_queue_wait() {
    let (registry, workers) = registry(3);
    for worker in &workers {
        record(worker, &facts());
        let warm = Facts {
            held: false,
            ..facts()
        };
        record(worker, &warm);
        worker.connection_opened(0);
        worker.connection_opened(0);
        worker.connection_closed(0);
        worker.connection_opened(7);
        worker.handshake_failed(0);
        worker.handshake_failed(7);
    }
    workers[1].busy(Duration::from_millis(250), Duration::from_secs(1));
    let text = registry.scrape(&[]);
    let revision = "namespace=\"default\",revision=\"coffee-00001\"";
    assert_line(
        &text,
        &format!(
            "tidegate_requests_total{{{revision},route=\"coffee\",code=\"200\",reason=\"\"}} 6"
        ),
    );
    let waited = format!("tidegate_queue_wait_seconds_count{{{revision}}} 3");
    assert_line(&text, &waited);
    assert_line(&text, "tidegate_connections{listener=\"0.0.0.0:8080\"} 3");
    let failed = "tidegate_tls_handshakes_failed_total{listener=\"0.0.0.0:8080\"} 3";
    assert_line(&text, failed);
    assert_line(&text, "tidegate_worker_busy_ratio{worker=\"1\"} 0.25");
    assert_line(&text, "tidegate_worker_busy_ratio{worker=\"2\"} 0");
}

#[test]
fn what_matched_no_route_is_one_series_whatever_clients_send() {
    let (registry, workers) = registry(1);
    for host in ["a.example.com", "b.example.com", "c\"\n"] {
        let refused = Facts {
            names: Names::default(),
            code: 404,
            reason: Some(Reason::NoRoute),
            host: host.as_bytes(),
            target: host.as_bytes(),
            ..facts()
        };
        record(&workers[0], &refused);
    }
    let text = registry.scrape(&[]);
    let none = "namespace=\"\",revision=\"\",route=\"\"";
    assert_eq!(
        lines(&text, "tidegate_requests_total"),
        [format!(
            "tidegate_requests_total{{{none},code=\"404\",reason=\"no_route\"}} 3"
        )]
    );
    assert_line(&text, "tidegate_refused_total{reason=\"no_route\"} 3");
    assert_eq!(lines(&text, "activator_request_count"), [""; 0]);
}

#[test]
fn words_that_only_the_log_knows_are_not_refusals() {
    let (registry, workers) = registry(1);
    let cut = Facts {
        reason: Some(Reason::EndpointGone),
        ..facts()
    };
    record(&workers[0], &cut);
    workers[0].refused(Reason::Overloaded);
    let text = registry.scrape(&[]);
    assert!(text.contains("code=\"200\",reason=\"endpoint_gone\"} 1"));
    assert_line(&text, "tidegate_refused_total{reason=\"overloaded\"} 1");
    assert!(!text.contains("tidegate_refused_total{reason=\"endpoint_gone\"}"));
}

#[test]
fn an_endpoint_cannot_make_endless_series() {
    let (registry, workers) = registry(1);
    let series = workers[0].series(facts().names);
    for code in (100..=999).chain([0, u16::MAX]) {
        let odd = Facts { code, ..facts() };
        workers[0].record(&series, &odd);
    }
    let text = registry.scrape(&[]);
    let samples = lines(&text, "tidegate_requests_total");
    assert!(samples.len() < OUTCOMES + 10, "{} series", samples.len());
    let counts = samples.iter().map(|s| {
        let (_, count) = s.rsplit_once(' ').unwrap();
        count.parse::<u64>().unwrap()
    });
    assert_eq!(counts.sum::<u64>(), 902);
    assert!(
        text.contains("code=\"500\",reason=\"\"} 100"),
        "{samples:?}"
    );
    assert!(text.contains("code=\"000\",reason=\"\"} 1"), "{samples:?}");
}

#[test]
fn removed_series_are_shown_for_a_while_and_then_forgotten() {
    let (registry, workers) = registry(1);
    let held = workers[0].series(facts().names);
    workers[0].record(&held, &facts());
    registry.cold_start(
        "default",
        "coffee-00001",
        SystemTime::now(),
        Phases::default(),
    );
    registry.retire(|names| names.revision == "coffee-00001");
    assert_eq!(registry.starts("default", "coffee-00001"), (0, None));
    let shown = |registry: &Registry| registry.scrape(&[]).contains("coffee-00001");
    assert!(shown(&registry), "the last values are still shown");

    registry.sweep(RETIRED + Duration::from_secs(10));
    assert!(shown(&registry), "a worker still counts here");
    drop(held);
    registry.sweep(RETIRED - Duration::from_secs(10));
    assert!(shown(&registry), "a scraper may not have seen it");
    registry.sweep(RETIRED + Duration::from_secs(10));
    assert!(!shown(&registry));
}

#[test]
fn a_series_that_comes_back_goes_on_counting() {
    let (registry, workers) = registry(1);
    record(&workers[0], &facts());
    registry.retire(|_| true);
    record(&workers[0], &facts());
    registry.sweep(RETIRED * 2);
    let text = registry.scrape(&[]);
    assert!(text.contains("code=\"200\",reason=\"\"} 2"), "{text}");
}

#[test]
fn cold_starts_keep_count_and_the_last_one() {
    let (registry, _workers) = registry(1);
    let at = SystemTime::now();
    for nudge in [1, 3] {
        let phases = Phases {
            nudge: Some(Duration::from_millis(nudge)),
            first_byte: Some(Duration::from_secs(2)),
            ..Phases::default()
        };
        registry.cold_start("default", "a", at, phases);
    }
    let (count, last) = registry.starts("default", "a");
    assert_eq!(count, 2);
    assert_eq!(last.unwrap().phases.nudge, Some(Duration::from_millis(3)));
    let text = registry.scrape(&[]);
    let labels = "namespace=\"default\",revision=\"a\"";
    for (phase, value) in [("nudge", "0.004"), ("firstByte", "4"), ("probe", "0")] {
        let name = "tidegate_cold_start_seconds_sum";
        let line = format!("{name}{{{labels},phase=\"{phase}\"}} {value}");
        assert_line(&text, &line);
    }
}

#[test]
fn a_cold_start_that_goes_on_adds_what_is_new_and_no_other() {
    let (registry, _workers) = registry(1);
    let at = SystemTime::now();
    let mut phases = Phases {
        nudge: Some(Duration::from_millis(1)),
        ..Phases::default()
    };
    registry.cold_start_goes_on("default", "a", at, phases);
    assert_eq!(registry.starts("default", "a"), (0, None));
    registry.cold_start("default", "a", at, phases);
    phases.wire = Some(Duration::from_millis(2));
    registry.cold_start_goes_on("default", "a", at, phases);
    registry.cold_start_goes_on(
        "default",
        "a",
        at + Duration::from_secs(1),
        Phases::default(),
    );
    phases.first_byte = Some(Duration::from_millis(4));
    registry.cold_start_goes_on("default", "a", at, phases);
    let (count, last) = registry.starts("default", "a");
    assert_eq!((count, last.unwrap().phases), (1, phases));
    let text = registry.scrape(&[]);
    for (phase, count, sum) in [
        ("nudge", 1, "0.001"),
        ("wire", 1, "0.002"),
        ("firstByte", 1, "0.004"),
        ("act", 0, "0"),
    ] {
        let labels = format!("namespace=\"default\",revision=\"a\",phase=\"{phase}\"");
        let name = "tidegate_cold_start_seconds";
        assert_line(&text, &format!("{name}_count{{{labels}}} {count}"));
        assert_line(&text, &format!("{name}_sum{{{labels}}} {sum}"));
    }
}

#[test]
fn configuration_changes_are_counted_by_source() {
    let (registry, _workers) = registry(1);
    let before = registry.scrape(&[]);
    assert_line(&before, "tidegate_config_version 0");
    assert_line(&before, "tidegate_config_rejected_total{source=\"file\"} 0");
    registry.set_version(7);
    registry.rejected("file");
    registry.rejected("xds");
    let text = registry.scrape(&[]);
    assert_line(&text, "tidegate_config_version 7");
    assert_line(&text, "tidegate_config_rejected_total{source=\"file\"} 1");
    assert_line(&text, "tidegate_config_rejected_total{source=\"xds\"} 1");
}

#[test]
#[should_panic(expected = "the metrics of worker 0 are taken")]
fn a_worker_has_one_handle() {
    let (registry, _workers) = registry(1);
    let _second = registry.worker(0);
}

const LABELS: Labels<'static> = Labels {
    service: "coffee-service",
    configuration: "coffee-config",
};

fn knative_view() -> RevisionView {
    RevisionView {
        knative: Some(KnativeView {
            service: LABELS.service.to_owned(),
            configuration: LABELS.configuration.to_owned(),
        }),
        ..view("coffee-00001")
    }
}

#[test]
fn a_revision_of_knative_has_the_names_that_knative_gave_it_whatever_led_there() {
    let (registry, workers) = registry(1);
    for route in ["coffee", "coffee#2", "revision coffee-00001"] {
        let names = Names {
            route,
            ..facts().names
        };
        let series = workers[0].labelled_series(names, Some(LABELS));
        workers[0].record(&series, &Facts { names, ..facts() });
    }
    let text = registry.scrape(&[knative_view()]);
    let labels = "namespace_name=\"default\",service_name=\"coffee-service\",\
                  configuration_name=\"coffee-config\",revision_name=\"coffee-00001\"";
    assert_line(
        &text,
        &format!(
            "activator_request_count{{{labels},response_code=\"200\",\
             response_code_class=\"2xx\"}} 3"
        ),
    );
    assert_eq!(lines(&text, "activator_request_count").len(), 1);
    assert_line(
        &text,
        &format!("activator_request_concurrency{{{labels}}} 4.5"),
    );
    let requests = lines(&text, "tidegate_requests_total");
    assert_eq!(requests.len(), 3, "those are told apart by route");
}

#[test]
fn names_of_today_are_for_revisions_of_knative_only() {
    let (registry, workers) = registry(1);
    let other = Names {
        revision: "tea-1",
        ..facts().names
    };
    record(
        &workers[0],
        &Facts {
            names: other,
            ..facts()
        },
    );
    let text = registry.scrape(&[view("tea-1")]);
    assert!(
        !text.contains("kn_") && !text.contains("http_server"),
        "{text}"
    );

    let series = workers[0].labelled_series(facts().names, Some(LABELS));
    for method in ["GET", "GET", "BREW", "get"] {
        let method = method.as_bytes();
        workers[0].record(&series, &Facts { method, ..facts() });
    }
    let text = registry.scrape(&[view("tea-1"), knative_view()]);
    let place = "kn_revision_name=\"coffee-00001\",k8s_namespace_name=\"default\"";
    let named = format!(
        "kn_service_name=\"coffee-service\",kn_configuration_name=\"coffee-config\",{place}"
    );
    assert_line(
        &text,
        &format!("kn_revision_request_concurrency{{{named}}} 4.5"),
    );
    assert_line(&text, &format!("kn_revision_request_queued{{{place}}} 2"));
    assert_line(&text, &format!("kn_revision_request_active{{{place}}} 3"));
    for (method, count) in [("GET", 2), ("_OTHER", 2)] {
        let asked =
            format!("http_request_method=\"{method}\",http_response_status_code=\"200\",{named}");
        let family = "http_server_request_duration_seconds";
        assert_line(&text, &format!("{family}_count{{{asked}}} {count}"));
        // 57.25 ms
        assert_line(&text, &format!("{family}_bucket{{{asked},le=\"0.05\"}} 0"));
        assert_line(
            &text,
            &format!("{family}_bucket{{{asked},le=\"0.075\"}} {count}"),
        );
    }
    let buckets = lines(&text, "http_server_request_duration_seconds_bucket");
    assert_eq!(buckets.len(), 2 * 15);
    // The others count all methods together.
    assert_line(
        &text,
        "tidegate_requests_total{namespace=\"default\",revision=\"coffee-00001\",\
         route=\"coffee\",code=\"200\",reason=\"\"} 4",
    );
}

#[test]
fn the_autoscaler_is_told_of_once_there_is_one() {
    let (registry, _workers) = registry(1);
    assert!(!registry.scrape(&[]).contains("kn_activator"));
    registry.set_autoscaler(AutoscalerView {
        reachable: true,
        errors: 7,
    });
    let text = registry.scrape(&[]);
    let peer = "{peer=\"autoscaler\"}";
    assert_line(&text, &format!("kn_activator_stats_conn_reachable{peer} 1"));
    assert_line(
        &text,
        &format!("kn_activator_stats_conn_errors_total{peer} 7"),
    );
}

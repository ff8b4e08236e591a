//! What maps say, and what is kept of them.

use std::time::Duration;

use super::*;

fn data(pairs: &[(&str, &str)]) -> Data {
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(pair).collect()
}

#[track_caller]
fn taken(name: &str, pairs: &[(&str, &str)]) -> Settings {
    let mut settings = Settings::default();
    settings.take(name, Some(&data(pairs))).unwrap();
    settings
}

#[track_caller]
fn refused(name: &str, pairs: &[(&str, &str)]) -> String {
    let mut settings = Settings::default();
    let error = settings.take(name, Some(&data(pairs))).unwrap_err();
    error.to_string()
}

fn unheeded(settings: &Settings) -> Vec<&'static str> {
    settings.unheeded().iter().map(|one| one.key).collect()
}

#[test]
fn without_maps_or_with_examples_only_the_defaults_hold() {
    let mut settings = Settings::default();
    for name in NAMES {
        let example = data(&[("_example", "logging.enable-request-log: \"true\"\nx: {{")]);
        assert_eq!(settings.take(name, Some(&example)), Ok(false), "{name}");
        assert_eq!(settings.take(name, None), Ok(false), "{name}");
    }
    assert_eq!(
        settings.take("config-domain", Some(&data(&[("a", "b")]))),
        Ok(false)
    );
    assert!(settings.kourier.access_log);
    assert_eq!(settings.observability.request_log, None);
    let lease = settings.leader_election.lease_duration;
    assert_eq!(lease, Duration::from_secs(60));
    assert_eq!(settings.unheeded(), []);
}

#[test]
fn a_bad_map_changes_nothing_and_a_deleted_one_goes_back_to_defaults() {
    let mut settings = Settings::default();
    let off = data(&[("enable-service-access-logging", "False")]);
    assert_eq!(settings.take("config-kourier", Some(&off)), Ok(true));
    assert_eq!(
        settings.take("config-kourier", Some(&off)),
        Ok(false),
        "the same again"
    );
    let bad = data(&[
        ("enable-service-access-logging", "true"),
        ("enable-proxy-protocol", "yes"),
    ]);
    let error = settings.take("config-kourier", Some(&bad)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "ConfigMap config-kourier, key enable-proxy-protocol, value \"yes\": write true or false"
    );
    assert!(!settings.kourier.access_log, "the last good one");
    assert_eq!(settings.take("config-kourier", None), Ok(true));
    assert!(settings.kourier.access_log);
}

#[test]
fn the_spelling_of_today_wins_over_the_older_one() {
    let both = [
        ("internal-encryption", "true"),
        ("system-internal-tls", "Disabled"),
    ];
    assert!(!taken("config-network", &both).network.system_internal_tls);
    assert!(
        taken("config-network", &both[..1])
            .network
            .system_internal_tls
    );
    let both = [
        ("leaseDuration", "15s"),
        ("lease-duration", "90s"),
        ("renewDeadline", "12s"),
    ];
    let times = taken("config-leader-election", &both).leader_election;
    assert_eq!(times.lease_duration, Duration::from_secs(90));
    assert_eq!(times.renew_deadline, Duration::from_secs(12));
    assert_eq!(times.retry_period, Duration::from_secs(10));
}

#[test]
fn words_are_read_in_any_case_and_unknown_ones_refused() {
    let network = taken(
        "config-network",
        &[
            ("mesh-compatibility-mode", "DisAbled"),
            ("system-internal-tls", "ENABLED"),
            ("enable-mesh-pod-addressability", "T"),
        ],
    );
    assert_eq!(network.network.mesh, Mesh::Disabled);
    let keys = ["enable-mesh-pod-addressability", "mesh-compatibility-mode"];
    assert!(network.network.system_internal_tls);
    assert_eq!(unheeded(&network), keys);
    assert_eq!(
        refused("config-network", &[("mesh-compatibility-mode", "maybe")]),
        "ConfigMap config-network, key mesh-compatibility-mode, value \"maybe\": \
         write one of auto, enabled, disabled"
    );
    let level = taken("config-logging", &[("loglevel.activator", "WARN")]);
    assert_eq!(level.logging.level, Level::Warn);
    assert_eq!(unheeded(&level), ["loglevel.activator"]);
    refused("config-logging", &[("loglevel.activator", "loud")]);
    taken("config-logging", &[("loglevel.webhook", "loud")]);
    let long = "é".repeat(200);
    let told = refused("config-logging", &[("loglevel.activator", &long)]);
    assert!(told.len() < 400, "{told}");
}

#[test]
fn times_of_a_lease_that_cannot_work_are_refused() {
    for pairs in [
        &[("lease-duration", "0s")][..],
        &[("lease-duration", "30s")],
        &[("renew-deadline", "5s")],
        &[("retry-period", "0s")],
        &[("retry-period", "fast")],
    ] {
        refused("config-leader-election", pairs);
    }
}

#[test]
fn the_request_log_is_on_only_if_it_is_enabled() {
    let text = ("logging.request-log-template", "{{.Response.Code}}");
    let on = ("logging.enable-request-log", "true");
    let of = |pairs: &[(&str, &str)]| {
        taken("config-observability", pairs)
            .observability
            .request_log
    };
    assert_eq!(of(&[text]), None);
    assert_eq!(of(&[on]).as_deref(), Some(DEFAULT_TEMPLATE));
    assert_eq!(of(&[on, text]).as_deref(), Some("{{.Response.Code}}"));
    let empty = ("logging.request-log-template", "");
    assert_eq!(of(&[empty]), None);
    refused("config-observability", &[on, empty]);
    let other = ("metrics-protocol", "carrier-pigeon");
    refused("config-observability", &[on, other]);
}

#[test]
fn a_template_that_cannot_be_written_keeps_the_last_good_map() {
    let mut settings = Settings::new(|template| match template.contains("{{template") {
        true => Err("no templates within templates".to_owned()),
        false => Ok(()),
    });
    let with = |template| {
        data(&[
            ("logging.enable-request-log", "true"),
            ("logging.request-log-template", template),
        ])
    };
    let name = "config-observability";
    assert_eq!(settings.take(name, Some(&with("{{.TraceID}}"))), Ok(true));
    let error = settings
        .take(name, Some(&with("{{template \"x\"}}")))
        .unwrap_err();
    assert_eq!(
        (error.map, error.key),
        (name, "logging.request-log-template")
    );
    let kept = settings.observability.request_log.as_deref();
    assert_eq!(kept, Some("{{.TraceID}}"));
}

#[test]
fn what_has_no_effect_is_named() {
    let settings = taken(
        "config-kourier",
        &[
            ("enable-service-access-logging", "true"),
            ("stream-idle-timeout", "1.5m"),
            ("trusted-hops-count", "2"),
            ("use-remote-address", "true"),
            ("enable-proxy-protocol", "true"),
            ("extauthz-host", "authz:5000"),
            ("extauthz-protocol", "grpc"),
            ("cipher-suites", ""),
        ],
    );
    let keys = [
        "enable-proxy-protocol",
        "extauthz-host",
        "stream-idle-timeout",
        "trusted-hops-count",
    ];
    assert_eq!(unheeded(&settings), keys);
    let told = settings.unheeded()[0].to_string();
    assert_eq!(
        told,
        "ConfigMap config-kourier, key enable-proxy-protocol has no effect here: \
         write `proxyProtocol` at the public listener"
    );
    refused("config-kourier", &[("trusted-hops-count", "-1")]);
    refused("config-kourier", &[("stream-idle-timeout", "soon")]);
    let observability = taken(
        "config-observability",
        &[("metrics-protocol", "grpc"), ("tracing-protocol", "none")],
    );
    assert_eq!(unheeded(&observability), ["metrics-protocol"]);
}

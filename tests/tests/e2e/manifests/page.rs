//! `docs/knative.md` says what becomes of every key that Knative's users may have set.

use super::root;

/// Keys of Knative's ConfigMaps that gateway and activator read, and those of Kourier's.
const KEYS: &[(&str, &[&str])] = &[
    (
        "### config-network",
        &[
            "ingress-class",
            "certificate-class",
            "domain-template",
            "tag-template",
            "external-domain-tls",
            "cluster-local-domain-tls",
            "system-internal-tls",
            "http-protocol",
            "namespace-wildcard-cert-selector",
            "rollout-duration",
            "autocreate-cluster-domain-claims",
            "enable-mesh-pod-addressability",
            "mesh-compatibility-mode",
            "default-external-scheme",
        ],
    ),
    (
        "### config-kourier",
        &[
            "enable-service-access-logging",
            "service-access-log-template",
            "enable-proxy-protocol",
            "cluster-cert-secret",
            "stream-idle-timeout",
            "trusted-hops-count",
            "use-remote-address",
            "cipher-suites",
            "enable-cryptomb",
            "listen-ip-addresses",
            "tracing-endpoint",
            "tracing-protocol",
            "tracing-sampling-rate",
            "tracing-service-name",
            "disable-envoy-server-header",
            "extauthz-host",
            "extauthz-protocol",
            "extauthz-failure-mode-allow",
            "extauthz-max-request-body-bytes",
            "extauthz-timeout",
            "extauthz-path-prefix",
            "extauthz-pack-as-bytes",
            "certs-secret-name",
            "certs-secret-namespace",
        ],
    ),
    (
        "### config-observability",
        &[
            "logging.enable-request-log",
            "logging.request-log-template",
            "logging.enable-probe-request-log",
            "logging.enable-var-log-collection",
            "logging.revision-url-template",
            "metrics-protocol",
            "metrics-endpoint",
            "metrics-export-interval",
            "request-metrics-protocol",
            "request-metrics-endpoint",
            "request-metrics-export-interval",
            "runtime-profiling",
            "runtime-export-interval",
            "tracing-protocol",
            "tracing-endpoint",
            "tracing-sampling-rate",
        ],
    ),
    (
        "### Others",
        &[
            "zap-logger-config",
            "loglevel.activator",
            "lease-duration",
            "renew-deadline",
            "retry-period",
            "buckets",
            "tag-header-based-routing",
            "autodetect-http2",
        ],
    ),
];

#[test]
fn every_key_has_its_row() {
    let page = std::fs::read_to_string(root().join("docs/knative.md")).unwrap();
    for (section, keys) in KEYS {
        let rows = page.split(section).nth(1).expect(section);
        let rows = rows.split("\n#").next().unwrap();
        let rows: Vec<_> = rows.lines().filter(|line| line.starts_with('|')).collect();
        for key in *keys {
            let key = format!("`{key}`");
            let mut named = rows.iter().map(|row| row.split('|').nth(1).unwrap());
            assert!(named.any(|cell| cell.contains(&key)), "{section}: {key}");
        }
    }
}

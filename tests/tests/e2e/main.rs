//! Promises, shown from outside. Each file is one promise, each test a script on one screen: what
//! stands behind the gateway, the gateway's file, what clients do and what they get.
//!
//! To add one, write it into the file of its promise; nothing needs to be registered.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test reports what is wrong by panicking"
)]

mod access_log;
mod actions;
mod admin;
mod bodies;
mod bounds;
mod cold;
mod cold_starts;
mod concurrency;
mod connections;
mod corpus;
mod crowding;
mod demo;
mod edge;
mod endpoints;
mod examples;
mod explain;
mod failures;
mod fields;
mod fixtures;
mod framing;
mod grpc;
mod harness;
mod held_memory;
mod hold;
mod hosts;
mod http2_clients;
mod http2_crowds;
mod http2_drain;
mod http2_endpoints;
mod http2_floods;
mod http2_hold;
mod http2_memory;
mod http2_resets;
mod http2_spec;
mod http2_tls;
mod http2_websocket;
mod idle_streams;
mod kill;
mod kubernetes;
mod manifests;
mod metrics;
mod overload;
mod prewarm;
mod processes;
mod queue;
mod refusals;
mod reload;
mod rules;
mod scale;
mod schema;
mod shutdown;
mod sniffing;
mod split;
mod startup;
mod sticky;
mod swaps;
mod systemd;
mod takeover;
mod timeouts;
mod tls;
mod tls_clients;
mod tls_endpoints;
mod tls_reload;
mod upstream;
mod validate;
mod warm_shift;
mod ways;
mod websocket;

use std::fmt::Display;

/// What process revisions run.
const SERVICE: &str = env!("CARGO_BIN_EXE_service");

/// The default host of the route of [`hello`].
const HELLO: &str = "hello.default.example.com";

/// The default host of the route of [`cold`].
const COLD: &str = "cold.default.example.com";

/// A route `hello` to a revision `hello-1` with one endpoint. It ends inside the revision, so that
/// a test can go on with further keys, indented by four.
fn hello(endpoint: &impl Display) -> String {
    format!(
        "
routes:
  - name: hello
    traffic:
      - revision: hello-1
revisions:
  - name: hello-1
    endpoints: ['{endpoint}']
"
    )
}

/// As [`hello`], over HTTP/2 to the endpoint.
fn hello_h2c(endpoint: &impl Display) -> String {
    hello(endpoint) + "    protocol: h2c\n"
}

/// A route `cold` to a revision `cold-1`, which is at zero and started as a process with that
/// environment. It ends inside the revision, as [`hello`] does.
fn cold(environment: &[(&str, &str)]) -> String {
    let mut yaml = format!(
        "
routes:
  - name: cold
    traffic:
      - revision: cold-1
revisions:
  - name: cold-1
    process:
      command: ['{SERVICE}']
      env:
        TARGET: cold-1
"
    );
    for (name, value) in environment {
        yaml += &format!("        {name}: '{value}'\n");
    }
    yaml
}

/// A file whose making a test awaits or causes: the services' `GATE` and `READY`.
struct Switch {
    directory: tempfile::TempDir,
}

impl Switch {
    fn new() -> Switch {
        let directory = tempfile::TempDir::new().unwrap();
        Switch { directory }
    }

    fn path(&self) -> String {
        self.directory
            .path()
            .join("on")
            .to_str()
            .unwrap()
            .to_owned()
    }

    fn turn_on(&self) {
        std::fs::write(self.path(), "").unwrap();
    }
}

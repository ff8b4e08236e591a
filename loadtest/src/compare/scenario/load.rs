//! `keepalive`, `post`, `large`, `connect`, `h2c`, `tls`: load through every proxy, priced per request or MiB.

use crate::compare::budget;
use crate::compare::figures::per_second;
use crate::compare::lab::Lab;
use crate::compare::measure::{Load, Streams};
use crate::compare::rounds::{Work, price};
use crate::compare::section::Section;
use crate::compare::speech::{Speech, Wire};

const MIB: u64 = 1024 * 1024;

/// One after the other.
async fn all(lab: &Lab, works: &[&Work]) -> anyhow::Result<Vec<Section>> {
    let mut sections = Vec::new();
    for work in works {
        sections.extend(price(lab, work).await?);
    }
    Ok(sections)
}

pub(super) async fn keepalive(lab: &Lab) -> anyhow::Result<Vec<Section>> {
    let work = Work {
        name: "keepalive",
        title: "Small GETs over kept connections",
        about: "Every connection sends its next GET as soon as it has the answer: 128 bytes.",
        load: Load::default(),
        backend: &["--body=128B"],
        unit: "request",
        also: &[],
        budgets: budget::keepalive,
    };
    all(lab, &[&work]).await
}

pub(super) async fn post(lab: &Lab) -> anyhow::Result<Vec<Section>> {
    let work = Work {
        name: "post",
        title: "POST, 1 KiB each way",
        about: "Requests with a body of 1 KiB, answers with one of 1 KiB, over kept connections.",
        load: Load {
            body: Some(1024),
            ..Load::default()
        },
        backend: &["--body=1KiB"],
        unit: "request",
        also: &[],
        budgets: budget::none,
    };
    all(lab, &[&work]).await
}

pub(super) async fn large(lab: &Lab) -> anyhow::Result<Vec<Section>> {
    let down = Work {
        name: "large-down",
        title: "Answers of 1 MiB",
        about: "GETs whose answers have a body of 1 MiB and a Content-Length.",
        load: Load::default(),
        backend: &["--body=1MiB"],
        unit: "MiB",
        also: &[],
        budgets: budget::download,
    };
    let up = Work {
        name: "large-up",
        title: "Requests of 1 MiB",
        about: "POSTs with a body of 1 MiB, answers of 128 bytes.",
        load: Load {
            body: Some(MIB),
            ..Load::default()
        },
        backend: &["--body=128B"],
        budgets: budget::none,
        ..down
    };
    all(lab, &[&down, &up]).await
}

/// As many requests side by side as a service of moderate size has from its neighbours.
const STREAMS: Streams = Streams {
    connections: 10,
    each: 10,
};

pub(super) async fn h2c(lab: &Lab) -> anyhow::Result<Vec<Section>> {
    let streams = |clients, upstream_http2| Load {
        streams: Some(STREAMS),
        speech: Speech {
            clients,
            upstream_http2,
        },
        ..Load::default()
    };
    let clear = Work {
        name: "h2c",
        title: "HTTP/2 in clear, small GETs",
        about: "Clients begin with HTTP/2 (prior knowledge) and send the next GET on a stream as soon \
                as they have the answer to the last: 128 bytes. The upstream speaks HTTP/1.1.",
        load: streams(Wire::H2C, false),
        backend: &["--body=128B"],
        unit: "request",
        also: &[],
        budgets: budget::http2,
    };
    let secure = Work {
        name: "h2",
        title: "HTTP/2 over TLS, small GETs",
        about: "The same over TLS 1.3, with connections that stay.",
        load: streams(Wire::H2, false),
        ..clear
    };
    let through = Work {
        name: "h2c-h2c",
        title: "HTTP/2 in clear on both sides, small GETs",
        about: "The same in clear, and the upstream speaks HTTP/2 too.",
        load: streams(Wire::H2C, true),
        budgets: budget::none,
        ..clear
    };
    all(lab, &[&clear, &secure, &through]).await
}

pub(super) async fn tls(lab: &Lab) -> anyhow::Result<Vec<Section>> {
    let speech = Speech {
        clients: Wire::HTTP1_TLS,
        ..Speech::default()
    };
    let connect = Work {
        name: "tls-connect",
        title: "A new TLS connection for every request",
        about: "Clients connect, make a full handshake of TLS 1.3 (X25519, a certificate of ECDSA P-256, \
                no session resumed), send one small GET over HTTP/1.1, read the answer and leave.",
        load: Load {
            new_connection: true,
            speech,
            ..Load::default()
        },
        backend: &["--body=128B"],
        unit: "connection",
        also: &[("connections per second of CPU", per_second)],
        budgets: budget::tls_connect,
    };
    let keepalive = Work {
        name: "tls-keepalive",
        title: "Small GETs over kept TLS connections",
        about: "As `keepalive`, over TLS 1.3.",
        load: Load {
            speech,
            ..Load::default()
        },
        unit: "request",
        also: &[],
        budgets: budget::none,
        ..connect
    };
    all(lab, &[&connect, &keepalive]).await
}

pub(super) async fn connect(lab: &Lab) -> anyhow::Result<Vec<Section>> {
    let work = Work {
        name: "connect",
        title: "A new connection for every request",
        about: "Clients connect, send one small GET, read the answer and leave. Proxies keep their \
                connections to the backend; the copier cannot.",
        load: Load {
            new_connection: true,
            ..Load::default()
        },
        backend: &["--body=128B"],
        unit: "request",
        also: &[],
        budgets: budget::connect,
    };
    all(lab, &[&work]).await
}

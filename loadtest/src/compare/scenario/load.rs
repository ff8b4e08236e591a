//! `keepalive`, `post`, `large`, `connect`: load through every proxy, priced per request or MiB.

use crate::compare::budget;
use crate::compare::lab::Lab;
use crate::compare::measure::Load;
use crate::compare::rounds::{Work, price};
use crate::compare::section::Section;

const MIB: u64 = 1024 * 1024;

pub(super) async fn keepalive(lab: &Lab) -> anyhow::Result<Vec<Section>> {
    let work = Work {
        name: "keepalive",
        title: "Small GETs over kept connections",
        about: "Every connection sends its next GET as soon as it has the answer: 128 bytes.",
        load: Load::default(),
        backend: &["--body=128B"],
        unit: "request",
        budgets: budget::keepalive,
    };
    Ok(vec![price(lab, &work).await?])
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
        budgets: budget::none,
    };
    Ok(vec![price(lab, &work).await?])
}

pub(super) async fn large(lab: &Lab) -> anyhow::Result<Vec<Section>> {
    let down = Work {
        name: "large-down",
        title: "Answers of 1 MiB",
        about: "GETs whose answers have a body of 1 MiB and a Content-Length.",
        load: Load::default(),
        backend: &["--body=1MiB"],
        unit: "MiB",
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
    Ok(vec![price(lab, &down).await?, price(lab, &up).await?])
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
        budgets: budget::connect,
    };
    Ok(vec![price(lab, &work).await?])
}

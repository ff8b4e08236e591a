//! The admin address: liveness, readiness, metrics, the JSON API and a page for people.
//!
//! | path | answer |
//! | --- | --- |
//! | `/livez` | 200 `ok` while the process can answer at all |
//! | `/readyz` | 200, or 503 before the first snapshot and while draining; JSON detail |
//! | `/metrics` | Prometheus text |
//! | `/api/routes` `/api/revisions` | what is configured, and how it is doing |
//! | `/api/cold-starts` | how revisions came up from nothing the last hundred times, or did not |
//! | `/api/explain?url=` | what would happen to a request; `method=`, `header=Name:value`, `audience=internal` |
//! | `/api/prewarm` | POST, with a token: asks for endpoints before requests come |
//! | `/` | a page that shows the above |
//!
//! Nothing else changes anything. What takes time is rendered on blocking threads, so that
//! probes stay prompt.

pub(crate) mod explain;
mod json;
pub(crate) mod place;
mod prewarm;
mod server;

pub use server::{Desk, serve};

#[cfg(test)]
mod tests;

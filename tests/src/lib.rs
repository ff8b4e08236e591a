//! What the end-to-end tests are written with: the built gateway, things to put behind it, and
//! clients to put in front of it.
//!
//! Nothing here knows how the gateway is made. It is a program with a command line, a
//! configuration file, sockets and signals, and it may be written anew without a change here.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a harness reports what is wrong by panicking inside the test that uses it"
)]

pub mod app;
pub mod backend;
pub mod binary;
pub mod body;
pub mod client;
pub mod corpus;
pub mod frames;
pub mod front;
pub mod gateway;
pub mod grpc;
pub mod http2;
pub mod kubernetes;
pub mod load;
pub mod metrics;
pub mod process;
pub mod python;
pub mod raw;
pub mod tls;
pub mod turnstile;
pub mod wait;
pub mod websocket;

pub use backend::Backend;
pub use body::Body;
pub use client::{Answer, Client, Wire, request};
pub use front::Front;
pub use gateway::{Gateway, Launch};
pub use load::Load;
pub use raw::{Raw, RawBackend};
pub use turnstile::Turnstile;
pub use wait::{PATIENCE, eventually, settled, within};

/// Whether the full sizes were asked for with `TIDEGATE_LONG=1`.
#[must_use]
pub fn long() -> bool {
    std::env::var_os("TIDEGATE_LONG").is_some_and(|value| !value.is_empty() && value != "0")
}

/// `full` with `TIDEGATE_LONG=1`, else `usual`.
#[must_use]
pub fn sized<T>(usual: T, full: T) -> T {
    if long() { full } else { usual }
}

/// A place among the tests that take whole cores or thousands of descriptors: they run one after
/// another, however many threads the test runner has.
pub async fn heavy() -> tokio::sync::SemaphorePermit<'static> {
    static PLACES: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(1);
    PLACES.acquire().await.unwrap()
}

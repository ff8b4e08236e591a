//! Sockets, time and threads: everything below the protocols.

pub(crate) mod accept;
pub mod arrival;
pub mod buffers;
pub mod census;
pub mod connection;
pub mod drain;
pub mod io;
pub mod listeners;
mod preface;
pub mod proxy_protocol;
pub mod runners;
pub mod streams;
pub mod takeover;
pub mod thread;
pub mod timers;
pub mod tls;
pub mod worker;

//! Sockets, time and threads: everything below the protocols.

pub mod arrival;
pub mod buffers;
pub mod connection;
pub mod drain;
pub mod io;
pub mod listeners;
pub mod proxy_protocol;
pub mod runners;
pub mod thread;
pub mod timers;
pub mod worker;

//! Sockets, time and threads: everything below the protocols.

pub mod buffers;
pub mod drain;
pub mod io;
pub mod timers;
pub mod worker;

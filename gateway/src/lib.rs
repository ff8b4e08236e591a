//! Makes it happen: the data plane, its control loop and its command line.
//!
//! Start reading at `exchange.rs`, the life of one request.

pub mod admin;
pub mod cli;
pub mod control;
pub mod exchange;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod http;
pub mod live;
pub mod memory;
pub mod observe;
pub mod refusal;
pub mod run;
pub mod serve;
mod systemd;

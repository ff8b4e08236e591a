//! Decides when and where a request may run: admission, demand, and the scalers that hear it.
//!
//! `admission` takes slots and keeps the queue, `demand` adds up what a revision is asked to
//! carry, `starts` writes down how it came up from nothing. None has heard of HTTP, sockets or
//! clocks: callers say what time it is. `scaler` hears demand and brings endpoints.

#![forbid(unsafe_code)]

pub mod admission;
pub mod demand;
pub mod scaler;
pub mod starts;
mod sync;

//! Every scenario for a moment: the books agree, and all that is written says the same.
//!
//! Nothing here says how fast anything is.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod cold;
mod ending;
mod generator;
mod idle;
mod limit;
mod load;
mod output;
mod routes;
mod support;
mod swap;

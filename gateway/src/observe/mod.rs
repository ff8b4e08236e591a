//! What happened: the facts of each exchange, and where they go (metrics and access log).
//!
//! Nothing here steers traffic. Workers write cells and rings of their own; a scrape and the log's
//! one thread read them.

pub mod access_log;
pub mod averages;
pub mod cold;
mod encode;
pub mod facts;
pub mod families;
mod histogram;
pub mod log;
pub mod metrics;
pub mod panics;
pub mod world;

pub use encode::CONTENT_TYPE;

//! What should happen: the vocabulary and rules of Tidegate's configuration.
//!
//! The core is pure: no runtime, no socket, no clock. Sources, which have those, live behind
//! features in [`source`]; the core never imports them beyond the name of an origin.

pub mod revision;
pub mod route;
pub mod snapshot;
pub mod source;

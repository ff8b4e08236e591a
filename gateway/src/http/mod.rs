//! Messages inside the gateway and the protocols at its edges.

pub mod answer;
pub(crate) mod authority;
pub mod field;
pub mod h1;
pub mod h2;
pub mod message;
pub mod pace;
pub mod pool;

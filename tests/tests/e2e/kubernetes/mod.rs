//! Promises of a gateway in a cluster, and of the stage they are shown on.

mod stage;
mod watching;

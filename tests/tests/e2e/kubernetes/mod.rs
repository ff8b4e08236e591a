//! Promises of a gateway in a cluster, and of the stage they are shown on.

mod actors;
mod stage;
mod watching;

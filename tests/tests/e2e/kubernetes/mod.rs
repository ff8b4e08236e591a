//! Promises of a gateway in a cluster, and of the stage they are shown on.

mod actors;
mod both;
mod breaking;
mod ingress;
mod internal_tls;
mod junk;
mod observed;
mod revisions;
mod scale;
mod set;
mod stage;
mod streams;
mod watching;

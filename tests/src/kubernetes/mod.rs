//! What a gateway in a cluster talks to: an API server, and beside it the parts of Knative that
//! send and take requests. [`Api`] is an API server in the test's own process, [`real::Real`] a
//! real one; what tests do to objects is the same on both, see [`Cluster`].

pub mod api;
pub mod autoscaler;
pub mod cluster;
pub mod kind;
pub mod objects;
mod port;
pub mod queue_proxy;
pub mod real;
pub mod stage;

pub use api::Api;
pub use autoscaler::Autoscaler;
pub use cluster::Cluster;
pub use kind::Kind;
pub use queue_proxy::QueueProxy;
pub use stage::Stage;

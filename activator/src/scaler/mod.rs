//! Scalers: they hear a revision's demand and may bring endpoints.
//!
//! [`autoscale`] decides how many (pure, no clock); [`local`] starts and stops that many processes
//! on this machine; [`knative`] tells Knative's autoscaler of demand and finds the pods it started;
//! [`ask`] asks endpoints how they are.

pub mod ask;
pub mod autoscale;
pub mod knative;
pub mod local;

//! A Kubernetes cluster as a source: Knative's ingresses and what they lead to.
//!
//! Everything that decides is pure: [`ingress`], [`hash`], [`translate`], [`conflict`], [`status`]
//! and the state of what is watched.

#![allow(dead_code, unused_imports, reason = "while it is being built")]

mod cluster;
mod conflict;
mod hash;
mod ingress;
mod state;
mod status;
mod translate;

#[cfg(test)]
mod tests;

//! The one door in: what a source says ([`Fragment`]), where it says it ([`Sink`]), what it hears
//! back ([`Verdict`]). The core never imports this module.

pub mod feed;
#[cfg(feature = "file")]
pub mod file;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
#[cfg(any(feature = "file", feature = "kubernetes"))]
mod sink;

pub use crate::fragment::{Content, Fragment, Origin};
#[cfg(any(feature = "file", feature = "kubernetes"))]
pub use sink::{Offer, Sink};

use crate::problem::Problem;

/// What became of an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is part of the running snapshot of this version.
    Accepted { version: u64 },
    /// Nothing has changed.
    Rejected(Vec<Problem>),
    /// The same origin has said something newer in the meantime.
    Superseded,
}

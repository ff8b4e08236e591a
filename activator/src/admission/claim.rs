//! What a request says of itself when it wants to wait.

use std::time::Instant;

use super::Priority;

/// A request that wants a slot and may have to wait for it.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// When it came first: within its class and flow the earliest goes first.
    pub arrived: Instant,
    /// It had a slot before and its endpoint failed it. It had its turn, so it goes before those
    /// who wait for theirs, and is not counted against `queue_depth`.
    pub again: bool,
    pub priority: Priority,
    pub flow: Flow,
    /// Whose it is, for [`super::Bounds::per_address`]: what the number stands for is up to the caller;
    /// `None` = nobody's.
    pub address: Option<u64>,
    /// What it pins while it waits.
    pub bytes: u64,
}

/// Those who take turns: requests of one flow go in order of arrival, flows of one namespace one
/// after another, and so do namespaces. What the numbers stand for is up to the caller; flows with
/// the same number are one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    pub namespace: u64,
    pub client: u64,
}

impl Claim {
    /// Of the usual class and the only flow there is, pinning nothing.
    pub fn new(arrived: Instant) -> Claim {
        Claim {
            arrived,
            again: false,
            priority: Priority::default(),
            flow: Flow::default(),
            address: None,
            bytes: 0,
        }
    }
}

//! Idle connections to endpoints, one pool per worker: last used first, no lock, no task each.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use activator::admission::EndpointId;
use hashbrown::HashMap;

use super::h1::connection::Connection;

/// Most exchanges one connection to an endpoint carries.
const EXCHANGES_MAX: u32 = 10_000;

/// Most idle connections to one endpoint between two sweeps. A sweep brings what stayed unused
/// down to the configured number: a burst's connections survive the burst, not the lull after it.
const BURST_MAX: usize = 1024;

/// One worker's idle connections.
#[derive(Debug)]
pub struct Pool {
    idle: RefCell<HashMap<EndpointId, Shelf, foldhash::fast::RandomState>>,
    /// An idle connection older than this is closed.
    age_max: Duration,
    /// Unused connections kept per endpoint.
    spare_max: usize,
}

#[derive(Debug, Default)]
struct Shelf {
    connections: Vec<Idle>,
    /// Fewest that lay here since the last sweep: these were not needed.
    unused: usize,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pool {
    #[must_use]
    pub fn new(age_max: Duration, spare_max: usize) -> Pool {
        Pool {
            idle: RefCell::default(),
            age_max,
            spare_max,
        }
    }

    /// The connection to this endpoint that was used last. One that the endpoint has ended, or on
    /// which it said something unasked, is closed instead.
    #[must_use]
    pub fn take(&self, endpoint: EndpointId) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let shelf = idle.get_mut(&endpoint)?;
        while let Some(candidate) = shelf.connections.pop() {
            shelf.unused = shelf.unused.min(shelf.connections.len());
            if !candidate.connection.io().is_stirred() {
                return Some(candidate.connection);
            }
        }
        None
    }

    /// Keeps a clean connection for the next exchange.
    pub fn put(&self, endpoint: EndpointId, connection: Connection, now: Instant) {
        if connection.exchanges >= EXCHANGES_MAX || self.spare_max == 0 {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let shelf = idle.entry(endpoint).or_default();
        if shelf.connections.len() < BURST_MAX {
            shelf.connections.push(Idle {
                connection,
                since: now,
            });
        }
    }

    /// Closes what is too old, ended by its endpoint, or more than needed. Call each few seconds.
    pub fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain(|_, shelf| {
            let surplus = shelf.unused.saturating_sub(self.spare_max);
            // The front was used longest ago.
            shelf
                .connections
                .drain(..surplus.min(shelf.connections.len()));
            shelf.connections.retain(|idle| {
                now.saturating_duration_since(idle.since) < self.age_max
                    && !idle.connection.io().is_stirred()
            });
            shelf.unused = shelf.connections.len();
            !shelf.connections.is_empty()
        });
    }

    /// Closes every idle connection to an endpoint that failed: they share its fate.
    pub fn forget(&self, endpoint: EndpointId) {
        self.idle.borrow_mut().remove(&endpoint);
    }
}

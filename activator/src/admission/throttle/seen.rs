//! What a throttle looks like from outside: to scalers, metrics and people.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::Throttle;
use crate::admission::endpoint::Endpoint;
use crate::admission::{AcquireError, EndpointState, EndpointStatus};
use crate::demand::{Reading, Sums, nanoseconds};
use crate::sync::{Ordering, lock};

impl Throttle {
    /// Lent slots that are held.
    pub fn lent(&self) -> u32 {
        lock(&self.queue).members.lending.held()
    }

    /// Whether requests are marked now.
    pub fn is_proxied(&self) -> bool {
        lock(&self.queue).proxied
    }

    /// Slots held at this address, draining or not; 0 when it is unknown. Once [`Throttle::drain`]
    /// has returned and this reads 0, no slot is or will be held there.
    pub fn in_flight_at(&self, address: SocketAddr) -> u32 {
        let queue = lock(&self.queue);
        let found = queue.members.all().find(|e| e.address == address);
        found.map_or(0, |endpoint| endpoint.in_flight())
    }

    /// Of those, how many are not at rest: what must end before nobody is cut off.
    pub fn busy_at(&self, address: SocketAddr) -> u32 {
        let queue = lock(&self.queue);
        let found = queue.members.all().find(|e| e.address == address);
        found.map_or(0, |endpoint| endpoint.busy())
    }

    /// Endpoints that get new requests and are not suspects.
    pub fn ready(&self) -> u32 {
        let queue = lock(&self.queue);
        let ready = queue
            .members
            .all()
            .filter(|e| !e.is_closed() && !e.is_suspect());
        u32::try_from(ready.count()).unwrap_or(u32::MAX)
    }

    /// Why the revision cannot start, as its scaler says, while it has no endpoint.
    pub fn failure(&self) -> Option<Arc<str>> {
        match lock(&self.queue).refusal() {
            Some(AcquireError::StartFailed(why)) => Some(why),
            _ => None,
        }
    }

    /// Demand up to `now`, over all workers.
    pub fn demand(&self, now: Instant) -> Reading {
        let sums = match self.origin.get() {
            Some(origin) => {
                let since = nanoseconds(*origin, now);
                let shards = self.shards.iter().map(|shard| shard.read(since));
                shards.fold(Sums::default(), |sum, shard| sum + shard)
            }
            None => Sums::default(),
        };
        sums.reading(now)
    }

    /// Every endpoint that is declared or still holds slots.
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        let mut queue = lock(&self.queue);
        queue.members.purge();
        queue.members.all().map(|e| status(e)).collect()
    }

    /// Slots held, draining endpoints included.
    pub fn in_flight(&self) -> u32 {
        lock(&self.queue).members.in_flight()
    }

    /// Requests that wait for a slot.
    pub fn waiting(&self) -> u32 {
        self.waiting.0.load(Ordering::Relaxed)
    }

    /// Nobody holds a slot or waits for one.
    pub fn is_idle(&self) -> bool {
        self.waiting() == 0 && self.in_flight() == 0
    }
}

fn status(endpoint: &Endpoint) -> EndpointStatus {
    let in_flight = endpoint.in_flight();
    let lingering = endpoint.lingering();
    let state = if endpoint.is_closed() {
        EndpointState::Draining
    } else if endpoint.is_suspect() {
        EndpointState::Suspect
    } else if lingering > 0 && lingering >= in_flight {
        EndpointState::Lingering
    } else {
        EndpointState::Ready
    };
    EndpointStatus {
        address: endpoint.address,
        id: endpoint.id,
        state,
        in_flight,
        lingering,
        window: endpoint.window(),
    }
}

//! Joining the queue, and who gives way so that one more may.
//!
//! Whoever gives way is found first and refused only when the newcomer is sure to wait, under the
//! same locks, and the newcomer takes over what they counted: nobody is refused in vain, and no
//! count grows past its bound.

mod going;

use std::sync::Arc;
use std::time::Instant;

use self::going::{Going, OWN, Queues, Relief, Victim};
use super::Throttle;
use crate::admission::held_bytes::HeldBytes;
use crate::admission::holding::{AddressFull, Crowd, InNamespace, InProcess, Place};
use crate::admission::queue::{Full, Grant, Key, Queue, Rival, Room};
use crate::admission::wakers::Wakers;
use crate::admission::{AcquireError, Bound, Claim, Nudge};
use crate::sync::{MutexGuard, Ordering, fence, lock};

/// What joining the queue came to.
#[derive(Debug)]
pub(in crate::admission) enum Joined {
    /// There was room after all.
    Granted(Grant),
    Waits(Key),
}

/// Why one more may not wait.
#[derive(Debug)]
enum Denied {
    Refused(AcquireError),
    /// Unless somebody gives way, who may wait elsewhere.
    Crowded(Crowd),
    /// The same for bytes of the process.
    Heavy,
}

/// Where a newcomer is going to be counted.
enum Seat {
    Free(InNamespace, InProcess),
    /// In place of the first that goes, but for the namespace where that has room.
    Taken(Option<InNamespace>),
}

/// Nobody gives way for it.
fn full(bound: Bound) -> Denied {
    Denied::Refused(AcquireError::QueueFull(bound))
}

impl Throttle {
    /// Joins the queue, unless there is room after all.
    pub(in crate::admission) fn join(
        self: &Arc<Self>,
        claim: &Claim,
        now: Instant,
    ) -> Result<Joined, AcquireError> {
        let alone = Queues::alone(self.up_to_date(now));
        let (crowd, is_heavy) = match self.try_join(alone, None, claim, now) {
            Ok(joined) => return Ok(joined),
            Err(Denied::Refused(error)) => return Err(error),
            Err(Denied::Crowded(crowd)) => (Some(crowd), !self.holding().has_room(claim.bytes)),
            Err(Denied::Heavy) => (None, true),
        };
        // Looked for without a lock: it takes long.
        let biggest = crowd.and_then(|crowd| self.namespace.gives_way(crowd, self));
        let keeper = is_heavy.then(|| self.holding().keeps_most_bytes());
        let relief = Relief {
            crowd: crowd.map(|crowd| (crowd, biggest.as_deref().unwrap_or(self))),
            keeper: keeper.flatten(),
        };
        let queues = Queues::lock(self, &relief);
        let joined = self.try_join(queues, Some(&relief), claim, now);
        joined.map_err(|denied| match denied {
            Denied::Refused(error) => error,
            // Others came meanwhile, and it is too late to look for more.
            Denied::Crowded(crowd) => AcquireError::QueueFull(self.holding().bound_of(crowd)),
            Denied::Heavy => AcquireError::QueueFull(Bound::HeldBytes),
        })
    }

    /// The queue, with what time alone has changed.
    fn up_to_date(&self, now: Instant) -> MutexGuard<'_, Queue> {
        let mut queue = lock(&self.queue);
        queue.end_failure(now);
        if queue.end_suspicions(now) {
            self.settle(queue, Room::Anywhere);
            queue = lock(&self.queue);
        }
        queue
    }

    fn try_join(
        self: &Arc<Self>,
        mut queues: Queues<'_>,
        relief: Option<&Relief<'_>>,
        claim: &Claim,
        now: Instant,
    ) -> Result<Joined, Denied> {
        let first = queues.own.waiting() == 0;
        if first {
            self.announce(1);
            // Pairs with the fence of `freed`: a slot freed before this is found below, one freed
            // after it finds us.
            fence(Ordering::SeqCst);
            if let Some(grant) = queues.own.members.room(Room::Anywhere) {
                self.announce(0);
                return Ok(Joined::Granted(grant));
            }
        }
        let mut wakers = Wakers::default();
        let joined = self.enqueue(&mut queues, relief, claim, now, &mut wakers);
        let own = &mut queues.own;
        if joined.is_ok() && own.members.is_empty() {
            self.starts.held(own.waiting(), now);
        }
        let nudge = match &joined {
            Ok(_) if first => {
                self.watch(own);
                own.first_nudge(now)
            }
            // Else whoever may not wait could never be served by what only those bring who do.
            Err(Denied::Refused(AcquireError::QueueFull(_))) if first => self.knock(own, now),
            _ => None,
        };
        self.announce(own.waiting());
        for (throttle, queue) in &queues.others {
            throttle.announce(queue.waiting());
        }
        drop(queues);
        wakers.wake();
        if let Some(nudge) = nudge {
            nudge.nudge();
        }
        joined
    }

    /// Whom to tell that somebody came for whom nobody is there, and who may not wait.
    fn knock(&self, own: &mut Queue, now: Instant) -> Option<Arc<dyn Nudge>> {
        let nudge = own.knock(now)?;
        if own.members.is_empty() {
            self.starts.prewarmed(now);
        }
        Some(nudge)
    }

    fn enqueue(
        self: &Arc<Self>,
        queues: &mut Queues<'_>,
        relief: Option<&Relief<'_>>,
        claim: &Claim,
        now: Instant,
        wakers: &mut Wakers,
    ) -> Result<Joined, Denied> {
        if let Some(error) = queues.own.refusal() {
            return Err(Denied::Refused(error));
        }
        // First, for nobody gives way for it.
        let address = self.holding().of_address(claim.address);
        let address = address.map_err(|AddressFull| full(Bound::HeldPerAddress))?;
        let mut going = Going::default();
        let seat = self.seat(queues, relief, claim, &mut going);
        let seat = seat.and_then(|seat| {
            self.pin(queues, relief, claim, &mut going)?;
            Ok(seat)
        });
        let seat = seat.inspect_err(|_| going.put_back(queues))?;
        // From here on it is sure to wait.
        let mut theirs = None;
        for Victim { side, key, bound } in going.victims() {
            let (place, held) = queues.at(side).refuse(key, bound, wakers);
            theirs.get_or_insert(place);
            if let Some(held) = held.filter(|_| claim.bytes > 0) {
                held.pass_on();
            }
        }
        let held = (claim.bytes > 0).then(|| HeldBytes::counted(self, claim.bytes));
        let (namespace, process) = match (seat, theirs) {
            (Seat::Free(namespace, process), _) => (namespace, process),
            (Seat::Taken(namespace), Some(theirs)) => {
                (namespace.unwrap_or(theirs.namespace), theirs.process)
            }
            (Seat::Taken(_), None) => unreachable!("taken from the first that goes"),
        };
        let place = Place {
            namespace,
            process,
            _address: address,
        };
        Ok(Joined::Waits(queues.own.join(claim, place, held, now)))
    }

    /// Where a newcomer can be counted.
    fn seat(
        &self,
        queues: &mut Queues<'_>,
        relief: Option<&Relief<'_>>,
        claim: &Claim,
        going: &mut Going,
    ) -> Result<Seat, Denied> {
        let rival = Rival::of(claim);
        if let Some((reached, bound)) = queues.own.bound(claim) {
            let key = queues.own.gives_way(reached, Some(rival));
            going.add(queues, OWN, key, bound)?;
            return Ok(Seat::Taken(None));
        }
        let mut relieve = |crowd| {
            let relief = relief.ok_or(Denied::Crowded(crowd))?;
            let bound = self.holding().bound_of(crowd);
            let side = queues.side(relief.of(crowd).ok_or(full(bound))?);
            let rival = (side == OWN).then_some(rival);
            let key = queues.at(side).gives_way(Full::Queue, rival);
            going.add(queues, side, key, bound)
        };
        let Some(namespace) = self.namespace.one_more() else {
            relieve(Crowd::Namespace)?;
            return Ok(Seat::Taken(None));
        };
        match self.holding().one_more() {
            Some(process) => Ok(Seat::Free(namespace, process)),
            None => {
                relieve(Crowd::Process)?;
                Ok(Seat::Taken(Some(namespace)))
            }
        }
    }

    /// Counts the newcomer's bytes in the sum of the process, in place of theirs who go.
    fn pin(
        &self,
        queues: &mut Queues<'_>,
        relief: Option<&Relief<'_>>,
        claim: &Claim,
        going: &mut Going,
    ) -> Result<(), Denied> {
        let (bytes, most) = (claim.bytes, self.most_bytes());
        if bytes == 0 {
            return Ok(());
        }
        if bytes > most {
            return Err(full(Bound::Bytes));
        }
        let newcomer = Some((Rival::of(claim), bytes));
        let with_it = |going: &Going| going.left(OWN, self).saturating_add(bytes);
        while with_it(going) > most {
            let key = queues.own.unpins(newcomer);
            going.add(queues, OWN, key, Bound::Bytes)?;
        }
        while !self.holding().exchange(going.bytes(), bytes) {
            let relief = relief.ok_or(Denied::Heavy)?;
            let keeper = relief.keeper.as_deref().unwrap_or(self);
            let side = queues.side(keeper);
            let (side, newcomer) = match side != OWN && going.left(side, keeper) > with_it(going) {
                true => (side, None),
                false => (OWN, newcomer),
            };
            let key = queues.at(side).unpins(newcomer);
            going.add(queues, side, key, Bound::HeldBytes)?;
        }
        Ok(())
    }
}

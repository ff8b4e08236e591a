//! Handshakes get half of a worker's time at most while anything else is to be done: one costs as
//! much as a dozen requests, and those come from clients who have already come in.
//!
//! Whoever has spent time on a handshake owes as much to all others. Before the next step of any
//! handshake, the others run until that is paid, or until they have nothing to do.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::serve::thread::cpu_time;

/// Turns of the event loop in which nobody else does anything, until they count as idle. Two, since
/// who gave way in one turn may come first or last in the next.
const IDLE_TURNS: u32 = 2;

/// What handshakes owe to everything else a worker does.
#[derive(Debug)]
pub struct Share {
    /// The next step of a handshake is somebody's.
    step: Semaphore,
    owed: Cell<Duration>,
    /// The worker's time when it was last looked at.
    seen: Cell<Duration>,
    clock: fn() -> Duration,
}

impl Default for Share {
    fn default() -> Share {
        Share::with_clock(cpu_time)
    }
}

impl Share {
    /// `clock`: how long this thread has been at work.
    fn with_clock(clock: fn() -> Duration) -> Share {
        Share {
            step: Semaphore::new(1),
            owed: Cell::new(Duration::ZERO),
            seen: Cell::new(Duration::ZERO),
            clock,
        }
    }

    /// The future's result. Each of its polls waits until the share of all others is paid. They
    /// change `others` whenever they do anything.
    ///
    /// Cancel safe if the future is.
    pub async fn spend<F: Future>(&self, others: &Cell<u64>, mut future: Pin<&mut F>) -> F::Output {
        loop {
            // Never closed.
            let step = self.step.acquire().await;
            self.pay(others).await;
            let polled = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
            self.owed.set(self.owed.get() + self.spent());
            drop(step);
            if let Poll::Ready(output) = polled {
                return output;
            }
            woken().await;
        }
    }

    /// Lets the others run.
    async fn pay(&self, others: &Cell<u64>) {
        let mut idle = 0;
        while idle < IDLE_TURNS {
            let owed = self.owed.get().saturating_sub(self.spent());
            self.owed.set(owed);
            if owed.is_zero() {
                return;
            }
            let before = others.get();
            // Comes back when everything else that is ready has run, and more was looked for.
            tokio::task::yield_now().await;
            idle = if others.get() == before { idle + 1 } else { 0 };
        }
        self.owed.set(Duration::ZERO);
    }

    /// Since this was last asked.
    fn spent(&self) -> Duration {
        let now = (self.clock)();
        now.saturating_sub(self.seen.replace(now))
    }
}

/// Returns when the task is polled again.
async fn woken() {
    let mut pending = true;
    let woken = poll_fn(|_| match std::mem::take(&mut pending) {
        true => Poll::Pending,
        false => Poll::Ready(()),
    });
    pin!(woken).await;
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::*;

    /// How much time each competition takes.
    const ENOUGH: Duration = Duration::from_secs(1);

    thread_local! {
        static SPENT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    fn work(time: Duration) {
        SPENT.set(SPENT.get() + time);
    }

    /// Where 8 handshakes of many steps compete with that many requests at a time: the share of the
    /// time that went to handshakes, in percent.
    async fn compete(requests: u64, each: Duration) -> u128 {
        const STEP: Duration = Duration::from_micros(500);
        SPENT.set(Duration::ZERO);
        let share = Rc::new(Share::with_clock(|| SPENT.get()));
        let (shaken, others) = (Rc::new(Cell::new(Duration::ZERO)), Rc::new(Cell::new(0)));
        for _ in 0..8 {
            let (share, shaken, others) = (share.clone(), shaken.clone(), others.clone());
            spawn_local(async move {
                while SPENT.get() < ENOUGH {
                    let step = pin!(async {
                        work(STEP);
                        shaken.set(shaken.get() + STEP);
                    });
                    share.spend(&others, step).await;
                }
            });
        }
        for _ in 0..requests {
            let others = others.clone();
            spawn_local(async move {
                while SPENT.get() < ENOUGH {
                    others.set(others.get() + 1);
                    work(each);
                    yield_now().await;
                }
            });
        }
        while SPENT.get() < ENOUGH {
            yield_now().await;
        }
        shaken.get().as_nanos() * 100 / SPENT.get().as_nanos()
    }

    #[tokio::test]
    async fn half_of_the_time_is_for_requests_where_there_are_any() {
        let test = async {
            assert_eq!(compete(0, Duration::ZERO).await, 100);
            for (requests, micros) in [(1, 20), (5, 20), (5, 200), (1, 2000), (300, 20)] {
                let percent = compete(requests, Duration::from_micros(micros)).await;
                assert!(
                    percent <= 50,
                    "{percent} % beside {requests} of {micros} µs"
                );
                assert!(percent > 0, "handshakes go on");
            }
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn who_gives_up_keeps_nobody_waiting() {
        let test = async {
            let share = Rc::new(Share::with_clock(|| SPENT.get()));
            let others = Rc::new(Cell::new(0));
            share.spend(&others, pin!(async { work(ENOUGH) })).await;
            {
                let never = std::future::ready(());
                let mut waits = pin!(async {
                    share.spend(&others, pin!(never)).await;
                });
                let polled = poll_fn(|cx| Poll::Ready(waits.as_mut().poll(cx))).await;
                assert!(polled.is_pending(), "it owes");
            }
            share.spend(&others, pin!(std::future::ready(()))).await;
        };
        LocalSet::new().run_until(test).await;
    }
}

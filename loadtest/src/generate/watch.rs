//! A time limit without a timer of its own: a sweep a few times a second looks at all of them.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// The time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expired;

/// The limit over what one task does at the moment.
#[derive(Default)]
pub(super) struct Watch {
    since: Cell<Option<Instant>>,
    expired: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Watch {
    /// Waits for `future`, unless a sweep finds that it began too long ago.
    pub(super) async fn limit<F: Future>(
        &self,
        since: Instant,
        future: F,
    ) -> Result<F::Output, Expired> {
        let mut future = pin!(future);
        self.since.set(Some(since));
        self.expired.set(false);
        let done = poll_fn(|context| {
            if let Poll::Ready(done) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(done));
            }
            if self.expired.get() {
                return Poll::Ready(Err(Expired));
            }
            let known = self.waker.take();
            let same = known.filter(|known| known.will_wake(context.waker()));
            self.waker
                .set(Some(same.unwrap_or_else(|| context.waker().clone())));
            Poll::Pending
        })
        .await;
        self.since.set(None);
        done
    }

    fn sweep(&self, now: Instant, limit: Duration) {
        let late = |since| now.saturating_duration_since(since) >= limit;
        if self.since.get().is_some_and(late) {
            self.expired.set(true);
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }
}

/// All limits of a thread.
#[derive(Default)]
pub(super) struct Watches(RefCell<Vec<Rc<Watch>>>);

impl Watches {
    /// One more, swept from now on.
    pub(super) fn watch(&self) -> Rc<Watch> {
        let watch = Rc::new(Watch::default());
        self.0.borrow_mut().push(watch.clone());
        watch
    }

    /// Ends what has taken longer than `limit`, and forgets what is gone.
    pub(super) fn sweep(&self, now: Instant, limit: Duration) {
        self.0.borrow_mut().retain(|watch| {
            watch.sweep(now, limit);
            Rc::strong_count(watch) > 1
        });
    }
}

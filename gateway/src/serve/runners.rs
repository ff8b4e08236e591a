//! Runners: what a request needs while it runs is large, so it lives in a box that outlasts the
//! request. An idle connection stays small, and a request neither allocates its state nor is it
//! ever moved: a runner takes jobs, one after the other, in the place where it was made.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Spare runners kept per worker; beyond it they are freed.
const SPARE_MAX: usize = 1024;

/// One worker's spare runners, for jobs `J` with results `R`.
#[derive(Debug)]
pub struct Runners<J, R> {
    spare: RefCell<Vec<Runner<J, R>>>,
}

/// Where a job is handed over and its result picked up.
#[derive(Debug)]
pub struct Desk<J, R> {
    job: RefCell<Option<J>>,
    result: RefCell<Option<R>>,
}

struct Runner<J, R> {
    desk: Rc<Desk<J, R>>,
    /// Never ends by itself: it works on what lies on the desk.
    work: Pin<Box<dyn Future<Output = ()>>>,
}

impl<J, R> std::fmt::Debug for Runner<J, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").finish_non_exhaustive()
    }
}

impl<J, R> Default for Desk<J, R> {
    fn default() -> Self {
        Desk {
            job: RefCell::new(None),
            result: RefCell::new(None),
        }
    }
}

impl<J, R> Desk<J, R> {
    /// The next job; waits until there is one.
    pub async fn job(&self) -> J {
        poll_fn(|_| {
            self.job
                .borrow_mut()
                .take()
                .map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Hands over what came of the job.
    pub fn done(&self, result: R) {
        *self.result.borrow_mut() = Some(result);
    }
}

impl<J, R> Default for Runners<J, R> {
    fn default() -> Self {
        Runners {
            spare: RefCell::default(),
        }
    }
}

impl<J, R> Runners<J, R> {
    /// Frees the spare ones.
    pub fn shrink(&self) {
        drop(self.spare.take());
    }

    /// Has a runner do the job. `make` makes one where none is spare; it must take one job after
    /// the other from the desk, and hand over a result for each before it takes the next.
    pub fn run<F: Future<Output = ()> + 'static>(
        &self,
        job: J,
        make: impl FnOnce(Rc<Desk<J, R>>) -> F,
    ) -> Running<'_, J, R> {
        let spare = self.spare.borrow_mut().pop();
        let runner = spare.unwrap_or_else(|| {
            let desk = Rc::new(Desk::default());
            let work = Box::pin(make(desk.clone()));
            Runner { desk, work }
        });
        *runner.desk.job.borrow_mut() = Some(job);
        Running {
            runners: self,
            runner: Some(runner),
        }
    }
}

/// A job being done. Dropping it before it is ready drops its runner, too.
#[derive(Debug)]
pub struct Running<'a, J, R> {
    runners: &'a Runners<J, R>,
    runner: Option<Runner<J, R>>,
}

impl<J, R> Future for Running<'_, J, R> {
    type Output = R;

    /// # Panics
    /// When polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<R> {
        let runner = self.runner.as_mut().expect("polled until it is ready");
        let ended = runner.work.as_mut().poll(cx).is_ready();
        let Some(result) = runner.desk.result.borrow_mut().take() else {
            return Poll::Pending;
        };
        let mut spare = self.runners.spare.borrow_mut();
        if !ended && spare.len() < SPARE_MAX {
            spare.extend(self.runner.take());
        }
        Poll::Ready(result)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Waker;

    use super::*;

    #[expect(clippy::infinite_loop, reason = "a runner is dropped; it does not end")]
    async fn double(desk: Rc<Desk<u32, u32>>) {
        loop {
            let number = desk.job().await;
            tokio::task::yield_now().await;
            desk.done(number * 2);
        }
    }

    #[tokio::test]
    async fn a_runner_does_one_job_after_the_other() {
        let runners = Runners::default();
        let mut made = 0;
        for number in 0..3 {
            let make = |desk| {
                made += 1;
                double(desk)
            };
            assert_eq!(runners.run(number, make).await, number * 2);
        }
        assert_eq!(made, 1);
    }

    #[tokio::test]
    async fn jobs_at_the_same_time_have_a_runner_each() {
        let runners = Runners::default();
        let (one, two) = (runners.run(1, double), runners.run(2, double));
        let both = tokio::join!(one, two);
        assert_eq!(both, (2, 4));
        assert_eq!(runners.spare.borrow().len(), 2);
    }

    #[tokio::test]
    async fn spare_ones_are_freed_when_that_is_asked_for() {
        let runners = Runners::default();
        assert_eq!(runners.run(1, double).await, 2);
        runners.shrink();
        assert!(runners.spare.borrow().is_empty());
    }

    #[test]
    fn what_a_dropped_job_holds_is_let_go_with_it() {
        let runners = Runners::<Rc<()>, ()>::default();
        let held = Rc::new(());
        let mut running = Box::pin(runners.run(held.clone(), |desk| async move {
            let _held = desk.job().await;
            std::future::pending::<()>().await;
        }));
        let mut context = Context::from_waker(Waker::noop());
        assert!(pin!(&mut running).poll(&mut context).is_pending());
        assert_eq!(Rc::strong_count(&held), 2);
        drop(running);
        assert_eq!(Rc::strong_count(&held), 1);
        assert!(runners.spare.borrow().is_empty());
    }
}

//! The single writer: takes what sources say, compiles it, reconciles what runs with it, swaps the
//! one pointer, and tells every source what became of its words.

pub mod credentials;
pub mod endpoints;
pub mod feeds;
mod prewarm;
pub mod reconcile;
mod shift;
pub mod starts;
pub mod world;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::problem::Problem;
use config::source::{Content, Fragment, Offer, Origin, Verdict};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use self::reconcile::Reconciler;
use self::world::Status;
use crate::live::{Live, Published};

/// How often a version that nobody needs any more is looked for.
const RETIREMENT: Duration = Duration::from_millis(100);

/// How often it is looked whether targets are warm by now.
const SHIFTS: Duration = Duration::from_millis(20);

/// Offers taken up together at most.
const BATCH_MAX: usize = 64;

/// The writer and what it owns.
#[derive(Debug)]
pub struct Control {
    /// `None` only while a batch is being compiled.
    reconciler: Option<Reconciler>,
    published: Arc<Published>,
    status: Arc<Status>,
    /// Versions that requests or workers may still look at.
    retired: Vec<Arc<Live>>,
}

impl Control {
    #[must_use]
    pub fn new(reconciler: Reconciler, published: Arc<Published>, status: Arc<Status>) -> Control {
        Control {
            reconciler: Some(reconciler),
            published,
            status,
            retired: Vec::new(),
        }
    }

    /// Serves offers until no source is left.
    ///
    /// # Cancel safety
    /// Dropping it between batches loses nothing; a batch that is being compiled is finished but
    /// not published.
    pub async fn run(mut self, mut offers: mpsc::Receiver<Offer>) {
        let mut retirement = tokio::time::interval(RETIREMENT);
        let mut shifts = tokio::time::interval(SHIFTS);
        shifts.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                offer = offers.recv() => {
                    let Some(offer) = offer else { return };
                    let mut batch = vec![offer];
                    while batch.len() < BATCH_MAX && let Ok(more) = offers.try_recv() {
                        batch.push(more);
                    }
                    self.take_in(batch).await;
                }
                _ = retirement.tick(), if !self.retired.is_empty() => self.retire(),
                _ = shifts.tick(), if self.is_shifting() => self.shift().await,
            }
        }
    }

    /// A batch is taken in whole; where that fails, each offer stands for itself, so that one
    /// source's mistake does not keep another's change back.
    async fn take_in(&mut self, batch: Vec<Offer>) {
        if let [_, _, ..] = batch.as_slice() {
            let (together, superseded) = newest(&batch);
            if self.apply(together).await.is_ok() {
                for (offer, superseded) in batch.into_iter().zip(superseded) {
                    let version = self.published.version();
                    let verdict = match superseded {
                        true => Verdict::Superseded,
                        false => Verdict::Accepted { version },
                    };
                    answer(offer.reply, verdict);
                }
                return;
            }
        }
        for offer in batch {
            let kinds = kinds(&offer.fragments);
            let verdict = match self.apply_over_others(offer.fragments).await {
                Ok(()) => {
                    self.status.accepted();
                    Verdict::Accepted {
                        version: self.published.version(),
                    }
                }
                Err(problems) => {
                    self.status.rejected(&kinds, &problems);
                    Verdict::Rejected(problems)
                }
            };
            answer(offer.reply, verdict);
        }
    }

    /// Files win over other sources: where ingresses stand against what files say, and nothing else
    /// does, they give way, and hear of it.
    async fn apply_over_others(&mut self, fragments: Vec<Fragment>) -> Result<(), Vec<Problem>> {
        let of_file = |fragment: &Fragment| matches!(fragment.origin, Origin::File(_));
        let again = fragments.iter().all(of_file).then(|| fragments.clone());
        let Err(problems) = self.apply(fragments).await else {
            return Ok(());
        };
        let others = problems.iter().map(|problem| problem.file.as_str());
        let others = others.filter(|file| file.starts_with("ingress "));
        let others: BTreeSet<Origin> = others.map(|one| Origin::Kubernetes(one.into())).collect();
        let Some(mut fragments) = again.filter(|_| !others.is_empty()) else {
            return Err(problems);
        };
        fragments.extend(others.iter().map(|origin| Fragment {
            origin: origin.clone(),
            content: Content::Gone,
        }));
        if self.apply(fragments).await.is_err() {
            return Err(problems);
        }
        if let Some(reconciler) = &self.reconciler {
            reconciler.feeds().overrule(others);
        }
        Ok(())
    }

    fn is_shifting(&self) -> bool {
        self.reconciler
            .as_ref()
            .is_some_and(Reconciler::is_shifting)
    }

    /// Gives targets their shares that are warm by now, and keeps those up that are not.
    async fn shift(&mut self) {
        let Some(reconciler) = &mut self.reconciler else {
            return;
        };
        if !reconciler.may_shift() {
            reconciler.keep_warming(Instant::now());
            self.status
                .warming(reconciler.warming(), reconciler.tables());
            return;
        }
        // Nothing is said that could be wrong.
        if self.publish(Vec::new()).await.is_ok() {
            self.status.shifted(self.published.version());
        }
    }

    /// Takes in what a source says.
    async fn apply(&mut self, fragments: Vec<Fragment>) -> Result<(), Vec<Problem>> {
        self.publish(fragments).await?;
        self.status.swapped(self.published.version());
        Ok(())
    }

    /// Compiles and reconciles on a blocking thread: a nudge or `/livez` never waits behind it.
    async fn publish(&mut self, fragments: Vec<Fragment>) -> Result<(), Vec<Problem>> {
        let Some(mut reconciler) = self.reconciler.take() else {
            return Err(vec![broken()]);
        };
        let old = self.published.load();
        let applied = tokio::task::spawn_blocking(move || {
            let result = reconciler.apply(fragments, &old);
            (reconciler, result)
        });
        let result = match applied.await {
            Ok((reconciler, result)) => {
                self.reconciler = Some(reconciler);
                result
            }
            Err(error) => {
                // The writer's state is gone with the panic: what is published stays for ever.
                tracing::error!(%error, "the configuration can no longer change: restart to recover");
                return Err(vec![broken()]);
            }
        };
        let next = result?;
        if let Some(reconciler) = &self.reconciler {
            // Told of once it is in force.
            self.status
                .warming(reconciler.warming(), reconciler.tables());
        }
        let old = self.published.swap(next.live);
        if let Some(reconciler) = &mut self.reconciler {
            reconciler.retire(&next.removed);
        }
        self.retired.push(old);
        Ok(())
    }

    /// Frees versions that nobody looks at any more, here and not on a worker.
    fn retire(&mut self) {
        let (free, held): (Vec<_>, Vec<_>) = self
            .retired
            .drain(..)
            .partition(|live| Arc::strong_count(live) == 1);
        self.retired = held;
        if !free.is_empty() {
            // Large tables take a while to free.
            tokio::task::spawn_blocking(move || drop(free));
        }
    }
}

/// The newest fragment of every origin, and for each offer whether all it says was overtaken.
fn newest(batch: &[Offer]) -> (Vec<Fragment>, Vec<bool>) {
    let mut last: HashMap<&Origin, usize> = HashMap::new();
    for (place, offer) in batch.iter().enumerate() {
        for fragment in &offer.fragments {
            last.insert(&fragment.origin, place);
        }
    }
    let mut together = Vec::new();
    let mut superseded = Vec::new();
    for (place, offer) in batch.iter().enumerate() {
        let current: Vec<_> = offer
            .fragments
            .iter()
            .filter(|one| last.get(&one.origin) == Some(&place))
            .collect();
        superseded.push(current.is_empty() && !offer.fragments.is_empty());
        together.extend(current.into_iter().cloned());
    }
    (together, superseded)
}

/// What every change hears after the compiler has failed once.
fn broken() -> Problem {
    let problem = "the gateway can no longer take changes: its compiler has failed".to_owned();
    Problem::of_file(
        "",
        problem,
        "restart the gateway, and report this".to_owned(),
    )
}

fn kinds(fragments: &[Fragment]) -> Vec<&'static str> {
    let mut kinds: Vec<_> = fragments
        .iter()
        .map(|fragment| fragment.origin.source())
        .collect();
    kinds.dedup();
    kinds
}

fn answer(reply: tokio::sync::oneshot::Sender<Verdict>, verdict: Verdict) {
    if reply.send(verdict).is_err() {
        tracing::debug!("a source left before its verdict");
    }
}

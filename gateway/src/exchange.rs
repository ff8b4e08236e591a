//! The life of one request, for every protocol on either side.
//!
//! 1. The head is whole and checked (the codec did that).
//! 2. `Exchange::run` looks at what the head asks: a path that climbs, a loop, a body too large.
//! 3. It is routed: a route, a rule, a target. Some rules answer by themselves.
//! 4. It takes a slot at an endpoint of the target's revision, or is held until there is one
//!    (`exchange/hold.rs`).
//! 5. It is written to the endpoint and the answer back to the client, both at the same time
//!    (`exchange/forward.rs`); if nothing can have been done yet, a failure leads back to 4.
//! 6. What happened is counted and logged (`exchange/record.rs`).
//!
//! Every step's effect is owned by a guard: dropping the exchange at any `await` undoes it.

mod answers;
mod claim;
mod deadline;
mod edits;
mod forward;
pub(crate) mod grpc;
mod hold;
mod https;
mod knative;
mod linger;
pub(crate) mod path;
mod record;
mod relay;
mod repeat;
mod rest;
mod retry;
mod routing;
#[cfg(any(test, fuzzing))]
pub(crate) mod tests;
mod timing;
mod token;
mod tunnel;
mod upstream;
mod watch;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use activator::admission::Repeat;
use activator::starts::StartId;
use config::revision::Protocol;
use config::settings::Audience;
use config::snapshot::Action;
use smallvec::SmallVec;

use self::forward::Attempt;
pub use self::upstream::until;

use crate::http::field::Name;
use crate::http::message::{Downstream, Length, RequestHead, ResponseHead};
use crate::http::pace::Pace;
use crate::live::{LocalRevision, Routed};
use crate::memory::Level;
use crate::observe::facts::WaitReason;
use crate::refusal::Reason;
use crate::serve::timers::Timer;
use crate::serve::worker::Worker;

/// Most bytes of a body that are read for the sake of the next request.
pub const SKIP_MAX: u64 = 256 * 1024;

/// So often a request goes elsewhere because the revision that it waited for was removed.
const REMOVALS_MAX: usize = 8;

/// Most times a request may have come through this process before. Applications that proxy pass `Via` on, and
/// their way to another application leads through here again: that is no loop yet.
const ROUNDS_MAX: usize = 8;

/// Papers that have grown larger are freed rather than kept.
const PAPERS_BYTES_MAX: usize = 16 * 1024;

/// Who asks, and through which door.
#[derive(Clone, Debug)]
pub struct Client {
    pub address: SocketAddr,
    /// It without the port, as fields of requests say it: spelled once in the connection's life.
    pub address_text: Rc<str>,
    /// Index of the listener, for metrics.
    pub listener: usize,
    /// Whom the listener serves.
    pub audience: Audience,
    /// The address is nobody's but the client's, as far as we were told: not a proxy's that did not say
    /// for whom it speaks.
    pub one_client: bool,
    /// The address is one of `trustedProxies`: what it says of the client before it is believed.
    pub trusted: bool,
    /// The connection is TLS.
    pub secure: bool,
    /// What `x-forwarded-client-cert` says, of a client that has shown a certificate.
    pub identity: Option<Rc<[u8]>>,
    /// From when on its connection is so old that the client is asked to leave; `None` = never.
    pub leaves_at: Option<Instant>,
}

impl Client {
    /// Whether cluster-local routes are served too.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.audience != Audience::Public
    }

    /// What its connection with us is.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// Whether its connection has lived long enough.
    #[must_use]
    pub fn is_to_leave(&self, now: Instant) -> bool {
        self.leaves_at.is_some_and(|at| now >= at)
    }
}

/// What one exchange works with, and what it has learnt so far.
#[derive(Debug)]
pub struct Exchange<'a> {
    worker: &'a Rc<Worker>,
    client: &'a Client,
    request: &'a mut RequestHead,
    response: &'a mut ResponseHead,
    /// The client's side.
    pace: &'a Pace,
    timer: &'a Timer,
    arrived: Instant,
    /// When the client itself stops waiting, as it says.
    deadline: Option<Instant>,
    routed: Option<Routed>,
    /// What led there: rules that had it looked up again.
    rerouted: SmallVec<[Routed; 1]>,
    /// What the endpoint is to find in place of `K-Network-Hash: override`.
    passed_hash: Option<Box<str>>,
    revision: Option<Rc<LocalRevision>>,
    /// What the attempt to come needs, if it is not the first.
    repeat: Option<Repeat>,
    /// Why its revision cannot start, if that is why it is refused.
    cause: Option<Arc<str>>,
    edits: &'a mut edits::Edits,
    seen: Seen,
}

/// What one exchange reads and writes of heads; the next one uses its memory again.
#[derive(Debug, Default)]
pub struct Papers {
    /// The request, as its codec read it.
    pub request: RequestHead,
    response: ResponseHead,
    edits: edits::Edits,
}

impl Papers {
    /// Makes them ready for another exchange.
    pub fn tidy(&mut self) {
        let capacity = |papers: &Papers| {
            let heads = papers.request.head.capacity() + papers.response.head.capacity();
            heads + papers.edits.capacity()
        };
        if capacity(self) > PAPERS_BYTES_MAX {
            *self = Papers::default();
        }
        self.edits.clear();
    }
}

/// Observations for the log and the metrics; nothing here steers.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    waited: Duration,
    held: bool,
    /// Why, the first time.
    wait_reason: Option<WaitReason>,
    endpoint: Duration,
    address: Option<SocketAddr>,
    attempts: u32,
    /// What it waited for, if there was no endpoint when it came.
    start: Option<StartId>,
    /// Status the client was sent; 0 = none yet.
    code: u16,
    /// Bytes of the answer's body.
    answer_bytes: u64,
    /// For how long it was no demand, because nothing moved.
    rested: Duration,
}

/// How an exchange ended.
#[derive(Debug)]
enum End {
    /// The endpoint's answer, or one that a rule gave, went out whole.
    Answered,
    /// Nothing was sent: the client is told why.
    Refused(Reason),
    /// Ended after the head, or with nobody to tell.
    Cut(Reason),
}

/// Runs one request from routing to record. Afterwards the downstream knows whether its connection
/// may go on.
pub async fn exchange<D: Downstream>(
    worker: &Rc<Worker>,
    client: &Client,
    papers: &mut Papers,
    arrived: Instant,
    down: &mut D,
    timer: &Timer,
) {
    let pace = Pace::new(&worker.clock);
    pace.expect_rate(watch::send_rate(worker, papers.request.version));
    let mut exchange = Exchange::new(worker, client, papers, arrived, &pace, timer);
    // Pinned where it was made: moving it would cost every request a copy of all its state.
    let ended = {
        let mut running = pin!(exchange.run(down));
        poll_fn(|cx| poll_caught(running.as_mut(), cx)).await
    };
    let end = match ended {
        Some(end) => end,
        None if pace.bytes_written() == 0 => End::Refused(Reason::Internal),
        None => End::Cut(Reason::Internal),
    };
    let end = match end {
        // Behind half of an interim response, or of a head that nobody will finish.
        End::Refused(reason) if !down.may_answer() => End::Cut(reason),
        end => end,
    };
    exchange.finish(end, down).await;
}

/// Answers what came instead of a request; `papers` hold none.
pub async fn refuse<D: Downstream>(
    worker: &Rc<Worker>,
    client: &Client,
    papers: &mut Papers,
    arrived: Instant,
    reason: Reason,
    down: &mut D,
    timer: &Timer,
) {
    let pace = Pace::new(&worker.clock);
    let exchange = Exchange::new(worker, client, papers, arrived, &pace, timer);
    exchange.finish(End::Refused(reason), down).await;
}

/// The future's result, or `None` if it panicked: a fault of ours costs one exchange. It must not be
/// polled again.
fn poll_caught<F: Future>(
    future: Pin<&mut F>,
    cx: &mut std::task::Context<'_>,
) -> Poll<Option<F::Output>> {
    let poll = || future.poll(cx);
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(poll)) {
        Ok(poll) => poll.map(Some),
        // The panic hook has logged it.
        Err(_) => Poll::Ready(None),
    }
}

impl<'a> Exchange<'a> {
    fn new(
        worker: &'a Rc<Worker>,
        client: &'a Client,
        papers: &'a mut Papers,
        arrived: Instant,
        pace: &'a Pace,
        timer: &'a Timer,
    ) -> Exchange<'a> {
        Exchange {
            worker,
            client,
            request: &mut papers.request,
            response: &mut papers.response,
            pace,
            timer,
            arrived,
            deadline: None,
            routed: None,
            rerouted: SmallVec::new(),
            passed_hash: None,
            revision: None,
            repeat: None,
            cause: None,
            edits: &mut papers.edits,
            seen: Seen::default(),
        }
    }
}

impl Exchange<'_> {
    async fn run<D: Downstream>(&mut self, down: &mut D) -> End {
        match self.prepare(down).await {
            Ok(None) => End::Answered,
            Err(end) => end,
            Ok(Some(revision)) => self.serve(revision, down).await,
        }
    }

    /// Everything before a slot is wanted. `None`: the rule has answered by itself.
    async fn prepare<D: Downstream>(
        &mut self,
        down: &mut D,
    ) -> Result<Option<Rc<LocalRevision>>, End> {
        self.check().map_err(End::Refused)?;
        if let Some(answer) = self.to_https().map_err(End::Refused)? {
            self.answer(answer, down).await?;
            return Ok(None);
        }
        if let Some(answer) = self.asked_as_activator() {
            self.answer(answer, down).await?;
            return Ok(None);
        }
        let routed = self.route().map_err(End::Refused)?;
        let first = self.rerouted.first().unwrap_or(&routed);
        if let Some(answer) = self.rule_to_https(first.rule()).map_err(End::Refused)? {
            self.routed = Some(routed);
            self.answer(answer, down).await?;
            return Ok(None);
        }
        let own = match &routed.rule().action {
            Action::Forward(_) | Action::Reroute(_) => self.probed(&routed),
            Action::Redirect(redirect) => Some(self.redirect(redirect)),
            Action::Respond(respond) => Some(self.respond(respond)),
        };
        self.routed = Some(routed.clone());
        if let Some(mut answer) = own {
            for (name, value) in &routed.rule().set_response_headers {
                answer.set(name, value.as_bytes());
            }
            self.answer(answer, down).await?;
            return Ok(None);
        }
        let revision = self.revision(&routed).map_err(End::Refused)?;
        if self.request.wants_websocket && revision.revision.protocol == Protocol::H2c {
            return Err(End::Refused(Reason::NotImplemented));
        }
        self.edit(&routed);
        self.unlike_probe(&revision.revision);
        self.deadline = self.deadline(&routed);
        self.revision = Some(revision.clone());
        Ok(Some(revision))
    }

    /// What a head asks that no route can grant.
    fn check(&mut self) -> Result<(), Reason> {
        if self.worker.is_short_of_memory(Level::Rejecting) {
            return Err(Reason::Overloaded);
        }
        let limits = &self.worker.shared.settings.limits;
        path::check(self.request, limits.dot_segments)?;
        edits::underscores(&mut self.request.head, limits.underscores)?;
        if let (Some(most), Length::Exactly(length)) = (limits.body_bytes, self.request.length)
            && length > most
        {
            return Err(Reason::BodyTooLarge);
        }
        let ours = self.worker.shared.pseudonym.as_bytes();
        let is_ours = |hop: &[u8]| hop.split(|byte| *byte == b' ').any(|word| word == ours);
        let rounds = self.request.head.list(Name::Via).filter(|hop| is_ours(hop));
        if rounds.take(ROUNDS_MAX).count() == ROUNDS_MAX {
            return Err(Reason::LoopDetected);
        }
        Ok(())
    }

    /// Slot, endpoint, answer; again while nothing can have been done.
    async fn serve<D: Downstream>(&mut self, revision: Rc<LocalRevision>, down: &mut D) -> End {
        let mut revision = revision;
        let mut removals = 0;
        let mut failure = None;
        loop {
            let slot = match self.acquire(&revision, down).await {
                Ok(slot) => slot,
                // It was removed while we waited, or tried.
                Err(hold::Denied::Removed) if removals < REMOVALS_MAX => {
                    removals += 1;
                    match self.route_again(down).await {
                        Ok(other) => revision = other,
                        Err(end) => return end,
                    }
                    continue;
                }
                Err(hold::Denied::Removed) => return End::Refused(Reason::NoRoute),
                Err(hold::Denied::Refused(reason)) => return End::Refused(reason),
                Err(hold::Denied::Full(bound)) => {
                    self.worker.metrics.queue_full(bound);
                    self.cause = Some(bound.key().into());
                    return End::Refused(Reason::QueueFull);
                }
                Err(hold::Denied::Failed(cause)) => {
                    self.cause = Some(cause);
                    return End::Refused(Reason::StartFailed);
                }
                Err(hold::Denied::Departed(departure)) => {
                    return End::Cut(upstream::gone(departure));
                }
            };
            let admitted = match &mut failure {
                None => Ok(Some(slot)),
                Some(failure) => self.admit(&revision, slot, failure, down).await,
            };
            let slot = match admitted {
                Ok(Some(slot)) => slot,
                Ok(None) => continue,
                Err(end) => return end,
            };
            if self.seen.held || self.seen.attempts > 0 {
                revision = self.as_of_now(&revision).unwrap_or(revision);
            }
            match self.attempt(&revision, slot, down).await {
                Attempt::Over(end) => return end,
                Attempt::Again(failed) => {
                    match self.again(&revision, failed, failure, down).await {
                        Ok(paused) => failure = Some(paused),
                        Err(end) => return end,
                    }
                }
            }
        }
    }
}

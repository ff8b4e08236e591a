//! One start of a revision: what it was begun for, how far it has come, and what became of it.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// The longest cause that is kept, in bytes.
pub(super) const CAUSE_MAX: usize = 512;

/// One start; unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StartId(pub(super) NonZeroU64);

/// What a start was begun for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    Request,
    Prewarm,
}

/// What became of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An endpoint came while somebody waited for it.
    Ok,
    /// The scaler said that there will be none.
    Failed,
    /// Nobody waited any more.
    GaveUp,
}

/// The steps of a start as lengths of time; `None` for a step that nobody told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// The request asks → the scaler has heard.
    pub nudge: Option<Duration>,
    /// → it acted.
    pub act: Option<Duration>,
    /// → an endpoint is seen.
    pub endpoint: Option<Duration>,
    /// → one has passed its probe.
    pub probe: Option<Duration>,
    /// → the first held request is written to it.
    pub wire: Option<Duration>,
    /// → the first byte of an answer.
    pub first_byte: Option<Duration>,
}

/// One start, as far as it has come.
#[derive(Clone, Debug)]
pub struct Start {
    pub id: StartId,
    /// When it began.
    pub at: SystemTime,
    pub trigger: Trigger,
    /// `None` while it is under way.
    pub outcome: Option<Outcome>,
    /// Why it came to nothing.
    pub cause: Option<Arc<str>>,
    /// Most requests that waited at a time while there was no endpoint.
    pub held: u32,
    pub(super) began: Instant,
    pub(super) steps: Steps,
}

/// When each step was taken.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Steps {
    pub(super) nudged: Option<Instant>,
    pub(super) acted: Option<Instant>,
    pub(super) seen: Option<Instant>,
    pub(super) passed: Option<Instant>,
    pub(super) written: Option<Instant>,
    pub(super) answered: Option<Instant>,
}

impl StartId {
    fn next() -> StartId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        StartId(NonZeroU64::new(number).unwrap_or(NonZeroU64::MAX))
    }
}

impl Trigger {
    /// The word of the admin API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Trigger::Request => "request",
            Trigger::Prewarm => "prewarm",
        }
    }
}

impl Outcome {
    /// The word of the admin API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Failed => "failed",
            Outcome::GaveUp => "gave_up",
        }
    }
}

impl Phases {
    /// In order, under the words of metrics and the admin API.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, Option<Duration>); 6] {
        [
            ("nudge", self.nudge),
            ("act", self.act),
            ("endpoint", self.endpoint),
            ("probe", self.probe),
            ("wire", self.wire),
            ("firstByte", self.first_byte),
        ]
    }

    /// From the start's beginning to the end of each phase, where these are its lengths.
    #[must_use]
    pub fn offsets(&self) -> Phases {
        let mut all = Duration::ZERO;
        let mut end = |length: Option<Duration>| {
            all += length?;
            Some(all)
        };
        Phases {
            nudge: end(self.nudge),
            act: end(self.act),
            endpoint: end(self.endpoint),
            probe: end(self.probe),
            wire: end(self.wire),
            first_byte: end(self.first_byte),
        }
    }
}

impl Start {
    pub(super) fn new(now: Instant, trigger: Trigger) -> Start {
        Start {
            id: StartId::next(),
            at: SystemTime::now(),
            trigger,
            outcome: None,
            cause: None,
            held: 0,
            began: now,
            steps: Steps::default(),
        }
    }

    /// How long each step took, from the end of the one before that somebody told of. A step that
    /// others had taken before took no time.
    #[must_use]
    pub fn phases(&self) -> Phases {
        let mut last = self.began;
        let mut length = |step: Option<Instant>| {
            let length = step?.saturating_duration_since(last);
            last += length;
            Some(length)
        };
        let steps = &self.steps;
        Phases {
            nudge: length(steps.nudged),
            act: length(steps.acted),
            endpoint: length(steps.seen),
            probe: length(steps.passed),
            wire: length(steps.written),
            first_byte: length(steps.answered),
        }
    }

    /// From its beginning to the passed probe.
    pub(super) fn length(&self) -> Option<Duration> {
        let passed = self.steps.passed?;
        Some(passed.saturating_duration_since(self.began))
    }

    pub(super) fn end(&mut self, outcome: Outcome, cause: &str) {
        self.outcome = Some(outcome);
        self.cause = Some(cause[..cause.floor_char_boundary(CAUSE_MAX)].into());
    }
}

//! How many endpoints a revision should have: Knative's pod autoscaler, fed with exact demand.
//!
//! Pure: time comes in with each observation. Once a second the average of running and waiting
//! requests over the stable window is divided by the target. A burst (the average over the much
//! shorter panic window reaches twice what the ready endpoints are meant to carry) enters *panic*,
//! in which the panic window counts too and nothing is scaled down; panic ends once the burst has
//! been over for a stable window. To zero only when the whole window was empty and the grace period
//! has passed since.
//!
//! Streams at rest are nobody's demand, so that they alone keep no endpoint up. But their slots are
//! taken: once somebody waits for one while they rest, they count like requests that had run all the
//! time, until nobody has waited for a stable window. So whoever waits need not wait for a window to
//! fill, and what was started for it does not go as soon as it is served.
//!
//! Source: `knative.dev/serving/pkg/autoscaler/scaling/autoscaler.go`. One difference: Knative
//! rounds the wanted number up before comparing it with the panic threshold, here the average
//! itself is compared.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use config::revision::Scale;

/// How often [`Autoscaler::decide`] is meant to be called.
pub const TICK: Duration = Duration::from_secs(1);
/// The panic window is this part of the stable window, but at least [`PANIC_WINDOW_LEAST`].
const PANIC_WINDOW_PART: u32 = 10;
const PANIC_WINDOW_LEAST: Duration = Duration::from_secs(1);
/// Panic begins when the panic average reaches this multiple of ready endpoints × target.
const PANIC_THRESHOLD: f64 = 2.0;
/// One decision may want at most this many times the ready endpoints.
const UP_RATE: f64 = 1000.0;
/// One decision may leave out at most all but this part of the ready endpoints.
const DOWN_RATE: u32 = 2;
/// Samples kept per window: a long window is sampled more coarsely instead of using more memory.
const RESOLUTION: u32 = 256;
/// What rounding may add to an average; without it a load of exactly n × target asks for n + 1.
const ROUNDING: f64 = 1e-6;

/// What one decision is made from.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    pub at: Instant,
    /// Integral of running + waiting requests over time, in request seconds since any fixed
    /// origin. Never decreases.
    pub area: f64,
    /// Running + waiting requests at this moment.
    pub load: u32,
    /// Those of them that wait.
    pub waiting: u32,
    /// Requests that hold a slot and rest: no part of the load.
    pub resting: u32,
    /// Endpoints that can take requests now.
    pub ready: u32,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    area: f64,
}

/// So many endpoints are wanted for some time, whatever the demand. The time begins when they are
/// ready: what comes up would be called off otherwise where that takes longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    pub endpoints: u32,
    /// Until then in any case.
    until: Instant,
    /// They have not been ready yet.
    pending: Option<Pending>,
}

/// The time that begins when endpoints are ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pending {
    time: Duration,
    /// They are held on to until then, however long they take.
    latest: Instant,
}

impl Floor {
    /// Wanted from now on, and for `time` from when all are ready; if they are not within `patience`,
    /// for the longer of the two.
    #[must_use]
    pub fn new(endpoints: u32, now: Instant, time: Duration, patience: Duration) -> Floor {
        let latest = now + patience;
        Floor {
            endpoints,
            until: now + time,
            pending: Some(Pending { time, latest }),
        }
    }

    /// Both of two floors: the higher one, for as long as either.
    #[must_use]
    pub fn and(self, other: Option<Floor>) -> Floor {
        let Some(other) = other else { return self };
        let pending = match (self.pending, other.pending) {
            (Some(one), Some(another)) => Some(Pending {
                time: one.time.max(another.time),
                latest: one.latest.max(another.latest),
            }),
            (one, another) => one.or(another),
        };
        Floor {
            endpoints: self.endpoints.max(other.endpoints),
            until: self.until.max(other.until),
            pending,
        }
    }

    /// What is left of it when so many are ready, or as many as there may be; `None`: it is over.
    #[must_use]
    pub fn left(mut self, ready: u32, most: u32, now: Instant) -> Option<Floor> {
        if let Some(Pending { time, latest }) = self.pending {
            if ready >= self.endpoints.min(most) {
                self.until = self.until.max(now + time);
                self.pending = None;
            } else if latest <= now {
                self.pending = None;
            }
        }
        (self.pending.is_some() || now < self.until).then_some(self)
    }
}

/// Decides how many endpoints one revision should have.
#[derive(Debug)]
pub struct Autoscaler {
    scale: Scale,
    /// In order of time; the last one is the newest observation.
    samples: VecDeque<Sample>,
    wanted: u32,
    panic: Option<Panic>,
    /// Since when the average over the window has been zero.
    zero_since: Option<Instant>,
    /// When somebody was last seen to wait while streams rested.
    crowded: Option<Instant>,
    floor: Option<Floor>,
}

#[derive(Clone, Copy, Debug)]
struct Panic {
    /// When the load was last over the threshold.
    last_over: Instant,
    /// The most that was wanted since panic began.
    most: u32,
}

impl Autoscaler {
    pub fn new(scale: Scale) -> Autoscaler {
        let wanted = scale.min;
        Autoscaler {
            scale,
            samples: VecDeque::new(),
            wanted,
            panic: None,
            zero_since: None,
            crowded: None,
            floor: None,
        }
    }

    /// Takes effect with the next decision; what was observed stays.
    pub fn set_scale(&mut self, scale: Scale) {
        self.scale = scale;
        self.wanted = self.bounded(self.wanted);
    }

    /// What the last decision was.
    pub fn wanted(&self) -> u32 {
        self.wanted
    }

    /// Whether the short window decides at the moment.
    pub fn panicking(&self) -> bool {
        self.panic.is_some()
    }

    /// The first request arrived at an idle revision: wants what the requests of this moment need,
    /// at least one endpoint. The idle time before no longer counts in the averages. Does nothing
    /// when endpoints are wanted already.
    pub fn wake(&mut self, seen: &Observation) -> u32 {
        if self.wanted == 0 {
            self.samples.clear();
            self.record(seen);
            self.zero_since = None;
            self.wanted = self.bounded(self.needed(f64::from(seen.load)).max(1));
        }
        self.wanted
    }

    /// Somebody expects requests: from now on at least so many are wanted, within the bounds of the
    /// revision, until the floor is over. Together with a floor that holds still, the higher one holds, for as
    /// long as either. Afterwards all is as if they had never been wanted.
    pub fn expect(&mut self, seen: &Observation, floor: Floor) -> u32 {
        self.heed_floor(seen);
        self.floor = Some(floor.and(self.floor));
        if self.wanted == 0 {
            self.samples.clear();
            self.record(seen);
            self.zero_since = None;
        }
        self.wanted = self.bounded(self.wanted);
        self.wanted
    }

    fn heed_floor(&mut self, seen: &Observation) {
        let most = match self.scale.max {
            0 => u32::MAX,
            max => max,
        };
        let left = |floor: Floor| floor.left(seen.ready, most, seen.at);
        self.floor = self.floor.and_then(left);
    }

    /// The regular decision, once per [`TICK`].
    pub fn decide(&mut self, seen: &Observation) -> u32 {
        self.record(seen);
        self.heed_floor(seen);
        let stable = self.average(seen, self.scale.window);
        let burst = self.average(seen, panic_window(self.scale.window));
        let taken = self.taken(seen);
        let ready = seen.ready.max(1);
        let most = whole(UP_RATE * f64::from(ready));
        let wanted = self.needed(stable + taken).max(ready / DOWN_RATE).min(most);
        let wanted = self.heed_panic(seen, burst + taken, wanted, most);
        let wanted = if seen.ready == 0 {
            // Nothing is served yet, so averages only say how long ago the wait began.
            wanted.max(self.needed(f64::from(seen.load)))
        } else {
            wanted
        };
        let wanted = self.heed_zero(seen, stable, wanted);
        self.wanted = self.bounded(wanted);
        self.wanted
    }

    /// How much of what endpoints carry is taken by streams at rest, as long as that is in the way.
    fn taken(&mut self, seen: &Observation) -> f64 {
        let window = self.scale.window;
        // Without an endpoint it is not for them that anybody waits.
        if seen.waiting > 0 && seen.resting > 0 && seen.ready > 0 {
            self.crowded = Some(seen.at);
        }
        let in_the_way = |last: &Instant| since(*last, seen.at) < window;
        self.crowded = self.crowded.filter(in_the_way);
        match self.crowded {
            Some(_) => f64::from(seen.resting),
            None => 0.0,
        }
    }

    /// Enters, keeps and leaves panic; in panic the number never falls.
    fn heed_panic(&mut self, seen: &Observation, burst: f64, wanted: u32, most: u32) -> u32 {
        let carried = f64::from(seen.ready.max(1)) * self.scale.target;
        if burst / carried >= PANIC_THRESHOLD {
            let before = self.panic.map_or(self.wanted, |panic| panic.most);
            self.panic = Some(Panic {
                last_over: seen.at,
                most: before,
            });
        } else if self
            .panic
            .is_some_and(|panic| since(panic.last_over, seen.at) >= self.scale.window)
        {
            self.panic = None;
        }
        let needed = self.needed(burst).min(most);
        match &mut self.panic {
            Some(panic) => {
                panic.most = panic.most.max(needed).max(wanted);
                panic.most
            }
            None => wanted,
        }
    }

    /// To zero only after an empty window and the grace period; from zero only for a request.
    fn heed_zero(&mut self, seen: &Observation, stable: f64, wanted: u32) -> u32 {
        if stable > 0.0 || seen.load > 0 {
            self.zero_since = None;
            return wanted.max(1);
        }
        let zero_since = *self.zero_since.get_or_insert(seen.at);
        if self.wanted == 0 || since(zero_since, seen.at) >= self.scale.grace {
            self.panic = None;
            return 0;
        }
        wanted.max(1)
    }

    fn needed(&self, load: f64) -> u32 {
        whole((load / self.scale.target - ROUNDING).ceil())
    }

    fn bounded(&self, wanted: u32) -> u32 {
        let floor = self.floor.map_or(0, |floor| floor.endpoints);
        let wanted = wanted.max(self.scale.min).max(floor);
        match self.scale.max {
            0 => wanted,
            max => wanted.min(max),
        }
    }

    /// Appends the observation and forgets what no window reaches back to.
    fn record(&mut self, seen: &Observation) {
        let window = self.scale.window.max(PANIC_WINDOW_LEAST);
        let spacing = window / RESOLUTION;
        let count = self.samples.len();
        if count >= 2 && since(self.samples[count - 2].at, seen.at) < spacing {
            self.samples.pop_back();
        }
        self.samples.push_back(Sample {
            at: seen.at,
            area: seen.area,
        });
        while self.samples.len() > 2 && since(self.samples[1].at, seen.at) >= window {
            self.samples.pop_front();
        }
    }

    /// Average load over `window`, or over the time since the first sample when that is shorter.
    fn average(&self, seen: &Observation, window: Duration) -> f64 {
        let Some(start) = self.sample_before(seen.at, window) else {
            return f64::from(seen.load);
        };
        let seconds = since(start.at, seen.at).as_secs_f64();
        if seconds <= 0.0 {
            return f64::from(seen.load);
        }
        ((seen.area - start.area) / seconds).max(0.0)
    }

    /// The area as it was `window` before `now`, interpolated between the samples around it.
    fn sample_before(&self, now: Instant, window: Duration) -> Option<Sample> {
        let first = *self.samples.front()?;
        let after = self
            .samples
            .partition_point(|sample| since(sample.at, now) >= window);
        if after == 0 {
            return Some(first);
        }
        let before = self.samples[after - 1];
        let Some(next) = self.samples.get(after) else {
            return Some(before);
        };
        let gap = since(before.at, next.at).as_secs_f64();
        let skipped = (since(before.at, now) - window).as_secs_f64();
        let part = if gap > 0.0 { skipped / gap } else { 0.0 };
        Some(Sample {
            at: before.at + Duration::from_secs_f64(skipped),
            area: before.area + (next.area - before.area) * part,
        })
    }
}

/// Length of the panic window that belongs to a stable window.
fn panic_window(window: Duration) -> Duration {
    (window / PANIC_WINDOW_PART).max(PANIC_WINDOW_LEAST)
}

fn since(earlier: Instant, later: Instant) -> Duration {
    later.saturating_duration_since(earlier)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, which is the bound wanted here"
)]
fn whole(number: f64) -> u32 {
    number as u32
}

#[cfg(test)]
mod tests;

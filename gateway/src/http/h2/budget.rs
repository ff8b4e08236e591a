//! What a peer's frames may cost us (RFC 9113 §10.5): the h2 crate bounds the memory they take and
//! hardly the work they make.
//!
//! Frames that carry nothing cost one each, out of a purse that fills with time and with what we
//! send: who receives much has windows to give back, pings to measure with and answers to turn down.
//! Whoever has spent it all is left. So is a client that takes back most of what it asks, or makes us
//! do so, and one whose heads are too large again and again.

use std::rc::Rc;
use std::time::{Duration, Instant};

use activator::admission::Clock;

use super::HEADER_LIST;
use super::frames::{
    ACK, CONTINUATION, DATA, END_STREAM, Frame, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};

/// Frames that carry nothing, at once.
const BURST: u32 = 1000;

/// How long it takes to earn one more: 50 in a second.
const REFILL: Duration = Duration::from_millis(20);

/// What a DATA frame of ours earns besides the windows that are given back for it: a ping that
/// measures, and what else comes with it.
const FOR_DATA: u32 = 3;

/// How often windows may be given back for a DATA frame of ours, and for how many bytes of it once
/// more: some give both windows back for every 4 KiB that they have read, long after it came.
const WINDOWS: u64 = 2;
const WINDOW_BYTES: u64 = 2048;

/// What a head of ours earns: its stream ended early, its priority changed.
const FOR_HEAD: u32 = 2;

/// What a DATA frame costs that the peer's window made tiny: more than it earns.
const FOR_CRUMB: u32 = FOR_DATA + 1;

/// Streams a client has reset, or made us reset, in [`RECENT`], before their share is looked at.
const RESETS: u32 = 200;

/// A request that is taken back sooner than this may be an attack. One that has waited for thrice
/// this was given up by somebody, which is no fault: it costs nothing and does not count.
const RAPID: Duration = Duration::from_millis(333);

/// Heads of one connection that were larger than allowed.
const LARGE_HEADS: u32 = 4;

/// Bytes of one head as it comes, in all its frames: more is too large however it unfolds, and until
/// it can be read it takes memory.
const BLOCK_MAX: usize = 2 * HEADER_LIST;

/// Codes of `RST_STREAM` (RFC 9113 §7) with which we answer a broken protocol: `PROTOCOL_ERROR`,
/// `FLOW_CONTROL_ERROR`, `STREAM_CLOSED`, `FRAME_SIZE_ERROR`, `COMPRESSION_ERROR`.
const FAULTS: [u32; 5] = [1, 3, 5, 6, 9];

/// Who the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Client,
    Endpoint,
}

/// Why a peer is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abuse {
    /// Too many frames that carry nothing.
    Frames,
    /// Most of what it asked was reset.
    Resets,
    /// Heads larger than allowed, again and again.
    Heads,
}

impl Abuse {
    pub const ALL: [Abuse; 3] = [Abuse::Frames, Abuse::Resets, Abuse::Heads];

    /// The word for it in metrics and the log.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Abuse::Frames => "frames",
            Abuse::Resets => "resets",
            Abuse::Heads => "heads",
        }
    }
}

/// One connection's.
#[derive(Debug)]
pub struct Budget {
    peer: Peer,
    clock: Rc<Clock>,
    left: u32,
    /// Windows that may be given back for nothing.
    windows: u64,
    filled: Instant,
    recent: Recent,
    /// Highest stream the client has opened.
    opened: u32,
    ages: Ages,
    /// Highest stream of the client that we have taken up.
    taken: u32,
    /// Streams whose answer has gone whole, or that we have reset.
    over: Over,
    /// Answers we are owed: to our SETTINGS and to our PINGs.
    settings: u32,
    pings: u32,
    large_heads: u32,
    /// Bytes of the last head so far.
    block: usize,
    abuse: Option<Abuse>,
}

/// What some bytes brought.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    cost: u32,
    windows: u32,
    streams: u32,
    resets: u32,
}

impl Budget {
    #[must_use]
    pub fn new(peer: Peer, clock: &Rc<Clock>) -> Budget {
        Budget {
            peer,
            clock: clock.clone(),
            left: BURST,
            windows: 0,
            filled: clock.now(),
            recent: Recent::new(clock.now()),
            opened: 0,
            ages: Ages::new(clock.now()),
            taken: 0,
            over: Over::default(),
            settings: 0,
            pings: 0,
            large_heads: 0,
            block: 0,
            abuse: None,
        }
    }

    /// Why it must be left, once it must.
    #[must_use]
    pub fn abuse(&self) -> Option<Abuse> {
        self.abuse
    }

    /// Adds a frame that came.
    pub(super) fn count(&mut self, frame: Frame, tally: &mut Tally) {
        match frame.kind {
            HEADERS => self.block = frame.length,
            CONTINUATION => self.block += frame.length,
            _ => {}
        }
        if self.block > BLOCK_MAX {
            self.abuse.get_or_insert(Abuse::Heads);
        }
        tally.cost += match frame.kind {
            DATA => u32::from(frame.length == 0 && !frame.has(END_STREAM)),
            HEADERS => {
                if frame.stream > self.opened {
                    self.ages.turn(self.clock.now(), self.opened);
                    self.opened = frame.stream;
                    self.over.set(frame.stream, false);
                    tally.streams += 1;
                }
                // Of an endpoint: an interim answer, or an answer that ours has paid for.
                let answer = self.peer == Peer::Endpoint && !frame.has(END_STREAM);
                u32::from(frame.length == 0 || answer)
            }
            RST_STREAM => self.reset(frame.stream, tally),
            SETTINGS if frame.has(ACK) => unasked(&mut self.settings),
            PING if frame.has(ACK) => unasked(&mut self.pings),
            WINDOW_UPDATE => {
                tally.windows += 1;
                0
            }
            // Among them CONTINUATION, PRIORITY, GOAWAY and unknown ones.
            _ => 1,
        };
    }

    /// What it costs that the peer takes this stream back.
    fn reset(&mut self, stream: u32, tally: &mut Tally) -> u32 {
        if self.over.has(stream) {
            // Who was answered before it had said all says so.
            return 1;
        }
        self.ages.turn(self.clock.now(), self.opened);
        if self.peer == Peer::Client && stream <= self.ages.old {
            // Free once. Its bit may be a later stream's by now: then nobody could tell.
            let known = self.opened - stream < Over::SPAN;
            if known {
                self.over.set(stream, true);
            }
            return u32::from(!known);
        }
        tally.resets += 1;
        1
    }

    /// Takes what came; whether it may be looked at.
    pub(super) fn admit(&mut self, tally: Tally) -> bool {
        let given = u64::from(tally.windows);
        let paid = given.min(self.windows);
        self.windows -= paid;
        let cost = tally.cost + u32::try_from(given - paid).unwrap_or(u32::MAX);
        if cost > 0 {
            self.spend(cost);
        }
        if tally.streams + tally.resets > 0 && self.peer == Peer::Client {
            self.note(tally.streams, tally.resets);
        }
        self.abuse.is_none()
    }

    /// A frame of ours that went.
    pub(super) fn sent(&mut self, frame: Frame) {
        let ends = matches!(frame.kind, DATA | HEADERS) && frame.has(END_STREAM);
        if ends || frame.kind == RST_STREAM {
            self.over.set(frame.stream, true);
        }
        match frame.kind {
            DATA if frame.length > 0 => {
                self.earn(FOR_DATA);
                self.windows += WINDOWS + frame.length as u64 / WINDOW_BYTES;
            }
            HEADERS => {
                self.earn(FOR_HEAD);
                // The h2 crate itself answers a head that is larger than it may be.
                if self.peer == Peer::Client && frame.stream > self.taken {
                    self.large_head();
                }
            }
            RST_STREAM if self.peer == Peer::Client && FAULTS.contains(&frame.code) => {
                self.note(0, 1);
            }
            SETTINGS if !frame.has(ACK) => self.settings += 1,
            PING if !frame.has(ACK) => self.pings += 1,
            _ => {}
        }
    }

    /// A client's stream was taken up.
    pub fn taken(&mut self, stream: u32) {
        self.taken = self.taken.max(stream);
    }

    /// A head was larger than allowed.
    pub fn large_head(&mut self) {
        self.large_heads += 1;
        if self.large_heads >= LARGE_HEADS {
            self.abuse.get_or_insert(Abuse::Heads);
        }
    }

    /// The peer's window lets so little through that the frame is hardly worth its header.
    pub fn crumb(&mut self) {
        self.spend(FOR_CRUMB);
    }

    fn earn(&mut self, count: u32) {
        self.left = BURST.min(self.left + count);
    }

    fn spend(&mut self, cost: u32) {
        let passed = self.clock.now().saturating_duration_since(self.filled);
        let earned = u32::try_from(passed.as_millis() / REFILL.as_millis()).unwrap_or(BURST);
        if earned > 0 {
            self.earn(earned.min(BURST));
            self.filled += REFILL * earned;
        }
        match self.left.checked_sub(cost) {
            Some(left) => self.left = left,
            None => {
                self.abuse.get_or_insert(Abuse::Frames);
            }
        }
    }

    fn note(&mut self, streams: u32, resets: u32) {
        self.recent.add(self.clock.now(), streams, resets);
        if self.recent.is_mostly_reset() {
            self.abuse.get_or_insert(Abuse::Resets);
        }
    }
}

/// How long streams have been open, by their numbers alone.
#[derive(Debug)]
struct Ages {
    /// The highest stream when the present span began, and when that was.
    young: u32,
    since: Instant,
    /// The highest that had been opened at least [`RAPID`] before that.
    old: u32,
}

impl Ages {
    fn new(since: Instant) -> Ages {
        Ages {
            young: 0,
            since,
            old: 0,
        }
    }

    /// Brings it up to `now`, when `opened` is the highest stream so far. To be called before it rises.
    fn turn(&mut self, now: Instant, opened: u32) {
        let passed = now.saturating_duration_since(self.since);
        if passed >= RAPID {
            // Had there been a stream in the second half of a span so long, it would have ended it.
            let old_too = passed >= 2 * RAPID;
            self.old = if old_too { opened } else { self.young };
            self.young = opened;
            self.since = now;
        }
    }
}

/// One bit for each of the last streams.
#[derive(Debug, Default)]
struct Over([u64; 16]);

impl Over {
    /// So far back a stream's bit is its own: clients' streams have odd numbers.
    const SPAN: u32 = 2 * 16 * 64;

    fn place(&self, stream: u32) -> (usize, u64) {
        let number = stream as usize / 2 % (self.0.len() * 64);
        (number / 64, 1 << (number % 64))
    }

    fn set(&mut self, stream: u32, over: bool) {
        let (word, bit) = self.place(stream);
        if over {
            self.0[word] |= bit;
        } else {
            self.0[word] &= !bit;
        }
    }

    fn has(&self, stream: u32) -> bool {
        let (word, bit) = self.place(stream);
        self.0[word] & bit != 0
    }
}

/// What an answer nobody asked for costs; one that is owed is free.
fn unasked(owed: &mut u32) -> u32 {
    match owed.checked_sub(1) {
        Some(left) => {
            *owed = left;
            0
        }
        None => 1,
    }
}

/// Parts of the time that is looked back on.
const PARTS: usize = 7;

/// Each of them: together at least 30 seconds, the one that has just begun left out.
const PART: Duration = Duration::from_secs(5);

/// Streams of the last half minute.
#[derive(Debug)]
struct Recent {
    /// Begun and reset in each part, in turn.
    parts: [(u32, u32); PARTS],
    /// The one that is added to, and when it began.
    now: usize,
    since: Instant,
}

impl Recent {
    fn new(since: Instant) -> Recent {
        Recent {
            parts: [(0, 0); PARTS],
            now: 0,
            since,
        }
    }

    fn add(&mut self, at: Instant, streams: u32, resets: u32) {
        let mut turns = 0;
        while at.saturating_duration_since(self.since) >= PART && turns < PARTS {
            self.since += PART;
            self.now = (self.now + 1) % PARTS;
            self.parts[self.now] = (0, 0);
            turns += 1;
        }
        if turns == PARTS {
            self.since = at;
        }
        let part = &mut self.parts[self.now];
        part.0 = part.0.saturating_add(streams);
        part.1 = part.1.saturating_add(resets);
    }

    fn is_mostly_reset(&self) -> bool {
        let sum = |all: (u32, u32), part: &(u32, u32)| {
            (all.0.saturating_add(part.0), all.1.saturating_add(part.1))
        };
        let (streams, resets) = self.parts.iter().fold((0, 0), sum);
        resets > RESETS && resets.saturating_mul(2) > streams
    }
}

#[cfg(test)]
mod tests;

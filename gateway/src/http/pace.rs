//! How one side of an exchange keeps up: what its time limits are judged by. Cells, because the
//! futures that read and write lend it to the one that watches the clock.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use activator::admission::Clock;

/// What the kernel keeps of one connection's bytes at most: the usual `net.ipv4.tcp_wmem`.
const SEND_QUEUE_MAX: u64 = 4 * 1024 * 1024;

/// Bytes per second a client must take of its answer while it keeps us waiting. Streams of one HTTP/2
/// connection share them.
pub const SEND_RATE: u64 = 1024;

/// How far it may fall behind that: what 256 KiB are worth. A client is waited for only while as
/// much lies ready for it as its kernel, ours and its window take, so how much that is need not be
/// asked: whatever it takes then makes room for as much.
pub const BEHIND_MAX: Duration = Duration::from_secs(256 * 1024 / SEND_RATE);

/// A write that waits for no longer is no sign that the peer takes nothing.
const MOMENT: Duration = Duration::from_millis(100);

/// Progress of one connection during one exchange.
#[derive(Debug)]
pub struct Pace {
    clock: Rc<Clock>,
    /// Since when a read has been waiting for the peer.
    starved_since: Cell<Option<Instant>>,
    /// How long reads before that one waited.
    starved: Cell<Duration>,
    /// Since when a write has been waiting for the peer.
    blocked_since: Cell<Option<Instant>>,
    /// Bytes per second the peer must take while it keeps us waiting; 0 = it is not judged.
    send_rate: Cell<u64>,
    /// How far it is behind that: how much longer it kept us waiting than what it then took is worth.
    behind: Cell<Duration>,
    last: Cell<Instant>,
    read: Cell<u64>,
    body: Cell<u64>,
    written: Cell<u64>,
}

impl Pace {
    #[must_use]
    pub fn new(clock: &Rc<Clock>) -> Pace {
        Pace {
            clock: clock.clone(),
            starved_since: Cell::new(None),
            starved: Cell::new(Duration::ZERO),
            blocked_since: Cell::new(None),
            send_rate: Cell::new(0),
            behind: Cell::new(Duration::ZERO),
            last: Cell::new(clock.now()),
            read: Cell::new(0),
            body: Cell::new(0),
            written: Cell::new(0),
        }
    }

    pub fn read_waits(&self) {
        if self.starved_since.get().is_none() {
            self.starved_since.set(Some(self.clock.now()));
        }
    }

    /// A read waits because of us: the peer may not send. Its time begins anew.
    pub fn read_waits_for_us(&self) {
        self.starved_since.set(Some(self.clock.now()));
    }

    /// Nobody reads for a while: what passes until a read waits again is not the peer's time.
    pub fn read_rests(&self) {
        if let Some(since) = self.starved_since.take() {
            let waited = self.clock.now().saturating_duration_since(since);
            self.starved.set(self.starved.get() + waited);
        }
    }

    pub fn read_moved(&self, bytes: usize) {
        let now = self.clock.now();
        self.read_rests();
        self.read.set(self.read.get() + bytes as u64);
        self.last.set(now);
    }

    /// Bytes of a body were passed on.
    pub fn body_moved(&self, bytes: usize) {
        self.body.set(self.body.get() + bytes as u64);
    }

    /// Bytes of the body read from this side and passed on.
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        self.body.get()
    }

    pub fn write_waits(&self) {
        if self.blocked_since.get().is_none() {
            self.blocked_since.set(Some(self.clock.now()));
        }
    }

    /// Whether a write waits for the peer.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.blocked_since.get().is_some()
    }

    pub fn write_moved(&self, bytes: usize) {
        let now = self.clock.now();
        if let Some(since) = self.blocked_since.take() {
            let waited = now.saturating_duration_since(since);
            self.behind.set(self.behind.get() + waited);
        }
        if !self.behind.get().is_zero() {
            self.catch_up(bytes as u64);
        }
        self.written.set(self.written.get() + bytes as u64);
        self.last.set(now);
    }

    /// A write that had to wait found all the room before it taken: whatever goes on now stands for
    /// as many bytes that the peer has taken.
    fn catch_up(&self, bytes: u64) {
        let worth = match self.send_rate.get() {
            0 => Duration::MAX,
            rate => Duration::from_millis(bytes.saturating_mul(1000) / rate),
        };
        self.behind.set(self.behind.get().saturating_sub(worth));
    }

    /// From now on the peer must take so many bytes per second while it keeps us waiting.
    pub fn expect_rate(&self, bytes_per_second: u64) {
        self.send_rate.set(bytes_per_second);
    }

    /// Bytes that lie in the kernel for a peer that takes none now, at most.
    #[must_use]
    pub fn stuck_bytes(&self) -> u64 {
        let now = self.clock.now();
        match self.blocked_since.get() {
            Some(since) if now >= since + MOMENT => self.written.get().min(SEND_QUEUE_MAX),
            _ => 0,
        }
    }

    /// When the last byte moved either way.
    #[must_use]
    pub fn last(&self) -> Instant {
        self.last.get()
    }

    /// Bytes read since the exchange began.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.read.get()
    }

    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.written.get()
    }

    /// When a write that waits now will have stalled for `limit`.
    #[must_use]
    pub fn stall_deadline(&self, limit: Duration) -> Option<Instant> {
        self.blocked_since.get().map(|since| since + limit)
    }

    /// When the peer, which keeps a write waiting now, will be behind its rate by `most`. However
    /// much it took at once before does not pay for waiting later.
    #[must_use]
    pub fn slow_deadline(&self, most: Duration) -> Option<Instant> {
        if self.send_rate.get() == 0 {
            return None;
        }
        let since = self.blocked_since.get()?;
        Some(since + most.saturating_sub(self.behind.get()))
    }

    /// When a read that waits now breaks `idle` or the minimum rate (bytes per second after
    /// `grace`). Only time spent waiting counts: a peer we do not read from is not slow.
    #[must_use]
    pub fn body_deadline(&self, idle: Duration, rate: u64, grace: Duration) -> Option<Instant> {
        let since = self.starved_since.get()?;
        let by_idle = since + idle;
        if rate == 0 {
            return Some(by_idle);
        }
        let earned = Duration::from_millis(self.read.get().saturating_mul(1000) / rate);
        let by_rate = since + (grace + earned).saturating_sub(self.starved.get());
        Some(by_idle.min(by_rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);
    const GRACE: Duration = Duration::from_secs(5);

    /// A pace, its clock, and its beginning.
    fn begun() -> (Pace, Rc<Clock>, Instant) {
        let begin = Instant::now();
        let clock = Clock::new(begin);
        (Pace::new(&clock), clock, begin)
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_body_is_late_only_while_it_is_waited_for() {
        let (pace, clock, begin) = begun();
        assert_eq!(pace.body_deadline(IDLE, 0, GRACE), None);
        clock.set(begin + seconds(100));
        pace.read_waits();
        clock.set(begin + seconds(101));
        pace.read_waits();
        let late = Some(begin + seconds(160));
        assert_eq!(pace.body_deadline(IDLE, 0, GRACE), late);
        pace.read_moved(1);
        assert_eq!(pace.body_deadline(IDLE, 0, GRACE), None);
        assert_eq!(pace.last(), begin + seconds(101));
    }

    #[test]
    fn a_body_below_its_rate_has_less_time_the_longer_it_was_waited_for() {
        let (pace, clock, begin) = begun();
        pace.read_waits();
        assert_eq!(pace.body_deadline(IDLE, 100, GRACE), Some(begin + GRACE));
        // 200 bytes after four seconds are worth two of them at 100 bytes per second.
        clock.set(begin + seconds(4));
        pace.read_moved(200);
        clock.set(begin + seconds(50));
        pace.read_waits();
        let left = seconds(5 + 2 - 4);
        let late = Some(begin + seconds(50) + left);
        assert_eq!(pace.body_deadline(IDLE, 100, GRACE), late);
        // Never more than the idle time, however much came before.
        pace.read_moved(1_000_000);
        pace.read_waits();
        let late = Some(begin + seconds(50) + IDLE);
        assert_eq!(pace.body_deadline(IDLE, 100, GRACE), late);
    }

    #[test]
    fn what_passes_while_nobody_reads_is_not_the_peer_s_time() {
        let (pace, clock, begin) = begun();
        pace.read_waits();
        clock.set(begin + seconds(2));
        pace.read_rests();
        assert_eq!(pace.body_deadline(IDLE, 100, GRACE), None);
        clock.set(begin + seconds(100));
        pace.read_waits();
        // What it had used up before stays used.
        let late = Some(begin + seconds(103));
        assert_eq!(pace.body_deadline(IDLE, 100, GRACE), late);
    }

    #[test]
    fn who_keeps_writes_waiting_falls_behind_unless_it_takes_enough_meanwhile() {
        let most = seconds(256);
        let (pace, clock, begin) = begun();
        pace.write_waits();
        assert_eq!(pace.slow_deadline(most), None);
        pace.expect_rate(1024);
        assert_eq!(pace.slow_deadline(most), Some(begin + most));
        // 60 s for what is worth 20.
        clock.set(begin + seconds(60));
        pace.write_moved(20 * 1024);
        assert_eq!(pace.slow_deadline(most), None);
        clock.set(begin + seconds(1000));
        pace.write_waits();
        let late = Some(begin + seconds(1000 + 256 - 40));
        assert_eq!(pace.slow_deadline(most), late);
        // However much it takes now, it has no more than the whole of it later.
        pace.write_moved(1 << 30);
        pace.write_waits();
        let late = Some(begin + seconds(1000) + most);
        assert_eq!(pace.slow_deadline(most), late);
    }

    #[test]
    fn a_write_stalls_from_when_it_waits_until_bytes_move() {
        let (pace, clock, begin) = begun();
        assert_eq!(pace.stall_deadline(IDLE), None);
        pace.write_waits();
        clock.set(begin + seconds(10));
        pace.write_waits();
        assert_eq!(pace.stall_deadline(IDLE), Some(begin + IDLE));
        pace.write_moved(1);
        assert_eq!(pace.stall_deadline(IDLE), None);
        assert_eq!((pace.bytes_written(), pace.bytes_read()), (1, 0));
    }
}

//! Whether a silent peer is still there.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use h2::{Ping, PingPong};

use super::wire::Heard;

/// How long a peer may take to answer a ping.
const PONG_TIMEOUT: Duration = Duration::from_secs(20);

/// Asks a peer that has been silent for a while.
#[derive(Debug)]
pub struct Pings {
    ping_pong: Option<PingPong>,
    heard: Rc<Heard>,
    /// After so much silence it is asked.
    after: Duration,
    /// When it was asked and has not answered.
    asked: Option<Instant>,
}

impl Pings {
    #[must_use]
    pub fn new(ping_pong: Option<PingPong>, heard: Rc<Heard>, after: Duration) -> Pings {
        Pings {
            ping_pong,
            heard,
            after,
            asked: None,
        }
    }

    /// Asks when it is time. The next instant to be polled at, or `None`: the peer is gone.
    ///
    /// `cx` hears of the answer, too.
    pub fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Option<Instant> {
        let Some(ping_pong) = &mut self.ping_pong else {
            return Some(now + self.after);
        };
        if self.asked.is_some() && matches!(ping_pong.poll_pong(cx), Poll::Ready(Ok(_))) {
            self.asked = None;
        }
        if let Some(asked) = self.asked {
            // Whatever it says shows that it is there.
            let since = asked.max(self.heard.at());
            return (now < since + PONG_TIMEOUT).then_some(since + PONG_TIMEOUT);
        }
        let due = self.heard.at() + self.after;
        if now < due {
            return Some(due);
        }
        if ping_pong.send_ping(Ping::opaque()).is_ok() {
            self.asked = Some(now);
            // The answer wakes who has asked for it.
            let _not_yet = ping_pong.poll_pong(cx);
        }
        Some(now + PONG_TIMEOUT)
    }
}

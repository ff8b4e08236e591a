//! The way out, step by step. Control moves the phase; every worker follows it.

use std::time::Duration;

/// How far the process is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Everything is set up, and nothing accepted yet: another process may still serve.
    Poised,
    Serving,
    /// `/readyz` says 503; everything else goes on for `drain.wait`.
    Announced,
    /// Listening sockets are closed, answers say `Connection: close`.
    Closing,
    /// `drain.timeout` is over: who still waits is refused, what still runs is cut.
    Ended,
}

/// How long an idle connection may stay silent once the listeners are closed.
pub const IDLE_WHILE_CLOSING: Duration = Duration::from_millis(500);

/// The same when another process has taken over: nobody waits for the end of this one, and whoever
/// had just come to it, or is amid a handshake, should not have to come again.
pub const IDLE_AFTER_TAKEOVER: Duration = Duration::from_secs(5);

/// How long exchanges may take to say that they were cut, once `drain.timeout` is over.
pub const LAST_WORDS: Duration = Duration::from_millis(500);

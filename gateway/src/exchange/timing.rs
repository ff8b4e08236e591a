//! `Server-Timing` (<https://www.w3.org/TR/server-timing/>): tells a client where the time of its
//! request went.

use std::io::Write;
use std::time::Duration;

use super::{Exchange, Seen};
use crate::live::LocalRevision;
use crate::observe::facts::WaitReason;

/// What is told. Nothing is, of a request that neither waited nor reached an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Timing {
    /// How long it waited, and why.
    queue: Option<(Duration, WaitReason)>,
    /// How long the start took that it waited for.
    start: Option<Duration>,
    /// Spent at endpoints, connecting included; of attempts that failed too.
    endpoint: Option<Duration>,
}

impl Timing {
    /// Of a request of that revision, with the attempts that are over.
    pub(super) fn so_far(seen: &Seen, revision: Option<&LocalRevision>) -> Timing {
        let started = revision.zip(seen.start);
        Timing {
            queue: seen.wait_reason.map(|reason| (seen.waited, reason)),
            start: started.and_then(|(of, start)| of.gate.throttle().starts().took(start)),
            endpoint: (seen.attempts > 0).then_some(seen.endpoint),
        }
    }

    /// With what the attempt took whose answer begins.
    pub(super) fn and(self, attempt: Duration) -> Timing {
        Timing {
            endpoint: Some(self.endpoint.unwrap_or_default() + attempt),
            ..self
        }
    }

    /// Appends the header line.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        if *self == Timing::default() {
            return;
        }
        out.extend_from_slice(b"server-timing: ");
        let mut separator = "";
        let mut part = |name: &str, length: Duration, why: Option<WaitReason>| {
            // Writing to memory cannot fail.
            let _infallible = write!(out, "{separator}{name};dur={}", Millis(length));
            if let Some(why) = why {
                let _infallible = write!(out, ";desc=\"{}\"", why.word());
            }
            separator = ", ";
        };
        if let Some((waited, reason)) = self.queue {
            part("queue", waited, Some(reason));
        }
        if let Some(start) = self.start {
            part("start", start, None);
        }
        if let Some(endpoint) = self.endpoint {
            part("endpoint", endpoint, None);
        }
        out.extend_from_slice(b"\r\n");
    }
}

impl Exchange<'_> {
    /// What the client is told of a request that ends here; `None` where clients are told nothing.
    pub(super) fn timing(&self) -> Option<Timing> {
        let asked = self.worker.shared.settings.server_timing;
        asked.then(|| Timing::so_far(&self.seen, self.revision.as_deref()))
    }
}

struct Millis(Duration);

impl std::fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = self.0.subsec_micros() % 1_000;
        write!(f, "{}.{micros:03}", self.0.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(timing: &Timing) -> String {
        let mut out = Vec::new();
        timing.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_known_is_told_in_milliseconds() {
        let mut seen = Seen::default();
        let so_far = |seen: &Seen| Timing::so_far(seen, None);
        assert_eq!(written(&so_far(&seen)), "");
        let answered = so_far(&seen).and(Duration::from_micros(1_500));
        assert_eq!(written(&answered), "server-timing: endpoint;dur=1.500\r\n");
        seen.waited = Duration::from_millis(12);
        seen.wait_reason = Some(WaitReason::Cold);
        let waits = "server-timing: queue;dur=12.000;desc=\"cold\"\r\n";
        assert_eq!(written(&so_far(&seen)), waits);
        seen.attempts = 2;
        seen.endpoint = Duration::from_micros(1_002);
        let whole = "server-timing: queue;dur=12.000;desc=\"cold\", endpoint;dur=2.003\r\n";
        let again = so_far(&seen).and(Duration::from_micros(1_001));
        assert_eq!(written(&again), whole);
        let cold = Timing {
            start: Some(Duration::from_micros(11_500)),
            ..again
        };
        let start = whole.replace("endpoint;", "start;dur=11.500, endpoint;");
        assert_eq!(written(&cold), start);
    }
}

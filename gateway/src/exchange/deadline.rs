//! When the client itself stops waiting, as it says.

use std::time::{Duration, Instant};

use config::route::Fields;

use super::{Exchange, grpc};
use crate::live::Routed;

/// Longest text that is looked at.
const TEXT_BYTES_MAX: usize = 32;
/// Longest time that means anything.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

impl Exchange<'_> {
    /// The earliest that its fields say; `None` where they say nothing that can be read.
    pub(super) fn deadline(&self, routed: &Routed) -> Option<Instant> {
        let of_grpc = grpc::deadline(self.request, self.arrived);
        let Some(urgency) = routed.route().urgency_of(routed.rule()) else {
            return of_grpc;
        };
        let name = urgency.deadline.as_deref();
        let said = name.and_then(|name| Fields::first(&self.request.head, name));
        let said = said.and_then(time).map(|time| self.arrived + time);
        match (of_grpc, said) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }
}

/// A duration as files write it, or plain seconds; `None` for what is neither, for none at all, and
/// for more than a year.
fn time(value: &[u8]) -> Option<Duration> {
    if value.len() > TEXT_BYTES_MAX {
        return None;
    }
    let text = std::str::from_utf8(value).ok()?;
    let plain = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    let time = match text.bytes().all(plain) {
        true => Duration::try_from_secs_f64(text.parse().ok()?).ok()?,
        false => config::duration::parse(text).ok()?,
    };
    (!time.is_zero() && time <= LONGEST).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_in_files_or_in_seconds() {
        for (text, millis) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("10", 10_000),
            ("0.5", 500),
            ("1.25", 1250),
            ("8784h", 31_622_400_000),
        ] {
            let wanted = Some(Duration::from_millis(millis));
            assert_eq!(time(text.as_bytes()), wanted, "{text}");
        }
        let long = "0".repeat(TEXT_BYTES_MAX) + "1";
        for text in [
            "",
            "0",
            "0s",
            "0.0",
            ".",
            "-1",
            "+1",
            "1e9",
            "nan",
            "inf",
            "1 s",
            "1,5",
            "1.5s",
            "8785h",
            "99999999999999999999",
            "1..5",
            "soon",
            "\u{661}",
            &long,
        ] {
            assert_eq!(time(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(time(b"\xff"), None);
    }
}

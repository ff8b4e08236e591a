//! What a gRPC request says of itself beyond HTTP
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use std::time::{Duration, Instant};

use config::route::Fields;

use crate::http::message::RequestHead;

/// Most digits of a timeout.
const DIGITS_MAX: usize = 8;

/// When the client stops waiting for a request that arrived then: `None` for what is not gRPC, names
/// no timeout, or one that no server would understand.
pub(super) fn deadline(request: &RequestHead, arrived: Instant) -> Option<Instant> {
    if !request.is_grpc() {
        return None;
    }
    let said = Fields::first(&request.head, "grpc-timeout")?;
    arrived.checked_add(timeout(said)?)
}

/// Digits and a unit.
pub(crate) fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |number: u64, digit: &u8| number * 10 + u64::from(digit - b'0');
    let number = digits.iter().fold(0, add);
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_up_to_eight_digits_and_a_unit() {
        for (text, wanted) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("6n", Duration::from_nanos(6)),
            ("0n", Duration::ZERO),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
            ("00000001S", Duration::from_secs(1)),
        ] {
            assert_eq!(timeout(text.as_bytes()), Some(wanted), "{text}");
        }
        for text in [
            "",
            "S",
            "1",
            "1s",
            "1h",
            "-1S",
            "+1S",
            "1.5S",
            "1 S",
            " 1S",
            "123456789n",
            "1SS",
        ] {
            assert_eq!(timeout(text.as_bytes()), None, "{text}");
        }
    }
}

//! Durations as files have them: `500ms`, `10s`, `5m`, `1h`, `1m30s`.

use std::time::Duration;

/// Longest duration that means anything here.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotADuration {
    pub problem: &'static str,
    /// What to write instead.
    pub hint: String,
}

/// What a duration looks like.
pub(crate) const FORM: &str = "write a number and a unit: 500ms, 10s, 5m, 1h";

fn not(problem: &'static str, hint: impl Into<String>) -> NotADuration {
    NotADuration {
        problem,
        hint: hint.into(),
    }
}

/// Reads a duration: numbers with units, added up. At most 366 days.
///
/// # Errors
/// Why it is none.
pub fn parse(text: &str) -> Result<Duration, NotADuration> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(not(
            "the duration has no unit",
            format!("write {text}s for seconds, or {text}ms for milliseconds"),
        ));
    }
    let mut rest = text;
    let mut sum = Duration::ZERO;
    loop {
        let (part, after) = part(rest)?;
        sum = sum.saturating_add(part);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    if sum > LONGEST {
        return Err(not(
            "the duration is longer than a year",
            "write a shorter one",
        ));
    }
    Ok(sum)
}

/// One number with its unit, and what follows.
fn part(text: &str) -> Result<(Duration, &str), NotADuration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    if number.is_empty() {
        return Err(not("this is not a duration", FORM));
    }
    let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (unit, rest) = rest.split_at(letters);
    let Ok(number) = number.parse::<u64>() else {
        return Err(not(
            "the duration is longer than a year",
            "write a shorter one",
        ));
    };
    let seconds = |each: u64| Duration::from_secs(number.saturating_mul(each));
    let duration = match unit {
        "ms" => Duration::from_millis(number),
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3600),
        "d" => {
            let hint = format!("write {}h", number.saturating_mul(24));
            return Err(not("days are not a unit here", hint));
        }
        "" if rest.starts_with('.') => {
            return Err(not(
                "fractions are not supported",
                "write whole numbers of a smaller unit: 1500ms",
            ));
        }
        _ => return Err(not("this is not a duration", FORM)),
    };
    Ok((duration, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_and_their_sum_is_read() {
        let millis = |text| parse(text).map(|duration| duration.as_millis());
        assert_eq!(millis("500ms"), Ok(500));
        assert_eq!(millis("10s"), Ok(10_000));
        assert_eq!(millis("5m"), Ok(300_000));
        assert_eq!(millis("24h"), Ok(86_400_000));
        assert_eq!(millis("1m30s"), Ok(90_000));
        assert_eq!(millis("0s"), Ok(0));
        assert_eq!(millis("0"), Ok(0));
        assert_eq!(millis("0s5s"), Ok(5000));
    }

    #[test]
    fn what_is_none_says_what_to_write() {
        let hint = |text: &str| parse(text).unwrap_err().hint;
        assert_eq!(
            hint("30"),
            "write 30s for seconds, or 30ms for milliseconds"
        );
        assert_eq!(hint("2d"), "write 48h");
        assert_eq!(
            hint("1.5s"),
            "write whole numbers of a smaller unit: 1500ms"
        );
        for text in ["", "s", "-1s", "1 s", "10S", "1sec", "0s ", "é", "1s!"] {
            assert_eq!(hint(text), FORM, "{text:?}");
        }
        let long = "99999999999999999999999h";
        assert_eq!(
            parse(long).unwrap_err().problem,
            "the duration is longer than a year"
        );
        assert_eq!(
            parse("18446744073709551615h18446744073709551615h")
                .unwrap_err()
                .problem,
            "the duration is longer than a year"
        );
    }
}

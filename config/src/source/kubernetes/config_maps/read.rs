//! Values of ConfigMaps as Knative's own programs read them.

use std::str::FromStr;
use std::time::Duration;

use super::{BadValue, Data, Unheeded};

/// One map while it is read.
#[derive(Clone, Copy)]
pub(super) struct Map<'a> {
    pub(super) name: &'static str,
    pub(super) data: &'a Data,
}

impl<'a> Map<'a> {
    /// The value, unless it is missing or empty.
    pub(super) fn text(self, key: &str) -> Option<&'a str> {
        let value = self.data.get(key)?;
        Some(value.as_str()).filter(|value| !value.trim().is_empty())
    }

    /// The first of these keys that is set: an older spelling follows the one of today.
    fn first(self, keys: &[&'static str]) -> Option<(&'static str, &'a str)> {
        let found = keys.iter().map(|key| Some((*key, self.text(key)?)));
        found.flatten().next()
    }

    fn read<T>(
        self,
        keys: &[&'static str],
        default: T,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, BadValue> {
        match self.first(keys) {
            None => Ok(default),
            Some((key, value)) => {
                read(value.trim()).map_err(|problem| self.wrong(key, value, problem))
            }
        }
    }

    pub(super) fn wrong(
        self,
        key: &'static str,
        value: &str,
        problem: impl Into<String>,
    ) -> BadValue {
        BadValue {
            map: self.name,
            key,
            value: value.to_owned(),
            problem: problem.into(),
        }
    }

    /// `true` or `false`, in any case, and the short forms of Go.
    pub(super) fn flag(self, key: &'static str, default: bool) -> Result<bool, BadValue> {
        self.read(&[key], default, |value| {
            match value.to_ascii_lowercase().as_str() {
                "true" | "t" | "1" => Ok(true),
                "false" | "f" | "0" => Ok(false),
                _ => Err("write true or false".to_owned()),
            }
        })
    }

    pub(super) fn number<T: FromStr>(
        self,
        key: &'static str,
        default: T,
        hint: &str,
    ) -> Result<T, BadValue> {
        self.read(&[key], default, |value| {
            value.parse().map_err(|_not_one| hint.to_owned())
        })
    }

    pub(super) fn duration(
        self,
        keys: &[&'static str],
        default: Duration,
    ) -> Result<Duration, BadValue> {
        let hint = "write a number and a unit: 500ms, 10s, 1.5m, 1h30m";
        self.read(keys, default, |value| {
            duration(value).ok_or_else(|| hint.to_owned())
        })
    }

    /// One of these words, in any case.
    pub(super) fn word<T: Copy>(
        self,
        key: &'static str,
        default: T,
        words: &[(&str, T)],
    ) -> Result<T, BadValue> {
        self.read(&[key], default, |value| {
            let found = words
                .iter()
                .find(|(word, _)| value.eq_ignore_ascii_case(word));
            found.map(|(_, meaning)| *meaning).ok_or_else(|| {
                let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                format!("write one of {}", words.join(", "))
            })
        })
    }

    pub(super) fn unheeded(self, key: &'static str, instead: &'static str) -> Unheeded {
        let map = self.name;
        Unheeded { map, key, instead }
    }
}

/// A length of time as Go writes it: numbers with units, added up, with fractions and perhaps a
/// plus sign. None is negative or longer than Go's longest.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut sum = 0_f64;
    loop {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, after) = after.split_at(unit.unwrap_or(after.len()));
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * seconds;
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    let longest = Duration::from_nanos(i64::MAX.unsigned_abs());
    let duration = Duration::try_from_secs_f64(sum).ok()?;
    (duration <= longest).then_some(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("60s", 60_000),
            ("+1m", 60_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            (".5s", 500),
            ("1.s", 1_000),
            ("250ms", 250),
            ("1500000us", 1_500),
            ("2000000µs", 2_000),
            ("1000000000ns", 1_000),
        ] {
            assert_eq!(
                duration(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in [
            "",
            "5",
            "s",
            "-1s",
            "1d",
            "1 s",
            "1S",
            "1..2s",
            ".s",
            "1sx",
            "9e9h",
            "99999999h",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}

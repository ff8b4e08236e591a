//! What several rounds say about one figure.

use serde::{Deserialize, Serialize};

/// A median and what lies around it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Spread {
    /// None of no figures.
    #[must_use]
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[half - 1], sorted[half])
        } else {
            sorted[half]
        };
        Some(Spread { median, low, high })
    }
}

/// As [`Spread::show`] shows a [`number`]; a dash where there is none.
pub(crate) fn show(spread: Option<Spread>) -> String {
    spread.map_or_else(|| "–".to_owned(), |spread| spread.show(number))
}

/// A figure with as many places as tell something.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        ..1.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        ..10_000.0 => format!("{value:.0}"),
        _ => thousands(value),
    }
}

/// A number of things.
pub(crate) fn count(of: u64) -> String {
    if of < 10_000 {
        return of.to_string();
    }
    thousands(of as f64)
}

/// A whole number in groups of three.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

impl Spread {
    /// `median (low–high)`; the median alone of a single round.
    #[must_use]
    pub fn show(&self, show: fn(f64) -> String) -> String {
        let median = show(self.median);
        if self.low.total_cmp(&self.high).is_eq() {
            return median;
        }
        format!("{median} ({}–{})", number(self.low), number(self.high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let spread = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!((spread.low, spread.median, spread.high), (1.0, 2.0, 3.0));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn numbers_have_three_places_that_count() {
        let shown = [0.0, 0.456, 12.34, 4321.2, 1_234_567.0].map(number);
        assert_eq!(shown, ["0", "0.46", "12.3", "4321", "1 234 567"]);
    }

    #[test]
    fn things_are_counted_in_whole_numbers() {
        assert_eq!([1, 20, 100_000].map(count), ["1", "20", "100 000"]);
    }
}

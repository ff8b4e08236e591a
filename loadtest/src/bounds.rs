//! What an option may be at least and at most, so that nonsense is refused before anything starts.

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytesize::ByteSize;

/// Larger bodies would measure memory, not a proxy.
pub(crate) const BODY_MAX: u64 = 1 << 30;

/// Requests per second. For more, not even those that are given up could be counted in time.
const RATES: RangeInclusive<f64> = 0.001..=10_000_000.0;

/// Longer than anything runs, and far from where clocks overflow.
const TIME_MAX: Duration = Duration::from_hours(365 * 24);

/// A time, zero among them.
pub(crate) fn time(text: &str) -> anyhow::Result<Duration> {
    let time = humantime::parse_duration(text)?;
    ensure!(time <= TIME_MAX, "it is above a year");
    Ok(time)
}

/// A time in which something is to happen.
pub(crate) fn length(text: &str) -> anyhow::Result<Duration> {
    let time = time(text)?;
    ensure!(!time.is_zero(), "it must be above zero");
    Ok(time)
}

pub(crate) fn rate(text: &str) -> anyhow::Result<f64> {
    let rate = text.parse().context("it is no number")?;
    let (least, most) = (RATES.start(), RATES.end());
    ensure!(RATES.contains(&rate), "it must be from {least} to {most}");
    Ok(rate)
}

pub(crate) fn body(text: &str) -> anyhow::Result<ByteSize> {
    let size: ByteSize = text.parse().map_err(anyhow::Error::msg)?;
    ensure!(size.as_u64() <= BODY_MAX, "it is above 1 GiB");
    Ok(size)
}

//! The hosts to ask for in turn.

use std::path::Path;

use anyhow::{Context, bail, ensure};

/// More would not fit beside what is measured.
const HOSTS_MAX: u64 = 1_000_000;

/// Writes out `h{0..999}.example.com`: one range, both ends included.
///
/// # Errors
/// There is no such range, or it has too many numbers.
pub(super) fn expand(pattern: &str) -> anyhow::Result<Vec<String>> {
    let wrong = || format!("--host-pattern {pattern:?}: expected a range such as {{0..999}}");
    let (before, rest) = pattern.split_once('{').with_context(wrong)?;
    let (range, after) = rest.split_once('}').with_context(wrong)?;
    let (first, last) = range.split_once("..").with_context(wrong)?;
    let first: u64 = first.parse().with_context(wrong)?;
    let last: u64 = last.parse().with_context(wrong)?;
    ensure!(first <= last, wrong());
    ensure!(last - first < HOSTS_MAX, "more than {HOSTS_MAX} hosts");
    Ok((first..=last)
        .map(|number| format!("{before}{number}{after}"))
        .collect())
}

/// Reads one host a line; blank lines and those that begin with `#` are left out.
///
/// # Errors
/// The file cannot be read, or names no host, or too many.
pub(super) fn read(file: &Path) -> anyhow::Result<Vec<String>> {
    let name = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    let hosts: Vec<String> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    match hosts.len() as u64 {
        0 => bail!("{name} names no host"),
        count if count > HOSTS_MAX => bail!("{name}: more than {HOSTS_MAX} hosts"),
        _ => Ok(hosts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_each_number_of_its_range() {
        let hosts = expand("h{8..11}.example.com").unwrap();
        assert_eq!(
            hosts,
            [
                "h8.example.com",
                "h9.example.com",
                "h10.example.com",
                "h11.example.com"
            ]
        );
    }

    #[test]
    fn a_pattern_without_a_range_is_refused() {
        for pattern in ["plain", "h{", "h{1}", "h{2..1}", "h{a..b}", "h{0..9999999}"] {
            assert!(expand(pattern).is_err(), "{pattern}");
        }
    }
}

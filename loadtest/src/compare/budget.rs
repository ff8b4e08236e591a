//! The budgets: what Tidegate may cost beside its peers.

use super::figures::{cost, p99, speed};
use super::peers::TIDEGATE;
use super::rounds::{PeerRounds, Rounds};
use super::section::Verdict;

/// Tidegate's figure over a peer's, round by round.
fn beside(
    rounds: &Rounds,
    peer: &str,
    what: &str,
    figure: fn(&PeerRounds) -> Vec<f64>,
    bound: f64,
    at_most: bool,
) -> Option<Verdict> {
    // About who does not take part there is nothing to say.
    rounds.peer(TIDEGATE)?;
    rounds.peer(peer)?;
    let ratio = rounds.ratio(TIDEGATE, peer, figure);
    Some(Verdict::new(
        format!("{what}, × {peer}"),
        ratio,
        bound,
        at_most,
    ))
}

fn costs(rounds: &Rounds, what: &str, bounds: &[(&str, f64)]) -> Vec<Verdict> {
    let bounds = bounds.iter();
    bounds
        .filter_map(|(peer, bound)| beside(rounds, peer, what, cost, *bound, true))
        .collect()
}

pub(crate) fn keepalive(rounds: &Rounds) -> Vec<Verdict> {
    let bounds = [
        ("nginx", 0.90),
        ("haproxy", 0.90),
        ("envoy", 0.35),
        ("copier", 1.30),
    ];
    let mut verdicts = costs(rounds, "CPU per request", &bounds);
    verdicts.extend(beside(rounds, "nginx", "requests/s", speed, 1.10, false));
    let latency = "p99 at the fixed rate";
    verdicts.extend(beside(rounds, "nginx", latency, p99, 1.0, true));
    verdicts
}

pub(crate) fn download(rounds: &Rounds) -> Vec<Verdict> {
    costs(rounds, "CPU per MiB", &[("envoy", 1.0), ("haproxy", 1.0)])
}

pub(crate) fn connect(rounds: &Rounds) -> Vec<Verdict> {
    costs(
        rounds,
        "CPU per new connection and request",
        &[("nginx", 1.0)],
    )
}

/// Where nothing is promised.
pub(crate) fn none(_: &Rounds) -> Vec<Verdict> {
    Vec::new()
}

//! The budgets: what Tidegate may cost beside its peers.

use super::figures::{BUSY, busy, cost, each, p99, per_second, speed};
use super::peers::TIDEGATE;
use super::rounds::{PeerRounds, Rounds};
use super::section::Verdict;
use super::spread::Spread;

/// Above this share of the processors taken by something else, nothing is judged.
const TOO_DISTURBED: f64 = 0.1;

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
    let verdict = Verdict::new(format!("{what}, × {peer}"), ratio, bound, at_most);
    Some(if disturbed(rounds) {
        verdict.doubted("the machine was disturbed")
    } else {
        verdict
    })
}

/// Whether something else ran in the median measurement.
fn disturbed(rounds: &Rounds) -> bool {
    let peers = rounds.peers.iter();
    let samples = peers.flat_map(|peer| peer.saturation.iter().chain(&peer.fixed));
    let median = Spread::of(samples.map(|sample| sample.disturbance));
    median.is_some_and(|share| share.median > TOO_DISTURBED)
}

/// Requests per second, judged where it was the proxies that limited them.
fn speed_beside(rounds: &Rounds, peer: &str, bound: f64) -> Option<Verdict> {
    let verdict = beside(rounds, peer, "requests/s", speed, bound, false)?;
    let saturated = |name| {
        let samples = &rounds.peer(name)?.saturation;
        let shares = Spread::of(each(samples, |sample| busy(sample, rounds.workers)))?;
        Some(shares.median >= BUSY)
    };
    // Who was not busy can do more than was seen. That spoils the bound if it is the peer, and a
    // failure to reach it if it is Tidegate.
    let unclear = saturated(peer) != Some(true)
        || verdict.holds == Some(false) && saturated(TIDEGATE) != Some(true);
    Some(if unclear {
        verdict.doubted("generator or backend set the pace")
    } else {
        verdict
    })
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
    verdicts.extend(speed_beside(rounds, "nginx", 1.10));
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

pub(crate) fn http2(rounds: &Rounds) -> Vec<Verdict> {
    let mut verdicts = costs(
        rounds,
        "CPU per request",
        &[("nginx", 0.80), ("envoy", 0.50)],
    );
    let mark = "CPU per request (the mark to reach)";
    verdicts.extend(costs(rounds, mark, &[("haproxy", 1.0)]));
    verdicts
}

pub(crate) fn tls_connect(rounds: &Rounds) -> Vec<Verdict> {
    let what = "connections per second of CPU";
    let verdict = beside(rounds, "nginx", what, per_second, 1.0, false);
    verdict.into_iter().collect()
}

/// Where nothing is promised.
pub(crate) fn none(_: &Rounds) -> Vec<Verdict> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::super::kernel::{Memory, Spent};
    use super::super::measure::Sample;
    use super::*;
    use crate::report::{Latency, Report};

    /// A second in which a proxy was busy for so many percent and gave so many answers.
    fn sample(percent: u64, answers: u64, disturbance: f64) -> Sample {
        let spent = Spent {
            nanos: percent * 10_000_000,
            exact: true,
        };
        Sample {
            report: Report {
                seconds: 1.0,
                sent: answers,
                answers,
                rate: answers as f64,
                latency: Latency {
                    p99: 100,
                    ..Latency::default()
                },
                ..Report::default()
            },
            arrived: answers,
            answered: answers,
            refused: 0,
            peak: 1,
            connections: 0,
            spent,
            backend: spent,
            disturbance,
            memory: Memory::default(),
            problems: Vec::new(),
        }
    }

    fn judged(tidegate: &Sample, nginx: &Sample) -> Vec<Option<bool>> {
        let peer = |name: &str, sample: &Sample| PeerRounds {
            name: name.to_owned(),
            saturation: vec![sample.clone()],
            fixed: vec![sample.clone()],
            problems: Vec::new(),
        };
        let rounds = Rounds {
            rate: 1.0,
            workers: 1,
            peers: vec![peer(TIDEGATE, tidegate), peer("nginx", nginx)],
        };
        let verdicts = keepalive(&rounds);
        assert!(
            verdicts
                .iter()
                .all(|one| one.holds.is_some() != one.doubt.is_some())
        );
        verdicts.iter().map(|verdict| verdict.holds).collect()
    }

    /// Processor time, speed, latency.
    #[test]
    fn a_budget_is_judged_where_its_figure_says_something() {
        let (yes, no) = (Some(true), Some(false));
        let nginx = sample(100, 1000, 0.0);
        assert_eq!(judged(&sample(100, 1200, 0.0), &nginx), [yes, yes, yes]);
        assert_eq!(judged(&sample(100, 1000, 0.0), &nginx), [no, no, yes]);
        // It was not Tidegate that limited the speed: more may be possible, less is not.
        assert_eq!(judged(&sample(80, 1200, 0.0), &nginx), [yes, yes, yes]);
        assert_eq!(judged(&sample(80, 1000, 0.0), &nginx), [yes, None, yes]);
        let idle = sample(80, 1000, 0.0);
        assert_eq!(judged(&sample(70, 1200, 0.0), &idle), [yes, None, yes]);
        let disturbed = sample(100, 1200, 0.3);
        assert_eq!(judged(&disturbed, &disturbed), [None; 3]);
    }
}

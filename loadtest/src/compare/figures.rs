//! Samples as tables, bars and sentences.

use super::lab::Lab;
use super::measure::Sample;
use super::peers::TIDEGATE;
use super::rounds::{PeerRounds, Rounds, Work};
use super::section::{Bar, Chart, Section, Table};
use super::spread::{Spread, number};

/// Below this share of the fixed rate a proxy has not kept up with it.
const KEPT_UP: f64 = 0.95;

/// Below this share of the time on a processor it was not the proxy that limited the speed.
const BUSY: f64 = 0.9;

const MIB: f64 = 1024.0 * 1024.0;

/// What processor time is counted per.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    pub(crate) name: &'static str,
    /// How many of it there are in one request with its answer.
    pub(crate) per_answer: f64,
}

impl Unit {
    pub(crate) const REQUEST: Unit = Unit {
        name: "request",
        per_answer: 1.0,
    };
    /// One MiB moves per request.
    pub(crate) const MIB: Unit = Unit {
        name: "MiB",
        per_answer: 1.0,
    };
}

/// Processor time per answer, µs.
pub(crate) fn cost(peer: &PeerRounds) -> Vec<f64> {
    each(&peer.saturation, Sample::micros_per_answer)
}

/// Answers per second at saturation.
pub(crate) fn speed(peer: &PeerRounds) -> Vec<f64> {
    each(&peer.saturation, |sample| sample.report.rate)
}

/// 99th percentile of latency at the fixed rate, µs.
pub(crate) fn p99(peer: &PeerRounds) -> Vec<f64> {
    each(&peer.fixed, |sample| sample.report.latency.p99 as f64)
}

pub(crate) fn each(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> Vec<f64> {
    samples.iter().map(figure).collect()
}

/// The share of the time that so many workers spent on a processor.
pub(crate) fn busy(sample: &Sample, workers: u16) -> f64 {
    sample.spent.nanos as f64 / (sample.report.seconds * 1e9 * f64::from(workers))
}

/// The section of a piece of work, but for how it was started.
pub(crate) fn section(lab: &Lab, work: &Work, rounds: &Rounds) -> Section {
    let per = work.unit.name;
    let rate = number(rounds.rate);
    let head = [
        "proxy",
        &format!("CPU, µs per {per}"),
        "× Tidegate",
        "requests/s",
        "× Tidegate",
        "busy",
        &format!("p50 at {rate}/s, µs"),
        "p99",
        "p99.9",
        &format!("CPU there, µs per {per}"),
        "RSS, MiB",
        "PSS, MiB",
        "errors",
    ]
    .map(str::to_owned);
    let rows = rounds.peers.iter().map(|peer| row(lab, work, rounds, peer));
    let per_unit = |peer: &PeerRounds| each_per(work.unit, cost(peer));
    let bars = rounds.peers.iter().map(|peer| Bar {
        label: peer.name.clone(),
        figure: Spread::of(per_unit(peer)),
    });
    Section {
        name: work.name.to_owned(),
        workers: lab.workers,
        title: work.title.to_owned(),
        about: work.about.to_owned(),
        tables: vec![Table {
            head: head.to_vec(),
            rows: rows.collect(),
        }],
        charts: vec![Chart {
            title: format!("{}: CPU per {per} at saturation", work.title),
            unit: "µs".to_owned(),
            bars: bars.collect(),
        }],
        verdicts: (work.budgets)(rounds),
        notes: notes(lab, rounds),
        problems: problems(rounds),
        ..Section::default()
    }
}

fn each_per(unit: Unit, figures: Vec<f64>) -> Vec<f64> {
    figures
        .into_iter()
        .map(|figure| figure / unit.per_answer)
        .collect()
}

fn row(lab: &Lab, work: &Work, rounds: &Rounds, peer: &PeerRounds) -> Vec<String> {
    let show = |figures: Vec<f64>| {
        Spread::of(figures).map_or_else(|| "–".to_owned(), |spread| spread.show(number))
    };
    let median = |figures: Vec<f64>| {
        Spread::of(figures).map_or_else(|| "–".to_owned(), |spread| number(spread.median))
    };
    let times =
        |figure: fn(&PeerRounds) -> Vec<f64>| match rounds.ratio(&peer.name, TIDEGATE, figure) {
            _ if peer.name == TIDEGATE => "1".to_owned(),
            Some(ratio) => format!("{:.2}", ratio.median),
            None => "–".to_owned(),
        };
    let latency =
        |pick: fn(&Sample) -> u64| median(each(&peer.fixed, |sample| pick(sample) as f64));
    let at_rate = each(&peer.fixed, Sample::micros_per_answer);
    let busy = each(&peer.saturation, |sample| busy(sample, lab.workers) * 100.0);
    let busy =
        Spread::of(busy).map_or_else(|| "–".to_owned(), |busy| format!("{:.0} %", busy.median));
    let rss = each(&peer.saturation, |sample| sample.memory.rss as f64 / MIB);
    let pss = peer
        .saturation
        .iter()
        .filter_map(|sample| sample.memory.pss);
    let mark = if peer.sound() { "" } else { " ⚠" };
    vec![
        format!("{}{mark}", peer.name),
        show(each_per(work.unit, cost(peer))),
        times(cost),
        show(speed(peer)),
        times(speed),
        busy,
        latency(|sample| sample.report.latency.p50),
        show(p99(peer)),
        latency(|sample| sample.report.latency.p999),
        median(each_per(work.unit, at_rate)),
        median(rss),
        median(pss.map(|pss| pss as f64 / MIB).collect()),
        errors(peer).to_string(),
    ]
}

/// Requests that did not end in the answer that was meant.
fn errors(peer: &PeerRounds) -> u64 {
    let samples = peer.saturation.iter().chain(&peer.fixed);
    let wrong = |sample: &Sample| {
        let right = sample.report.statuses.get(&200).copied().unwrap_or(0);
        sample.report.sent - right
    };
    samples.map(wrong).sum()
}

fn notes(lab: &Lab, rounds: &Rounds) -> Vec<String> {
    let mut notes = Vec::new();
    for peer in &rounds.peers {
        let kept = each(&peer.fixed, |sample| sample.report.rate / rounds.rate);
        if let Some(kept) = Spread::of(kept).filter(|kept| kept.median < KEPT_UP) {
            notes.push(format!(
                "{} answered only {:.0} % of the fixed rate: its latencies there are those of overload.",
                peer.name,
                kept.median * 100.0
            ));
        }
        let idle = each(&peer.saturation, |sample| busy(sample, lab.workers));
        if let Some(busy) = Spread::of(idle).filter(|busy| busy.median < BUSY) {
            notes.push(format!(
                "{} was busy {:.0} % of the time: generator or backend, not it, limited its requests/s.",
                peer.name,
                busy.median * 100.0
            ));
        }
        let samples = peer.saturation.iter().chain(&peer.fixed);
        if samples.clone().any(|sample| !sample.spent.exact) {
            let name = &peer.name;
            notes.push(format!(
                "{name} ended threads: its CPU comes in ticks of 10 ms."
            ));
        }
        let missed: u64 = samples.map(|sample| sample.report.missed).sum();
        if missed > 0 {
            let name = &peer.name;
            notes.push(format!(
                "{missed} requests to {name} were due and never sent: it was too slow."
            ));
        }
    }
    notes
}

fn problems(rounds: &Rounds) -> Vec<String> {
    let mut problems = Vec::new();
    for peer in &rounds.peers {
        let name = &peer.name;
        problems.extend(
            peer.problems
                .iter()
                .map(|problem| format!("{name}: {problem}")),
        );
        for (how, samples) in [
            ("saturation", &peer.saturation),
            ("fixed rate", &peer.fixed),
        ] {
            for (round, sample) in samples.iter().enumerate() {
                let place = format!("{name}, round {}, {how}", round + 1);
                problems.extend(
                    sample
                        .problems
                        .iter()
                        .map(|what| format!("{place}: {what}")),
                );
            }
        }
    }
    problems
}

//! Samples as tables, bars and sentences.

use super::lab::Lab;
use super::measure::{Sample, Streams};
use super::peers::TIDEGATE;
use super::rounds::{PeerRounds, Rounds, Work};
use super::section::{Bar, Chart, Section, Table};
use super::spread::{Spread, number, show as shown};

/// Below this share of the fixed rate a proxy has not kept up with it.
const KEPT_UP: f64 = 0.95;

/// Below this share of the time on a processor it was not the proxy that limited the speed.
pub(crate) const BUSY: f64 = 0.9;

/// Above this share of the processors, what else runs is worth a warning.
const DISTURBED: f64 = 0.05;

const MIB: f64 = 1024.0 * 1024.0;

/// Processor time per answer, µs.
pub(crate) fn cost(peer: &PeerRounds) -> Vec<f64> {
    each(&peer.saturation, Sample::micros_per_answer)
}

/// Answers per second of processor time.
pub(crate) fn per_second(peer: &PeerRounds) -> Vec<f64> {
    let cost = cost(peer).into_iter();
    cost.map(|micros| 1e6 / micros).collect()
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
    let per = work.unit;
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
    let also = work.also.iter();
    let head = head
        .into_iter()
        .chain(also.map(|(name, _)| (*name).to_owned()));
    let rows = rounds.peers.iter().map(|peer| {
        let mut row = row(lab, rounds, peer);
        let also = work.also.iter();
        row.extend(also.map(|(_, figure)| shown(Spread::of(figure(peer)))));
        row
    });
    let bars = rounds.peers.iter().map(|peer| Bar {
        label: peer.name.clone(),
        figure: Spread::of(cost(peer)),
    });
    Section {
        name: work.name.to_owned(),
        workers: lab.workers,
        title: work.title.to_owned(),
        about: work.about.to_owned(),
        measured: work.load.streams.map(|streams| {
            let Streams { connections, each } = streams;
            let clients = format!("{connections} connections of {each} streams");
            lab.conditions().measured(&clients)
        }),
        tables: vec![Table {
            head: head.collect(),
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

fn row(lab: &Lab, rounds: &Rounds, peer: &PeerRounds) -> Vec<String> {
    let show = |figures: Vec<f64>| shown(Spread::of(figures));
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
        show(cost(peer)),
        times(cost),
        show(speed(peer)),
        times(speed),
        busy,
        latency(|sample| sample.report.latency.p50),
        show(p99(peer)),
        latency(|sample| sample.report.latency.p999),
        median(at_rate),
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
    let mut note = |about: &str, figure: &dyn Fn(&PeerRounds) -> Option<String>| {
        let whom = rounds.peers.iter().filter_map(|peer| {
            let figure = figure(peer)?;
            Some(format!("{} ({figure})", peer.name))
        });
        let whom: Vec<String> = whom.collect();
        if !whom.is_empty() {
            notes.push(format!("{about}: {}.", whom.join(", ")));
        }
    };
    let share_below = |figures: Vec<f64>, bound: f64| {
        let share = Spread::of(figures)?.median;
        (share < bound).then(|| format!("{:.0} %", share * 100.0))
    };
    note(
        "Not on a processor all the time at saturation, so that generator or backend and not they \
         limited requests/s",
        &|peer| share_below(each(&peer.saturation, |one| busy(one, lab.workers)), BUSY),
    );
    note(
        "Did not keep up with the fixed rate, so that their latencies there are those of overload",
        &|peer| {
            share_below(
                each(&peer.fixed, |one| one.report.rate / rounds.rate),
                KEPT_UP,
            )
        },
    );
    note("Requests due at the fixed rate and never sent", &|peer| {
        let missed: u64 = peer.fixed.iter().map(|sample| sample.report.missed).sum();
        (missed > 0).then(|| missed.to_string())
    });
    note(
        "Ended threads, so that their CPU comes in ticks of 10 ms",
        &|peer| {
            let samples = peer.saturation.iter().chain(&peer.fixed);
            let inexact = samples.filter(|sample| !sample.spent.exact).count();
            (inexact > 0).then(|| format!("{inexact} times"))
        },
    );
    let samples = || rounds.peers.iter().flat_map(|peer| &peer.saturation);
    notes.extend(disturbance(samples()));
    let per = |spent: &dyn Fn(&Sample) -> f64| Spread::of(samples().map(spent)).map(|s| s.median);
    let backend = per(&|one| one.backend.nanos as f64 / 1000.0 / one.report.answers.max(1) as f64);
    if let Some((backend, generator)) = backend.zip(per(&|one| one.report.cpu_micros)) {
        notes.push(format!(
            "Behind and in front of the proxies, a request cost the backend {} µs and the generator \
             {} µs.",
            number(backend),
            number(generator)
        ));
    }
    notes
}

/// Whether something else ran, if it was so much that the figures suffer.
pub(crate) fn disturbance<'a>(samples: impl Iterator<Item = &'a Sample>) -> Option<String> {
    let share = Spread::of(samples.map(|sample| sample.disturbance))?;
    (share.high > DISTURBED).then(|| {
        format!(
            "**Disturbed**: other processes took {:.0} % of the processors in the median \
             measurement and {:.0} % in the worst.",
            share.median * 100.0,
            share.high * 100.0
        )
    })
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

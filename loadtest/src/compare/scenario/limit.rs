//! `limit`: a small limit on concurrency, always reached.

use anyhow::Context as _;

use crate::compare::figures::{busy, disturbance};
use crate::compare::lab::Lab;
use crate::compare::measure::{Load, Sample, line, measure};
use crate::compare::peers::Found;
use crate::compare::section::{Bar, Chart, Section, Table, Verdict};
use crate::compare::solo::tidegate;
use crate::compare::speech::Speech;
use crate::compare::spread::{Spread, show as shown};
use crate::compare::stage::{Plan, Stage};

/// Requests in flight that each of the two endpoints allows.
const LIMIT: u32 = 4;

/// Numbers of workers that share it.
const WORKERS: [u16; 2] = [1, 2];

/// How long the backend thinks: not at all, so that handing on a slot is all there is to do; and
/// long enough that the limit is what decides.
const DELAYS: [&str; 2] = ["0ms", "2ms"];

/// One combination of the two, and what was measured.
struct Case {
    workers: u16,
    delay: &'static str,
    samples: Vec<Sample>,
}

pub(super) async fn run(lab: &Lab) -> anyhow::Result<Vec<Section>> {
    let Some(tidegate) = tidegate(lab) else {
        lab.say("limit: left out, for Tidegate does not take part");
        return Ok(Vec::new());
    };
    let mut section = Section {
        name: "limit".to_owned(),
        workers: 0,
        title: "A small limit on concurrency, always reached".to_owned(),
        about: format!(
            "Tidegate may have {LIMIT} requests in flight at each of two endpoints (70/30) while {} \
             connections ask without a pause; who is over the limit waits in Tidegate. The backend \
             answers 503 to whatever is over the limit, and counts.",
            lab.connections
        ),
        ..Section::default()
    };
    let mut cases = Vec::new();
    for workers in WORKERS {
        for delay in DELAYS {
            cases.push(case(lab, tidegate, workers, delay, &mut section).await?);
        }
    }
    fill(&mut section, &cases);
    if WORKERS.map(|workers| lab.proxy_on(workers).is_empty()) == [false, true] {
        let note = "With two workers there is no processor left to bind anything to: all on any.";
        section.notes.push(note.to_owned());
    }
    section.raw = cases
        .iter()
        .map(|case| {
            serde_json::json!({
                "workers": case.workers, "delay": case.delay, "limit": LIMIT, "samples": case.samples,
            })
        })
        .collect();
    Ok(vec![section])
}

async fn case(
    lab: &Lab,
    tidegate: &Found,
    workers: u16,
    delay: &'static str,
    section: &mut Section,
) -> anyhow::Result<Case> {
    let name = format!("limit-{workers}-{delay}");
    let plan = Plan {
        name: &name,
        backend: vec![
            "--body=128B".to_owned(),
            format!("--concurrency={LIMIT}"),
            format!("--delay={delay}"),
        ],
        limit: LIMIT,
        workers,
        speech: Speech::default(),
    };
    let mut stage = Stage::set(lab, &plan, [tidegate]).await?;
    let actor = stage.actors.first().context("Tidegate is not on stage")?;
    anyhow::ensure!(actor.problem.is_none(), "{:?}", actor.problem);
    if section.shown.is_empty() {
        section.shown.push(actor.shown.clone());
        let load = line(lab, &Load::default(), actor.listen, None)?;
        section.commands.push(load.to_string());
    }
    section.commands.push(stage.backend_line.to_string());
    let mut samples = Vec::new();
    // The first one warms and does not count.
    for round in 0..=lab.rounds {
        lab.say(format!(
            "limit, {workers} workers, delay {delay}: round {round} of {}",
            lab.rounds
        ));
        let sample = measure(lab, &mut stage, 0, &Load::default(), None, workers).await?;
        if round > 0 {
            samples.push(sample);
        }
    }
    Ok(Case {
        workers,
        delay,
        samples,
    })
}

/// A figure of all rounds.
fn spread(case: &Case, figure: impl Fn(&Sample) -> f64) -> Option<Spread> {
    Spread::of(case.samples.iter().map(figure))
}

fn fill(section: &mut Section, cases: &[Case]) {
    let head = [
        "workers",
        "backend's delay",
        "CPU, µs per request",
        "requests/s",
        "busy",
        "p50, µs",
        "p99, µs",
        "p99.9, µs",
        "peak at an endpoint",
        "refused by the backend",
    ];
    section.tables.push(Table {
        head: head.map(str::to_owned).to_vec(),
        rows: cases.iter().map(row).collect(),
    });
    let bars = cases.iter().map(|case| Bar {
        label: label(case),
        figure: spread(case, Sample::micros_per_answer),
    });
    section.charts.push(Chart {
        title: "A small limit, always reached: CPU per request".to_owned(),
        unit: "µs".to_owned(),
        bars: bars.collect(),
    });
    for case in cases {
        let label = label(case);
        // Of a limit that is never exceeded the worst round decides.
        let peak = spread(case, |sample| sample.peak as f64).map(|peak| Spread {
            median: peak.high,
            ..peak
        });
        let what = format!("peak at an endpoint, {label}");
        let verdict = Verdict::new(what, peak, f64::from(LIMIT), true);
        section.verdicts.push(verdict);
        for (round, sample) in case.samples.iter().enumerate() {
            let place = format!("{label}, round {}", round + 1);
            let problems = sample.problems.iter();
            let problems = problems.map(|what| format!("{place}: {what}"));
            section.problems.extend(problems);
        }
    }
    let samples = cases.iter().flat_map(|case| &case.samples);
    section.notes.extend(disturbance(samples));
}

fn label(case: &Case) -> String {
    let workers = if case.workers == 1 {
        "worker"
    } else {
        "workers"
    };
    format!("{} {workers}, delay {}", case.workers, case.delay)
}

fn row(case: &Case) -> Vec<String> {
    let show = |figure: &dyn Fn(&Sample) -> f64| shown(spread(case, figure));
    let samples = &case.samples;
    let peak = samples.iter().map(|sample| sample.peak).max();
    let refused: u64 = samples.iter().map(|sample| sample.refused).sum();
    vec![
        case.workers.to_string(),
        case.delay.to_owned(),
        show(&Sample::micros_per_answer),
        show(&|sample| sample.report.rate),
        show(&|sample| busy(sample, case.workers) * 100.0) + " %",
        show(&|sample| sample.report.latency.p50 as f64),
        show(&|sample| sample.report.latency.p99 as f64),
        show(&|sample| sample.report.latency.p999 as f64),
        peak.unwrap_or(0).to_string(),
        refused.to_string(),
    ]
}

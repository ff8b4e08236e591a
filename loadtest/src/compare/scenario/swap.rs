//! `swap`: latency while the configuration changes a hundred times per second.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use anyhow::bail;
use serde::Serialize;
use tokio::time::{interval, sleep};

use crate::compare::clients::{Client, until_served};
use crate::compare::directory::{
    Changes, Directory, FIRST, ROUTES_PER_FILE, load_line, until_shown,
};
use crate::compare::figures::disturbance;
use crate::compare::lab::Lab;
use crate::compare::measure::{Sample, half, send};
use crate::compare::section::{Bar, Chart, Section, Table};
use crate::compare::solo::{Solo, tidegate};
use crate::compare::speech::Speech;
use crate::compare::spread::{Spread, count, number, show};
use crate::compare::stage::{Plan, Stage};

/// Routes beside the one that changes.
const ROUTES: usize = 1000;

/// Changes per second.
const PER_SECOND: u32 = 100;

/// Below this share of them the machine was too busy to write what was meant.
const WRITTEN: f64 = 0.5;

/// Between two looks whether the version stays, and how many at most.
const LOOK: Duration = Duration::from_millis(100);
const LOOKS: u32 = 100;

/// What happens while requests are sent: its name, and how many changes come at a time, none or
/// what divides [`PER_SECOND`]. Tidegate reads files when they have come to rest, so that changes
/// in a steady stream are taken in together now and then, and those in bursts are all taken in.
const WAYS: [(&str, u32); 3] = [
    ("no changes", 0),
    ("one every 10 ms", 1),
    ("ten every 100 ms", 10),
];

/// One of these ways, and all that was measured.
#[derive(Debug, Serialize)]
struct Case {
    name: &'static str,
    burst: u32,
    turns: Vec<Turn>,
}

/// One measurement.
#[derive(Debug, Serialize)]
struct Turn {
    sample: Sample,
    /// Changes that were put in place meanwhile.
    written: u64,
    /// How long that went on.
    seconds: f64,
    /// Versions Tidegate published, up to the one with the last change.
    swaps: u64,
    /// From the last change put in place to the first answer that shows it, ms.
    shown: Option<f64>,
}

/// All of it.
#[derive(Debug, Serialize)]
struct Findings {
    /// Requests per second.
    rate: f64,
    cases: Vec<Case>,
    problems: Vec<String>,
}

pub(super) async fn run(lab: &Lab) -> anyhow::Result<Vec<Section>> {
    let Some(tidegate) = tidegate(lab) else {
        lab.say("swap: left out, for Tidegate does not take part");
        return Ok(Vec::new());
    };
    let plan = Plan {
        name: "swap",
        backend: vec!["--body=128B".to_owned()],
        limit: 0,
        workers: lab.workers,
        speech: Speech::default(),
    };
    let mut stage = Stage::set(lab, &plan, []).await?;
    let mut directory = Directory::open(lab, tidegate, &stage, ROUTES).await?;
    let listen = directory.solo.place.listen;
    until_served::<Client>(&listen.into(), FIRST).await?;
    // This one warms too, and does not count.
    lab.say("swap, calibration");
    let line = load_line(lab, listen, ROUTES, lab.duration, None)?;
    let first = send(
        lab,
        &mut stage,
        &mut directory.solo.running,
        &line,
        lab.workers,
    );
    let fastest = first.await?.report.rate;
    let mut found = Findings {
        rate: lab.rate.unwrap_or_else(|| half(fastest)),
        cases: WAYS
            .map(|(name, burst)| Case {
                name,
                burst,
                turns: Vec::new(),
            })
            .into(),
        problems: Vec::new(),
    };
    play(lab, &mut stage, &mut directory, &mut found).await?;
    let mut section = begin(lab, &found);
    section.commands.push(stage.backend_line.to_string());
    let line = load_line(lab, listen, ROUTES, lab.duration, Some(found.rate))?;
    section.commands.push(line.to_string());
    section.shown.push(directory.solo.shown.clone());
    fill(&mut section, &found);
    section.raw = serde_json::to_value(&found)?;
    Ok(vec![section])
}

fn begin(lab: &Lab, found: &Findings) -> Section {
    let half = match lab.rate {
        None => ", half of what it can",
        Some(_) => "",
    };
    Section {
        name: "swap".to_owned(),
        workers: lab.workers,
        title: "Changes under load".to_owned(),
        about: format!(
            "Tidegate has {ROUTES} routes in a directory of files of {ROUTES_PER_FILE} and answers {} requests \
             per second for all of their hosts{half}. Meanwhile nothing changes, or {PER_SECOND} \
             times per second a file with one route changed is renamed into place, evenly or in bursts \
             of ten. After the last change its route must answer with just that; any request that fails is \
             a problem.",
            number(found.rate)
        ),
        notes: vec![
            "Tidegate reads a directory when nothing has moved in it for 50 ms, and after 2 s if it never \
             rests. A steady stream of changes is therefore taken in together every 2 s; of bursts, \
             each that is followed by enough rest. Both is shown: how many changes were written, \
             and how many versions were made of them."
                .to_owned(),
            "Others are not measured: nginx would be told with SIGHUP and start new workers each time, \
             which nobody does a hundred times per second."
                .to_owned(),
        ],
        ..Section::default()
    }
}

async fn play(
    lab: &Lab,
    stage: &mut Stage,
    directory: &mut Directory,
    found: &mut Findings,
) -> anyhow::Result<()> {
    let mut last = 0;
    for round in 1..=lab.rounds {
        for case in &mut found.cases {
            let name = case.name;
            lab.say(format!("swap, round {round} of {}: {name}", lab.rounds));
            let turn = turn(lab, stage, directory, found.rate, case.burst, &mut last);
            match turn.await {
                Ok((turn, problems)) => {
                    case.turns.push(turn);
                    let problems = problems.into_iter();
                    let problems = problems.map(|what| format!("{name}, round {round}: {what}"));
                    found.problems.extend(problems);
                }
                Err(error) => {
                    stage.backend.check()?;
                    let problem = format!("{name}, round {round}: {error:#}");
                    found.problems.push(problem);
                    // What state Tidegate is in now, nobody knows.
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// One measurement, and what is wrong with it. `last` is the number of the last change, before and
/// after.
async fn turn(
    lab: &Lab,
    stage: &mut Stage,
    directory: &mut Directory,
    rate: f64,
    burst: u32,
    last: &mut u64,
) -> anyhow::Result<(Turn, Vec<String>)> {
    let Directory { solo, changes } = directory;
    let listen = solo.place.listen;
    let line = load_line(lab, listen, ROUTES, lab.duration, Some(rate))?;
    let (before, rejected) = versions(solo).await?;
    let earlier = *last;
    let mut writer = Writer {
        changes,
        number: earlier,
        at: None,
    };
    let begun = Instant::now();
    let sample = tokio::select! {
        sample = send(lab, stage, &mut solo.running, &line, lab.workers) => sample?,
        Err(error) = writer.run(burst) => return Err(error),
    };
    let seconds = begun.elapsed().as_secs_f64();
    *last = writer.number;
    let mut shown = None;
    if let Some(at) = writer.at {
        until_shown(listen, earlier..=*last).await?;
        shown = Some(at.elapsed().as_secs_f64() * 1000.0);
    }
    let (after, rejected_after) = versions(solo).await?;
    let turn = Turn {
        written: *last - earlier,
        seconds,
        swaps: after.saturating_sub(before),
        shown,
        sample,
    };
    let mut problems = turn.problems(burst);
    if rejected_after > rejected {
        problems.push("Tidegate rejected what was written".to_owned());
    }
    Ok((turn, problems))
}

impl Turn {
    fn problems(&self, burst: u32) -> Vec<String> {
        let mut problems = self.sample.problems.clone();
        let due = self.seconds * f64::from(PER_SECOND);
        if burst > 0 && (self.written as f64) < due * WRITTEN {
            let written = self.written;
            problems.push(format!("only {written} of {due:.0} changes were written"));
        }
        if (burst > 0) != (self.swaps > 0) {
            let Turn { swaps, written, .. } = self;
            problems.push(format!("{swaps} versions were made of {written} changes"));
        }
        problems
    }
}

/// How many versions there have been, once that no longer grows, and how many were rejected.
async fn versions(solo: &Solo) -> anyhow::Result<(u64, u64)> {
    let version = "tidegate_config_version";
    let mut before = solo.metric(version).await?;
    for _ in 0..LOOKS {
        sleep(LOOK).await;
        let now = solo.metric(version).await?;
        if now <= before {
            let rejected = solo.metric("tidegate_config_rejected_total").await?;
            return Ok((now, rejected));
        }
        before = now;
    }
    bail!("new versions though nothing changes: {before} by now")
}

/// Whoever changes the files.
struct Writer<'a> {
    changes: &'a Changes,
    /// Of the last change put in place.
    number: u64,
    /// When that was; none if there was none.
    at: Option<Instant>,
}

impl Writer<'_> {
    /// Puts `burst` changes at a time in place, on schedule, until it is dropped. What was late is
    /// made up for.
    async fn run(&mut self, burst: u32) -> anyhow::Result<Infallible> {
        if burst == 0 {
            return std::future::pending().await;
        }
        let mut schedule = interval(Duration::from_secs(1) * burst / PER_SECOND);
        loop {
            schedule.tick().await;
            for _ in 0..burst {
                let staged = self.changes.stage(self.number + 1)?;
                self.at = Some(Instant::now());
                staged.commit()?;
                self.number += 1;
            }
        }
    }
}

/// A figure of all rounds.
fn spread(case: &Case, figure: impl Fn(&Turn) -> f64) -> Option<Spread> {
    Spread::of(case.turns.iter().map(figure))
}

fn p99(turn: &Turn) -> f64 {
    turn.sample.report.latency.p99 as f64
}

fn cost(turn: &Turn) -> f64 {
    turn.sample.micros_per_answer()
}

/// A figure beside that of the same round without changes.
fn times(case: &Case, quiet: &Case, figure: fn(&Turn) -> f64) -> String {
    let pairs = case.turns.iter().zip(&quiet.turns);
    let ratio = Spread::of(pairs.map(|(turn, quiet)| figure(turn) / figure(quiet)));
    ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{:.2}", ratio.median))
}

fn row(case: &Case, quiet: &Case) -> Vec<String> {
    let latency = |pick: fn(&Turn) -> u64| show(spread(case, |turn| pick(turn) as f64));
    let written: u64 = case.turns.iter().map(|turn| turn.written).sum();
    let swaps: u64 = case.turns.iter().map(|turn| turn.swaps).sum();
    let failed = |turn: &Turn| {
        let report = &turn.sample.report;
        report.sent - report.statuses.get(&200).copied().unwrap_or(0)
    };
    let failed: u64 = case.turns.iter().map(failed).sum();
    vec![
        case.name.to_owned(),
        latency(|turn| turn.sample.report.latency.p50),
        show(spread(case, p99)),
        times(case, quiet, p99),
        latency(|turn| turn.sample.report.latency.p999),
        show(spread(case, cost)),
        times(case, quiet, cost),
        count(written),
        count(swaps),
        show(Spread::of(case.turns.iter().filter_map(|turn| turn.shown))),
        failed.to_string(),
    ]
}

fn fill(section: &mut Section, found: &Findings) {
    let head = [
        "changes",
        "p50, µs",
        "p99, µs",
        "× none",
        "p99.9, µs",
        "CPU, µs per request",
        "× none",
        "changes written",
        "versions made of them",
        "the last shows after, ms",
        "errors",
    ];
    let quiet = &found.cases[0];
    section.tables.push(Table {
        head: head.map(str::to_owned).to_vec(),
        rows: found.cases.iter().map(|case| row(case, quiet)).collect(),
    });
    let bars = found.cases.iter().map(|case| Bar {
        label: case.name.to_owned(),
        figure: spread(case, p99),
    });
    section.charts.push(Chart {
        title: "p99 while files change".to_owned(),
        unit: "µs".to_owned(),
        bars: bars.collect(),
    });
    let samples = || {
        let turns = found.cases.iter().flat_map(|case| &case.turns);
        turns.map(|turn| &turn.sample)
    };
    let missed: u64 = samples().map(|sample| sample.report.missed).sum();
    if missed > 0 {
        let note = format!("{missed} requests were due and never sent: overload.");
        section.notes.push(note);
    }
    section.notes.extend(disturbance(samples()));
    section.problems.clone_from(&found.problems);
}

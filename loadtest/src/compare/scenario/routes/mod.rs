//! `routes`: many hosts. What each takes, what looking among them costs, how soon one is changed.

mod peers;

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::sleep;

use self::peers::{Kind, NAMES};
use crate::compare::clients::{Client, until_served};
use crate::compare::directory::{FIRST, ROUTES_PER_FILE, load_line, until_shown};
use crate::compare::figures::disturbance;
use crate::compare::kernel::Memory;
use crate::compare::lab::Lab;
use crate::compare::measure::{Sample, send};
use crate::compare::peers::{Found, TIDEGATE};
use crate::compare::section::{Bar, Chart, Section, Table, Verdict};
use crate::compare::settle::settled;
use crate::compare::speech::Speech;
use crate::compare::spread::{Spread, count, show};
use crate::compare::stage::{Plan, Stage};

/// Rounds at most, and how long a measurement takes at most: there are many of them.
const ROUNDS_MAX: u32 = 3;
const DURATION_MAX: Duration = Duration::from_millis(1500);

/// Changes per proxy.
const CHANGES: u64 = 7;

/// Reading so many hosts takes memory that an allocator gives back only after a while.
const MANY: usize = 10_000;

/// That while: Tidegate's is over when it has looked at its files again, every 10 s.
const REST: Duration = Duration::from_secs(12);

/// The budget of memory per route, KiB.
const ROUTE_KIB: f64 = 1.0;

const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * 1024.0;

/// One proxy with some number of hosts, and what was found about it.
#[derive(Debug, Serialize)]
struct Case {
    name: &'static str,
    hosts: usize,
    /// From start to accepting connections, ms.
    start: f64,
    /// Before any load.
    memory: Memory,
    samples: Vec<Sample>,
    /// From the renamed file to the first answer that shows it, ms.
    changes: Vec<f64>,
    problems: Vec<String>,
    #[serde(skip)]
    proxy: Option<Kind>,
}

pub(super) async fn run(lab: &Lab) -> anyhow::Result<Vec<Section>> {
    let plan = Plan {
        name: "routes",
        backend: vec!["--body=128B".to_owned()],
        limit: 0,
        workers: lab.workers,
        speech: Speech::default(),
    };
    let mut stage = Stage::set(lab, &plan, []).await?;
    let rounds = lab.rounds.min(ROUNDS_MAX);
    let duration = lab.duration.min(DURATION_MAX);
    let mut section = begin(lab, rounds, duration);
    section.commands.push(stage.backend_line.to_string());
    let mut cases = Vec::new();
    for name in NAMES {
        let Some(found) = lab.peers.iter().find(|found| found.peer.name == name) else {
            continue;
        };
        for &hosts in &lab.routes {
            cases.push(open(lab, found, &stage, hosts, &mut section).await?);
        }
    }
    weigh(lab, &mut cases).await?;
    // The first one warms and does not count.
    for round in 0..=rounds {
        for case in &mut cases {
            lab.say(format!(
                "routes, round {round} of {rounds}: {}, {} hosts",
                case.name, case.hosts
            ));
            if let Err(error) = load(lab, &mut stage, case, duration, round > 0).await {
                stage.backend.check()?;
                case.problems.push(format!("round {round}: {error:#}"));
            }
        }
    }
    for case in &mut cases {
        lab.say(format!(
            "routes, changes: {}, {} hosts",
            case.name, case.hosts
        ));
        if let Err(error) = change(case).await {
            case.problems.push(format!("changing a route: {error:#}"));
        }
    }
    fill(&mut section, &cases);
    section.raw = serde_json::to_value(&cases)?;
    Ok(vec![section])
}

fn begin(lab: &Lab, rounds: u32, duration: Duration) -> Section {
    Section {
        name: "routes".to_owned(),
        workers: lab.workers,
        title: "Many hosts".to_owned(),
        about: format!(
            "Small GETs over kept connections, asking for every host in turn. Tidegate has a route for each, \
             split 70/30, in a directory of files of {ROUTES_PER_FILE} routes; nginx and HAProxy have a map from \
             hosts to one upstream. Memory is that of processes without any load yet that have rested for {} s (where there are {MANY} \
             hosts and more). A change rewrites one route in its file; counted is the time from the renaming to the first answer that shows \
             it, {CHANGES} times. nginx is told with SIGHUP; HAProxy would be told over a socket or started \
             anew, which is not measured.",
            REST.as_secs()
        ),
        measured: Some(format!(
            "of {rounds} rounds of {} s, {} connections;",
            duration.as_secs_f64(),
            lab.connections
        )),
        notes: vec![
            "Lookup alone (budget: 200 ns among 100 000 hosts) and the way from a changed fragment to the \
             swapped pointer (1 ms among 10 000 routes) are measured in the process: `cargo bench -p config`. \
             The time to change a route is the whole way, and most of it is deliberate: Tidegate reads \
             a directory when nothing has moved in it for 50 ms."
                .to_owned(),
        ],
        ..Section::default()
    }
}

async fn open(
    lab: &Lab,
    found: &Found,
    stage: &Stage,
    hosts: usize,
    section: &mut Section,
) -> anyhow::Result<Case> {
    lab.say(format!("routes: {} with {hosts} hosts", found.peer.name));
    let mut case = Case {
        name: found.peer.name,
        hosts,
        start: 0.0,
        memory: Memory::default(),
        samples: Vec::new(),
        changes: Vec::new(),
        problems: Vec::new(),
        proxy: None,
    };
    let mut kind = match Kind::open(lab, found, stage, hosts).await {
        Ok(kind) => kind,
        Err(error) => {
            case.problems.push(format!("{error:#}"));
            return Ok(case);
        }
    };
    let solo = kind.solo();
    if section.shown.iter().all(|shown| shown.name != case.name) {
        section.shown.push(solo.shown.clone());
    }
    case.start = solo.start.as_secs_f64() * 1000.0;
    case.proxy = Some(kind);
    Ok(case)
}

/// Reads what all of them take, once what starting took has been given back.
async fn weigh(lab: &Lab, cases: &mut [Case]) -> anyhow::Result<()> {
    if lab.routes.last() >= Some(&MANY) {
        lab.say("routes: waiting until memory is given back");
        sleep(REST).await;
    }
    for case in cases {
        if let Some(kind) = &mut case.proxy {
            case.memory = settled(Memory::read, kind.solo().pid()).await?;
        }
    }
    Ok(())
}

async fn load(
    lab: &Lab,
    stage: &mut Stage,
    case: &mut Case,
    duration: Duration,
    counts: bool,
) -> anyhow::Result<()> {
    let (Some(kind), true) = (&mut case.proxy, case.problems.is_empty()) else {
        return Ok(());
    };
    let solo = kind.solo();
    if !counts {
        until_served::<Client>(&solo.place.listen.into(), FIRST).await?;
    }
    let line = load_line(lab, solo.place.listen, case.hosts, duration, None)?;
    let sample = send(lab, stage, &mut solo.running, &line, lab.workers).await?;
    if counts {
        let problems = sample.problems.iter().cloned();
        case.problems.extend(problems);
        case.samples.push(sample);
    }
    Ok(())
}

/// Changes one route again and again.
async fn change(case: &mut Case) -> anyhow::Result<()> {
    let (Some(kind), true) = (&mut case.proxy, case.problems.is_empty()) else {
        return Ok(());
    };
    let listen = kind.solo().place.listen;
    for change in 1..=CHANGES {
        let Some(staged) = kind.stage(change)? else {
            return Ok(());
        };
        let begun = Instant::now();
        staged.commit()?;
        kind.tell()?;
        until_shown(listen, kind.oldest(change)..=change).await?;
        case.changes.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(())
}

/// Bytes to compare with those of another case. All of a name run at once, so that each one more
/// makes every one's proportional part of the program smaller: that is left out where the kernel
/// tells.
fn bytes(case: &Case) -> f64 {
    case.memory.anonymous.unwrap_or(case.memory.rss) as f64
}

/// What each host beyond those of a case with fewer takes, KiB.
fn per_host(case: &Case, fewer: &Case) -> Option<f64> {
    let sound = case.problems.is_empty() && fewer.problems.is_empty();
    let more = case
        .hosts
        .checked_sub(fewer.hosts)
        .filter(|more| *more > 0)?;
    sound.then(|| (bytes(case) - bytes(fewer)) / more as f64 / KIB)
}

fn fill(section: &mut Section, cases: &[Case]) {
    let head = [
        "proxy and hosts",
        "start, ms",
        "RSS, MiB",
        "PSS, MiB",
        "KiB per further host",
        "CPU, µs per request",
        "RSS after load, MiB",
        "a change shows after, ms",
    ];
    let mut rows = Vec::new();
    let mut bars = Vec::new();
    let mut before: Option<&Case> = None;
    for case in cases {
        let fewer = before.filter(|before| before.name == case.name);
        let further = fewer.and_then(|fewer| per_host(case, fewer));
        let cost = Spread::of(case.samples.iter().map(Sample::micros_per_answer));
        let after = case.samples.last().map(|one| one.memory.rss as f64 / MIB);
        let mark = if case.problems.is_empty() { "" } else { " ⚠" };
        let label = format!("{}, {}", case.name, count(case.hosts as u64));
        let some = |figure: Option<f64>| show(Spread::of(figure));
        rows.push(vec![
            format!("{label}{mark}"),
            some((case.start > 0.0).then_some(case.start)),
            some(Some(case.memory.rss as f64 / MIB)),
            some(case.memory.pss.map(|pss| pss as f64 / MIB)),
            some(further),
            show(cost),
            some(after),
            show(Spread::of(case.changes.iter().copied())),
        ]);
        if case.name == TIDEGATE && before.is_some_and(|before| before.hosts >= 1000) {
            let what = format!("KiB per route beyond {}", before.map_or(0, |one| one.hosts));
            let figure = Spread::of(further);
            section
                .verdicts
                .push(Verdict::new(what, figure, ROUTE_KIB, true));
        }
        let problems = case.problems.iter();
        section
            .problems
            .extend(problems.map(|problem| format!("{label} hosts: {problem}")));
        bars.push(Bar {
            label,
            figure: cost,
        });
        before = Some(case);
    }
    section.tables.push(Table {
        head: head.map(str::to_owned).to_vec(),
        rows,
    });
    section.charts.push(Chart {
        title: "CPU per request by number of hosts".to_owned(),
        unit: "µs".to_owned(),
        bars,
    });
    let samples = cases.iter().flat_map(|case| &case.samples);
    section.notes.extend(disturbance(samples));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(hosts: usize, anonymous: Option<u64>) -> Case {
        Case {
            name: TIDEGATE,
            hosts,
            start: 0.0,
            memory: Memory {
                rss: 5000 * 1024 + hosts as u64 * 2048,
                // Less for each further process of the same program.
                pss: Some(5_000_000 / hosts as u64),
                anonymous,
            },
            samples: Vec::new(),
            changes: Vec::new(),
            problems: Vec::new(),
            proxy: None,
        }
    }

    #[test]
    fn what_a_host_takes_is_free_of_how_many_processes_share_the_program() {
        let further = per_host(&case(11, Some(11 * 3072)), &case(1, Some(3072)));
        assert_eq!(further, Some(3.0));
        assert_eq!(per_host(&case(11, None), &case(1, None)), Some(2.0));
    }
}

//! `generator`: what the load generator itself costs beside wrk, both straight at the backend.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;

use crate::compare::kernel;
use crate::compare::lab::Lab;
use crate::compare::process::{CommandLine, Running};
use crate::compare::section::{Bar, Chart, Section, Table, Verdict};
use crate::compare::speech::Speech;
use crate::compare::spread::{Spread, show};
use crate::compare::stage::{Plan, Stage};
use crate::report::Report;

/// What `loadtest run` may cost, in requests of wrk.
const BUDGET: f64 = 1.2;

/// How long a generator may take beyond its time.
const GRACE: Duration = Duration::from_secs(30);

const WRK: &str = "wrk";
const OURS: &str = "loadtest run";

/// One turn of one generator.
#[derive(Clone, Copy, Debug, Serialize)]
struct Turn {
    answers: u64,
    /// User and system time of the whole process, µs per answer.
    cost: f64,
    /// Answers per second.
    speed: f64,
}

pub(super) async fn run(lab: &Lab) -> anyhow::Result<Vec<Section>> {
    // wrk takes whole seconds.
    let seconds = lab.duration.as_secs().max(1);
    let mut section = Section {
        name: "generator".to_owned(),
        title: "The load generator beside wrk".to_owned(),
        about: "Small GETs over kept connections straight at the backend, no proxy between: what \
                `loadtest run` costs, and what wrk does. The processor time is that of the whole \
                process, from its start to its end, in ticks of 10 ms."
            .to_owned(),
        measured: Some(format!(
            "of {} rounds of {seconds} s, {} connections;",
            lab.rounds, lab.connections
        )),
        ..Section::default()
    };
    let Some(version) = wrk_version()? else {
        let problem = "wrk is not there to compare with; it comes with: wrk (Debian)";
        section.problems.push(problem.to_owned());
        return Ok(vec![section]);
    };
    let plan = Plan {
        name: "generator",
        backend: vec!["--body=128B".to_owned()],
        limit: 0,
        workers: 1,
        speech: Speech::default(),
    };
    let mut stage = Stage::set(lab, &plan, []).await?;
    let lines = lines(lab, &stage, seconds)?;
    section.commands.push(stage.backend_line.to_string());
    section
        .commands
        .extend(lines.each_ref().map(|line| line.to_string()));
    section.notes.push(format!("wrk is {version}."));
    let mut turns = [Vec::new(), Vec::new()];
    // The first round warms and does not count.
    for round in 0..=lab.rounds {
        for (line, turns) in lines.iter().zip(&mut turns) {
            let name = line.program.file_name().unwrap_or_default().display();
            lab.say(format!(
                "generator, round {round} of {}: {name}",
                lab.rounds
            ));
            let turn = turn(lab, &mut stage, line).await?;
            if round > 0 {
                turns.push(turn);
            }
        }
    }
    fill(&mut section, &turns);
    let [wrk, ours] = &turns;
    section.raw = serde_json::json!({ "wrk": wrk, "loadtest": ours });
    Ok(vec![section])
}

/// None where there is no wrk.
fn wrk_version() -> anyhow::Result<Option<String>> {
    match Command::new(WRK).arg("-v").output() {
        // It says its version and fails, for it was given nothing to do.
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            let version = said.split(" [").next().unwrap_or_default();
            Ok(Some(version.trim().to_owned()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("cannot run wrk"),
    }
}

fn lines(lab: &Lab, stage: &Stage, seconds: u64) -> anyhow::Result<[CommandLine; 2]> {
    let target: SocketAddr = stage.upstreams[0];
    let url = format!("http://{target}/");
    let connections = lab.connections;
    let wrk = [
        "-t1".to_owned(),
        format!("-c{connections}"),
        format!("-d{seconds}s"),
        url.clone(),
    ];
    let ours = [
        "run".to_owned(),
        url,
        format!("--connections={connections}"),
        format!("--duration={seconds}s"),
        "--json=-".to_owned(),
    ];
    Ok([
        CommandLine::new(WRK.as_ref(), wrk),
        CommandLine::new(&std::env::current_exe()?, ours),
    ])
}

async fn turn(lab: &Lab, stage: &mut Stage, line: &CommandLine) -> anyhow::Result<Turn> {
    let counts = stage.counts(true).await?;
    let before = kernel::ended_children()?;
    // Where a proxy would be, so that the backend has a processor of its own.
    let mut generator = Running::start("generator", line, lab.proxy_on(1), &stage.directory)?;
    let ended = generator.ended(lab.duration + GRACE).await?;
    let spent = kernel::ended_children()? - before;
    let said = generator.output();
    ensure!(ended.success(), "{line} failed ({ended}):\n{said}");
    let (answers, speed) = if line.program.as_os_str() == WRK {
        wrk_said(&said)?
    } else {
        we_said(&said)?
    };
    let answered = stage.counts(false).await?.answers - counts.answers;
    // At the end of its time wrk forgets what it waits for, one request per connection.
    let forgotten = answered.checked_sub(answers);
    ensure!(
        answers > 0 && forgotten.is_some_and(|some| some <= u64::from(lab.connections)),
        "{line} counts {answers} answers, the backend {answered}"
    );
    Ok(Turn {
        answers,
        cost: spent as f64 / 1000.0 / answers as f64,
        speed,
    })
}

/// Answers, and answers per second.
fn we_said(said: &str) -> anyhow::Result<(u64, f64)> {
    // Beside the report there is progress.
    let json = said.find('{').map(|at| &said[at..]).unwrap_or_default();
    let report: Report = serde_json::from_str(json).context("the generator's report is none")?;
    ensure!(report.errors.total() == 0, "{:?}", report.errors);
    Ok((report.answers, report.rate))
}

/// The same, of what wrk says: `… requests in …` and `Requests/sec: …`.
fn wrk_said(said: &str) -> anyhow::Result<(u64, f64)> {
    if said.contains("Socket errors") || said.contains("Non-2xx") {
        bail!("wrk met errors:\n{said}");
    }
    let line = |mark: &str| said.lines().find(|line| line.contains(mark));
    let answers = line(" requests in ").and_then(|line| line.split_whitespace().next());
    let speed = line("Requests/sec:").and_then(|line| line.split_whitespace().last());
    let answers = answers.and_then(|answers| answers.parse().ok());
    let speed = speed.and_then(|speed| speed.parse().ok());
    answers
        .zip(speed)
        .with_context(|| format!("wrk says something else than before:\n{said}"))
}

fn fill(section: &mut Section, turns: &[Vec<Turn>; 2]) {
    let [wrk, ours] = turns;
    let ratios = ours.iter().zip(wrk).map(|(ours, wrk)| ours.cost / wrk.cost);
    let ratio = Spread::of(ratios);
    let mut rows = Vec::new();
    let mut bars = Vec::new();
    for (name, turns, ratio) in [(WRK, wrk, Spread::of([1.0])), (OURS, ours, ratio)] {
        let cost = Spread::of(turns.iter().map(|turn| turn.cost));
        let speed = Spread::of(turns.iter().map(|turn| turn.speed));
        rows.push(vec![name.to_owned(), show(cost), show(ratio), show(speed)]);
        bars.push(Bar {
            label: name.to_owned(),
            figure: cost,
        });
    }
    let head = ["generator", "CPU, µs per request", "× wrk", "requests/s"];
    section.tables.push(Table {
        head: head.map(str::to_owned).to_vec(),
        rows,
    });
    section.charts.push(Chart {
        title: "What the load generator costs per request".to_owned(),
        unit: "µs".to_owned(),
        bars,
    });
    let what = "CPU per request, × wrk".to_owned();
    section
        .verdicts
        .push(Verdict::new(what, ratio, BUDGET, true));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says_is_understood_or_refused() {
        let said = "Running 1s test @ http://127.0.0.1:1/\n  Thread Stats   Avg      Stdev     Max   +/- Stdev\n  \
                    52364 requests in 1.10s, 7.49MB read\nRequests/sec:  47604.21\nTransfer/sec:      6.81MB\n";
        assert_eq!(wrk_said(said).unwrap(), (52364, 47604.21));
        assert!(wrk_said(&format!("{said}  Socket errors: connect 1\n")).is_err());
        assert!(wrk_said("unable to connect\n").is_err());
    }
}

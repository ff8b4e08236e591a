//! `cold`: requests for a revision that does not run yet.
//!
//! Tidegate starts `loadtest backend` as the process of a revision; it writes down when it ran, when
//! it listened and when its first request came, by the clock that all processes share.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures_util::TryStreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::idle::{fewer, possible};
use crate::backend::Times;
use crate::compare::clients::{Client, Visit as _, crowd, until_served};
use crate::compare::kernel::Memory;
use crate::compare::lab::Lab;
use crate::compare::peers::Found;
use crate::compare::section::{Bar, Chart, Section, Table, Verdict};
use crate::compare::settle::settled;
use crate::compare::solo::{Place, Solo, quoted, tidegate};
use crate::compare::speech::Speech;
use crate::compare::spread::{Spread, show};
use crate::compare::stage::{Plan, Stage};
use crate::system::monotonic_nanos;

/// Hosts of the two revisions: one that always runs, one that is started.
const WARM: &str = "warm.default.example.com";
const COLD: &str = "cold.default.example.com";

/// Cold starts per round, and at most: each waits until Tidegate has gone back to zero.
const STARTS_PER_ROUND: u32 = 3;
const STARTS_MAX: u32 = 12;

/// Rounds of held requests at most; each has a Tidegate of its own.
const ROUNDS_MAX: u32 = 3;

/// Requests in flight that the endpoint allows, once it is there.
const LIMIT: u32 = 100;

/// Held requests allowed beyond those that are meant to be held.
const SLACK: usize = 1000;

/// Between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(5);

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The budgets: ms from listening to the first request, ms to the nudge, KiB per held request.
const WIRE_MS: f64 = 2.0;
const NUDGE_MS: f64 = 1.0;
const HELD_KIB: f64 = 8.0;

const KIB: f64 = 1024.0;

/// What `/api/revisions` says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Revision {
    name: String,
    waiting: u64,
    endpoints: Vec<serde_json::Value>,
    cold_starts: u64,
    last_start: Option<LastStart>,
}

#[derive(Debug, Deserialize)]
struct LastStart {
    phases: Phases,
}

/// Seconds, each from the end of the one before.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Phases {
    nudge: Option<f64>,
    act: Option<f64>,
    endpoint: Option<f64>,
    probe: Option<f64>,
    wire: Option<f64>,
    first_byte: Option<f64>,
}

/// One cold start. Times are nanoseconds of the monotonic clock.
#[derive(Clone, Copy, Debug, Serialize)]
struct Start {
    sent: u64,
    times: Times,
    answered: u64,
    phases: Phases,
}

/// One crowd of held requests.
#[derive(Clone, Copy, Debug, Serialize)]
struct Held {
    idle: Memory,
    held: Memory,
    times: Times,
    /// When the last answer had been read.
    last: u64,
}

/// Everything found.
#[derive(Debug, Serialize)]
struct Findings {
    requests: usize,
    starts: Vec<Start>,
    held: Vec<Held>,
}

pub(super) async fn run(lab: &Lab) -> anyhow::Result<Vec<Section>> {
    let Some(tidegate) = tidegate(lab) else {
        lab.say("cold: left out, for Tidegate does not take part");
        return Ok(Vec::new());
    };
    let number = possible(lab.held);
    let rounds = lab.rounds.min(ROUNDS_MAX);
    let starts = lab.rounds.saturating_mul(STARTS_PER_ROUND).min(STARTS_MAX);
    let mut section = Section {
        name: "cold".to_owned(),
        workers: lab.workers,
        title: "Cold starts".to_owned(),
        about: format!(
            "A revision that does not run is asked for. Once by one request, {starts} times, with the \
             revision stopped in between: how long Tidegate takes beside the process itself. And \
             {rounds} times by {number} requests, held until the process listens: what each takes \
             beyond its idle connection, and how soon all have their answers, with {LIMIT} in flight."
        ),
        measured: Some(format!(
            "of {starts} starts and {rounds} crowds; all on any processor,"
        )),
        ..Section::default()
    };
    section.notes.extend(fewer(lab.held, number));
    let mut found = Findings {
        requests: number,
        starts: Vec::new(),
        held: Vec::new(),
    };
    let theatre = Theatre::open(lab, tidegate, number).await?;
    section.shown.push(theatre.solo.shown.clone());
    section
        .commands
        .push(theatre.stage.backend_line.to_string());
    for start in 1..=starts {
        lab.say(format!("cold, start {start} of {starts}"));
        found.starts.push(theatre.start().await?);
    }
    drop(theatre);
    for round in 1..=rounds {
        lab.say(format!(
            "cold, {number} held requests: round {round} of {rounds}"
        ));
        let theatre = Theatre::open(lab, tidegate, number).await?;
        found.held.push(theatre.hold(number).await?);
    }
    fill(&mut section, &found);
    section.raw = serde_json::to_value(&found)?;
    Ok(vec![section])
}

/// Tidegate with its two revisions.
struct Theatre {
    stage: Stage,
    solo: Solo,
    /// Where the process of the cold revision writes its times.
    times: PathBuf,
    /// The file without which that process does not listen.
    gate: PathBuf,
}

impl Theatre {
    async fn open(lab: &Lab, found: &Found, number: usize) -> anyhow::Result<Theatre> {
        let plan = Plan {
            name: "cold",
            backend: vec!["--body=128B".to_owned()],
            limit: 0,
            workers: lab.workers,
            speech: Speech::default(),
        };
        let stage = Stage::set(lab, &plan, []).await?;
        let place = Place::new(lab, "cold-tidegate")?;
        let times = place.directory.join("times.json");
        let gate = place.directory.join("gate");
        let text = config(lab, &place, &stage, number)?;
        place.write("tidegate.yaml", &text)?;
        let args = ["run", "-f", &place.path("tidegate.yaml")].map(str::to_owned);
        let shown = [("tidegate.yaml", &*text)];
        // What it starts runs on its processors, and should not have to share a single one.
        let solo = Solo::start(lab, found, place, args.to_vec(), &[], &shown).await?;
        until_served::<Client>(&solo.place.listen.into(), WARM).await?;
        Ok(Theatre {
            stage,
            solo,
            times,
            gate,
        })
    }

    async fn revision(&self) -> anyhow::Result<Revision> {
        let revisions: Vec<Revision> =
            serde_json::from_slice(&self.solo.admin("/api/revisions").await?)?;
        let cold = revisions.into_iter().find(|one| one.name == "cold");
        cold.context("Tidegate does not know the revision")
    }

    /// Looks at the cold revision until it is as wanted.
    async fn until(
        &self,
        what: &str,
        wanted: impl Fn(&Revision) -> bool,
    ) -> anyhow::Result<Revision> {
        let patience = Instant::now() + PATIENCE;
        loop {
            let revision = self.revision().await?;
            if wanted(&revision) {
                return Ok(revision);
            }
            if Instant::now() > patience {
                bail!("not within a minute: {what}; it is {revision:?}");
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until nothing runs, and forgets what ran.
    async fn rest(&self) -> anyhow::Result<Revision> {
        let at_rest = |revision: &Revision| revision.endpoints.is_empty();
        let revision = self.until("the revision stops", at_rest).await?;
        if self.times.exists() {
            fs::remove_file(&self.times)?;
        }
        Ok(revision)
    }

    /// One cold start.
    async fn start(&self) -> anyhow::Result<Start> {
        fs::write(&self.gate, "")?;
        let before = self.rest().await?.cold_starts;
        let mut client = Client::connect(self.solo.place.listen).await?;
        // A connection that is served already: what is measured begins with the request.
        ensure!(client.ask(WARM, "/").await?.status == 200);
        let sent = monotonic_nanos();
        let answer = client.ask(COLD, "/").await?;
        let answered = monotonic_nanos();
        ensure!(answer.status == 200, "an answer with {}", answer.status);
        let counted = |revision: &Revision| revision.cold_starts > before;
        let revision = self.until("the cold start is counted", counted).await?;
        let last = revision.last_start.context("no lastStart")?;
        Ok(Start {
            sent,
            times: self.read_times()?,
            answered,
            phases: last.phases,
        })
    }

    /// Holds this many requests, and lets them go.
    async fn hold(&self, number: usize) -> anyhow::Result<Held> {
        self.rest().await?;
        let pid = self.solo.pid();
        let way = self.solo.place.listen.into();
        let mut clients: Vec<Client> = crowd(&way, WARM, number).await?;
        let idle = settled(Memory::alone, pid).await?;
        for client in &mut clients {
            client.send(COLD, "/").await?;
        }
        let all = |revision: &Revision| revision.waiting == number as u64;
        self.until("all requests are held", all).await?;
        let held = settled(Memory::alone, pid).await?;
        fs::write(&self.gate, "")?;
        let answers: FuturesUnordered<_> = clients.iter_mut().map(Client::answer).collect();
        let statuses: Vec<u16> = answers.map_ok(|answer| answer.status).try_collect().await?;
        let last = monotonic_nanos();
        let wrong = statuses.iter().filter(|status| **status != 200).count();
        ensure!(wrong == 0, "{wrong} of {number} answers are not 200");
        Ok(Held {
            idle,
            held,
            times: self.read_times()?,
            last,
        })
    }

    fn read_times(&self) -> anyhow::Result<Times> {
        let text = fs::read_to_string(&self.times).context("the process wrote no times")?;
        Ok(serde_json::from_str(&text)?)
    }
}

fn config(lab: &Lab, place: &Place, stage: &Stage, number: usize) -> anyhow::Result<String> {
    let Place { listen, admin, .. } = place;
    let most = number + SLACK;
    let program = quoted(&std::env::current_exe()?);
    let option = |name: &str, file: &str| {
        let path = place.directory.join(file);
        quoted(format!("--{name}={}", path.display()).as_ref())
    };
    let times = option("times", "times.json");
    let gate = option("listen-after", "gate");
    Ok(format!(
        "gateway:
  listeners: [{{ address: \"{listen}\" }}]
  admin: \"{admin}\"
  workers: {}
  accessLog: {{ mode: \"off\" }}
  limits: {{ keepAlive: 600s, upstreamIdlePerEndpoint: 256, held: {most} }}
revisions:
  - {{ name: warm, endpoints: [\"{}\"] }}
  - name: cold
    concurrency: {LIMIT}
    queue: {{ depth: {most} }}
    process:
      command: [{program}, backend, \"--listen=127.0.0.1:$PORT\", {times}, {gate}]
    scale: {{ max: 1, window: 1s, grace: 0s }}
routes:
  - {{ name: warm, traffic: [{{ revision: warm }}] }}
  - {{ name: cold, traffic: [{{ revision: cold }}] }}
",
        lab.workers, stage.upstreams[0]
    ))
}

fn ms(from: u64, to: u64) -> f64 {
    (to as f64 - from as f64) / 1e6
}

fn fill(section: &mut Section, found: &Findings) {
    fill_starts(section, &found.starts);
    fill_held(section, found);
    section.notes.push(
        "That it listens Tidegate learns by asking, every 2 ms at first: half of that, on average, is in \
         the time until the request is there."
            .to_owned(),
    );
}

fn fill_starts(section: &mut Section, found: &[Start]) {
    let starts = |figure: &dyn Fn(&Start) -> Option<f64>| {
        let figures: Option<Vec<f64>> = found.iter().map(figure).collect();
        Spread::of(figures?)
    };
    let phase = |pick: fn(&Phases) -> Option<f64>| {
        starts(&|start: &Start| pick(&start.phases).map(|seconds| seconds * 1000.0))
    };
    let between = |from: fn(&Start) -> u64, to: fn(&Start) -> u64| {
        starts(&|start: &Start| Some(ms(from(start), to(start))))
    };
    let ran = between(|start| start.sent, |start| start.times.started);
    let own = between(|start| start.times.started, |start| start.times.listening);
    let added = between(|start| start.times.listening, |start| start.times.request);
    let whole = between(|start| start.sent, |start| start.answered);
    let nudge = phase(|phases| phases.nudge);
    let seen = "Tidegate";
    let outside = "the process, the client";
    section.tables.push(spans(&[
        ("request → nudge", seen, nudge),
        (
            "→ act: a process is asked for",
            seen,
            phase(|phases| phases.act),
        ),
        (
            "→ endpoint: it takes connections",
            seen,
            phase(|phases| phases.endpoint),
        ),
        ("→ probe: it is ready", seen, phase(|phases| phases.probe)),
        (
            "→ wire: the request is written",
            seen,
            phase(|phases| phases.wire),
        ),
        (
            "→ first byte of the answer",
            seen,
            phase(|phases| phases.first_byte),
        ),
        ("request sent → the process runs", outside, ran),
        ("the process runs → it listens", outside, own),
        ("it listens → it has read the request", outside, added),
        ("request sent → answer read", outside, whole),
    ]));
    judge(
        section,
        "ms from listening to the request read there",
        added,
        WIRE_MS,
    );
    judge(
        section,
        "ms from a request's arrival to the nudge",
        nudge,
        NUDGE_MS,
    );
    section.charts.push(chart([
        ("request → process runs", ran),
        ("process runs → listens", own),
        ("listens → request read", added),
        ("request → answer", whole),
    ]));
}

fn chart(bars: [(&str, Option<Spread>); 4]) -> Chart {
    let bar = |(label, figure): (&str, Option<Spread>)| Bar {
        label: label.to_owned(),
        figure,
    };
    Chart {
        title: "A cold start".to_owned(),
        unit: "ms".to_owned(),
        bars: bars.map(bar).to_vec(),
    }
}

fn fill_held(section: &mut Section, found: &Findings) {
    let held = |figure: &dyn Fn(&Held) -> f64| Spread::of(found.held.iter().map(figure));
    let number_held = found.requests as f64;
    let taken = held(&|held| (held.held.rss as f64 - held.idle.rss as f64) / number_held / KIB);
    let release = held(&|held| ms(held.times.listening, held.last));
    let flow = held(&|held| ms(held.times.request, held.last));
    section.tables.push(Table {
        head: [
            format!("{} held requests", found.requests),
            "figure".to_owned(),
        ]
        .to_vec(),
        rows: [
            ("memory of one beyond its idle connection, KiB", taken),
            ("the process listens → last answer read, ms", release),
            ("its first request read → last answer read, ms", flow),
        ]
        .map(|(what, spread)| vec![what.to_owned(), show(spread)])
        .to_vec(),
    });
    judge(
        section,
        "KiB per held request without a body",
        taken,
        HELD_KIB,
    );
}

fn judge(section: &mut Section, what: &str, figure: Option<Spread>, bound: f64) {
    let verdict = Verdict::new(what.to_owned(), figure, bound, true);
    section.verdicts.push(verdict);
}

/// A table of how long things took, ms.
fn spans(rows: &[(&str, &str, Option<Spread>)]) -> Table {
    let row = |(what, by, spread): &(&str, &str, Option<Spread>)| {
        vec![(*what).to_owned(), (*by).to_owned(), show(*spread)]
    };
    Table {
        head: ["from → to", "as seen by", "ms"]
            .map(str::to_owned)
            .to_vec(),
        rows: rows.iter().map(row).collect(),
    }
}

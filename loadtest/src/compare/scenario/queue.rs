//! `queue`: what a flood costs those beside it, and what a crowd that was held does to a process
//! that has just started.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use futures_util::TryStreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde::Serialize;
use tokio::time::sleep;

use super::idle::{fewer, possible};
use crate::backend::read_stats;
use crate::compare::clients::{Client, crowd};
use crate::compare::lab::Lab;
use crate::compare::peers::Found;
use crate::compare::section::{Bar, Chart, Section, Table, Verdict};
use crate::compare::solo::{Place, Solo, quoted, tidegate};
use crate::compare::speech::Speech;
use crate::compare::spread::{Spread, show};
use crate::compare::stage::{Plan, Stage};

/// Whose waits are looked at: a few requests at once.
const CALM: usize = 40;

/// Requests in flight that the endpoints of the flooded revisions allow.
const LIMIT: u32 = 4;

/// How long the backend thinks, in milliseconds: many of its timers' steps, which are one, so that it
/// makes no difference on which of them a request comes.
const DELAY_MS: u32 = 20;

/// Rounds at most.
const ROUNDS_MAX: u32 = 3;

/// Between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(5);

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much longer the calm may wait beside a flood of another tenant.
const BESIDE: f64 = 1.10;

/// Hosts of the two tenants; of two clients of one revision, told apart by these names; of the crowd.
const CALM_HOST: &str = "calm.example.com";
const FLOOD_HOST: &str = "flood.example.com";
const CALM_CLIENT: &str = "calm.shared.example.com";
const FLOOD_CLIENT: &str = "flood.shared.example.com";
const CROWD_HOST: &str = "crowd.example.com";

/// How long a few requests waited, in milliseconds from when all were sent.
#[derive(Clone, Copy, Debug, Serialize)]
struct Waits {
    p99: f64,
    /// Until the flood beside them was answered; 0 without one.
    flood: f64,
}

/// What a crowd did to a process that had just begun to listen.
#[derive(Clone, Copy, Debug, Serialize)]
struct Burst {
    /// Most of them in flight there at once.
    peak: u64,
    /// From when it was let listen until the last answer, in milliseconds.
    answered: f64,
}

/// One round.
#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    alone: Waits,
    tenant: Waits,
    client: Waits,
    paced: Burst,
    unpaced: Burst,
}

pub(super) async fn run(lab: &Lab) -> anyhow::Result<Vec<Section>> {
    let Some(tidegate) = tidegate(lab) else {
        lab.say("queue: left out, for Tidegate does not take part");
        return Ok(Vec::new());
    };
    let number = possible(lab.held) / 2;
    let rounds = lab.rounds.min(ROUNDS_MAX);
    let mut section = Section {
        name: "queue".to_owned(),
        workers: lab.workers,
        title: "Requests that wait".to_owned(),
        about: format!(
            "{CALM} requests at once for a revision with {LIMIT} slots and answers that take \
             {DELAY_MS} ms: alone; while {number} requests of another tenant wait for another revision; \
             and while {number} of another client wait for the same one. Then {number} requests \
             held for a process without a limit, which begins to listen: how many of them it has \
             at once, with `rampUp` as it is and switched off."
        ),
        measured: Some(format!("of {rounds} rounds; all on any processor,")),
        ..Section::default()
    };
    section.notes.extend(fewer(lab.held, number * 2));
    let mut found = Vec::new();
    for round in 1..=rounds {
        lab.say(format!("queue: round {round} of {rounds}"));
        found.push(self::round(lab, tidegate, number, &mut section).await?);
    }
    fill(&mut section, number, &found);
    section.raw = serde_json::to_value(&found)?;
    Ok(vec![section])
}

async fn round(
    lab: &Lab,
    found: &Found,
    number: usize,
    section: &mut Section,
) -> anyhow::Result<Round> {
    let theatre = Theatre::open(lab, found, number, true).await?;
    if section.shown.is_empty() {
        section.shown.push(theatre.solo.shown.clone());
        let line = theatre.stage.backend_line.to_string();
        section.commands.push(line);
    }
    let alone = theatre.waits(CALM_HOST, None).await?;
    let tenant = theatre.waits(CALM_HOST, Some((FLOOD_HOST, number)));
    let tenant = tenant.await?;
    let client = theatre.waits(CALM_CLIENT, Some((FLOOD_CLIENT, number)));
    let client = client.await?;
    let paced = theatre.burst(number).await?;
    drop(theatre);
    let theatre = Theatre::open(lab, found, number, false).await?;
    let unpaced = theatre.burst(number).await?;
    Ok(Round {
        alone,
        tenant,
        client,
        paced,
        unpaced,
    })
}

/// Tidegate with its revisions.
struct Theatre {
    stage: Stage,
    solo: Solo,
    /// Where the process of the crowd says what it has seen.
    stats: std::net::SocketAddr,
}

impl Theatre {
    async fn open(lab: &Lab, found: &Found, number: usize, paced: bool) -> anyhow::Result<Theatre> {
        let plan = Plan {
            name: "queue",
            backend: vec!["--body=128B".to_owned(), format!("--delay={DELAY_MS}ms")],
            limit: 0,
            workers: lab.workers,
            speech: Speech::default(),
        };
        let stage = Stage::set(lab, &plan, []).await?;
        let place = Place::new(lab, "queue-tidegate")?;
        let stats = lab.free_address()?;
        let text = config(lab, &place, &stage, number, stats, paced)?;
        place.write("tidegate.yaml", &text)?;
        let args = ["run", "-f", &place.path("tidegate.yaml")].map(str::to_owned);
        let shown = [("tidegate.yaml", &*text)];
        let solo = Solo::start(lab, found, place, args.to_vec(), &[], &shown).await?;
        Ok(Theatre { stage, solo, stats })
    }

    async fn clients(&self, number: usize) -> anyhow::Result<Vec<Client>> {
        crowd(&self.solo.place.listen.into(), CALM_HOST, number).await
    }

    /// Waits until about this many requests wait.
    async fn until_waiting(&self, number: u64) -> anyhow::Result<()> {
        let patience = Instant::now() + PATIENCE;
        while self.solo.metric("tidegate_waiting").await? < number {
            ensure!(Instant::now() < patience, "they do not wait");
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Sends the calm requests, once the flood waits where there is one.
    async fn waits(&self, host: &str, flood: Option<(&str, usize)>) -> anyhow::Result<Waits> {
        let mut calm = self.clients(CALM).await?;
        let mut flooding = Vec::new();
        if let Some((host, number)) = flood {
            flooding = self.clients(number).await?;
            for client in &mut flooding {
                client.send(host, "/").await?;
            }
            // Some are answered meanwhile.
            self.until_waiting(number as u64 / 2).await?;
        }
        let begun = Instant::now();
        for client in &mut calm {
            client.send(host, "/").await?;
        }
        let mut waits = answers(&mut calm, begun).await?;
        let rest = answers(&mut flooding, begun).await?;
        waits.sort_by(f64::total_cmp);
        Ok(Waits {
            p99: waits[waits.len() * 99 / 100],
            flood: rest.into_iter().fold(0.0, f64::max),
        })
    }

    /// Holds this many requests and lets their process listen.
    async fn burst(&self, number: usize) -> anyhow::Result<Burst> {
        let mut clients = self.clients(number).await?;
        for client in &mut clients {
            client.send(CROWD_HOST, "/").await?;
        }
        self.until_waiting(number as u64).await?;
        let gate = self.solo.place.directory.join("gate");
        let begun = Instant::now();
        fs::write(&gate, "")?;
        let answered = answers(&mut clients, begun).await?;
        fs::remove_file(&gate)?;
        Ok(Burst {
            peak: read_stats(self.stats, false).await?.total.peak,
            answered: answered.into_iter().fold(0.0, f64::max),
        })
    }
}

/// When each has its answer, in milliseconds.
async fn answers(clients: &mut [Client], begun: Instant) -> anyhow::Result<Vec<f64>> {
    let answers: FuturesUnordered<_> = clients
        .iter_mut()
        .map(async |client| {
            let answer = client.answer().await?;
            if answer.status != 200 {
                bail!("an answer with {}", answer.status);
            }
            Ok(begun.elapsed().as_secs_f64() * 1000.0)
        })
        .collect();
    answers.try_collect().await
}

fn config(
    lab: &Lab,
    place: &Place,
    stage: &Stage,
    number: usize,
    stats: std::net::SocketAddr,
    paced: bool,
) -> anyhow::Result<String> {
    let Place { listen, admin, .. } = place;
    let most = number * 2;
    let program = quoted(&std::env::current_exe()?);
    let gate = place.directory.join("gate");
    let gate = quoted(format!("--listen-after={}", gate.display()).as_ref());
    let [one, other] = stage.upstreams;
    let scale = match paced {
        true => "max: 1",
        false => "max: 1, rampUp: { initial: 0 }",
    };
    let queue = format!("queue: {{ depth: {most}, fairBy: \"header:host\" }}");
    Ok(format!(
        "gateway:
  listeners: [{{ address: \"{listen}\" }}]
  admin: \"{admin}\"
  workers: {}
  accessLog: {{ mode: \"off\" }}
  limits: {{ keepAlive: 600s, upstreamIdlePerEndpoint: 256, held: {most}, heldPerNamespace: {most} }}
revisions:
  - {{ name: calm, namespace: calm, concurrency: {LIMIT}, {queue}, endpoints: [\"{one}\"] }}
  - {{ name: flood, namespace: flood, concurrency: {LIMIT}, {queue}, endpoints: [\"{other}\"] }}
  - {{ name: shared, namespace: shared, concurrency: {LIMIT}, {queue}, endpoints: [\"{other}\"] }}
  - name: crowd
    {queue}
    process:
      command: [{program}, backend, \"--listen=127.0.0.1:$PORT\", \"--delay={DELAY_MS}ms\", \"--stats={stats}\", {gate}]
    scale: {{ {scale} }}
routes:
  - {{ name: calm, namespace: calm, hosts: [{CALM_HOST}], traffic: [{{ revision: calm }}] }}
  - {{ name: flood, namespace: flood, hosts: [{FLOOD_HOST}], traffic: [{{ revision: flood }}] }}
  - {{ name: shared, namespace: shared, hosts: [{CALM_CLIENT}, {FLOOD_CLIENT}], traffic: [{{ revision: shared }}] }}
  - {{ name: crowd, hosts: [{CROWD_HOST}], traffic: [{{ revision: crowd }}] }}
",
        lab.workers
    ))
}

fn fill(section: &mut Section, number: usize, found: &[Round]) {
    let of = |figure: &dyn Fn(&Round) -> f64| Spread::of(found.iter().map(figure));
    let alone = of(&|round| round.alone.p99);
    let tenant = of(&|round| round.tenant.p99);
    let client = of(&|round| round.client.p99);
    let rows = [
        ("p99 alone, ms", alone),
        ("p99 beside another tenant's flood, ms", tenant),
        ("p99 beside another client's flood, ms", client),
        (
            "that flood's last answer, ms: where order of arrival would have put them",
            of(&|round| round.client.flood),
        ),
        (
            "peak at the process, paced",
            of(&|round| round.paced.peak as f64),
        ),
        (
            "peak at the process, not paced",
            of(&|round| round.unpaced.peak as f64),
        ),
        (
            "it may listen → last answer, paced, ms",
            of(&|round| round.paced.answered),
        ),
        (
            "it may listen → last answer, not paced, ms",
            of(&|round| round.unpaced.answered),
        ),
    ];
    section.tables.push(Table {
        head: [
            format!("{CALM} requests, and {number}"),
            "figure".to_owned(),
        ]
        .to_vec(),
        rows: rows
            .map(|(what, spread)| vec![what.to_owned(), show(spread)])
            .to_vec(),
    });
    let ratio = of(&|round| round.tenant.p99 / round.alone.p99);
    let what = "p99 beside another tenant's flood, × alone".to_owned();
    section
        .verdicts
        .push(Verdict::new(what, ratio, BESIDE, true));
    let bar = |(label, figure): (&str, Option<Spread>)| Bar {
        label: label.to_owned(),
        figure,
    };
    let bars = [
        ("alone", alone),
        ("beside a tenant", tenant),
        ("beside a client", client),
    ];
    section.charts.push(Chart {
        title: "The waits of a few requests beside a flood: p99".to_owned(),
        unit: "ms".to_owned(),
        bars: bars.map(bar).to_vec(),
    });
}

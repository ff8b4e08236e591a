//! `idle`: what a connection takes that says nothing.

use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use crate::compare::clients::{AT_ONCE, Client, Http2Client, Visit, Way, crowd, until_served};
use crate::compare::kernel::{Memory, kernel_memory};
use crate::compare::lab::Lab;
use crate::compare::peers::{Found, HOST, Shown, TIDEGATE};
use crate::compare::rounds::AMPLE_LIMIT;
use crate::compare::section::{Bar, Chart, Section, Table, Verdict};
use crate::compare::settle::settled;
use crate::compare::speech::{Speech, Wire};
use crate::compare::spread::{Spread, number, show};
use crate::compare::stage::{Plan, Stage};

/// Rounds at most: the figures hardly differ, and each takes a proxy of its own.
const ROUNDS_MAX: u32 = 3;

/// Connections that warm a proxy before its memory is read the first time.
const WARM: usize = 64;

/// Descriptors beside those of idle connections: upstream connections, files, event loops.
const SPARE: u64 = 400;

/// A connection through it is two: it has no requests of its own.
const COPIER: &str = "copier";

/// What clients speak, and what Tidegate may take of it.
struct Kind {
    section: &'static str,
    title: &'static str,
    /// What a connection is called.
    name: &'static str,
    wire: Wire,
    /// The budget of Tidegate, KiB.
    bound: f64,
}

const KINDS: [Kind; 4] = [
    Kind {
        section: "idle",
        title: "Idle connections",
        name: "plain",
        wire: Wire::HTTP1,
        bound: 4.0,
    },
    Kind {
        section: "idle-tls",
        title: "Idle TLS connections",
        name: "TLS",
        wire: Wire::HTTP1_TLS,
        bound: 24.0,
    },
    Kind {
        section: "idle-h2c",
        title: "Idle HTTP/2 connections",
        name: "HTTP/2",
        wire: Wire::H2C,
        bound: 24.0,
    },
    Kind {
        section: "idle-h2",
        title: "Idle HTTP/2 connections over TLS",
        name: "HTTP/2 over TLS",
        wire: Wire::H2,
        bound: 24.0,
    },
];

impl Kind {
    fn speech(&self) -> Speech {
        Speech {
            clients: self.wire,
            ..Speech::default()
        }
    }
}

const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * 1024.0;

/// One fresh proxy.
#[derive(Clone, Debug, Serialize)]
struct Turn {
    before: Memory,
    with_all: Memory,
    /// Memory of the kernel for both sides of every connection, bytes; none where it does not tell.
    kernel: Option<u64>,
    /// Connections that were still open at the end.
    held: usize,
}

/// All of one kind.
#[derive(Clone, Debug, Serialize)]
struct Peer {
    name: &'static str,
    connections: usize,
    turns: Vec<Turn>,
    problems: Vec<String>,
}

impl Peer {
    fn per_connection(&self, figure: impl Fn(&Turn) -> Option<f64>) -> Option<Spread> {
        let number = self.connections as f64;
        let figures: Option<Vec<f64>> = self.turns.iter().map(figure).collect();
        Spread::of(figures?.into_iter().map(|bytes| bytes / number / KIB))
    }

    /// KiB of its own memory.
    fn resident(&self) -> Option<Spread> {
        self.per_connection(|turn| Some(turn.with_all.rss as f64 - turn.before.rss as f64))
    }

    fn proportional(&self) -> Option<Spread> {
        self.per_connection(|turn| Some(turn.with_all.pss? as f64 - turn.before.pss? as f64))
    }
}

/// How many connections there can be, of those asked for.
pub(super) fn possible(asked: usize) -> usize {
    let most = getrlimit(Resource::Nofile).maximum;
    let most = most.map_or(usize::MAX, |most| {
        // HAProxy counts two for each client, whether it has an upstream connection or not.
        usize::try_from(most.saturating_sub(SPARE) / 2).unwrap_or(usize::MAX)
    });
    asked.min(most).max(1)
}

/// What to say about it.
pub(super) fn fewer(asked: usize, number: usize) -> Option<String> {
    (number < asked).then(|| {
        format!(
            "{number} instead of {asked}: the limit on descriptors (ulimit -Hn) allows no more."
        )
    })
}

pub(super) async fn run(lab: &Lab) -> anyhow::Result<Vec<Section>> {
    let mut sections = Vec::new();
    for kind in &KINDS {
        sections.extend(weigh(lab, kind).await?);
    }
    Ok(sections)
}

async fn weigh(lab: &Lab, kind: &Kind) -> anyhow::Result<Option<Section>> {
    let number = possible(lab.held);
    let rounds = lab.rounds.min(ROUNDS_MAX);
    let cast = lab.cast(kind.section, kind.speech());
    let found: Vec<&Found> = cast.filter(|found| found.peer.name != COPIER).collect();
    if found.is_empty() {
        return Ok(None);
    }
    let mut section = Section {
        name: kind.section.to_owned(),
        workers: lab.workers,
        title: kind.title.to_owned(),
        about: format!(
            "{number} {} connections, {AT_ONCE} at a time, each send one small GET, read the answer and then say \
             nothing. What the memory of a freshly started and warmed proxy has grown by, divided by \
             {number}.",
            kind.name
        ),
        measured: Some(format!("of {rounds} fresh processes each;")),
        ..Section::default()
    };
    section.notes.extend(fewer(lab.held, number));
    section
        .notes
        .extend(lab.left_out(kind.section, kind.speech()));
    let mut peers: Vec<Peer> = found.iter().map(|found| none_yet(found, number)).collect();
    for round in 1..=rounds {
        for (found, peer) in found.iter().zip(&mut peers) {
            if !peer.problems.is_empty() {
                continue;
            }
            let name = kind.section;
            lab.say(format!("{name}, round {round} of {rounds}: {}", peer.name));
            let turn = match kind.wire.http2 {
                true => turn::<Http2Client>(lab, found, kind, number, &mut section).await,
                false => turn::<Client>(lab, found, kind, number, &mut section).await,
            };
            match turn {
                Ok(turn) => peer.take(turn),
                Err(error) => peer.problems.push(format!("{error:#}")),
            }
        }
    }
    fill(&mut section, &peers, kind);
    section.raw = serde_json::to_value(&peers)?;
    Ok(Some(section))
}

fn none_yet(found: &Found, connections: usize) -> Peer {
    Peer {
        name: found.peer.name,
        connections,
        turns: Vec::new(),
        problems: Vec::new(),
    }
}

impl Peer {
    fn take(&mut self, turn: Turn) {
        if turn.held < self.connections {
            let lost = self.connections - turn.held;
            self.problems
                .push(format!("it closed {lost} of the connections"));
        }
        self.turns.push(turn);
    }
}

async fn turn<V: Visit>(
    lab: &Lab,
    found: &Found,
    kind: &Kind,
    number: usize,
    section: &mut Section,
) -> anyhow::Result<Turn> {
    let plan = Plan {
        name: kind.section,
        backend: vec!["--body=128B".to_owned()],
        limit: AMPLE_LIMIT,
        workers: lab.workers,
        speech: kind.speech(),
    };
    let stage = Stage::set(lab, &plan, [found]).await?;
    let actor = &stage.actors[0];
    present(section, &actor.shown, &stage.backend_line.to_string());
    let Some(proxy) = &actor.running else {
        anyhow::bail!("{}", actor.problem.as_deref().unwrap_or("it did not start"));
    };
    let way = Way::new(actor.listen, kind.wire, &lab.certificate)?;
    until_served::<V>(&way, HOST).await?;
    drop::<Vec<V>>(crowd(&way, HOST, WARM.min(number)).await?);
    let before = settled(Memory::read, proxy.pid()).await?;
    let kernel_before = kernel_memory();
    let mut clients: Vec<V> = crowd(&way, HOST, number).await?;
    let with_all = settled(Memory::read, proxy.pid()).await?;
    let kernel = kernel_memory()
        .zip(kernel_before)
        .map(|(with_all, before)| with_all.saturating_sub(before));
    Ok(Turn {
        before,
        with_all,
        kernel,
        held: clients
            .iter_mut()
            .map(|client| usize::from(client.idles()))
            .sum(),
    })
}

/// Shows how a proxy was started, once.
fn present(section: &mut Section, shown: &Shown, backend: &str) {
    if section.commands.is_empty() {
        section.commands.push(backend.to_owned());
    }
    if section.shown.iter().all(|one| one.name != shown.name) {
        section.shown.push(shown.clone());
    }
}

fn fill(section: &mut Section, peers: &[Peer], kind: &Kind) {
    let head = [
        "proxy",
        "KiB per connection",
        "× Tidegate",
        "PSS, KiB per connection",
        "before, MiB",
        "with all, MiB",
        "still open",
    ];
    let ours = peers.iter().find(|peer| peer.name == TIDEGATE);
    let ours_per = ours.and_then(Peer::resident);
    let mut rows = Vec::new();
    for peer in peers {
        let times = peer.resident().zip(ours_per);
        let times = times.and_then(|(theirs, ours)| ratio(theirs.median, ours.median));
        let mib = |figure: fn(&Turn) -> u64| {
            show(Spread::of(
                peer.turns.iter().map(|turn| figure(turn) as f64 / MIB),
            ))
        };
        let held = peer.turns.iter().map(|turn| turn.held).min();
        let mark = if peer.problems.is_empty() { "" } else { " ⚠" };
        rows.push(vec![
            format!("{}{mark}", peer.name),
            show(peer.resident()),
            times.unwrap_or_else(|| "–".to_owned()),
            show(peer.proportional()),
            mib(|turn| turn.before.rss),
            mib(|turn| turn.with_all.rss),
            held.map_or_else(|| "–".to_owned(), |held| held.to_string()),
        ]);
        let name = peer.name;
        let problems = peer.problems.iter();
        section
            .problems
            .extend(problems.map(|problem| format!("{name}: {problem}")));
    }
    section.tables.push(Table {
        head: head.map(str::to_owned).to_vec(),
        rows,
    });
    section.charts.push(Chart {
        title: format!("Memory per idle {} connection", kind.name),
        unit: "KiB".to_owned(),
        bars: peers
            .iter()
            .map(|peer| Bar {
                label: peer.name.to_owned(),
                figure: peer.resident(),
            })
            .collect(),
    });
    if let Some(ours) = ours {
        let figure = ours_per.filter(|_| ours.problems.is_empty());
        let what = format!("KiB per idle {} connection", kind.name);
        section
            .verdicts
            .push(Verdict::new(what, figure, kind.bound, true));
    }
    section.notes.extend(of_the_kernel(peers));
}

/// None beside what is too little to be seen.
fn ratio(theirs: f64, ours: f64) -> Option<String> {
    (ours > 0.0).then(|| number(theirs / ours))
}

/// What a connection takes beyond the proxy's own memory, where the kernel tells.
fn of_the_kernel(peers: &[Peer]) -> Option<String> {
    let kernel = peers
        .iter()
        .filter_map(|peer| peer.per_connection(|turn| turn.kernel.map(|bytes| bytes as f64)));
    let kernel = Spread::of(kernel.map(|spread| spread.median))?;
    Some(format!(
        "The kernel's memory for a connection, both of its sockets together, comes on top: about {} KiB, \
         of the generator as much as of the proxy.",
        number(kernel.median)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_nothing_there_is_no_ratio() {
        assert_eq!(ratio(6.0, 2.0).as_deref(), Some("3.0"));
        assert_eq!(ratio(6.0, 0.0), None);
        assert_eq!(ratio(0.0, 0.0), None);
    }
}

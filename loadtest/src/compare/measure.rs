//! One measurement: load through one proxy, with the kernel's and the backend's books before and
//! after.

use std::fs;
use std::net::SocketAddr;
use std::num::NonZero;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::kernel::{self, Memory, Spent, Usage};
use super::lab::Lab;
use super::peers::HOST;
use super::process::{CommandLine, Running};
use super::speech::Speech;
use super::stage::Stage;
use crate::report::Report;

/// What the load generator may need beyond the time it was given, for its last answers.
const GRACE: Duration = Duration::from_secs(60);

/// What is sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load {
    /// Body bytes of each request; a POST if there are any.
    pub(crate) body: Option<u64>,
    pub(crate) new_connection: bool,
    /// Over how many connections, where that is not for whoever compares to say.
    pub(crate) streams: Option<Streams>,
    pub(crate) speech: Speech,
}

/// Requests side by side on connections of HTTP/2.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams {
    pub(crate) connections: u16,
    /// Of each of them.
    pub(crate) each: u16,
}

/// What one measurement found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The generator's side.
    pub report: Report,
    /// Requests that reached the backend meanwhile.
    pub arrived: u64,
    /// Those of them it answered.
    pub answered: u64,
    /// Those it refused for being over its limit.
    pub refused: u64,
    /// Most requests in flight at one endpoint.
    pub peak: u64,
    /// Connections the proxy made to the backend.
    pub connections: u64,
    /// Processor time of the proxy and everything below it.
    pub spent: Spent,
    /// That of the backend.
    pub backend: Spent,
    /// The share of the machine's processors that something else took: neither the proxy nor the
    /// backend nor the generator.
    pub disturbance: f64,
    /// The proxy's memory at the end, connections still in its pool.
    pub memory: Memory,
    /// Where the books do not agree; empty in an honest measurement.
    pub problems: Vec<String>,
}

impl Sample {
    /// The proxy's processor time per answer, µs.
    #[must_use]
    pub fn micros_per_answer(&self) -> f64 {
        self.spent.nanos as f64 / 1000.0 / self.report.answers.max(1) as f64
    }
}

/// The fixed rate where none was asked for: half of what was seen, in whole requests per second.
pub(crate) fn half(seen: f64) -> f64 {
    (seen / 2.0).round().max(1.0)
}

/// The command line of the generator.
pub(crate) fn line(
    lab: &Lab,
    load: &Load,
    listen: SocketAddr,
    rate: Option<f64>,
) -> anyhow::Result<CommandLine> {
    let clients = load.speech.clients;
    let streams = load.streams;
    let connections = streams.map_or(lab.connections, |streams| streams.connections);
    let mut args = vec![
        "run".to_owned(),
        format!("{}://{listen}/", clients.scheme()),
        format!("--host={HOST}"),
        format!("--connections={connections}"),
        format!("--duration={}", humantime::format_duration(lab.duration)),
    ];
    if clients.http2 {
        args.push("--http2".to_owned());
    }
    if clients.tls {
        args.push(format!("--ca={}", lab.certificate.cert()));
    }
    if let Some(streams) = streams {
        args.push(format!("--streams={}", streams.each));
    }
    if let Some(bytes) = load.body {
        args.push("--method=POST".to_owned());
        args.push(format!("--body={bytes}B"));
    }
    if load.new_connection {
        args.push("--new-connection".to_owned());
    }
    if let Some(rate) = rate {
        args.push(format!("--rate={rate}"));
    }
    Ok(CommandLine::new(&std::env::current_exe()?, args))
}

/// Sends this load through the proxy at `index` for the time of a measurement: at saturation, or at
/// `rate`.
///
/// # Errors
///
/// The proxy, the backend or the generator has ended. Requests without an answer are no error but
/// `problems` of the sample.
pub(crate) async fn measure(
    lab: &Lab,
    stage: &mut Stage,
    index: usize,
    load: &Load,
    rate: Option<f64>,
    workers: u16,
) -> anyhow::Result<Sample> {
    let line = line(lab, load, stage.actors[index].listen, rate)?;
    let actor = &mut stage.actors[index];
    let Some(mut proxy) = actor.running.take() else {
        bail!("{} did not start", actor.name());
    };
    let sample = send(lab, stage, &mut proxy, &line, workers).await;
    stage.actors[index].running = Some(proxy);
    sample
}

/// Runs this generator against a proxy of so many workers in front of the stage's backend.
///
/// # Errors
///
/// As of [`measure`].
pub(crate) async fn send(
    lab: &Lab,
    stage: &mut Stage,
    proxy: &mut Running,
    line: &CommandLine,
    workers: u16,
) -> anyhow::Result<Sample> {
    let before = stage.counts(true).await?;
    proxy.check()?;
    let root = proxy.pid();
    let books = Books::read(root, stage.backend.pid())?;
    let report = generate(lab, line, lab.rest_on(workers), &stage.directory).await?;
    proxy.check()?;
    let later = Books::read(root, stage.backend.pid())?;
    let memory = Memory::read(root)?;
    let after = stage.counts(false).await?;
    let spent = later.proxy.since(&books.proxy)?;
    let backend = later.backend.since(&books.backend)?;
    let mut sample = Sample {
        disturbance: later.disturbance(&books, [spent, backend], &report),
        report,
        arrived: after.requests - before.requests,
        answered: after.answers - before.answers,
        refused: after.refused - before.refused,
        peak: after.peak,
        connections: after.connections - before.connections,
        spent,
        backend,
        memory,
        problems: Vec::new(),
    };
    sample.problems = disagreements(&sample);
    Ok(sample)
}

/// What the kernel says at one moment.
struct Books {
    proxy: Usage,
    backend: Usage,
    machine: u64,
    at: Instant,
}

impl Books {
    fn read(proxy: Pid, backend: Pid) -> anyhow::Result<Books> {
        Ok(Books {
            proxy: Usage::read(proxy)?,
            backend: Usage::read(backend)?,
            machine: kernel::busy()?,
            at: Instant::now(),
        })
    }

    fn disturbance(&self, earlier: &Books, ours: [Spent; 2], report: &Report) -> f64 {
        let generator = report.cpu_micros * report.answers as f64 * 1000.0;
        let ours = ours.iter().map(|spent| spent.nanos as f64).sum::<f64>() + generator;
        let machine = (self.machine - earlier.machine) as f64;
        let processors = thread::available_parallelism().map_or(1, NonZero::get) as f64;
        let time = self.at.duration_since(earlier.at).as_nanos() as f64 * processors;
        ((machine - ours) / time).clamp(0.0, 1.0)
    }
}

async fn generate(
    lab: &Lab,
    line: &CommandLine,
    cpus: &[usize],
    directory: &std::path::Path,
) -> anyhow::Result<Report> {
    let file = directory.join("report.json");
    // The one of the measurement before must not be taken for this one's.
    if file.exists() {
        fs::remove_file(&file)?;
    }
    let mut line = line.clone();
    line.args.push(format!("--json={}", file.display()));
    let mut generator = Running::start("generator", &line, cpus, directory)?;
    let ended = generator.ended(lab.duration + GRACE).await?;
    let text = fs::read_to_string(&file)
        .with_context(|| format!("the generator failed ({ended}): {}", generator.output()))?;
    let report: Report = serde_json::from_str(&text).context("the generator's report is none")?;
    ensure!(report.sent > 0, "the generator sent nothing");
    Ok(report)
}

/// Where the books of generator and backend do not agree, or something failed.
fn disagreements(sample: &Sample) -> Vec<String> {
    let report = &sample.report;
    let mut problems = Vec::new();
    let errors = report.errors.total();
    if errors > 0 {
        problems.push(format!(
            "{errors} requests without an answer: {:?}",
            report.errors
        ));
    }
    if report.sent != report.answers + errors {
        let Report { sent, answers, .. } = report;
        problems.push(format!(
            "{sent} requests sent, but {answers} answers and {errors} errors"
        ));
    }
    for (status, count) in &report.statuses {
        if *status != 200 {
            problems.push(format!("{count} answers with status {status}"));
        }
    }
    if sample.answered + sample.refused != report.answers {
        problems.push(format!(
            "{} answers received, but {} requests arrived at the backend, {} answered and {} refused",
            report.answers, sample.arrived, sample.answered, sample.refused
        ));
    }
    problems
}

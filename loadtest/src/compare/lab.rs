//! What scenarios work with: the proxies that are there, processors, ports, a directory.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;

use super::CompareArgs;
use super::kernel;
use super::peers::{Found, PEERS, Peer, TIDEGATE};
use super::ports::Ports;
use super::section::{Conditions, Missing};
use super::speech::{Certificate, Speech};
use crate::system::tell;

/// The profile of what is shipped and priced.
const SHIPPED: &str = "dist";

/// Everything a scenario needs to know.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) peers: Vec<Found>,
    pub(crate) missing: Vec<Missing>,
    pub(crate) rounds: u32,
    pub(crate) duration: Duration,
    pub(crate) workers: u16,
    pub(crate) connections: u16,
    /// Connections or requests that are held at once, where that is what is measured.
    pub(crate) held: usize,
    /// Numbers of hosts, ascending.
    pub(crate) routes: Vec<usize>,
    pub(crate) rate: Option<f64>,
    /// What all proxies show to clients of TLS.
    pub(crate) certificate: Certificate,
    pub(crate) progress: ProgressBar,
    directory: TempDir,
    processors: Vec<usize>,
    pin: bool,
    keep: bool,
    begun: SystemTime,
    ports: Ports,
    next_stage: Cell<u32>,
}

impl Lab {
    /// Looks for the proxies and makes a directory for their files.
    ///
    /// # Errors
    ///
    /// None is there, or not Tidegate though it was asked for.
    pub(crate) fn open(args: &CompareArgs) -> anyhow::Result<Lab> {
        let (peers, missing) = look_for(args)?;
        let directory = tempfile::Builder::new()
            .prefix("loadtest-")
            .tempdir()
            .context("cannot make a directory for configurations")?;
        let style = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}")?;
        let progress = ProgressBar::new_spinner().with_style(style);
        progress.enable_steady_tick(Duration::from_millis(500));
        Ok(Lab {
            peers,
            missing,
            rounds: args.rounds,
            duration: args.duration,
            workers: args.workers,
            connections: args.connections,
            held: usize::try_from(args.held)?,
            routes: numbers(&args.routes)?,
            rate: args.rate,
            certificate: Certificate::write(directory.path().join("certificates"))?,
            progress,
            directory,
            processors: kernel::processors()?,
            pin: !args.no_pin,
            keep: args.keep,
            begun: SystemTime::now(),
            ports: Ports::take()?,
            next_stage: Cell::new(0),
        })
    }

    /// Ends the display.
    pub(crate) fn close(&self) {
        self.progress.finish_and_clear();
    }

    /// Says what is being done.
    pub(crate) fn say(&self, what: impl Into<String>) {
        let what = what.into();
        if self.progress.is_hidden() {
            tell(&what);
        } else {
            self.progress.set_message(what);
        }
    }

    /// A new directory of this name, for one set of processes.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub(crate) fn directory(&self, name: &str) -> anyhow::Result<PathBuf> {
        let number = self.next_stage.get();
        self.next_stage.set(number + 1);
        let path = self.directory.path().join(format!("{number}-{name}"));
        std::fs::create_dir(&path)?;
        Ok(path)
    }

    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    /// An address of this machine that nobody listens on.
    ///
    /// # Errors
    ///
    /// All are taken.
    pub(crate) fn free_address(&self) -> anyhow::Result<SocketAddr> {
        self.ports.free_address()
    }

    /// The processors of a proxy with so many workers; any, where none are named.
    pub(crate) fn proxy_on(&self, workers: u16) -> &[usize] {
        let workers = usize::from(workers);
        if self.pin && workers < self.processors.len() {
            &self.processors[..workers]
        } else {
            &[]
        }
    }

    /// The processors of backend and generator beside such a proxy.
    pub(crate) fn rest_on(&self, workers: u16) -> &[usize] {
        let proxy = self.proxy_on(workers).len();
        if proxy == 0 {
            &[]
        } else {
            &self.processors[proxy..]
        }
    }

    /// The proxies that take part in the piece of work of this name.
    pub(crate) fn cast(&self, work: &str, speech: Speech) -> impl Iterator<Item = &Found> {
        let wanted = move |found: &&Found| found.peer.takes_part(work);
        let all = self.peers.iter().filter(wanted);
        all.filter(move |found| found.peer.lacks(speech).is_none())
    }

    /// Who would take part in it but for what is spoken, and why, in a sentence.
    pub(crate) fn left_out(&self, work: &str, speech: Speech) -> Option<String> {
        let peers = self.peers.iter().map(|found| found.peer);
        let whom: Vec<String> = peers
            .filter(|peer| peer.takes_part(work))
            .filter_map(|peer| Some(format!("{} ({})", peer.name, peer.lacks(speech)?)))
            .collect();
        (!whom.is_empty()).then(|| format!("Left out: {}.", whom.join(", ")))
    }

    pub(crate) fn conditions(&self) -> Conditions {
        Conditions {
            date: humantime::format_rfc3339_seconds(self.begun).to_string(),
            processor: kernel::model(),
            processors: self.processors.len(),
            proxy_on: self.proxy_on(self.workers).to_vec(),
            rest_on: self.rest_on(self.workers).to_vec(),
            rounds: self.rounds,
            seconds: self.duration.as_secs_f64(),
            connections: self.connections,
            workers: self.workers,
            caveats: self.caveats(),
        }
    }

    /// Builds that are not those that are shipped.
    fn caveats(&self) -> Vec<String> {
        let profile = self.peers.iter().find_map(Found::profile);
        let tidegate = profile.filter(|profile| *profile != SHIPPED);
        let tidegate = tidegate.map(|profile| format!("Tidegate is a {profile} build."));
        let own = cfg!(debug_assertions);
        let own = own.then(|| "Generator, backend and copier are debug builds.".to_owned());
        tidegate.into_iter().chain(own).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.keep {
            self.directory.disable_cleanup(true);
            let path = self.directory.path().display();
            tell(&format!("configurations and logs are in {path}"));
        }
    }
}

/// Ascending, each once.
fn numbers(given: &[u32]) -> anyhow::Result<Vec<usize>> {
    let mut numbers = Vec::new();
    for number in given {
        numbers.push(usize::try_from(*number)?.max(1));
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

fn look_for(args: &CompareArgs) -> anyhow::Result<(Vec<Found>, Vec<Missing>)> {
    let wanted: Vec<&'static Peer> = if args.peers.is_empty() {
        PEERS.to_vec()
    } else {
        let named = args.peers.iter().map(|name| Peer::named(name));
        named.collect::<anyhow::Result<_>>()?
    };
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for peer in wanted {
        let mut given = args.programs.given(peer.name).map(Path::to_owned);
        if peer.name == TIDEGATE && given.is_none() {
            given = beside_this();
        }
        match peer.find(given.as_deref()) {
            Ok(one) => found.push(one),
            Err(error) if peer.name == TIDEGATE => {
                let hint = "no Tidegate; build it with `cargo build --profile dist -p tidegate`, \
                            name it with --tidegate, or leave it out with --peers";
                return Err(error.context(hint));
            }
            Err(error) => missing.push(Missing {
                name: peer.name.to_owned(),
                why: format!("{error:#}"),
                package: peer.package.to_owned(),
            }),
        }
    }
    if found.is_empty() {
        bail!("none of the proxies is there: {missing:?}");
    }
    Ok((found, missing))
}

/// `target/dist/tidegate`, seen from `target/PROFILE/loadtest`.
fn beside_this() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let program = own.parent()?.parent()?.join("dist/tidegate");
    program.is_file().then_some(program)
}

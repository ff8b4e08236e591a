//! Tidegate on a directory of files, as a fleet of services would fill it.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::time::sleep;

use super::clients::{Client, Visit as _};
use super::lab::Lab;
use super::peers::Found;
use super::process::CommandLine;
use super::rounds::AMPLE_LIMIT;
use super::solo::{Place, Solo};
use super::stage::Stage;

/// Routes in one file: a change is read with its file.
pub(crate) const ROUTES_PER_FILE: usize = 100;

/// The route that is changed, beside the others, in the first of their files.
pub(crate) const CHANGING: &str = "changing.default.example.com";

/// The first of the others.
pub(crate) const FIRST: &str = "route-0.default.example.com";

/// The file the changing one is in.
const CHANGED_FILE: &str = "routes-00000.yaml";

/// Between two requests that look whether a change shows.
const LOOK: Duration = Duration::from_millis(1);

/// How long a change may take to show.
const PATIENCE: Duration = Duration::from_secs(30);

/// The command line of a generator that asks for all of `routes` hosts in turn: as fast as it can,
/// or at a rate.
///
/// # Errors
///
/// This program does not know where it is.
pub(crate) fn load_line(
    lab: &Lab,
    listen: SocketAddr,
    routes: usize,
    duration: Duration,
    rate: Option<f64>,
) -> anyhow::Result<CommandLine> {
    let last = routes.saturating_sub(1);
    let mut args = vec![
        "run".to_owned(),
        format!("http://{listen}/"),
        format!("--host-pattern=route-{{0..{last}}}.default.example.com"),
        format!("--connections={}", lab.connections),
        format!("--duration={}", humantime::format_duration(duration)),
    ];
    args.extend(rate.map(|rate| format!("--rate={rate}")));
    Ok(CommandLine::new(&std::env::current_exe()?, args))
}

/// Asks the changing host until it answers with the last of `values`.
///
/// # Errors
///
/// It answers with anything that is none of them, or still not with the last after 30 s.
pub(crate) async fn until_shown(
    listen: SocketAddr,
    values: RangeInclusive<u64>,
) -> anyhow::Result<()> {
    let patience = Instant::now() + PATIENCE;
    loop {
        // A new connection each time: one that stays would stay with a process that was replaced.
        let mut client = Client::connect(listen).await?;
        let answer = client.ask(CHANGING, "/").await?;
        let body = String::from_utf8_lossy(&answer.body);
        let value = body.parse().ok().filter(|value| values.contains(value));
        ensure!(
            value.is_some(),
            "{} {body:?} instead of one of {values:?}",
            answer.status
        );
        if value == Some(*values.end()) {
            return Ok(());
        }
        if Instant::now() > patience {
            bail!("change {} does not show", values.end());
        }
        sleep(LOOK).await;
    }
}

/// The files of a Tidegate that runs.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) solo: Solo,
    pub(crate) changes: Changes,
}

/// What changes its files.
#[derive(Debug)]
pub(crate) struct Changes {
    place: Place,
    routes: usize,
}

impl Directory {
    /// Starts it with this many routes, each split 70/30 over two revisions, and one more that
    /// [`Changes::stage`] changes.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub(crate) async fn open(
        lab: &Lab,
        found: &Found,
        stage: &Stage,
        routes: usize,
    ) -> anyhow::Result<Directory> {
        let place = Place::new(lab, &format!("tidegate-{routes}"))?;
        let gateway = gateway(lab, &place, stage);
        place.write("conf/gateway.yaml", &gateway)?;
        for file in 0..routes.div_ceil(ROUTES_PER_FILE).max(1) {
            let text = match file {
                0 => changed(routes, 0),
                _ => file_of(routes, file),
            };
            place.write(&format!("conf/routes-{file:05}.yaml"), &text)?;
        }
        let args = ["run", "-f", &place.path("conf")].map(str::to_owned);
        let first = changed(routes.min(2), 0) + "  # and so on\n";
        let shown = [
            ("conf/gateway.yaml", &*gateway),
            ("conf/routes-00000.yaml", &*first),
        ];
        let cpus = lab.proxy_on(lab.workers);
        let changes = Changes {
            place: place.clone(),
            routes,
        };
        let solo = Solo::start(lab, found, place, args.to_vec(), cpus, &shown).await?;
        Ok(Directory { solo, changes })
    }
}

impl Changes {
    /// Writes a file that makes the changing route answer with `change`; [`Staged::commit`] puts it
    /// in the old one's place.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub(crate) fn stage(&self, change: u64) -> anyhow::Result<Staged> {
        // Beside the directory, so that its watchers hear of the renaming only.
        let place = &self.place;
        place.write(CHANGED_FILE, &changed(self.routes, change))?;
        Ok(Staged {
            from: place.directory.join(CHANGED_FILE),
            to: place.directory.join("conf").join(CHANGED_FILE),
        })
    }
}

/// A file that is to take another one's place.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) from: PathBuf,
    pub(crate) to: PathBuf,
}

impl Staged {
    /// # Errors
    ///
    /// It cannot be renamed.
    pub(crate) fn commit(self) -> anyhow::Result<()> {
        fs::rename(&self.from, &self.to)
            .with_context(|| format!("cannot put {} in place", self.to.display()))
    }
}

fn gateway(lab: &Lab, place: &Place, stage: &Stage) -> String {
    let Place { listen, admin, .. } = place;
    let [one, two] = stage.upstreams;
    format!(
        "gateway:
  listeners: [{{ address: \"{listen}\" }}]
  admin: \"{admin}\"
  workers: {}
  accessLog: {{ mode: \"off\" }}
  limits: {{ requestsPerConnection: 1000000000, upstreamIdlePerEndpoint: 256 }}
revisions:
  - {{ name: blue, concurrency: {AMPLE_LIMIT}, endpoints: [\"{one}\"] }}
  - {{ name: green, concurrency: {AMPLE_LIMIT}, endpoints: [\"{two}\"] }}
",
        lab.workers
    )
}

/// The routes of a file.
fn file_of(routes: usize, file: usize) -> String {
    let mut text = "routes:\n".to_owned();
    let first = file * ROUTES_PER_FILE;
    for route in first..routes.min(first + ROUTES_PER_FILE) {
        let split = "[{ revision: blue, percent: 70 }, { revision: green, percent: 30 }]";
        // Writing to a text does not fail.
        let _written = writeln!(text, "  - {{ name: route-{route}, traffic: {split} }}");
    }
    text
}

/// The first file, with the route that changes.
fn changed(routes: usize, change: u64) -> String {
    let respond = format!("rules: [{{ respond: {{ body: \"{change}\" }} }}]");
    file_of(routes, 0) + &format!("  - {{ name: changing, {respond} }}\n")
}

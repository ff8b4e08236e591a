//! A proxy that runs on a configuration of a scenario's own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::Pid;

use super::clients;
use super::lab::Lab;
use super::peers::{Found, Shown, TIDEGATE};
use super::process::{CommandLine, Running};

/// Where one is to run, before there is a configuration.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// Holds all of its files.
    pub(crate) directory: PathBuf,
}

/// A proxy that accepts connections.
#[derive(Debug)]
pub(crate) struct Solo {
    pub(crate) running: Running,
    pub(crate) place: Place,
    pub(crate) shown: Shown,
    /// From its start until it accepted connections.
    pub(crate) start: Duration,
}

impl Place {
    /// # Errors
    ///
    /// There are no ports, or the directory cannot be made.
    pub(crate) fn new(lab: &Lab, name: &str) -> anyhow::Result<Place> {
        Ok(Place {
            listen: lab.free_address()?,
            admin: lab.free_address()?,
            directory: lab.directory(name)?,
        })
    }

    /// The path of a file of it.
    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// Writes a file of it, making its directory.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub(crate) fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.directory.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Solo {
    /// Starts a proxy with these arguments and waits until it accepts connections. Of its files,
    /// those `shown` are shown.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub(crate) async fn start(
        lab: &Lab,
        found: &Found,
        place: Place,
        args: Vec<String>,
        cpus: &[usize],
        shown: &[(&str, &str)],
    ) -> anyhow::Result<Solo> {
        let name = found.peer.name;
        lab.say(format!("starting {name}"));
        let command = CommandLine::new(found.program(), args);
        let directory = place.directory.display().to_string();
        let own = std::env::current_exe()?.display().to_string();
        let plain = |text: &str| text.replace(&directory, "$DIR").replace(&own, "loadtest");
        let begun = Instant::now();
        let mut running = Running::start(name, &command, cpus, &place.directory)?;
        running.accepts(place.listen).await?;
        Ok(Solo {
            start: begun.elapsed(),
            running,
            shown: Shown {
                name: name.to_owned(),
                version: found.version.clone(),
                program: found.program().display().to_string(),
                command: plain(&command.to_string()),
                files: shown
                    .iter()
                    .map(|(name, text)| ((*name).to_owned(), plain(text)))
                    .collect(),
            },
            place,
        })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.running.pid()
    }

    /// What Tidegate's admin address says at this path.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub(crate) async fn admin(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        clients::get(self.place.admin, path).await
    }

    /// The sum of a metric of Tidegate that counts, over all labels.
    ///
    /// # Errors
    ///
    /// It does not answer, or has no such metric.
    pub(crate) async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let page = String::from_utf8(self.admin("/metrics").await?)?;
        let of = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let ours = rest.starts_with([' ', '{']);
            ours.then(|| rest.rsplit(' ').next()?.parse::<u64>().ok())?
        };
        let values: Vec<u64> = page.lines().filter_map(of).collect();
        anyhow::ensure!(!values.is_empty(), "there is no metric {name}");
        Ok(values.iter().sum())
    }
}

/// Tidegate, if it takes part.
pub(crate) fn tidegate(lab: &Lab) -> Option<&Found> {
    lab.peers.iter().find(|found| found.peer.name == TIDEGATE)
}

/// A path as a text of YAML.
pub(crate) fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.display().to_string()).to_string()
}

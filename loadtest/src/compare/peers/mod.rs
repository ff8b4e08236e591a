//! The proxies that are compared, each configured as its own documentation recommends.

mod caddy;
mod copier;
mod envoy;
pub(crate) mod fields;
pub(crate) mod haproxy;
pub(crate) mod nginx;
mod pingora;
mod tidegate;
mod traefik;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::process::CommandLine;
use super::speech::{Certificate, Speech};

pub(crate) use tidegate::HOST;

/// Idle connections every proxy may keep to the upstream, where it has a bound on them.
const POOL: usize = 256;

/// The name of Tidegate among the peers: what all others are compared with.
pub(crate) const TIDEGATE: &str = "tidegate";

/// A proxy one could use instead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// Which package gives it.
    pub(crate) package: &'static str,
    /// Its program on the `PATH`; this very program where there is none.
    program: Option<&'static str>,
    /// The arguments that make it say its version.
    version: &'static [&'static str],
    /// What it adds to the requests it forwards, of [`fields::ALL`].
    pub(crate) fields: &'static [&'static str],
    /// The only pieces of work it is of use for; none named, all.
    only_in: &'static [&'static str],
    /// Why it does not take part where this is spoken; none where it does.
    lacks: fn(Speech) -> Option<&'static str>,
    setup: fn(&Path, &Site) -> Setup,
}

/// All of them, in the order of the tables.
pub(crate) const PEERS: [&Peer; 11] = [
    &tidegate::PEER,
    &copier::PEER,
    &nginx::PEER,
    &nginx::BARE,
    &nginx::UNBUFFERED,
    &haproxy::PEER,
    &haproxy::BARE,
    &pingora::PEER,
    &envoy::PEER,
    &traefik::PEER,
    &caddy::PEER,
];

/// What a proxy has to do.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) listen: SocketAddr,
    /// An address more, for those that want one for themselves.
    pub(crate) admin: SocketAddr,
    /// The upstream. The second address is a second endpoint of the same, for the split.
    pub(crate) upstreams: [SocketAddr; 2],
    pub(crate) workers: usize,
    /// Where its files lie.
    pub(crate) directory: PathBuf,
    /// The limit on concurrency per endpoint, for those that have one.
    pub(crate) limit: u32,
    pub(crate) speech: Speech,
    /// For those of its clients that speak TLS.
    pub(crate) certificate: Certificate,
}

/// How a proxy is started.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) command: CommandLine,
    /// Names and texts of its files.
    pub(crate) files: Vec<(&'static str, String)>,
}

/// A proxy that is there.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) peer: &'static Peer,
    program: PathBuf,
    pub(crate) version: String,
}

/// What was compared, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    pub name: String,
    /// Of Tidegate with the profile it was built with, where its path tells.
    pub version: String,
    /// Where the program lies; not in the Markdown, which is for others to read.
    pub program: String,
    /// `$DIR` stands for the directory of its files.
    pub command: String,
    pub files: Vec<(String, String)>,
}

impl Peer {
    pub(crate) fn named(name: &str) -> anyhow::Result<&'static Peer> {
        let known = || PEERS.map(|peer| peer.name).join(", ");
        PEERS
            .into_iter()
            .find(|peer| peer.name == name)
            .with_context(|| format!("there is no peer `{name}`; there are {}", known()))
    }

    /// Whether it takes part in the piece of work of this name.
    pub(crate) fn takes_part(&self, work: &str) -> bool {
        self.only_in.is_empty() || self.only_in.contains(&work)
    }

    /// Why it does not take part where this is spoken; none where it does.
    pub(crate) fn lacks(&self, speech: Speech) -> Option<&'static str> {
        (self.lacks)(speech)
    }

    /// Looks for it at `given`, or on the `PATH`.
    ///
    /// # Errors
    ///
    /// It is not there, or cannot say its version.
    pub(crate) fn find(&'static self, given: Option<&Path>) -> anyhow::Result<Found> {
        let program = match (given, self.program) {
            (Some(given), _) => std::path::absolute(given)?,
            (None, Some(name)) => {
                on_path(name).with_context(|| format!("no {name} on the PATH"))?
            }
            (None, None) => std::env::current_exe()?,
        };
        let mut version = self.ask_version(&program)?;
        if let Some(profile) = profile(&program).filter(|_| self.name == TIDEGATE) {
            version = format!("{version} (profile {profile})");
        }
        Ok(Found {
            peer: self,
            program,
            version,
        })
    }

    fn ask_version(&self, program: &Path) -> anyhow::Result<String> {
        let output = Command::new(program)
            .args(self.version)
            .output()
            .with_context(|| format!("cannot run {}", program.display()))?;
        if !output.status.success() {
            bail!("{} {} fails", program.display(), self.version.join(" "));
        }
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        let line = said.lines().find(|line| !line.trim().is_empty());
        let line = line.unwrap_or("unknown").trim();
        // What of such a line is the version: the first word with a digit and a point in it.
        let versions =
            |word: &&str| word.contains('.') && word.contains(|c: char| c.is_ascii_digit());
        let word = line.split([' ', '\t']).find(versions).unwrap_or(line);
        let word = word.split('/').find(versions).unwrap_or(word);
        Ok(word.to_owned())
    }
}

impl Found {
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The profile it was built with, of Tidegate, where its path tells.
    pub(crate) fn profile(&self) -> Option<&str> {
        profile(&self.program).filter(|_| self.peer.name == TIDEGATE)
    }

    /// Writes its files; how to start it.
    ///
    /// # Errors
    ///
    /// The files cannot be written.
    pub(crate) fn set_up(&self, site: &Site) -> anyhow::Result<Setup> {
        let setup = (self.peer.setup)(&self.program, site);
        fs::create_dir_all(&site.directory)?;
        for (name, text) in &setup.files {
            let path = site.directory.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(setup)
    }

    /// The same for people: without the paths of this run.
    pub(crate) fn show(&self, setup: &Setup, site: &Site) -> Shown {
        let directory = site.directory.display().to_string();
        let certificates = site.certificate.directory().display().to_string();
        let plain = |text: &str| {
            let text = text.replace(&directory, "$DIR");
            text.replace(&certificates, "$CERTIFICATES")
        };
        let files = setup.files.iter();
        Shown {
            name: self.peer.name.to_owned(),
            version: self.version.clone(),
            program: self.program.display().to_string(),
            command: plain(&setup.command.to_string()),
            files: files
                .map(|(name, text)| ((*name).to_owned(), plain(&self.peer.shorten(text))))
                .collect(),
        }
    }
}

impl Peer {
    /// Leaves out what repeats itself a thousand times.
    fn shorten(&self, text: &str) -> String {
        if self.name == TIDEGATE {
            tidegate::shorten(text)
        } else {
            text.to_owned()
        }
    }
}

/// Of a proxy that is set up for everything.
fn nothing(_: Speech) -> Option<&'static str> {
    None
}

/// The profile in `target/PROFILE/program`.
fn profile(program: &Path) -> Option<&str> {
    let directory = program.parent()?.file_name()?.to_str()?;
    let directory = ["dist", "release", "debug"]
        .iter()
        .find(|name| **name == directory)?;
    Some(directory)
}

/// The first program of this name in a directory of the `PATH`, or where administrators' are.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let admin = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let mut directories = std::env::split_paths(&path).chain(admin);
    directories.find_map(|directory| {
        let program = directory.join(name);
        program.is_file().then_some(program)
    })
}

#[cfg(test)]
mod tests;

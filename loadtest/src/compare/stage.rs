//! The processes of one piece of work: a backend and the proxies in front of it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;

use super::lab::Lab;
use super::peers::{Found, Shown, Site};
use super::process::{CommandLine, Running};
use super::speech::Speech;
use crate::backend;

/// A backend, and proxies that run in front of it.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) backend: Running,
    pub(crate) backend_line: CommandLine,
    pub(crate) stats: SocketAddr,
    /// The addresses of the backend.
    pub(crate) upstreams: [SocketAddr; 2],
    pub(crate) actors: Vec<Actor>,
    pub(crate) directory: PathBuf,
}

/// A proxy on stage.
#[derive(Debug)]
pub(crate) struct Actor {
    pub(crate) found: Found,
    pub(crate) listen: SocketAddr,
    pub(crate) shown: Shown,
    /// None where it did not start.
    pub(crate) running: Option<Running>,
    /// Why not.
    pub(crate) problem: Option<String>,
}

/// What stands on it.
#[derive(Clone, Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) name: &'a str,
    /// Options of the backend.
    pub(crate) backend: Vec<String>,
    /// Tidegate's limit of concurrency per endpoint.
    pub(crate) limit: u32,
    pub(crate) workers: u16,
    pub(crate) speech: Speech,
}

impl Stage {
    /// Starts the backend and every proxy, and waits until they accept connections.
    ///
    /// # Errors
    ///
    /// The backend does not start. A proxy that does not is an [`Actor`] with a problem.
    pub(crate) async fn set(
        lab: &Lab,
        plan: &Plan<'_>,
        peers: impl IntoIterator<Item = &Found>,
    ) -> anyhow::Result<Stage> {
        let directory = lab.directory(plan.name)?;
        let upstreams = [lab.free_address()?, lab.free_address()?];
        let stats = lab.free_address()?;
        let mut args = vec!["backend".to_owned(), format!("--stats={stats}")];
        args.extend(upstreams.map(|address| format!("--listen={address}")));
        args.extend(plan.backend.iter().cloned());
        let backend_line = CommandLine::new(&std::env::current_exe()?, args);
        let rest = lab.rest_on(plan.workers);
        let mut backend = Running::start("backend", &backend_line, rest, &directory)?;
        backend.accepts(stats).await?;
        let mut stage = Stage {
            backend,
            backend_line,
            stats,
            upstreams,
            actors: Vec::new(),
            directory,
        };
        for found in peers {
            let site = Site {
                listen: lab.free_address()?,
                admin: lab.free_address()?,
                upstreams,
                workers: usize::from(plan.workers),
                directory: stage.directory.join(found.peer.name),
                limit: plan.limit,
                speech: plan.speech,
                certificate: lab.certificate.clone(),
            };
            fs::create_dir(&site.directory)?;
            let actor = Actor::enter(lab, found, &site, plan.workers).await;
            let actor = actor.with_context(|| format!("peer {}", found.peer.name))?;
            stage.actors.push(actor);
        }
        Ok(stage)
    }

    /// What the backend has counted; `anew` begins its peaks anew.
    ///
    /// # Errors
    ///
    /// It has gone.
    pub(crate) async fn counts(&mut self, anew: bool) -> anyhow::Result<backend::AddressStats> {
        self.backend.check()?;
        Ok(backend::read_stats(self.stats, anew).await?.total)
    }
}

impl Actor {
    async fn enter(lab: &Lab, found: &Found, site: &Site, workers: u16) -> anyhow::Result<Actor> {
        let setup = found.set_up(site)?;
        let name = found.peer.name;
        lab.say(format!("starting {name}"));
        let cpus = lab.proxy_on(workers);
        let mut running = Running::start(name, &setup.command, cpus, &site.directory)?;
        let accepts = running.accepts(site.listen).await;
        Ok(Actor {
            found: found.clone(),
            listen: site.listen,
            shown: found.show(&setup, site),
            problem: accepts.as_ref().err().map(|error| format!("{error:#}")),
            running: accepts.is_ok().then_some(running),
        })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.found.peer.name
    }
}

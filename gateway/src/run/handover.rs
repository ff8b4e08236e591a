//! From the process that ran to this one, and from this one to the next.

use std::future::pending;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use activator::admission::EndpointState;
use config::revision::Backend;
use config::settings::Settings;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::sockets::{Inherited, Sockets};
use super::{RunError, SocketOptions};
use crate::live::Live;
use crate::serve::drain::Phase;
use crate::serve::listeners::Group;
use crate::serve::takeover::{HandedOver, Hatch, Kind, Stock, Takeover, serve};

/// How long a takeover waits for processes that are always to run: well below what the process that
/// runs waits for us.
const WARM_UP: Duration = Duration::from_secs(20);

/// How long a process that came for a takeover, and found none to take over from, waits for addresses
/// that are in use: perhaps by one that shuts down.
const LEAVES_WITHIN: Duration = Duration::from_secs(60);

/// How often it looks for them.
const LOOK: Duration = Duration::from_millis(20);

/// What is left to do before connections are accepted.
#[derive(Debug)]
pub(super) struct Handover {
    /// Where the next process will ask; `None` = nowhere.
    path: Option<PathBuf>,
    takeover: Option<Takeover>,
    /// Open already where there was nobody to take over from.
    hatch: Option<Hatch>,
    groups: Vec<(Kind, Group)>,
}

/// Gets every socket there is to listen on: from the process that runs, from whoever started this
/// one, or by binding it.
///
/// # Errors
/// A takeover that came to nothing, an address that cannot be had.
pub(super) fn prepare(
    runtime: &Runtime,
    settings: &Settings,
    workers: usize,
    options: SocketOptions,
) -> Result<(Sockets, Handover), RunError> {
    let path = options.takeover;
    let takeover = match &path {
        Some(path) => runtime.block_on(Takeover::begin(path))?,
        None => None,
    };
    let alone = path.is_some() && takeover.is_none();
    let patience = if alone { LEAVES_WITHIN } else { Duration::ZERO };
    let mut inherited = Inherited::new(takeover, options.given, patience)?;
    let mut sockets = Sockets::claim(settings, workers, &mut inherited)?;
    let takeover = inherited.takeover;
    let hatch = match &path {
        Some(path) if takeover.is_none() => {
            let opened = Hatch::open(path);
            let failed = |error| RunError::Hatch {
                path: path.display().to_string(),
                error,
            };
            Some(opened.map_err(failed)?)
        }
        _ => None,
    };
    let groups = std::mem::take(&mut sockets.groups);
    let handover = Handover {
        path,
        takeover,
        hatch,
        groups,
    };
    Ok((sockets, handover))
}

impl Handover {
    /// Waits until nobody would wait who does not now, if there is a takeover.
    pub(super) async fn warm_up(&self, live: &Live) {
        if self.takeover.is_some() && timeout(WARM_UP, warm(live)).await.is_err() {
            tracing::warn!("taking over before all processes are ready that should run");
        }
    }

    /// Ends the takeover, if there is one: from here on this process serves. Gives what the next one
    /// needs.
    ///
    /// # Errors
    /// The process that runs goes on.
    pub(super) async fn complete(self) -> Result<Option<(Hatch, Stock)>, RunError> {
        if self.path.is_none() {
            return Ok(None);
        }
        let hatch = match self.takeover {
            Some(takeover) => Some(takeover.finish().await?),
            None => self.hatch,
        };
        Ok(hatch.map(|hatch| (hatch, Stock::new(self.groups))))
    }
}

/// Waits until as many processes are ready as are always to run, so that nobody waits for them who
/// did not before.
async fn warm(live: &Live) {
    for revision in live.snapshot.revisions() {
        let Backend::Process(process) = &revision.backend else {
            continue;
        };
        let Some(throttle) = live.throttles.get(revision.id) else {
            continue;
        };
        let ready = || {
            let endpoints = throttle.endpoints();
            let ready = endpoints
                .iter()
                .filter(|one| one.state == EndpointState::Ready);
            u32::try_from(ready.count()).unwrap_or(u32::MAX)
        };
        while ready() < process.scale.min {
            sleep(LOOK).await;
        }
    }
}

/// Who waits for the next process.
#[derive(Debug, Default)]
pub(super) struct Successor(Option<JoinHandle<io::Result<Option<HandedOver>>>>);

impl Successor {
    /// Must be called within the runtime.
    pub(super) fn await_at(hatch: Hatch, stock: Stock, phase: watch::Receiver<Phase>) -> Successor {
        Successor(Some(tokio::spawn(serve(hatch, stock, phase))))
    }

    /// Returns when the next process serves; never, if none can come.
    ///
    /// Cancel safe.
    pub(super) async fn takes_over(&mut self) -> HandedOver {
        if let Some(waiting) = &mut self.0 {
            let ended = waiting.await;
            self.0 = None;
            match ended.map_err(io::Error::from).flatten() {
                Ok(Some(handed_over)) => return handed_over,
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "there can be no takeover any more"),
            }
        }
        pending().await
    }
}

//! `tidegate run`, in order: read, bind, build, spawn, wait, drain.

mod check;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use activator::admission::Holding;
use activator::scaler::local::Local;
use config::problem::{Problem, Sources};
use config::settings::{Audience, Limits, Overrides, Settings};
use config::source::file::FileSource;
use config::source::{Fragment, Sink};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle as Task, JoinSet};

use self::check::{Checked, check};
use crate::control::Control;
use crate::control::reconcile::Reconciler;
use crate::control::world::{Running, Status};
use crate::live::Published;
use crate::observe::access_log::{self, AccessLog, AccessWriter};
use crate::observe::averages::Averages;
use crate::observe::metrics::Registry;
use crate::serve::census::Census;
use crate::serve::drain::{LAST_WORDS, Phase};
use crate::serve::listeners;
use crate::serve::thread::{self, Seat};
use crate::serve::worker::Shared;

/// Threads of the control runtime: sources, scalers, admin, names.
const CONTROL_THREADS: usize = 2;

/// Beyond `LAST_WORDS`, how long workers get to come home.
const HOMECOMING: Duration = Duration::from_millis(250);

/// What `run` is asked to do.
#[allow(missing_debug_implementations, reason = "holds a function")]
pub struct Options {
    /// Files and directories.
    pub files: Vec<PathBuf>,
    pub overrides: Overrides,
    /// Called once, when connections are accepted.
    pub announce: Box<dyn FnOnce(&Addresses) + Send>,
}

/// Where the process can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub listeners: Vec<Listening>,
    pub admin: SocketAddr,
}

/// A listener and where it was bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    pub address: SocketAddr,
    pub audience: Audience,
    /// It speaks TLS.
    pub secure: bool,
}

/// Why there is nothing to run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the configuration is not valid")]
    Invalid {
        problems: Vec<Problem>,
        sources: Sources,
    },
    #[error("cannot listen on {address}: {error}")]
    Bind {
        address: SocketAddr,
        error: io::Error,
    },
    #[error("cannot open the access log: {0}")]
    AccessLog(io::Error),
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
    #[error("a worker failed: {0}")]
    Worker(String),
}

/// Runs the gateway until it was told to stop and has drained.
///
/// # Errors
/// Before anything is bound: an invalid configuration. Then: an address that cannot be had, or a
/// thread that cannot be started. Later: only a worker that failed.
pub fn run(options: Options) -> Result<(), RunError> {
    let descriptors = raise_descriptor_limit();
    let mut source = FileSource::new(options.files);
    let Checked {
        compiler,
        compiled,
        credentials,
        settings,
        listeners,
    } = check(source.load_once(), &options.overrides)?;
    let workers = workers(&settings)?;
    let sockets = Sockets::bind(&settings, workers)?;
    let addresses = sockets.addresses.clone();
    let registry = Registry::new(workers, sockets.labels());
    let (log, writers) =
        AccessLog::start(&access_log_config(&settings), &registry).map_err(RunError::AccessLog)?;
    let published = Arc::new(Published::default());
    let holding = holding(&settings.limits);
    let runtime = control_runtime()?;
    let census = Census::new(&settings, descriptors);
    let shared = Arc::new(Shared {
        settings,
        census,
        published: published.clone(),
        holding: holding.clone(),
        first_answers: Arc::default(),
        pseudonym: format!("tidegate-{:08x}", fastrand::u32(..)),
    });
    let local = {
        let _context = runtime.enter();
        Arc::new(Local::start(std::env::current_exe()?, &["supervise"])?)
    };
    let mut reconciler = Reconciler::new(
        compiler,
        holding.clone(),
        workers,
        local.clone(),
        runtime.handle().clone(),
        listeners,
    );
    let next = reconciler.bring_in_line(compiled, credentials, &published.load());
    published.swap(next.live);
    let status = Status::new(registry.clone(), published.clone());
    status.swapped(published.version());
    let running = Arc::new(Running {
        published: published.clone(),
        status,
        averages: Averages::new(),
        registry: registry.clone(),
        local,
        holding,
        first_answers: shared.first_answers.clone(),
        noting: Mutex::default(),
    });
    let (phase, phases) = watch::channel(Phase::Serving);
    let crew = Crew::start(&shared, sockets.workers, &registry, writers, &phases)?;
    let control = Control::new(reconciler, published, running.status.clone());
    let mut shift = Shift {
        runtime: &runtime,
        tasks: Vec::new(),
        running,
        log,
        phase,
    };
    let reread = shift.start(control, source, sockets.admin)?;
    let signals = {
        // Heard from before anybody knows that we run.
        let _context = runtime.enter();
        Signals::new()?
    };
    (options.announce)(&addresses);
    runtime.block_on(shift.serve(crew, &shared.settings, signals, reread))
}

fn workers(settings: &Settings) -> io::Result<usize> {
    Ok(match settings.workers {
        0 => std::thread::available_parallelism()?.get(),
        some => some,
    })
}

fn holding(limits: &Limits) -> Arc<Holding> {
    let (held, bytes) = (limits.held, limits.held_bytes as u64);
    Holding::bounded(held, bytes, limits.held_per_namespace)
}

fn control_runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
}

/// Sockets of a worker each, in the order of the settings' listeners.
struct Sockets {
    workers: Vec<Vec<TcpListener>>,
    admin: TcpListener,
    addresses: Addresses,
}

impl Sockets {
    /// What metrics call the listeners.
    fn labels(&self) -> Vec<String> {
        self.addresses
            .listeners
            .iter()
            .map(|listening| listening.address.to_string())
            .collect()
    }

    /// Claims every address before anything runs.
    fn bind(settings: &Settings, workers: usize) -> Result<Sockets, RunError> {
        let mut of_workers: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
        let mut addresses = Vec::new();
        for listener in &settings.listeners {
            let address = listener.address;
            let failed = |error| RunError::Bind { address, error };
            let sockets = listeners::bind(address, workers).map_err(failed)?;
            let taken = sockets[0].local_addr().map_err(failed)?;
            addresses.push(Listening {
                address: taken,
                audience: listener.audience,
                secure: listener.tls.is_some(),
            });
            for (sockets, socket) in of_workers.iter_mut().zip(sockets) {
                sockets.push(socket);
            }
        }
        let address = settings.admin;
        let failed = |error| RunError::Bind { address, error };
        let admin = TcpListener::bind(address).map_err(failed)?;
        admin.set_nonblocking(true)?;
        let addresses = Addresses {
            listeners: addresses,
            admin: admin.local_addr()?,
        };
        Ok(Sockets {
            workers: of_workers,
            admin,
            addresses,
        })
    }
}

/// The workers' threads.
struct Crew {
    threads: Vec<JoinHandle<()>>,
    /// Each worker says here how it ended.
    ended: JoinSet<Result<(), String>>,
    pending: Vec<tokio::sync::oneshot::Receiver<Result<(), String>>>,
}

impl Crew {
    fn start(
        shared: &Arc<Shared>,
        sockets: Vec<Vec<TcpListener>>,
        registry: &Arc<Registry>,
        writers: Vec<AccessWriter>,
        phase: &watch::Receiver<Phase>,
    ) -> Result<Crew, RunError> {
        let mut crew = Crew {
            threads: Vec::new(),
            ended: JoinSet::new(),
            pending: Vec::new(),
        };
        for (index, (listeners, log)) in sockets.into_iter().zip(writers).enumerate() {
            let (shared, phase) = (shared.clone(), phase.clone());
            let registry = registry.clone();
            let (ended, end) = tokio::sync::oneshot::channel();
            let work = move || {
                let metrics = registry.worker(index);
                let seat = Seat {
                    index,
                    shared,
                    listeners,
                    metrics,
                    log,
                    phase,
                };
                let result = thread::run(seat).map_err(|error| error.to_string());
                // Nobody listens when the process ends at once.
                let _heard = ended.send(result);
            };
            let name = format!("worker-{index}");
            crew.threads
                .push(std::thread::Builder::new().name(name).spawn(work)?);
            crew.pending.push(end);
        }
        Ok(crew)
    }

    /// Waits for the next worker to end; `None` when all have.
    async fn next(&mut self) -> Option<Result<(), String>> {
        for end in self.pending.drain(..) {
            self.ended.spawn(async move {
                end.await
                    .unwrap_or_else(|_gone| Err("it panicked".to_owned()))
            });
        }
        let ended = self.ended.join_next().await?;
        Some(ended.unwrap_or_else(|error| Err(error.to_string())))
    }
}

/// Everything of the control runtime, and the way out.
struct Shift<'a> {
    runtime: &'a Runtime,
    tasks: Vec<Task<()>>,
    running: Arc<Running>,
    log: AccessLog,
    phase: watch::Sender<Phase>,
}

impl Shift<'_> {
    fn start(
        &mut self,
        control: Control,
        source: FileSource,
        admin: TcpListener,
    ) -> io::Result<mpsc::Sender<()>> {
        let _context = self.runtime.enter();
        let (sink, offers) = Sink::channel();
        let (reread, rereads) = mpsc::channel(1);
        self.tasks.push(tokio::spawn(control.run(offers)));
        self.tasks.push(tokio::spawn(source.run(sink, rereads)));
        self.tasks
            .push(tokio::spawn(self.running.clone().observe()));
        let admin = tokio::net::TcpListener::from_std(admin)?;
        let (world, registry) = (self.running.clone(), self.running.registry.clone());
        self.tasks.push(tokio::spawn(async move {
            match crate::admin::serve(admin, world, registry).await {}
        }));
        Ok(reread)
    }

    /// Waits for the signal to stop, then for the drain. A second signal ends at once.
    async fn serve(
        self,
        mut crew: Crew,
        settings: &Settings,
        mut signals: Signals,
        reread: mpsc::Sender<()>,
    ) -> Result<(), RunError> {
        loop {
            tokio::select! {
                told = signals.next() => match told {
                    Told::Stop => break,
                    Told::Reread => {
                        self.log.reopen();
                        // One reread that waits is enough for any number of signals.
                        let _already_asked = reread.try_send(());
                    }
                },
                ended = crew.next() => {
                    let why = ended.and_then(Result::err).unwrap_or_else(|| "it left".to_owned());
                    return Err(RunError::Worker(why));
                }
            }
        }
        let ending = async move {
            self.drain(&mut crew, settings).await;
            self.end(crew).await
        };
        tokio::select! {
            ended = ending => ended,
            () = signals.stop() => {
                tracing::warn!("told twice: ending at once");
                Ok(())
            }
        }
    }

    async fn drain(&self, crew: &mut Crew, settings: &Settings) {
        tracing::info!("draining");
        self.running.status.drain();
        self.phase.send_replace(Phase::Announced);
        tokio::time::sleep(settings.drain.wait).await;
        self.phase.send_replace(Phase::Closing);
        let home = async { while crew.next().await.is_some() {} };
        if tokio::time::timeout(settings.drain.timeout, home)
            .await
            .is_ok()
        {
            return;
        }
        tracing::warn!("drain timeout: refusing what waits, cutting what runs");
        self.phase.send_replace(Phase::Ended);
        let home = async { while crew.next().await.is_some() {} };
        let _in_time = tokio::time::timeout(LAST_WORDS + HOMECOMING, home).await;
    }

    /// Nobody is served any more: processes end, the log is written out.
    async fn end(self, crew: Crew) -> Result<(), RunError> {
        for task in &self.tasks {
            task.abort();
        }
        for task in self.tasks {
            let _aborted = task.await;
        }
        if let Some(Running { local, .. }) = Arc::into_inner(self.running)
            && let Some(local) = Arc::into_inner(local)
        {
            local.shutdown().await;
        }
        for thread in crew.threads {
            if thread.is_finished() && thread.join().is_err() {
                return Err(RunError::Worker("it panicked".to_owned()));
            }
        }
        self.log.shutdown();
        tracing::info!("drained");
        Ok(())
    }
}

/// What a signal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Stop,
    Reread,
}

/// The signals we listen to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.hangup.recv() => Told::Reread,
        }
    }

    async fn stop(&mut self) {
        while self.next().await != Told::Stop {}
    }
}

/// Texts of what was read, for showing problems.
pub(crate) fn sources_of(fragments: &[Fragment]) -> Sources {
    fragments
        .iter()
        .filter_map(|fragment| {
            let text = fragment.content.text()?;
            Some((fragment.origin.name().to_string(), text.clone()))
        })
        .collect()
}

fn access_log_config(settings: &Settings) -> access_log::Config {
    use config::settings::{AccessLogMode, LogFormat, LogOutput};
    let log = &settings.access_log;
    access_log::Config {
        mode: match log.mode {
            AccessLogMode::Limited => access_log::Mode::Limited,
            AccessLogMode::All => access_log::Mode::All,
            AccessLogMode::Off => access_log::Mode::Off,
        },
        per_second: log.per_second,
        format: match log.format {
            LogFormat::Text => access_log::Format::Text,
            LogFormat::Json => access_log::Format::Json,
        },
        file: match &log.output {
            LogOutput::Stderr => access_log::Target::Stderr,
            LogOutput::Stdout => access_log::Target::Path("/dev/stdout".into()),
            LogOutput::File(path) => access_log::Target::Path(path.clone()),
        },
    }
}

/// Every connection is a descriptor: take as many as we may have. How many that is; `None` = any
/// number.
fn raise_descriptor_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    getrlimit(Resource::Nofile).current
}

//! `tidegate run`, in order: read, bind, build, spawn, take over, wait, drain.

mod check;
mod cluster;
mod crew;
mod handover;
mod heed;
mod leave;
mod signals;
mod sockets;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use activator::admission::{Bounds, Holding};
use activator::scaler::knative::BadAutoscaler;
use activator::scaler::local::Local;
use config::problem::{Problem, Sources};
use config::settings::{Audience, Limits, Overrides, Settings};
use config::source::file::FileSource;
use config::source::kubernetes::Unconnected;
use config::source::{Fragment, Sink};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle as Task;

use self::check::{Checked, check};
use self::cluster::Watched;
pub use self::cluster::{BadVariable, Cluster};
use self::crew::Crew;
use self::handover::{Handover, Successor};
use self::heed::Logs;
use self::signals::{Signals, Told};
use crate::admin::Desk;
use crate::control::Control;
use crate::control::feeds::Feeds;
use crate::control::reconcile::{Means, Reconciler};
use crate::control::world::{Running, Status};
use crate::live::Published;
use crate::memory::Watcher;
use crate::observe::access_log::{self, AccessLog};
use crate::observe::averages::Averages;
use crate::observe::metrics::Registry;
use crate::serve::census::Census;
use crate::serve::drain::Phase;
use crate::serve::takeover::{Stock, TakeoverError};
use crate::serve::tls::store::Store;
use crate::serve::worker::Shared;
use crate::systemd;

/// Threads of the control runtime: sources, scalers, admin, names.
const CONTROL_THREADS: usize = 2;

/// What `run` is asked to do.
#[allow(missing_debug_implementations, reason = "holds a function")]
pub struct Options {
    /// Files and directories.
    pub files: Vec<PathBuf>,
    pub overrides: Overrides,
    pub sockets: SocketOptions,
    /// Routes come from this cluster too.
    pub cluster: Option<Cluster>,
    /// Called once, when connections are accepted.
    pub announce: Box<dyn FnOnce(&Addresses) + Send>,
    /// Called once, when every source has said what it knows.
    pub ready: Box<dyn FnOnce() + Send>,
}

/// Where sockets come from that are not to be bound, and where they go.
#[derive(Debug, Default)]
pub struct SocketOptions {
    /// Listening sockets this process was started with.
    pub given: Vec<TcpListener>,
    /// Where to take over from the process that runs, and where the next one will.
    pub takeover: Option<PathBuf>,
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
    #[error("cannot listen on {address}: {error}{}", hint(error))]
    Bind {
        address: SocketAddr,
        error: io::Error,
    },
    #[error("a socket that was handed to us is of no use: {0}")]
    Given(io::Error),
    #[error("no listener is configured for the socket that was handed to us at {}", names(.0))]
    Unmatched(Vec<SocketAddr>),
    #[error(transparent)]
    Takeover(#[from] TakeoverError),
    #[error("cannot listen for takeovers at {path}: {error}")]
    Hatch { path: String, error: io::Error },
    #[error("cannot open the access log: {0}")]
    AccessLog(io::Error),
    #[error("cannot report demand: {0}")]
    Autoscaler(#[from] BadAutoscaler),
    #[error(transparent)]
    Cluster(#[from] Unconnected),
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
    #[error("a worker failed: {0}")]
    Worker(String),
}

/// Runs the gateway until it was told to stop, or another process has taken over, and it has
/// drained.
///
/// # Errors
/// Before anything is bound: an invalid configuration. Then: a takeover that came to nothing, an
/// address that cannot be had, or a thread that cannot be started. Later: only a worker that failed.
pub fn run(options: Options) -> Result<(), RunError> {
    let descriptors = raise_descriptor_limit();
    let mut source = FileSource::new(options.files);
    let store = Arc::<Store>::default();
    let defaults = cluster::defaults(options.cluster.as_ref());
    let Checked {
        compiler,
        compiled,
        credentials,
        settings,
        listeners,
    } = check(source.load_once(), &options.overrides, defaults, &store)?;
    let workers = workers(&settings)?;
    let runtime = control_runtime()?;
    let (sockets, handover) = handover::prepare(&runtime, &settings, workers, options.sockets)?;
    let addresses = sockets.addresses.clone();
    let registry = Registry::new(workers, sockets.labels());
    let log = access_log_config(&settings, options.cluster.is_some());
    let (log, writers) = AccessLog::start(&log, &registry).map_err(RunError::AccessLog)?;
    let published = Arc::new(Published::default());
    let holding = holding(&settings.limits);
    let census = Census::new(&settings, descriptors);
    let (watcher, memory) = Watcher::new(settings.limits.memory, registry.clone());
    let shared = Arc::new(Shared {
        settings,
        census,
        memory,
        published: published.clone(),
        holding: holding.clone(),
        pseudonym: format!("tidegate-{:08x}", fastrand::u32(..)),
    });
    let local = start_local(&runtime)?;
    let knative = cluster::start_knative(options.cluster.as_ref(), &runtime)?;
    let feeds = Feeds::new(knative.clone(), store);
    let means = Means {
        holding: holding.clone(),
        workers,
        local: local.clone(),
        feeds: feeds.clone(),
        registry: registry.clone(),
        runtime: runtime.handle().clone(),
    };
    let mut reconciler = Reconciler::new(compiler, means, listeners);
    let next = reconciler.bring_in_line(compiled, credentials, &published.load());
    published.swap(next.live);
    let status = Status::new(registry.clone(), published.clone());
    status.swapped(published.version());
    let running = Arc::new(Running {
        published: published.clone(),
        status,
        averages: Averages::new(),
        averages_waiting: Averages::new(),
        registry: registry.clone(),
        local,
        knative,
        holding,
    });
    let control = Control::new(reconciler, published, running.status.clone());
    let logs = Logs::of(&log, &shared.settings);
    let mut shift = Shift::new(&runtime, running, log);
    let crew = Crew::start(&shared, sockets.workers, &registry, writers, &shift.phase)?;
    let (sink, reread) = shift.start(control, source, watcher);
    if let Some(cluster) = options.cluster {
        shift.watched = Some(cluster.watch(&runtime, sink, feeds, logs)?);
    }
    let token = shared.settings.admin_token.as_ref();
    let token = token.map(|file| file.path.as_path().into());
    let (crew, signals) = shift.open(crew, sockets.admin, token, handover)?;
    (options.announce)(&addresses);
    let serving = shift.serve(crew, &shared.settings, signals, reread, options.ready);
    runtime.block_on(serving)
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process has it, or one that overlaps it: stop that, take over from it \
             (both with `--takeover`), or listen elsewhere (`--listen`, `--admin`)"
        }
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need the capability CAP_NET_BIND_SERVICE, or a socket from systemd"
        }
        _ => "",
    }
}

fn names(addresses: &[SocketAddr]) -> String {
    let names: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    names.join(", ")
}

fn workers(settings: &Settings) -> io::Result<usize> {
    Ok(match settings.workers {
        0 => std::thread::available_parallelism()?.get(),
        some => some,
    })
}

fn holding(limits: &Limits) -> Arc<Holding> {
    Holding::bounded(Bounds {
        held: limits.held,
        bytes: limits.held_bytes as u64,
        per_namespace: limits.held_per_namespace,
        per_address: limits.held_per_address,
    })
}

fn control_runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
}

fn start_local(runtime: &Runtime) -> io::Result<Arc<Local>> {
    let _context = runtime.enter();
    let local = Local::start(std::env::current_exe()?, &["supervise"])?;
    Ok(Arc::new(local))
}

/// Everything of the control runtime, and the way out.
struct Shift<'a> {
    runtime: &'a Runtime,
    tasks: Vec<Task<()>>,
    running: Arc<Running>,
    log: AccessLog,
    phase: watch::Sender<Phase>,
    /// Tells the admin address that another process serves it.
    admin_leaves: watch::Sender<bool>,
    /// The sockets, as long as another process may take them over, and who waits for it.
    stock: Stock,
    successor: Successor,
    /// The cluster that routes come from, if there is one.
    watched: Option<Watched>,
}

impl<'a> Shift<'a> {
    fn new(runtime: &'a Runtime, running: Arc<Running>, log: AccessLog) -> Shift<'a> {
        Shift {
            runtime,
            tasks: Vec::new(),
            running,
            log,
            phase: watch::Sender::new(Phase::Poised),
            admin_leaves: watch::Sender::new(false),
            stock: Stock::default(),
            successor: Successor::default(),
            watched: None,
        }
    }

    /// Starts what keeps the configuration and its endpoints up to date, and watches memory.
    /// Where other sources offer what they know, and where to ask for the files to be read again.
    fn start(
        &mut self,
        control: Control,
        source: FileSource,
        memory: Watcher,
    ) -> (Sink, mpsc::Sender<()>) {
        let _context = self.runtime.enter();
        self.tasks.push(tokio::spawn(memory.run()));
        let (sink, offers) = Sink::channel();
        let (reread, rereads) = mpsc::channel(1);
        self.tasks.push(tokio::spawn(control.run(offers)));
        self.tasks
            .push(tokio::spawn(source.run(sink.clone(), rereads)));
        self.tasks
            .push(tokio::spawn(self.running.clone().observe()));
        (sink, reread)
    }

    /// Accepts connections from now on, once the process that does so now has let go.
    fn open(
        &mut self,
        mut crew: Crew,
        admin: TcpListener,
        token: Option<Box<Path>>,
        handover: Handover,
    ) -> Result<(Crew, Signals), RunError> {
        let _context = self.runtime.enter();
        let admin = tokio::net::TcpListener::from_std(admin)?;
        self.runtime.block_on(crew.poised())?;
        let live = self.running.published.load();
        self.runtime.block_on(handover.warm_up(&live));
        // A signal to stop ends this process at once until here: another one still serves. From here
        // on it may be the only one, and has to drain.
        let signals = Signals::new()?;
        if let Some((hatch, stock)) = self.runtime.block_on(handover.complete())? {
            self.stock = stock.clone();
            self.successor = Successor::await_at(hatch, stock, self.phase.subscribe());
        }
        self.phase.send_replace(Phase::Serving);
        let (world, registry) = (self.running.clone(), self.running.registry.clone());
        let leaves = self.admin_leaves.subscribe();
        let admin = Desk {
            listener: admin,
            token,
        };
        let admin = crate::admin::serve(admin, world, registry, leaves);
        self.tasks.push(tokio::spawn(admin));
        Ok((crew, signals))
    }

    /// Waits for the signal to stop or for a takeover, then for the drain. A further signal to stop
    /// ends at once.
    async fn serve(
        mut self,
        mut crew: Crew,
        settings: &Settings,
        mut signals: Signals,
        reread: mpsc::Sender<()>,
        ready: Box<dyn FnOnce() + Send>,
    ) -> Result<(), RunError> {
        let mut ready = Some(ready);
        let mut failed = None;
        let handed_over = loop {
            tokio::select! {
                told = signals.next() => match told {
                    Told::Stop => break None,
                    Told::Reread => {
                        self.log.reopen();
                        // One reread that waits is enough for any number of signals.
                        let _already_asked = reread.try_send(());
                    }
                },
                () = cluster::synced(self.watched.as_ref()), if ready.is_some() => {
                    self.running.status.complete();
                    systemd::ready();
                    if let Some(ready) = ready.take() {
                        ready();
                    }
                }
                handed_over = self.successor.takes_over() => break Some(handed_over),
                ended = crew.next() => {
                    let why = ended.and_then(Result::err).unwrap_or_else(|| "it left".to_owned());
                    tracing::error!(why, "a worker failed: the others drain");
                    failed = Some(RunError::Worker(why));
                    break None;
                }
            }
        };
        // After a takeover the first one asks for what happens already.
        let spared = usize::from(handed_over.is_some());
        let ending = async move {
            self.drain(&mut crew, settings, handed_over).await;
            let ended = self.end(crew).await;
            failed.map_or(ended, Err)
        };
        tokio::select! {
            ended = ending => ended,
            () = signals.stop(1 + spared) => {
                tracing::warn!("told twice: ending at once");
                Ok(())
            }
        }
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

/// In a cluster, a ConfigMap may want requests to be logged, and says so later.
fn access_log_config(settings: &Settings, in_cluster: bool) -> access_log::Config {
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
        requests: in_cluster.then_some(access_log::Target::Stdout),
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

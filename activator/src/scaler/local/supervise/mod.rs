//! The child that owns all revision processes, so that the internet-facing process never forks.
//!
//! It is a subreaper: whatever any process below it leaves behind becomes its child. When the
//! gateway's end of the socket closes, for whatever reason, it kills everything below it and exits.
//! Signals meant for the gateway (a terminal's Ctrl-C, a service manager's SIGTERM) do not end it:
//! the gateway decides.
//!
//! One thread does everything, because starting a process and reaping any child must not overlap.

mod kill;
mod output;
mod spawn;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, set_child_subreaper, wait};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf, pipe};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use self::output::{Output, Tail};
use super::protocol::{Command, Event, Exit, Id, Messages, Refusal, Start, Stream, encode};

/// Events that wait for the gateway to read them. When it is slower than the processes print, their
/// output waits in their own pipes.
const EVENTS: usize = 64;
/// How long the end of a process's output may take after its exit.
const OUTPUT_WAIT: Duration = Duration::from_millis(250);
/// The longest grace period.
const GRACE_MAX: Duration = Duration::from_secs(3600);

/// What the hidden subcommand `supervise` runs. Standard input is the socket to the gateway; ends,
/// with everything below it, when that closes.
pub fn supervise() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("supervise: {error}; it is started by the gateway, not by hand");
            ExitCode::from(2)
        }
    }
}

fn run() -> io::Result<()> {
    let socket = StdUnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    socket.peer_addr()?;
    socket.set_nonblocking(true)?;
    set_child_subreaper(Some(getpid()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let groups = runtime.block_on(async {
        // Handlers, as opposed to ignored signals, are not inherited by what we execute.
        let _unheard = [
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ];
        let mut supervisor = Supervisor::new(UnixStream::from_std(socket)?)?;
        supervisor.serve().await;
        io::Result::Ok(supervisor.keeper.groups())
    })?;
    kill::everything(&groups);
    Ok(())
}

/// Waits for what happens; [`Keeper`] decides what it means.
struct Supervisor {
    commands: Messages<OwnedReadHalf>,
    child_ended: tokio::signal::unix::Signal,
    events: mpsc::Sender<Event>,
    writer: tokio::task::JoinHandle<()>,
    /// Each returns the process whose output it passed on.
    readers: JoinSet<Id>,
    keeper: Keeper,
}

enum Heard {
    Command(Command),
    ChildEnded,
    OutputEnded(Option<Id>),
    /// The gateway took an event.
    Room,
    Deadline,
    /// The gateway is gone.
    Gone,
}

impl Supervisor {
    fn new(socket: UnixStream) -> io::Result<Supervisor> {
        let (read, write) = socket.into_split();
        let (events, queue) = mpsc::channel(EVENTS);
        Ok(Supervisor {
            commands: Messages::new(read),
            child_ended: signal(SignalKind::child())?,
            events,
            writer: tokio::spawn(write_events(queue, write)),
            readers: JoinSet::new(),
            keeper: Keeper::default(),
        })
    }

    async fn serve(&mut self) {
        loop {
            match self.hear().await {
                Heard::Command(Command::Start(start)) => self.start(&start),
                Heard::Command(Command::Stop { id, grace }) => self.keeper.stop(id, grace),
                Heard::ChildEnded => self.keeper.reap(),
                Heard::OutputEnded(id) => self.keeper.output_ended(id),
                Heard::Room => {}
                Heard::Deadline => self.keeper.expire(Instant::now()),
                Heard::Gone => return,
            }
        }
    }

    async fn hear(&mut self) -> Heard {
        let deadline = self.keeper.next_deadline();
        tokio::select! {
            command = self.commands.next() => match command {
                Ok(Some(command)) => Heard::Command(command),
                Ok(None) => Heard::Gone,
                // It closed with events unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Heard::Gone,
                Err(error) => {
                    eprintln!("supervise: {error}");
                    Heard::Gone
                }
            },
            _ = &mut self.writer => Heard::Gone,
            _ = self.child_ended.recv() => Heard::ChildEnded,
            Some(ended) = self.readers.join_next() => Heard::OutputEnded(ended.ok()),
            permit = self.events.reserve(), if !self.keeper.pending.is_empty() => {
                if let (Ok(permit), Some(event)) = (permit, self.keeper.pending.pop_front()) {
                    permit.send(event);
                }
                Heard::Room
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                Heard::Deadline
            }
        }
    }

    fn start(&mut self, start: &Start) {
        let id = start.id;
        match self.try_start(start) {
            Ok(running) => self.keeper.started(id, running),
            Err(refusal) => self
                .keeper
                .pending
                .push_back(Event::Refused { id, refusal }),
        }
    }

    fn try_start(&mut self, start: &Start) -> Result<Running, Refusal> {
        let mut child = spawn::spawn(start)?;
        let tail = Arc::new(Mutex::new(Tail::default()));
        let stdout = child
            .stdout
            .take()
            .map(|pipe| (Stream::Stdout, pipe.into()));
        let stderr = child
            .stderr
            .take()
            .map(|pipe| (Stream::Stderr, pipe.into()));
        let mut readers = Vec::new();
        for (stream, pipe) in [stdout, stderr].into_iter().flatten() {
            // A pipe that cannot be watched is closed, and the process lives without it.
            match pipe::Receiver::from_owned_fd(pipe) {
                Ok(pipe) => {
                    let output = Output {
                        id: start.id,
                        stream,
                        tail: Arc::clone(&tail),
                        events: self.events.clone(),
                    };
                    readers.push(self.readers.spawn(output::pass_on(output, pipe)));
                }
                Err(error) => eprintln!("supervise: cannot read {}: {error}", stream.name()),
            }
        }
        // Dropping `child` neither kills nor reaps: `Keeper::reap` does.
        Ok(Running {
            pid: Pid::from_child(&child),
            port: start.port,
            kill_at: None,
            exited: None,
            open: readers.len(),
            readers,
            tail,
        })
    }
}

async fn write_events(mut events: mpsc::Receiver<Event>, mut socket: OwnedWriteHalf) {
    while let Some(event) = events.recv().await {
        match encode(&event) {
            Ok(line) if socket.write_all(&line).await.is_ok() => {}
            _ => return,
        }
    }
}

/// The processes, and what is still to be told about them.
#[derive(Default)]
struct Keeper {
    processes: HashMap<Id, Running>,
    /// At most two per process the gateway asked for.
    pending: VecDeque<Event>,
}

struct Running {
    pid: Pid,
    port: u16,
    /// When the grace period of a stop ends.
    kill_at: Option<Instant>,
    exited: Option<Exited>,
    /// Readers of its output that have not come to the end.
    open: usize,
    readers: Vec<AbortHandle>,
    tail: Arc<Mutex<Tail>>,
}

struct Exited {
    status: WaitStatus,
    /// When the rest of its output is given up.
    give_up: Instant,
}

impl Running {
    fn deadline(&self) -> Option<Instant> {
        match &self.exited {
            Some(exited) => Some(exited.give_up),
            None => self.kill_at,
        }
    }
}

impl Keeper {
    /// The processes that live; each leads the group of its number.
    fn groups(&self) -> Vec<Pid> {
        let alive = self.processes.values().filter(|it| it.exited.is_none());
        alive.map(|running| running.pid).collect()
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.processes.values().filter_map(Running::deadline).min()
    }

    fn started(&mut self, id: Id, running: Running) {
        let pid = running.pid.as_raw_nonzero().get();
        self.processes.insert(id, running);
        self.pending.push_back(Event::Started { id, pid });
    }

    fn stop(&mut self, id: Id, grace: Duration) {
        if let Some(running) = self.processes.get_mut(&id)
            && running.exited.is_none()
        {
            kill::group_of(running.pid, Signal::TERM);
            running.kill_at = Some(Instant::now() + grace.min(GRACE_MAX));
        }
    }

    /// Reaps what has ended: processes of ours, and orphans that became our children.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let found = self
                .processes
                .iter_mut()
                .find(|(_, running)| running.pid == pid && running.exited.is_none());
            let Some((&id, running)) = found else {
                continue;
            };
            let port = running.port;
            running.exited = Some(Exited {
                status,
                give_up: Instant::now() + OUTPUT_WAIT,
            });
            kill::group_of(pid, Signal::KILL);
            kill::orphans_of(port, &self.groups());
            self.tell_if_over(id);
        }
    }

    /// `None`: a reader was aborted, and its process has been told of already.
    fn output_ended(&mut self, id: Option<Id>) {
        let Some(id) = id else { return };
        if let Some(running) = self.processes.get_mut(&id) {
            running.open = running.open.saturating_sub(1);
            self.tell_if_over(id);
        }
    }

    fn expire(&mut self, now: Instant) {
        let expired: Vec<Id> = self
            .processes
            .iter()
            .filter(|(_, running)| running.deadline().is_some_and(|at| at <= now))
            .map(|(&id, _)| id)
            .collect();
        for id in expired {
            let Some(running) = self.processes.get_mut(&id) else {
                continue;
            };
            if running.exited.is_some() {
                for reader in &running.readers {
                    reader.abort();
                }
                running.open = 0;
                self.tell_if_over(id);
            } else {
                running.kill_at = None;
                kill::below(running.pid);
                kill::group_of(running.pid, Signal::KILL);
            }
        }
    }

    /// The exit is told after the output, so that its last lines are known.
    fn tell_if_over(&mut self, id: Id) {
        let over = self
            .processes
            .get(&id)
            .is_some_and(|running| running.exited.is_some() && running.open == 0);
        if !over {
            return;
        }
        let Some(running) = self.processes.remove(&id) else {
            return;
        };
        let tail = running.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let status = running.exited.map(|exited| exited.status);
        let exit = Exit {
            status: status.and_then(WaitStatus::exit_status),
            signal: status.and_then(WaitStatus::terminating_signal),
            tail: tail.text(),
        };
        self.pending.push_back(Event::Exited { id, exit });
    }
}

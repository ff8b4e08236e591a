//! The gateway's end of the socket: starts the child `supervise`, hands it commands and spreads its
//! news. A child that died is replaced when the next process is asked for.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::revision::Key;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command as Program};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::protocol::{Command, Event, Exit, Id, Messages, Refusal, Start, encode};

/// How long the child may take to kill what is left and end, once its socket has closed.
pub(super) const CLOSE_WITHIN: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(super) enum Request {
    /// There will be processes: have the child ready.
    Open,
    Start(Box<StartRequest>),
    Stop {
        id: Id,
        grace: Duration,
    },
    /// The last request: kill what is left.
    Close,
}

#[derive(Debug)]
pub(super) struct StartRequest {
    /// Whose process it is; its output is logged under this name.
    pub(super) key: Key,
    pub(super) start: Start,
    /// Where its news go. They must be taken without waiting for a request to be sent.
    pub(super) news: mpsc::Sender<News>,
}

/// What happened to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    Started(Id),
    /// It could not be executed.
    Refused(Id, Refusal),
    Exited(Id, Exit),
    /// The child died, and the process with it.
    Lost(Id),
}

/// How to start the child.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
}

enum Ended {
    /// As asked, or because nobody is left to ask.
    Closed,
    Lost,
}

impl Link {
    /// Serves requests until [`Request::Close`], or until nobody can send any more.
    pub(super) async fn run(self, mut requests: mpsc::Receiver<Request>) {
        while let Some(request) = requests.recv().await {
            if matches!(request, Request::Close) {
                return;
            }
            match self.open() {
                Ok((child, socket)) => {
                    let connection = Connection::default();
                    let ended = connection.serve(socket, request, &mut requests).await;
                    // The socket is closed by now, so the child ends even if it is well.
                    let status = wait(child).await;
                    if matches!(ended, Ended::Closed) {
                        return;
                    }
                    error!("the supervisor of local processes ended ({status})");
                    connection.lose_all().await;
                }
                Err(error) => {
                    error!("cannot start the supervisor of local processes: {error}");
                    let why = format!("the supervisor of local processes cannot start: {error}");
                    refuse(request, why).await;
                }
            }
        }
    }

    fn open(&self) -> io::Result<(Child, UnixStream)> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let child = Program::new(&self.program)
            .args(&self.arguments)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            // A terminal's Ctrl-C goes to the foreground group only.
            .process_group(0)
            .spawn()?;
        Ok((child, UnixStream::from_std(ours)?))
    }
}

async fn wait(mut child: Child) -> String {
    match timeout(CLOSE_WITHIN, child.wait()).await {
        Ok(Ok(status)) => status.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_elapsed) => "still killing".to_owned(),
    }
}

async fn refuse(request: Request, why: String) {
    if let Request::Start(request) = request {
        let news = News::Refused(request.start.id, refusal(why));
        tell(&request.news, news).await;
    }
}

/// Why the child was not even asked.
fn refusal(detail: String) -> Refusal {
    Refusal {
        cause: "no process can be started at the moment".to_owned(),
        detail,
    }
}

/// A revision that is gone needs no news.
async fn tell(to: &mpsc::Sender<News>, news: News) {
    if let Err(mpsc::error::SendError(news)) = to.send(news).await {
        tracing::debug!(?news, "nobody to tell");
    }
}

/// One child's life: the processes it was asked for and has not reported the end of.
#[derive(Debug, Default)]
struct Connection {
    processes: Mutex<HashMap<Id, Process>>,
}

#[derive(Debug)]
struct Process {
    key: Key,
    pid: Option<Pid>,
    news: mpsc::Sender<News>,
}

impl Connection {
    /// Writing and reading do not wait for each other: the child always takes commands, and a
    /// revision that waits for its command to be taken must not keep news from being read.
    async fn serve(
        &self,
        socket: UnixStream,
        first: Request,
        requests: &mut mpsc::Receiver<Request>,
    ) -> Ended {
        let (read, write) = socket.into_split();
        tokio::select! {
            ended = self.write(write, first, requests) => ended,
            () = self.read(read) => Ended::Lost,
        }
    }

    async fn write(
        &self,
        mut socket: OwnedWriteHalf,
        first: Request,
        requests: &mut mpsc::Receiver<Request>,
    ) -> Ended {
        let mut next = Some(first);
        while let Some(request) = next {
            let command = match request {
                Request::Open => None,
                Request::Close => return Ended::Closed,
                Request::Stop { id, grace } => encode(&Command::Stop { id, grace }).ok(),
                Request::Start(request) => self.encode_start(*request).await,
            };
            if let Some(command) = command
                && let Err(error) = socket.write_all(&command).await
            {
                warn!("cannot write to the supervisor: {error}");
                return Ended::Lost;
            }
            next = requests.recv().await;
        }
        Ended::Closed
    }

    async fn encode_start(&self, request: StartRequest) -> Option<Vec<u8>> {
        let StartRequest { key, start, news } = request;
        let id = start.id;
        match encode(&Command::Start(start)) {
            Ok(command) => {
                let pid = None;
                self.lock().insert(id, Process { key, pid, news });
                Some(command)
            }
            Err(error) => {
                tell(&news, News::Refused(id, refusal(error.to_string()))).await;
                None
            }
        }
    }

    async fn read(&self, socket: OwnedReadHalf) {
        let mut events = Messages::new(socket);
        loop {
            match events.next().await {
                Ok(Some(event)) => self.hear(event).await,
                Ok(None) => return,
                Err(error) => {
                    warn!("cannot read from the supervisor: {error}");
                    return;
                }
            }
        }
    }

    async fn hear(&self, event: Event) {
        match event {
            Event::Output { id, stream, line } => {
                if let Some(process) = self.lock().get(&id) {
                    let (revision, stream) = (&process.key, stream.name());
                    info!(target: "process", %revision, stream, "{line}");
                }
            }
            Event::Started { id, pid } => {
                let news = self.lock().get_mut(&id).map(|process| {
                    process.pid = Pid::from_raw(pid);
                    process.news.clone()
                });
                if let Some(news) = news {
                    tell(&news, News::Started(id)).await;
                }
            }
            Event::Refused { id, refusal } => self.end(id, News::Refused(id, refusal)).await,
            Event::Exited { id, exit } => self.end(id, News::Exited(id, exit)).await,
        }
    }

    async fn end(&self, id: Id, news: News) {
        let process = self.lock().remove(&id);
        if let Some(process) = process {
            tell(&process.news, news).await;
        }
    }

    /// The child is gone. What it owned was cut loose, so the groups we know of are killed here;
    /// what left its group lives on.
    async fn lose_all(&self) {
        let processes = std::mem::take(&mut *self.lock());
        for (id, process) in processes {
            if let Some(pid) = process.pid
                && let Err(error) = kill_process_group(pid, Signal::KILL)
                && error != rustix::io::Errno::SRCH
            {
                warn!(revision = %process.key, "cannot kill process group {pid}: {error}");
            }
            tell(&process.news, News::Lost(id)).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Id, Process>> {
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

//! HTTP/2: streams side by side on a connection.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::join_all;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use tokio::task::{JoinHandle, spawn_local};

use super::drive::{Link, not_open, serve};
use super::job::{Job, Sender};
use super::plan::Plan;
use super::tally::{Answer, Fault};

/// Bytes that may come on a stream before we say that more may: enough not to slow the other side.
const STREAM_WINDOW: u32 = 1 << 20;

/// The same for a connection.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// What to send, one URL per host.
#[derive(Debug)]
pub(super) struct Requests {
    method: Method,
    urls: Vec<Uri>,
    headers: HeaderMap,
    body: Bytes,
}

impl Requests {
    pub(super) fn new(plan: &Plan) -> Self {
        let scheme = if plan.target.tls { "https" } else { "http" };
        let url = |host: &String| {
            Uri::builder()
                .scheme(scheme)
                .authority(host.as_str())
                .path_and_query(plan.target.path.as_str())
                .build()
                .expect("the plan has checked hosts and path")
        };
        let mut headers: HeaderMap = HeaderMap::new();
        for (name, value) in &plan.headers {
            headers.append(name, value.clone());
        }
        if plan.has_body {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(plan.body.len()));
        }
        Self {
            method: plan.method.clone(),
            urls: plan.hosts.iter().map(url).collect(),
            headers,
            body: plan.body.clone(),
        }
    }

    fn next(&self, job: &Job) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.urls[job.next_host()].clone();
        *request.version_mut() = Version::HTTP_2;
        self.headers.clone_into(request.headers_mut());
        request
    }
}

/// Sends requests on several streams of one connection until the run is over.
pub(super) async fn keep_alive(senders: Vec<Sender>, requests: Rc<Requests>) {
    while let Some(first) = senders.iter().find(|sender| sender.has_more()) {
        match Connection::open(first, &requests).await {
            Ok(connection) => {
                let streams = senders.iter().map(|sender| {
                    let mut stream = connection.clone();
                    let (requests, senders) = (&requests, &senders);
                    async move {
                        serve(&mut stream, sender, requests).await;
                        // Where one ends because the connection has, none is to wait on it.
                        senders.iter().for_each(Sender::unpark);
                    }
                });
                join_all(streams).await;
            }
            Err(fault) => not_open(first, fault).await,
        }
    }
}

/// One sender's side of a connection.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    send: SendRequest<Bytes>,
    driver: Rc<Driver>,
    up: u64,
}

/// The task that reads and writes a connection; it ends with the last of its users.
#[derive(Debug)]
struct Driver {
    task: JoinHandle<()>,
    /// There was an answer.
    answered: Cell<bool>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link for Connection {
    type Requests = Requests;

    const SHARED: bool = true;

    async fn open(sender: &Sender, _requests: &Requests) -> Result<Self, Fault> {
        let io = sender.job.connect(&sender.watch).await?;
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let handshake = builder.handshake(io);
        let (send, connection) = sender
            .watch
            .limit(Instant::now(), handshake)
            .await
            .map_err(|_expired| Fault::Connect("HTTP/2 took too long to begin".to_owned()))?
            .map_err(|error| Fault::Connect(format!("HTTP/2: {error}")))?;
        // How it ends, its streams hear.
        let driver = Driver {
            task: spawn_local(async move { drop(connection.await) }),
            answered: Cell::new(false),
        };
        Ok(Self {
            send,
            driver: Rc::new(driver),
            up: 0,
        })
    }

    async fn exchange(&mut self, job: &Job, requests: &Requests) -> Result<Answer, Fault> {
        let answer = self.ask(job, requests).await?;
        self.driver.answered.set(true);
        Ok(answer)
    }

    fn up(&self) -> u64 {
        self.up
    }

    fn keeps(&self) -> bool {
        true
    }

    fn is_proven(&self) -> bool {
        self.driver.answered.get()
    }

    fn poll_end(&mut self, context: &mut Context<'_>, _job: &Job) -> Poll<()> {
        if self.driver.task.is_finished() {
            return Poll::Ready(());
        }
        match self.send.poll_ready(context) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

impl Connection {
    async fn ask(&mut self, job: &Job, requests: &Requests) -> Result<Answer, Fault> {
        self.up = 0;
        poll_fn(|context| self.send.poll_ready(context))
            .await
            .map_err(fault)?;
        let empty = requests.body.is_empty();
        let request = requests.next(job);
        let (response, stream) = self.send.send_request(request, empty).map_err(fault)?;
        if empty {
            drop(stream);
            return receive(response).await;
        }
        let mut sending = pin!(send(stream, requests.body.clone(), &mut self.up));
        let mut receiving = pin!(receive(response));
        let mut sent = false;
        poll_fn(|context| {
            // An answer may come before the body is sent; what keeps it from being sent shows
            // in the answer too.
            sent = sent || sending.as_mut().poll(context).is_ready();
            receiving.as_mut().poll(context)
        })
        .await
    }
}

/// Sends a body as the other side lets us.
async fn send(
    mut stream: SendStream<Bytes>,
    mut body: Bytes,
    up: &mut u64,
) -> Result<(), h2::Error> {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let Some(granted) = poll_fn(|context| stream.poll_capacity(context)).await else {
            return Ok(());
        };
        let part = body.split_to(granted?.min(body.len()));
        *up += part.len() as u64;
        stream.send_data(part, body.is_empty())?;
    }
    Ok(())
}

async fn receive(response: ResponseFuture) -> Result<Answer, Fault> {
    let (head, mut body) = response.await.map_err(fault)?.into_parts();
    let bytes = read(&mut body).await.map_err(fault)?;
    Ok(Answer {
        status: head.status.as_u16(),
        bytes,
    })
}

/// Reads a body and its trailers to the end.
async fn read(body: &mut RecvStream) -> Result<u64, h2::Error> {
    let mut bytes = 0;
    while let Some(part) = body.data().await {
        let length = part?.len();
        bytes += length as u64;
        body.flow_control().release_capacity(length)?;
    }
    body.trailers().await?;
    Ok(bytes)
}

/// Takes by value what `map_err` hands over.
#[expect(clippy::needless_pass_by_value, reason = "the shape map_err wants")]
fn fault(error: h2::Error) -> Fault {
    let words = format!("HTTP/2: {error}");
    // What the library ends by itself is what it could not make sense of.
    if error.is_library() {
        Fault::Invalid(words)
    } else if error.is_go_away() && error.reason() == Some(Reason::NO_ERROR) {
        Fault::Refused(words)
    } else {
        Fault::Closed(words)
    }
}

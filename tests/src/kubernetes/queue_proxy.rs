//! A queue-proxy of Knative, the sidecar before every pod of a revision, with an [`App`] as the
//! container behind it. It answers probes, tells requests that came through an activator from
//! others, and lets in what its revision's `containerConcurrency` allows.
//!
//! It knows no TLS, no timeouts and no statistics for scraping.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::header::{HOST, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Request, Response, Version};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::port::Port;
use crate::app::App;
use crate::backend::{Alarm, accept};
use crate::body::{self, Body};
use crate::wait::{PATIENCE, eventually};

/// Whoever says to be one of these asks for health, whatever the path.
const PROBERS: [&str; 3] = [
    "kube-probe/",
    "Knative-Activator-Probe",
    "Knative-Autoscaling-Probe",
];

/// How many may wait for each that runs.
const QUEUE: usize = 10;

/// One pod. Prints as its address; dropped, it is gone with all its connections.
pub struct QueueProxy {
    pub address: SocketAddr,
    state: Arc<State>,
    alarm: Alarm,
    port: Port,
}

struct State {
    app: Arc<App>,
    ready: AtomicBool,
    draining: AtomicBool,
    /// Slots and how many may hold or await one, unless there is no limit.
    breaker: Option<(Semaphore, usize)>,
    admitted: AtomicUsize,
    proxied: Tally,
    direct: Tally,
    probes: Mutex<Vec<Probe>>,
    requests: Mutex<Vec<Passed>>,
}

/// Requests of one sort: being worked on until their answer's last byte, or until their protocol
/// is switched.
#[derive(Debug, Default)]
struct Tally {
    running: AtomicUsize,
    peak: AtomicUsize,
    total: AtomicUsize,
}

/// A question for health, and what was said to it.
#[derive(Clone, Debug)]
pub struct Probe {
    pub agent: String,
    pub path: String,
    /// `K-Network-Probe`, `""` without it.
    pub value: String,
    pub status: u16,
    pub at: Instant,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Passed {
    pub method: String,
    pub path: String,
    /// Whom it was sent to: not what the container sees where there is `K-Original-Host`.
    pub host: String,
    pub version: Version,
    pub proxied: bool,
    pub headers: HeaderMap,
    pub at: Instant,
}

impl QueueProxy {
    /// Not ready, without a limit, at an address that no other pod of this process has.
    #[must_use]
    pub fn start(name: &str) -> QueueProxy {
        QueueProxy::at((own_address(), 0).into(), name, 0)
    }

    /// With a limit, 0 for none; port 0 is any free one.
    #[must_use]
    pub fn at(address: SocketAddr, name: &str, concurrency: usize) -> QueueProxy {
        let port = Port::on(address);
        let breaker = (concurrency > 0).then(|| {
            let most = concurrency + QUEUE * concurrency;
            (Semaphore::new(concurrency), most)
        });
        let state = Arc::new(State {
            app: Arc::new(App::new(name)),
            ready: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            breaker,
            admitted: AtomicUsize::new(0),
            proxied: Tally::default(),
            direct: Tally::default(),
            probes: Mutex::default(),
            requests: Mutex::default(),
        });
        let proxy = QueueProxy {
            address: port.address,
            state,
            alarm: Alarm::default(),
            port,
        };
        proxy.restart();
        proxy
    }

    /// The same, ready.
    #[must_use]
    pub fn ready(self) -> QueueProxy {
        self.set_ready(true);
        self
    }

    /// Whether the container behind it answers its readiness probe.
    pub fn set_ready(&self, ready: bool) {
        self.state.ready.store(ready, Ordering::SeqCst);
    }

    /// As after SIGTERM: probes fail, requests are served.
    pub fn drain(&self) {
        self.state.draining.store(true, Ordering::SeqCst);
    }

    /// Closes the port and every connection, as the kernel does when the pod is killed.
    pub async fn stop(&self) {
        self.state.app.close_websockets();
        self.port.stop().await;
    }

    /// Listens at the same address again.
    ///
    /// # Panics
    /// When it was not stopped.
    pub fn restart(&self) {
        let (state, alarm) = (self.state.clone(), self.alarm.clone());
        let handler = move |request| alarm.watch(state.clone().answer(request));
        self.port.serve(|listener| accept(listener, false, handler));
    }

    // --- what it saw ---

    #[must_use]
    pub fn probes(&self) -> Vec<Probe> {
        self.state.probes.lock().unwrap().clone()
    }

    /// All requests but probes, in the order they came.
    #[must_use]
    pub fn requests(&self) -> Vec<Passed> {
        self.state.requests.lock().unwrap().clone()
    }

    /// Requests marked as an activator's: under way, most at once, and in all.
    #[must_use]
    pub fn proxied(&self) -> (usize, usize, usize) {
        self.state.proxied.read()
    }

    /// Those not marked.
    #[must_use]
    pub fn direct(&self) -> (usize, usize, usize) {
        self.state.direct.read()
    }

    /// Waits until it was asked for health by an agent whose name begins so.
    pub async fn until_probed(&self, agent: &str) -> Probe {
        let what = format!("{agent} probes {}", self.address);
        eventually(PATIENCE, &what, async || {
            let probes = self.state.probes.lock().unwrap();
            let found = probes.iter().find(|probe| probe.agent.starts_with(agent));
            found.cloned()
        })
        .await
    }
}

/// The container.
impl Deref for QueueProxy {
    type Target = App;

    fn deref(&self) -> &App {
        &self.state.app
    }
}

impl Drop for QueueProxy {
    fn drop(&mut self) {
        self.state.app.close_websockets();
        drop(self.port.kill());
        self.alarm.check();
    }
}

impl fmt::Display for QueueProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl fmt::Debug for QueueProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueueProxy({})", self.address)
    }
}

/// Pods have addresses of their own.
pub(super) fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = NEXT.fetch_add(1, Ordering::SeqCst).to_be_bytes();
    Ipv4Addr::new(127, 1, high, low)
}

impl State {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> anyhow::Result<Response<Body>> {
        if let Some(answer) = self.health(&request) {
            return Ok(answer);
        }
        let headers = request.headers();
        if headers
            .get("k-network-probe")
            .is_some_and(|value| value == "probe")
        {
            return Ok(self.echo(headers));
        }
        let proxied = headers
            .get("k-proxy-request")
            .is_some_and(|value| value == "activator");
        self.requests
            .lock()
            .unwrap()
            .push(Passed::of(&request, proxied));
        let running = Running::enter(self.clone(), proxied);
        let Some((slots, most)) = &self.breaker else {
            return self.pass(request, running, None).await;
        };
        let admitted = Admitted::enter(self.clone());
        if self.admitted.load(Ordering::SeqCst) > *most {
            return Ok(said(503, "pending request queue full\n"));
        }
        let slot = slots.acquire().await?;
        // Given back when the answer has ended, together with the place.
        slot.forget();
        self.pass(request, running, Some(Slot(admitted))).await
    }

    /// To the container, with the host as the client said it.
    async fn pass(
        &self,
        mut request: Request<Incoming>,
        running: Running,
        slot: Option<Slot>,
    ) -> anyhow::Result<Response<Body>> {
        let headers = request.headers_mut();
        headers.remove("knative-serving-revision");
        headers.remove("knative-serving-namespace");
        if let Some(host) = headers.remove("k-original-host") {
            let mut uri = request.uri().clone().into_parts();
            if uri.authority.is_some() {
                uri.authority = Some(host.to_str()?.parse()?);
                *request.uri_mut() = uri.try_into()?;
            }
            request.headers_mut().insert(HOST, host);
        }
        let response = self.app.clone().answer(request).await?;
        let _held = (slot, running);
        Ok(response.map(|body| Holding { body, _held }.boxed_unsync()))
    }

    fn health(&self, request: &Request<Incoming>) -> Option<Response<Body>> {
        let text = |name: &str| text(request.headers(), name);
        let agent = text(USER_AGENT.as_str());
        PROBERS.iter().find(|prober| agent.starts_with(**prober))?;
        let value = text("k-network-probe");
        let answer = if self.draining.load(Ordering::SeqCst) {
            said(503, "shutting down\n")
        } else if value != "queue" {
            said(400, format!("unexpected probe header value: {value}\n"))
        } else if self.ready.load(Ordering::SeqCst) {
            said(200, "queue")
        } else {
            said(503, "")
        };
        self.probes.lock().unwrap().push(Probe {
            agent,
            path: request.uri().path().to_owned(),
            value,
            status: answer.status().as_u16(),
            at: Instant::now(),
        });
        Some(answer)
    }

    /// The answer to who asks which configuration is in force.
    fn echo(&self, headers: &HeaderMap) -> Response<Body> {
        let Some(hash) = headers.get("k-network-hash") else {
            let why = "a probe request must contain a non-empty \"K-Network-Hash\" header\n";
            return said(400, why);
        };
        if self.draining.load(Ordering::SeqCst) {
            return said(503, "shutting down\n");
        }
        let mut answer = said(200, "");
        answer.headers_mut().insert("k-network-hash", hash.clone());
        answer
    }
}

impl Passed {
    fn of(request: &Request<Incoming>, proxied: bool) -> Passed {
        let uri = request.uri();
        let host = match uri.authority() {
            Some(authority) => authority.to_string(),
            None => text(request.headers(), HOST.as_str()),
        };
        Passed {
            method: request.method().to_string(),
            path: uri
                .path_and_query()
                .map_or("", |path| path.as_str())
                .to_owned(),
            host,
            version: request.version(),
            proxied,
            headers: request.headers().clone(),
            at: Instant::now(),
        }
    }
}

impl Tally {
    fn read(&self) -> (usize, usize, usize) {
        let read = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        (read(&self.running), read(&self.peak), read(&self.total))
    }
}

/// A request that is counted as running, until dropped.
struct Running {
    state: Arc<State>,
    proxied: bool,
}

impl Running {
    fn enter(state: Arc<State>, proxied: bool) -> Running {
        let running = Running { state, proxied };
        let tally = running.tally();
        tally.total.fetch_add(1, Ordering::SeqCst);
        let now = tally.running.fetch_add(1, Ordering::SeqCst) + 1;
        tally.peak.fetch_max(now, Ordering::SeqCst);
        running
    }

    fn tally(&self) -> &Tally {
        if self.proxied {
            &self.state.proxied
        } else {
            &self.state.direct
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tally().running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A place among those who hold a slot or wait for one.
struct Admitted(Arc<State>);

impl Admitted {
    fn enter(state: Arc<State>) -> Admitted {
        state.admitted.fetch_add(1, Ordering::SeqCst);
        Admitted(state)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.admitted.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Slot(Admitted);

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some((slots, _)) = &self.0.0.breaker {
            slots.add_permits(1);
        }
    }
}

/// A body, and what the request takes up until its end.
struct Holding {
    body: Body,
    _held: (Option<Slot>, Running),
}

impl hyper::body::Body for Holding {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn said(status: u16, text: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(body::full(text));
    *response.status_mut() = status.try_into().unwrap();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert("content-type", plain);
    response
}

fn text(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).map(HeaderValue::as_bytes);
    String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
}

//! The HTTP server of the admin address.

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::observe::metrics::{Registry, lock};
use crate::observe::world::{NotPrewarmed, Prewarmed, World};

use super::prewarm::{self, Question, Refused};
use super::{explain, json};

/// Open connections. A further one takes the place of the one that has been idle for longest, so
/// that connections which say nothing keep nobody out.
const CONNECTIONS: usize = 64;

/// Most time for a request head, and most idle time between requests.
const HEAD: Duration = Duration::from_secs(10);

const HEAD_BYTES: usize = 64 << 10;

/// After this a connection ends with its request, so that nobody holds one for good.
const LIFE: Duration = Duration::from_secs(300);

/// Most time for what is under way then.
const LAST: Duration = Duration::from_secs(30);

/// Renderings at once; each may take as much memory as all metrics have.
const RENDERS: usize = 2;

/// Requests that wait until something is ready: they must not take all the connections.
const WAITS: usize = 16;

/// How often it is looked whether it is.
const LOOKS: Duration = Duration::from_millis(20);

/// Pause after `accept` failed, which is for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

type Answer = Response<Full<Bytes>>;

struct Admin {
    world: Arc<dyn World>,
    registry: Arc<Registry>,
    renders: Arc<Semaphore>,
    /// Holds the token of requests that change something.
    token: Option<Box<Path>>,
    waits: Semaphore,
}

/// What the admin address is served with.
#[derive(Debug)]
pub struct Desk {
    pub listener: TcpListener,
    /// Holds the token of requests that change something; `None`: there are none.
    pub token: Option<Box<Path>>,
}

/// Serves the admin address until it is told to leave, or for as long as the future lives. Leaving,
/// it closes the socket and ends every connection with its request, so that the next one finds who
/// serves the address from then on; dropping it closes every connection at once.
pub async fn serve(
    desk: Desk,
    world: Arc<dyn World>,
    registry: Arc<Registry>,
    mut leaving: watch::Receiver<bool>,
) {
    let Desk { listener, token } = desk;
    let admin = Arc::new(Admin {
        world,
        registry,
        renders: Arc::new(Semaphore::new(RENDERS)),
        token,
        waits: Semaphore::new(WAITS),
    });
    let mut places = Places::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = leaving.wait_for(|leaving| *leaving) => break,
        };
        match accepted {
            Ok((stream, _)) if places.make_room() => places.fill(stream, &admin, &leaving),
            Ok(_) => tracing::warn!("an admin connection was refused: {CONNECTIONS} are busy"),
            Err(error) => {
                tracing::warn!(%error, "the admin address cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while places.tasks.join_next().await.is_some() {}
}

/// The connections that are open. Dropping it closes them.
#[derive(Default)]
struct Places {
    tasks: JoinSet<()>,
    open: Vec<Place>,
}

struct Place {
    task: AbortHandle,
    idle: Arc<Idle>,
}

/// Since when a connection has had no request to answer; `None` while it has one.
struct Idle(Mutex<Option<Instant>>);

impl Idle {
    fn set(&self, since: Option<Instant>) {
        *lock(&self.0) = since;
    }
}

impl Places {
    /// Whether there is a place now: a free one, or one that an idle connection had to give up.
    fn make_room(&mut self) -> bool {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|place| !place.task.is_finished());
        if self.open.len() < CONNECTIONS {
            return true;
        }
        let idle = self.open.iter().enumerate().filter_map(|(at, place)| {
            let since = *lock(&place.idle.0);
            Some((since?, at))
        });
        let Some((_, longest)) = idle.min() else {
            return false;
        };
        self.open.swap_remove(longest).task.abort();
        true
    }

    fn fill(&mut self, stream: TcpStream, admin: &Arc<Admin>, leaving: &watch::Receiver<bool>) {
        let idle = Arc::new(Idle(Mutex::new(Some(Instant::now()))));
        let serving = connection(
            stream,
            Arc::clone(admin),
            Arc::clone(&idle),
            leaving.clone(),
        );
        let task = self.tasks.spawn(serving);
        self.open.push(Place { task, idle });
    }
}

async fn connection(
    stream: TcpStream,
    admin: Arc<Admin>,
    idle: Arc<Idle>,
    mut leaving: watch::Receiver<bool>,
) {
    let service = service_fn(move |request| {
        let (admin, idle) = (Arc::clone(&admin), Arc::clone(&idle));
        async move {
            idle.set(None);
            let answer = admin.answer(request).await;
            idle.set(Some(Instant::now()));
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // How a client's connection ends concerns nobody here.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = tokio::time::sleep(LIFE) => {}
        _ = leaving.wait_for(|leaving| *leaving) => {}
    }
    connection.as_mut().graceful_shutdown();
    drop(tokio::time::timeout(LAST, connection).await);
}

impl Admin {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        if request.uri().path() == "/api/prewarm" {
            return match *request.method() {
                Method::POST => self.prewarm(request).await,
                _ => not_allowed("POST"),
            };
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return not_allowed("GET, HEAD");
        }
        match request.uri().path() {
            "/livez" => answer(StatusCode::OK, TEXT, "ok"),
            "/readyz" => self.readyz(),
            "/metrics" => {
                let render =
                    |world: &dyn World, registry: &Registry| registry.scrape(&world.revisions());
                self.render(crate::observe::CONTENT_TYPE, render).await
            }
            "/api/routes" => {
                let render = |world: &dyn World, _: &Registry| json::routes(world.routes());
                self.render(JSON, render).await
            }
            "/api/revisions" => {
                let render = |world: &dyn World, _: &Registry| json::revisions(world.revisions());
                self.render(JSON, render).await
            }
            "/api/cold-starts" => {
                let render = |_: &dyn World, registry: &Registry| {
                    json::cold_starts(&registry.last_starts().list())
                };
                self.render(JSON, render).await
            }
            "/api/explain" => match explain::parse(request.uri().query().unwrap_or_default()) {
                Ok(question) => {
                    let render = move |world: &dyn World, _: &Registry| {
                        json::explanation(&world.explain(&question))
                    };
                    self.render(JSON, render).await
                }
                Err(problem) => answer(StatusCode::BAD_REQUEST, JSON, json::problem(problem)),
            },
            "/" => page(HTML, include_str!("page/index.html")),
            "/page.js" => page(SCRIPT, include_str!("page/page.js")),
            "/page.css" => page(STYLE, include_str!("page/page.css")),
            _ => answer(StatusCode::NOT_FOUND, TEXT, "not found\n"),
        }
    }

    async fn prewarm(&self, request: Request<Incoming>) -> Answer {
        match self.try_prewarm(request).await {
            Ok(answer) => answer,
            Err(Refused(status, why)) => {
                let mut answer = answer(status, JSON, json::problem(&why));
                if status == StatusCode::UNAUTHORIZED {
                    let scheme = HeaderValue::from_static("Bearer");
                    answer.headers_mut().insert(WWW_AUTHENTICATE, scheme);
                }
                answer
            }
        }
    }

    async fn try_prewarm(&self, request: Request<Incoming>) -> Result<Answer, Refused> {
        prewarm::authorise(self.token.as_deref(), request.headers()).await?;
        let query = request.uri().query().unwrap_or_default().to_owned();
        let body = Limited::new(request.into_body(), prewarm::BODY_MAX);
        let body = tokio::time::timeout(HEAD, body.collect()).await;
        let body = match body {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => {
                return Err(Refused(
                    StatusCode::BAD_REQUEST,
                    "the body is too long, or broken".to_owned(),
                ));
            }
            Err(_) => {
                return Err(Refused(
                    StatusCode::REQUEST_TIMEOUT,
                    "the body took too long".to_owned(),
                ));
            }
        };
        let Question { prewarm, wait } = prewarm::parse(&query, &body)?;
        let prewarmed = self.world.prewarm(&prewarm);
        let mut prewarmed = prewarmed.map_err(|why| match why {
            NotPrewarmed::Unknown(why) => Refused(StatusCode::NOT_FOUND, why),
            NotPrewarmed::NoScaler(revision) => {
                let why = format!("nobody brings endpoints of {revision}: it has neither `endpoints` nor `process`");
                Refused(StatusCode::CONFLICT, why)
            }
        })?;
        if let Some(wait) = wait {
            self.until_ready(&mut prewarmed, wait).await?;
        }
        let is_ready = prewarmed.iter().all(Prewarmed::is_ready);
        let status = match wait {
            _ if is_ready => StatusCode::OK,
            None => StatusCode::ACCEPTED,
            Some(_) if prewarmed.iter().any(Prewarmed::has_failed) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Some(_) => StatusCode::GATEWAY_TIMEOUT,
        };
        Ok(answer(status, JSON, json::prewarmed(prewarmed)))
    }

    /// Waits until all are there, some cannot be, or the time is over.
    async fn until_ready(
        &self,
        prewarmed: &mut [Prewarmed],
        wait: Duration,
    ) -> Result<(), Refused> {
        let Ok(_place) = self.waits.try_acquire() else {
            let why = format!("{WAITS} others wait already; what you asked for is under way");
            return Err(Refused(StatusCode::SERVICE_UNAVAILABLE, why));
        };
        let deadline = tokio::time::Instant::now() + wait;
        let mut looks = tokio::time::interval(LOOKS);
        while tokio::time::Instant::now() < deadline {
            looks.tick().await;
            self.world.look_at(prewarmed);
            if prewarmed.iter().all(Prewarmed::is_ready)
                || prewarmed.iter().any(Prewarmed::has_failed)
            {
                break;
            }
        }
        Ok(())
    }

    fn readyz(&self) -> Answer {
        let readiness = self.world.readiness();
        let status = if readiness.ready() {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        answer(status, JSON, json::readiness(&readiness))
    }

    /// Renders on a blocking thread. A client that leaves meanwhile does not free its place: the
    /// rendering goes on.
    async fn render(
        &self,
        content_type: &'static str,
        render: impl FnOnce(&dyn World, &Registry) -> String + Send + 'static,
    ) -> Answer {
        let permit = Arc::clone(&self.renders).acquire_owned().await;
        let (world, registry) = (Arc::clone(&self.world), Arc::clone(&self.registry));
        let rendering = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            render(&*world, &registry)
        });
        match rendering.await {
            Ok(body) => answer(StatusCode::OK, content_type, body),
            Err(error) => {
                tracing::error!(%error, "an admin answer could not be rendered");
                answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "internal error\n")
            }
        }
    }
}

fn not_allowed(methods: &'static str) -> Answer {
    let text = format!("the methods here are {methods}\n");
    let mut answer = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, text);
    let allow = HeaderValue::from_static(methods);
    answer.headers_mut().insert(ALLOW, allow);
    answer
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
    answer
}

fn page(content_type: &'static str, body: &'static str) -> Answer {
    let mut answer = answer(StatusCode::OK, content_type, body);
    let policy = HeaderValue::from_static(POLICY);
    answer.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_connections_without_a_request_give_up_their_places() {
        let mut places = Places::default();
        for _ in 0..CONNECTIONS {
            assert!(places.make_room());
            let task = places.tasks.spawn(std::future::pending());
            let idle = Arc::new(Idle(Mutex::new(None)));
            places.open.push(Place { task, idle });
        }
        assert!(!places.make_room());
        let now = Instant::now();
        places.open[7].idle.set(Some(now));
        places.open[5].idle.set(Some(now + Duration::from_secs(1)));
        let longest = places.open[7].task.clone();
        assert!(places.make_room());
        assert_eq!(places.open.len(), CONNECTIONS - 1);
        places.tasks.join_next().await;
        assert!(longest.is_finished());
    }
}

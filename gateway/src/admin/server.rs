//! The HTTP server of the admin address.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::observe::metrics::Registry;
use crate::observe::world::World;

use super::{explain, json};

/// Open connections; a further one is closed at once.
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
}

/// Serves the admin address until it is told to leave, or for as long as the future lives. Leaving,
/// it closes the socket and ends every connection with its request, so that the next one finds who
/// serves the address from then on; dropping it closes every connection at once.
pub async fn serve(
    listener: TcpListener,
    world: Arc<dyn World>,
    registry: Arc<Registry>,
    mut leaving: watch::Receiver<bool>,
) {
    let admin = Arc::new(Admin {
        world,
        registry,
        renders: Arc::new(Semaphore::new(RENDERS)),
    });
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = leaving.wait_for(|leaving| *leaving) => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) if connections.len() < CONNECTIONS => {
                connections.spawn(connection(stream, Arc::clone(&admin), leaving.clone()));
            }
            Ok(_) => tracing::warn!("an admin connection was refused: {CONNECTIONS} are open"),
            Err(error) => {
                tracing::warn!(%error, "the admin address cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(stream: TcpStream, admin: Arc<Admin>, mut leaving: watch::Receiver<bool>) {
    let service = service_fn(move |request| {
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(admin.answer(&request).await) }
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
    async fn answer(&self, request: &Request<Incoming>) -> Answer {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "read only\n");
            answer
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
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

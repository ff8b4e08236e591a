//! The application behind the gateway, in a backend of the test's own process or in the
//! `service` program. What it does is asked for in the query:
//!
//! | query | effect |
//! |---|---|
//! | `sleep=MS` | answers after that time |
//! | `hold` | answers when the test opens the gate |
//! | `status=N` | answers with that status |
//! | `size=N&seed=S` | `N` bytes of [`body::pattern`] |
//! | `pieces=N&every=MS` | the body comes chunked, in `N` pieces, a pause between them |
//! | `trailers` | chunked, with trailers `x-sum` and `x-end` after it |
//! | `header=NAME:VALUE` | one more response field |
//! | `drop` | closes the connection without an answer |
//! | `mirror` | the answer's body is the request's, as it comes |
//!
//! Without `size` or `mirror` the body is what the application saw of the request, as JSON. A
//! request that asks for a WebSocket gets one that echoes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{HOST, HeaderMap, HeaderValue, UPGRADE};
use hyper::http::request::Parts;
use hyper::{Request, Response, Version};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::body::{self, Body, Fingerprint};
use crate::wait::takes;
use crate::websocket;

/// One running application and its books.
#[derive(Debug)]
pub struct App {
    pub name: String,
    /// Facts that every answer tells beside those of the request.
    pub about: serde_json::Map<String, serde_json::Value>,
    /// Whether work that was begun is finished though the client has left.
    pub stubborn: bool,
    total: AtomicU64,
    running: AtomicU64,
    peak: AtomicU64,
    gate: watch::Sender<bool>,
    websockets: Mutex<Vec<AbortHandle>>,
}

impl App {
    #[must_use]
    pub fn new(name: &str) -> App {
        App {
            name: name.to_owned(),
            about: serde_json::Map::new(),
            stubborn: false,
            total: AtomicU64::new(0),
            running: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            gate: watch::Sender::new(false),
            websockets: Mutex::default(),
        }
    }

    /// Requests that arrived.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::SeqCst)
    }

    /// Requests being worked on.
    pub fn running(&self) -> u64 {
        self.running.load(Ordering::SeqCst)
    }

    /// Most requests that were ever worked on at once.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::SeqCst)
    }

    /// Lets every request that asked to `hold` go on, now and later.
    pub fn open_gate(&self) {
        self.gate.send_replace(true);
    }

    /// Cuts them, without a word.
    pub(crate) fn close_websockets(&self) {
        self.websockets
            .lock()
            .unwrap()
            .drain(..)
            .for_each(|task| task.abort());
    }

    fn enter(self: &Arc<Self>) -> Running {
        self.total.fetch_add(1, Ordering::SeqCst);
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(running, Ordering::SeqCst);
        Running(self.clone())
    }

    /// Answers one request.
    ///
    /// # Errors
    /// When the query says `drop`, or the request's body breaks off.
    pub async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> anyhow::Result<Response<Body>> {
        let running = self.enter();
        if request.headers().contains_key(UPGRADE) {
            let (response, echoing) = websocket::accept(request, running)?;
            self.websockets.lock().unwrap().push(echoing);
            return Ok(response);
        }
        let query = Query::of(&request);
        let work = self.clone().work(query.clone(), running);
        if self.stubborn {
            tokio::spawn(work).await??;
        } else {
            work.await?;
        }
        self.respond(&query, request).await
    }

    /// The part that takes its time, and ends its own entry in the books.
    async fn work(self: Arc<Self>, query: Query, running: Running) -> anyhow::Result<()> {
        if query.has("hold") {
            self.gate.subscribe().wait_for(|open| *open).await?;
        }
        if let Some(pause) = query.number("sleep") {
            takes(Duration::from_millis(pause)).await;
        }
        drop(running);
        if query.has("drop") {
            bail!("asked to drop the connection");
        }
        Ok(())
    }

    async fn respond(
        &self,
        query: &Query,
        request: Request<Incoming>,
    ) -> anyhow::Result<Response<Body>> {
        let mut response = Response::builder()
            .status(u16::try_from(query.number("status").unwrap_or(200))?)
            .header("x-backend", &self.name);
        if let Some((name, value)) = query.text("header").and_then(|field| field.split_once(':')) {
            response = response.header(name, value);
        }
        if query.has("mirror") {
            return Ok(response.body(body::passing(request.into_body()))?);
        }
        let content = match query.number("size") {
            Some(size) => body::pattern(usize::try_from(size)?, query.number("seed").unwrap_or(0)),
            None => {
                response = response.header("content-type", "application/json");
                self.report(request).await?
            }
        };
        if query.has("trailers") {
            response = response.header("trailer", "x-sum, x-end");
        }
        Ok(response.body(in_pieces(content, query))?)
    }

    async fn report(&self, request: Request<Incoming>) -> anyhow::Result<Bytes> {
        let (head, mut incoming) = request.into_parts();
        let mut fingerprint = Fingerprint::default();
        let mut start = Vec::new();
        let mut trailers = HeaderMap::new();
        while let Some(frame) = incoming.frame().await {
            match frame?.into_data() {
                Ok(data) => {
                    fingerprint.add(&data);
                    start.extend_from_slice(&data[..data.len().min(1024 - start.len().min(1024))]);
                }
                Err(frame) => trailers.extend(frame.into_trailers().ok().into_iter().flatten()),
            }
        }
        let mut report = json!({
            "backend": self.name,
            "method": head.method.as_str(),
            "target": target(&head),
            "authority": authority(&head),
            "version": format!("{:?}", head.version),
            "headers": fields(&head.headers),
            "body": String::from_utf8_lossy(&start),
            "length": fingerprint.length,
            "fingerprint": fingerprint.finish(),
            "trailers": fields(&trailers),
        });
        if let Some(report) = report.as_object_mut() {
            report.extend(self.about.clone());
        }
        Ok(report.to_string().into())
    }
}

/// The request's target without what HTTP/2 says in `:scheme` and `:authority`.
fn target(head: &Parts) -> String {
    match head.uri.path_and_query() {
        Some(path) if head.version == Version::HTTP_2 => path.to_string(),
        _ => head.uri.to_string(),
    }
}

/// `:authority`, or the field `host` where that is how it is said.
fn authority(head: &Parts) -> String {
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    match head.uri.authority() {
        Some(authority) => authority.to_string(),
        None => host.unwrap_or_default().to_owned(),
    }
}

/// A request being worked on, until dropped.
#[derive(Debug)]
pub struct Running(Arc<App>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Names to values, several of one name joined by `, `.
fn fields(headers: &HeaderMap) -> HashMap<String, String> {
    let mut fields: HashMap<String, String> = HashMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        fields
            .entry(name.to_string())
            .and_modify(|all| *all = format!("{all}, {value}"))
            .or_insert_with(|| value.to_string());
    }
    fields
}

fn in_pieces(content: Bytes, query: &Query) -> Body {
    let pieces = query.number("pieces").map(|n| n.max(1));
    let trailers = query.has("trailers").then(|| {
        HeaderMap::from_iter([
            (
                "x-sum".parse().unwrap(),
                body::fingerprint(&content).parse().unwrap(),
            ),
            ("x-end".parse().unwrap(), HeaderValue::from_static("yes")),
        ])
    });
    if pieces.is_none() && trailers.is_none() {
        return body::full(content);
    }
    let pieces = usize::try_from(pieces.unwrap_or(1)).unwrap();
    let length = content.len().div_ceil(pieces).max(1);
    let pause = Duration::from_millis(query.number("every").unwrap_or(0));
    let frames: Vec<_> = (0..content.len())
        .step_by(length)
        .map(|start| Frame::data(content.slice(start..content.len().min(start + length))))
        .chain(trailers.map(Frame::trailers))
        .collect();
    let frames = futures_util::stream::iter(frames).then(move |frame| async move {
        takes(pause).await;
        Ok(frame)
    });
    StreamBody::new(frames).boxed_unsync()
}

/// A request's query: names with or without values, no percent-encoding.
#[derive(Clone, Debug)]
pub struct Query(HashMap<String, String>);

impl Query {
    pub fn of<B>(request: &Request<B>) -> Query {
        let query = request.uri().query().unwrap_or_default();
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        Query(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }
}

//! As much of an API server as the shell needs: lists, watches, and merge patches of statuses.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::stream::unfold;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;

/// Events that a watch may be behind.
const EVENTS: usize = 1024;

#[derive(Default)]
struct Kept {
    version: u64,
    /// By collection (`ingresses`), namespace and name.
    objects: BTreeMap<(String, String, String), Value>,
    /// `METHOD PATH?QUERY`
    requests: Vec<String>,
    down: bool,
}

pub(super) struct Api {
    kept: Mutex<Kept>,
    events: broadcast::Sender<(String, Value)>,
    /// Connections and watches end when it changes.
    cut: watch::Sender<u64>,
}

type Body = Either<Full<Bytes>, UnsyncBoxBody<Bytes, Infallible>>;

impl Api {
    pub(super) async fn start() -> (Arc<Api>, kube::Client) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let api = Arc::new(Api {
            kept: Mutex::default(),
            events: broadcast::Sender::new(EVENTS),
            cut: watch::Sender::new(0),
        });
        tokio::spawn(Arc::clone(&api).serve(listener));
        let config = kube::Config::new(uri(address));
        (api, kube::Client::try_from(config).expect("a client"))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("not poisoned")
    }

    async fn serve(self: Arc<Api>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            if self.kept().down {
                continue;
            }
            let api = Arc::clone(&self);
            let mut cut = self.cut.subscribe();
            connections.spawn(async move {
                let service = service_fn(|request| {
                    let api = Arc::clone(&api);
                    async move { Ok::<_, Infallible>(api.answer(request).await) }
                });
                let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    _ = serving => {}
                    _ = cut.changed() => {}
                }
            });
        }
    }

    /// Every connection ends, and no new one is served until it comes up again.
    pub(super) fn down(&self, down: bool) {
        self.kept().down = down;
        self.cut.send_modify(|count| *count += 1);
    }

    pub(super) fn put(&self, value: &Value) {
        let mut value = value.clone();
        let mut kept = self.kept();
        kept.version += 1;
        value["metadata"]["resourceVersion"] = json!(kept.version.to_string());
        let key = key_of(&value);
        let kind = if kept.objects.contains_key(&key) {
            "MODIFIED"
        } else {
            "ADDED"
        };
        kept.objects.insert(key.clone(), value.clone());
        drop(
            self.events
                .send((key.0, json!({"type": kind, "object": value}))),
        );
    }

    pub(super) fn delete(&self, value: &Value) {
        let mut kept = self.kept();
        kept.version += 1;
        let key = key_of(value);
        let mut value = kept.objects.remove(&key).expect("it is there");
        value["metadata"]["resourceVersion"] = json!(kept.version.to_string());
        drop(
            self.events
                .send((key.0, json!({"type": "DELETED", "object": value}))),
        );
    }

    /// It is gone, and no watch hears of it.
    pub(super) fn lose(&self, value: &Value) {
        self.kept().objects.remove(&key_of(value));
    }

    /// All watches are told that history is lost.
    pub(super) fn expire(&self) {
        let status = json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"});
        drop(
            self.events
                .send((String::new(), json!({"type": "ERROR", "object": status}))),
        );
    }

    pub(super) fn get(&self, collection: &str, name: &str) -> Option<Value> {
        let of = |key: &&(String, String, String)| key.0 == collection && key.2 == name;
        let kept = self.kept();
        let key = kept.objects.keys().find(of)?;
        kept.objects.get(key).cloned()
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.kept().requests.clone()
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let line = format!("{} {}", parts.method, parts.uri);
        self.kept().requests.push(line);
        let body = body.collect().await.expect("a body").to_bytes();
        let path = parts.uri.path().to_owned();
        if path == "/version" {
            let version = json!({"major": "1", "minor": "30", "gitVersion": "v1.30.0", "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""});
            return told(200, &version);
        }
        let mut segments: Vec<&str> = path.split('/').skip(1).collect();
        segments.drain(..if segments[0] == "api" { 2 } else { 3 });
        let query = parts.uri.query().unwrap_or_default();
        match (&parts.method, &*segments) {
            (&Method::GET, [collection] | ["namespaces", _, collection])
                if query.contains("watch=") =>
            {
                self.watch(collection)
            }
            (&Method::GET, [collection] | ["namespaces", _, collection]) => self.list(collection),
            (&Method::POST, ["namespaces", namespace, _]) => {
                let mut object: Value = serde_json::from_slice(&body).expect("JSON");
                object["metadata"]["namespace"] = json!(namespace);
                self.put(&object);
                told(201, &object)
            }
            (method, ["namespaces", _, collection, name, ..]) => {
                self.one(method, collection, name, &body)
            }
            _ => told(404, &failure(404)),
        }
    }

    fn one(&self, method: &Method, collection: &str, name: &str, body: &[u8]) -> Response<Body> {
        let Some(mut object) = self.get(collection, name) else {
            return told(404, &failure(404));
        };
        if method == Method::GET {
            return told(200, &object);
        }
        let change: Value = serde_json::from_slice(body).expect("JSON");
        if change["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
            return told(409, &failure(409));
        }
        for part in ["status", "spec"] {
            if let Some(new) = change.get(part) {
                object[part] = new.clone();
            }
        }
        if let Some(finalizers) = change["metadata"].get("finalizers") {
            object["metadata"]["finalizers"] = finalizers.clone();
        }
        self.put(&object);
        told(200, &self.get(collection, name).expect("it is there"))
    }

    fn list(&self, collection: &str) -> Response<Body> {
        let kept = self.kept();
        let of = kept.objects.iter().filter(|(key, _)| key.0 == collection);
        let items: Vec<Value> = of.map(|(_, object)| object.clone()).collect();
        let version = kept.version.to_string();
        told(
            200,
            &json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}),
        )
    }

    /// From now on: the shell's lists are never older than what a test does afterwards.
    fn watch(&self, collection: &str) -> Response<Body> {
        let (events, cut) = (self.events.subscribe(), self.cut.subscribe());
        let stream = unfold(
            (events, cut, collection.to_owned()),
            |(mut events, mut cut, of)| async {
                loop {
                    let (collection, event) = tokio::select! {
                        event = events.recv() => event.ok()?,
                        _ = cut.changed() => return None,
                    };
                    if collection == of || collection.is_empty() {
                        let frame = Frame::data(Bytes::from(format!("{event}\n")));
                        return Some((Ok::<_, Infallible>(frame), (events, cut, of)));
                    }
                }
            },
        );
        let body = Either::Right(StreamBody::new(stream).boxed_unsync());
        Response::builder()
            .header("content-type", "application/json")
            .body(body)
            .expect("an answer")
    }
}

fn uri(address: SocketAddr) -> hyper::Uri {
    format!("http://{address}").parse().expect("a URI")
}

fn key_of(value: &Value) -> (String, String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let collection = match value["kind"].as_str().unwrap_or_default() {
        "EndpointSlice" => "endpointslices".to_owned(),
        "Endpoints" => "endpoints".to_owned(),
        "Ingress" => "ingresses".to_owned(),
        kind => format!("{}s", kind.to_lowercase()),
    };
    (
        collection,
        text(&value["metadata"]["namespace"]),
        text(&value["metadata"]["name"]),
    )
}

fn failure(code: u16) -> Value {
    let reason = if code == 404 { "NotFound" } else { "Conflict" };
    json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "no"})
}

fn told(code: u16, value: &Value) -> Response<Body> {
    let body = Either::Left(Full::new(Bytes::from(value.to_string())));
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(body)
        .expect("an answer")
}

//! The API server's answers: from a request to what is done to the store.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::{Request, Response};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::discovery;
use super::failure::Failure;
use super::faults::{Failing, Faults, Mishap, Seen};
use super::record::Key;
use super::rules::Part;
use super::selector::Selection;
use super::store::{Outcome, Store};
use super::target::{Query, Target};
use super::view::{View, continued};
use super::watch::Watch;
use crate::body::{self, Body};
use crate::kubernetes::Kind;
use crate::wait::takes;

/// What a real server takes of a body.
const LARGEST_BODY: usize = 3 << 20;

#[derive(Debug)]
pub(crate) struct Server {
    pub(super) store: Mutex<Store>,
    /// The newest version.
    pub(super) changed: watch::Sender<u64>,
    pub(super) faults: watch::Sender<Faults>,
    pub(super) failing: Mutex<Vec<Failing>>,
    pub(super) seen: Mutex<Vec<Seen>>,
    /// How many are open.
    pub(super) watches: AtomicUsize,
    /// Answers that a test has made late and that are not on their way yet.
    pub(super) late: AtomicUsize,
}

/// A request without its connection.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    /// What the body is.
    pub(crate) content_type: &'a str,
    pub(crate) body: Bytes,
}

#[derive(Debug)]
enum Reply {
    Whole(u16, Bytes),
    Watch(Box<Watch>),
}

impl Server {
    pub(super) fn new(kinds: &[Kind]) -> Server {
        let store = Store::new(kinds);
        Server {
            changed: watch::Sender::new(store.version()),
            store: Mutex::new(store),
            faults: watch::Sender::default(),
            failing: Mutex::default(),
            seen: Mutex::default(),
            watches: AtomicUsize::new(0),
            late: AtomicUsize::new(0),
        }
    }

    /// Answers one request of a connection.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> anyhow::Result<Response<Body>> {
        let (head, incoming) = request.into_parts();
        let content_type = head.headers.get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let reply = match Limited::new(incoming, LARGEST_BODY).collect().await {
            Err(error) => Err(Failure::new(413, error.to_string())),
            Ok(collected) => {
                let ask = Ask {
                    method: head.method.as_str(),
                    path: head.uri.path(),
                    query: head.uri.query().unwrap_or_default(),
                    content_type: content_type.unwrap_or("application/json"),
                    body: collected.to_bytes(),
                };
                self.admit(&ask, View::of(&head.headers)).await
            }
        };
        let (code, body) = match reply {
            Ok(Reply::Whole(code, json)) => (code, body::full(json)),
            Ok(Reply::Watch(watch)) => (200, watch.into_body()),
            Err(failure) => (failure.code, body::full(failure.status().to_string())),
        };
        let mut response = Response::builder().status(code);
        response = response.header(CONTENT_TYPE, "application/json");
        if code == 429 {
            response = response.header(RETRY_AFTER, "1");
        }
        Ok(response.body(body)?)
    }

    /// Notes a request, lets it suffer what the test asked for, and carries it out.
    async fn admit(self: &Arc<Self>, ask: &Ask<'_>, view: View) -> Result<Reply, Failure> {
        let target = self.target(ask.path);
        let known = target.as_ref().ok();
        let seen = Seen::new(ask.method, ask.path, ask.query, known, &ask.body);
        let mishap = self.mishap_of(&seen);
        self.seen.lock().unwrap().push(seen);
        let mut faults = self.faults.subscribe();
        let delay = faults.borrow().delay;
        takes(delay).await;
        // The sender lives as long as the server.
        drop(faults.wait_for(|faults| !faults.held).await);
        match mishap {
            Some(Mishap::Refused(code)) => Err(Failure::new(code, "as the test asked")),
            Some(Mishap::Swallowed) => std::future::pending().await,
            Some(Mishap::Late(pause)) => {
                let reply = self.perform(ask, view, target);
                self.late.fetch_add(1, Ordering::SeqCst);
                takes(pause).await;
                self.late.fetch_sub(1, Ordering::SeqCst);
                reply
            }
            None => self.perform(ask, view, target),
        }
    }

    fn mishap_of(&self, seen: &Seen) -> Option<Mishap> {
        let mut failing = self.failing.lock().unwrap();
        failing.retain(|failing| failing.left > 0);
        let found = failing.iter_mut().find(|failing| (failing.which)(seen))?;
        found.left -= 1;
        Some(found.mishap)
    }

    /// Carries a request of the test itself out: whatever is wrong with the server, and unseen.
    pub(crate) fn ask(self: &Arc<Self>, ask: &Ask<'_>) -> (u16, Bytes) {
        match self.perform(ask, View::Whole, self.target(ask.path)) {
            Ok(Reply::Whole(code, json)) => (code, json),
            Ok(Reply::Watch(_)) => panic!("a watch needs a connection"),
            Err(failure) => (failure.code, failure.status().to_string().into()),
        }
    }

    fn target(&self, path: &str) -> Result<Target, Failure> {
        let store = self.store.lock().unwrap();
        Target::parse(path, |group, version, plural| {
            store.kind(group, version, plural)
        })
    }

    fn perform(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        view: View,
        target: Result<Target, Failure>,
    ) -> Result<Reply, Failure> {
        let store = || self.store.lock().unwrap();
        if ask.method == "GET"
            && let Some(page) = discovery::page(ask.path, &store())
        {
            return Ok(Reply::Whole(200, page.to_string().into()));
        }
        let target = target?;
        let query = Query::parse(ask.query);
        if ask.method == "GET" {
            return self.read(&target, &query, view);
        }
        let outcome = write(&mut store(), ask, &target, &query)?;
        self.changed.send_replace(store().version());
        let code = if matches!(outcome, Outcome::Created(_)) {
            201
        } else {
            200
        };
        let json = match &outcome {
            Outcome::Deleted(record) if ask.method == "DELETE" => {
                let object = record.object();
                deleted(&target.kind, &object["metadata"])
                    .to_string()
                    .into()
            }
            outcome => view.one(outcome.record().json()),
        };
        Ok(Reply::Whole(code, json))
    }

    fn read(
        self: &Arc<Self>,
        target: &Target,
        query: &Query,
        view: View,
    ) -> Result<Reply, Failure> {
        let fields = match &target.name {
            Some(name) => format!("metadata.name={name},{}", query.text("fieldSelector")),
            None => query.text("fieldSelector").to_owned(),
        };
        let labels = query.text("labelSelector");
        let selection = Selection::parse(target.namespace.as_deref(), labels, &fields)?;
        if query.is_set("watch") {
            let watch = Watch::open(self, target, query, selection, view)?;
            return Ok(Reply::Watch(Box::new(watch)));
        }
        let store = self.store.lock().unwrap();
        if target.name.is_some() {
            let record = store.get(&target.kind, &key(target)?)?;
            return Ok(Reply::Whole(200, view.one(record.json())));
        }
        let asked = query.number("resourceVersion")?;
        if asked > store.version() {
            return Err(Failure::new(
                504,
                format!(
                    "Too large resource version: {asked}, current: {}",
                    store.version()
                ),
            ));
        }
        if query.text("resourceVersionMatch") == "Exact" && asked != store.version() {
            return Err(Failure::gone(asked, store.version()));
        }
        let start = match query.text("continue") {
            "" => None,
            token => Some(
                continued(token).ok_or_else(|| Failure::new(400, "continue key is not valid"))?,
            ),
        };
        let limit = usize::try_from(query.number("limit")?).unwrap();
        let page = store.list(&target.kind, &selection, limit, start)?;
        let whole = labels.is_empty() && fields.is_empty();
        Ok(Reply::Whole(200, view.list(&target.kind, &page, whole)))
    }
}

fn key(target: &Target) -> Result<Key, Failure> {
    let name = target.name.as_deref().ok_or_else(|| not_allowed(target))?;
    let namespace = target.namespace.as_deref().unwrap_or_default();
    Ok((namespace.into(), name.into()))
}

fn not_allowed(target: &Target) -> Failure {
    let resource = target.resource();
    Failure::new(
        405,
        format!("the server does not allow this method on {resource}"),
    )
}

fn write(
    store: &mut Store,
    ask: &Ask<'_>,
    target: &Target,
    query: &Query,
) -> Result<Outcome, Failure> {
    if !query.text("dryRun").is_empty() {
        return Err(Failure::new(400, "this server knows no dry runs"));
    }
    let kind = &target.kind;
    match (ask.method, target.part) {
        ("POST", Part::Main) if target.name.is_none() => {
            if kind.namespaced && target.namespace.is_none() {
                return Err(not_allowed(target));
            }
            let namespace = target.namespace.as_deref().unwrap_or_default();
            store.create(kind, namespace, parse(&ask.body)?)
        }
        ("PUT", part) => {
            let object = parse(&ask.body)?;
            store.update(kind, &key(target)?, part, |_| Ok(object))
        }
        ("PATCH", _) => patch(store, ask, target, query),
        ("DELETE", Part::Main) => {
            let options = if ask.body.is_empty() {
                Value::Null
            } else {
                parse(&ask.body)?
            };
            store.delete(kind, &key(target)?, &options["preconditions"])
        }
        _ => Err(not_allowed(target)),
    }
}

/// Merge patches (RFC 7396), JSON patches (RFC 6902), and server-side apply, which is taken for a
/// merge patch that creates what is not there: no field has an owner.
fn patch(
    store: &mut Store,
    ask: &Ask<'_>,
    target: &Target,
    query: &Query,
) -> Result<Outcome, Failure> {
    let (kind, key) = (&target.kind, key(target)?);
    let changes = parse(&ask.body)?;
    let merge = |old: &Value| {
        let mut object = old.clone();
        json_patch::merge(&mut object, &changes);
        Ok(object)
    };
    match ask.content_type {
        "application/merge-patch+json" => store.update(kind, &key, target.part, merge),
        "application/apply-patch+yaml" => {
            if query.text("fieldManager").is_empty() {
                let why = "fieldManager: Required value: is required for apply patch";
                return Err(Failure::invalid(kind, &key.1, why));
            }
            if target.part == Part::Main && store.get(kind, &key).is_err() {
                let mut object = changes;
                object["metadata"]["name"] = (*key.1).into();
                return store.create(kind, &key.0, object);
            }
            store.update(kind, &key, target.part, merge)
        }
        "application/json-patch+json" => store.update(kind, &key, target.part, |old| {
            let mut object = old.clone();
            let patch: json_patch::Patch = serde_json::from_value(changes)
                .map_err(|error| Failure::new(400, error.to_string()))?;
            json_patch::patch(&mut object, &patch)
                .map_err(|error| Failure::invalid(kind, &key.1, &error.to_string()))?;
            Ok(object)
        }),
        other => {
            let message = format!("patches of type {other:?} are not served");
            Err(Failure::new(415, message))
        }
    }
}

fn parse(body: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure::new(400, error.to_string()))
}

fn deleted(kind: &Kind, metadata: &Value) -> Value {
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {
            "name": metadata["name"],
            "group": kind.group,
            "kind": kind.plural,
            "uid": metadata["uid"],
        },
    })
}

//! Watching one kind of object: everything there is, then every change, through loss of the API
//! server and of history.

use std::collections::HashSet;
use std::fmt::Debug;
use std::ops::ControlFlow;
use std::pin::pin;

use futures_util::StreamExt;
use kube::Api;
use kube::core::Status;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::state::{Kind, Object};
use crate::revision::Key;

/// Objects of a list that come in one answer.
const PAGE: u32 = 500;
/// So long an API server keeps a watch before it ends it, in seconds. One that says nothing for
/// longer is taken for dead: a network may lose its end.
pub(super) const WATCH_SECONDS: u32 = 40;
/// From this version on an API server streams lists; older ones would never say where they end.
const STREAMS_SINCE: (u32, u32) = (1, 32);

/// What a watch tells.
#[derive(Debug)]
pub(super) enum Event {
    Put(Object),
    Gone(Kind, Key),
    /// All objects of a kind have been told, and these are their names.
    Listed(Kind, HashSet<Key>),
    /// It does not go on for now; what was told still holds.
    Trouble(Kind, String),
    /// The API server knows no such kind, or does not let us see it. Told again and again.
    Denied(Kind, String),
}

/// How to watch one kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub(super) labels: Option<&'static str>,
    pub(super) fields: Option<&'static str>,
    /// Whether the API server can stream what there is; if it refuses, that is listed.
    pub(super) streams: bool,
}

/// Whether an API server of this version streams lists.
pub(super) fn streams(major: &str, minor: &str) -> bool {
    let number = |text: &str| -> Option<u32> {
        // Some providers append a sign.
        text.trim_end_matches(|c: char| !c.is_ascii_digit())
            .parse()
            .ok()
    };
    number(major)
        .zip(number(minor))
        .is_some_and(|version| version >= STREAMS_SINCE)
}

/// Tells everything that happens until nobody listens any more.
pub(super) async fn watch<K>(
    api: Api<K>,
    kind: Kind,
    mut plan: Plan,
    object: fn(Box<K>) -> Object,
    events: mpsc::Sender<Event>,
) where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut backoff = DefaultBackoff::default();
    loop {
        let config = plan.config();
        let mut teller = Teller {
            kind,
            object,
            events: &events,
            listed: HashSet::new(),
        };
        let mut stream = pin!(watcher::watcher(api.clone(), config));
        // A stream that is over, which it never is, begins anew.
        while let Some(event) = stream.next().await {
            let error = match event {
                Ok(event) => {
                    if is_progress(&event) {
                        backoff.reset();
                    }
                    match teller.tell(event).await {
                        ControlFlow::Continue(()) => continue,
                        ControlFlow::Break(()) => return,
                    }
                }
                Err(error) => error,
            };
            if plan.streams && is_refused(&error) {
                tracing::info!(?kind, "the API server does not stream lists");
                plan.streams = false;
                break;
            }
            if plan.selects() && is_refused(&error) {
                tracing::info!(
                    ?kind,
                    "the API server does not choose objects for us: all are read"
                );
                (plan.labels, plan.fields) = (None, None);
                break;
            }
            if teller.trouble(&error).await.is_break() {
                return;
            }
            tokio::time::sleep(backoff.next().unwrap_or_default()).await;
            // The watcher would go on from where history has been lost.
            if code_of(&error) == Some(GONE) {
                break;
            }
        }
    }
}

impl Plan {
    /// Whether only some objects are asked for. Others do no harm.
    fn selects(&self) -> bool {
        self.labels.is_some() || self.fields.is_some()
    }

    fn config(&self) -> watcher::Config {
        let mut config = watcher::Config::default()
            .page_size(PAGE)
            .timeout(WATCH_SECONDS);
        if let Some(labels) = self.labels {
            config = config.labels(labels);
        }
        if let Some(fields) = self.fields {
            config = config.fields(fields);
        }
        match self.streams {
            true => config.streaming_lists(),
            false => config,
        }
    }
}

const GONE: u16 = 410;
const NOT_FOUND: u16 = 404;

const FORBIDDEN: u16 = 403;

/// Whether the API server does what it is asked: that a list begins says nothing of it, since that is
/// told before anything has been asked, and one that never ends is to be asked for less often.
fn is_progress<K>(event: &watcher::Event<K>) -> bool {
    match event {
        watcher::Event::Init | watcher::Event::InitApply(_) => false,
        watcher::Event::InitDone | watcher::Event::Apply(_) | watcher::Event::Delete(_) => true,
    }
}

/// What the API server has answered.
fn status_of(error: &watcher::Error) -> Option<&Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    }
}

fn code_of(error: &watcher::Error) -> Option<u16> {
    status_of(error).map(|status| status.code)
}

/// Whether what was asked is not understood.
fn is_refused(error: &watcher::Error) -> bool {
    matches!(
        error,
        watcher::Error::InitialListFailed(_) | watcher::Error::WatchStartFailed(_)
    ) && matches!(code_of(error), Some(400 | 422))
}

struct Teller<'a, K> {
    kind: Kind,
    object: fn(Box<K>) -> Object,
    events: &'a mpsc::Sender<Event>,
    /// The names of the list that is being read.
    listed: HashSet<Key>,
}

impl<K: kube::Resource> Teller<'_, K> {
    /// Breaks when nobody listens.
    async fn tell(&mut self, event: watcher::Event<K>) -> ControlFlow<()> {
        let event = match event {
            watcher::Event::Init => {
                self.listed.clear();
                return ControlFlow::Continue(());
            }
            watcher::Event::InitApply(object) => {
                self.listed.insert(key_of(&object));
                Event::Put((self.object)(Box::new(object)))
            }
            watcher::Event::InitDone => Event::Listed(self.kind, std::mem::take(&mut self.listed)),
            watcher::Event::Apply(object) => Event::Put((self.object)(Box::new(object))),
            watcher::Event::Delete(object) => Event::Gone(self.kind, key_of(&object)),
        };
        self.send(event).await
    }

    async fn trouble(&mut self, error: &watcher::Error) -> ControlFlow<()> {
        let event = match (error, code_of(error)) {
            (
                watcher::Error::InitialListFailed(_) | watcher::Error::WatchStartFailed(_),
                Some(NOT_FOUND | FORBIDDEN),
            ) => Event::Denied(self.kind, told(error)),
            _ => Event::Trouble(self.kind, told(error)),
        };
        self.send(event).await
    }

    async fn send(&self, event: Event) -> ControlFlow<()> {
        match self.events.send(event).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

/// What is wrong with a watch, in one line.
fn told(error: &watcher::Error) -> String {
    match status_of(error) {
        // Its own text says everything twice.
        Some(status) => format!("{} {}: {}", status.code, status.reason, status.message),
        None => text_of(error),
    }
}

/// An error and its causes, in one line.
pub(super) fn text_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

fn key_of<K: kube::Resource>(object: &K) -> Key {
    let metadata = object.meta();
    Key {
        namespace: metadata.namespace.as_deref().unwrap_or_default().into(),
        name: metadata.name.as_deref().unwrap_or_default().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use hyper::{Request, Response};
    use k8s_openapi::api::core::v1::Service;
    use kube::client::Body;

    use super::*;

    #[test]
    fn only_servers_that_say_where_a_streamed_list_ends_are_asked_for_one() {
        assert!(streams("1", "35"));
        assert!(streams("1", "32+"));
        assert!(!streams("1", "31"));
        assert!(!streams("", ""));
        assert!(!streams("1", "new"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_lists_nothing_is_asked_less_and_less_often() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let server = tower::service_fn(move |_: Request<Body>| {
            count.fetch_add(1, Ordering::Relaxed);
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR;
            async { Ok::<_, Infallible>(answer) }
        });
        let api = Api::<Service>::all(kube::Client::new(server, "default"));
        let (sender, mut events) = mpsc::channel(8);
        let object = |service| Object::Service(service);
        let watching = watch(api, Kind::Service, Plan::default(), object, sender);
        let listening = async { while events.recv().await.is_some() {} };
        let ten_minutes = tokio::time::sleep(Duration::from_secs(600));
        tokio::select! {
            () = watching => panic!("it ended"),
            () = listening => panic!("it ended"),
            () = ten_minutes => {}
        }
        // Two a minute at last, and some more before.
        let asked = asked.load(Ordering::Relaxed);
        assert!((10..60).contains(&asked), "{asked} times");
    }
}

//! One open watch: what it has still to tell, as lines of JSON.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::failure::Failure;
use super::faults::Faults;
use super::record::Record;
use super::selector::Selection;
use super::server::Server;
use super::store::Change;
use super::target::{Query, Target};
use super::view::View;
use crate::body::Body;
use crate::kubernetes::Kind;
use crate::wait::takes;

/// What is sent at once, about.
const CHUNK: usize = 64 << 10;

/// How many changes are looked at under one lock.
const BATCH: usize = 256;

/// How long a watch lasts that does not say: what a real server does at least.
const DEFAULT_TIMEOUT: u64 = 1800;

pub(super) struct Watch {
    server: Arc<Server>,
    kind: Kind,
    selection: Selection,
    view: View,
    bookmarks: bool,
    initial: VecDeque<Arc<Record>>,
    /// Whether the end of what is there already is to be said.
    says_end: bool,
    /// The newest version that was told, or need not be.
    cursor: u64,
    deadline: Instant,
    changed: watch::Receiver<u64>,
    faults: watch::Receiver<Faults>,
    /// How many bookmarks and expiries had been asked for, when they were looked at last.
    marked: (u64, u64),
    /// What is said before it ends.
    last: Option<Bytes>,
    over: bool,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({}, {})", self.kind.plural, self.cursor)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.server.watches.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Watch {
    pub(super) fn open(
        server: &Arc<Server>,
        target: &Target,
        query: &Query,
        selection: Selection,
        view: View,
    ) -> Result<Watch, Failure> {
        let faults = server.faults.subscribe();
        let now = faults.borrow().clone();
        let streaming = streaming(query, now.old, &target.kind)?;
        let version = query.number("resourceVersion")?;
        let timeout = match query.number("timeoutSeconds")? {
            0 => DEFAULT_TIMEOUT,
            seconds => seconds,
        };
        let store = server.store.lock().unwrap();
        let (mut initial, mut cursor, mut last) = (VecDeque::new(), version, None);
        if streaming || version == 0 {
            cursor = store.version();
            initial = store
                .list(&target.kind, &selection, 0, None)?
                .records
                .into();
        } else if let Err(failure) = store.reaches(&target.kind, version) {
            // As a real server has it: an answer of 200 with one event.
            last = Some(error(&failure));
        }
        server.watches.fetch_add(1, Ordering::SeqCst);
        let bookmarks = query.is_set("allowWatchBookmarks");
        Ok(Watch {
            server: server.clone(),
            kind: target.kind,
            selection,
            view,
            bookmarks,
            initial,
            says_end: streaming && bookmarks,
            cursor,
            deadline: Instant::now() + Duration::from_secs(timeout),
            changed: server.changed.subscribe(),
            faults,
            marked: (now.bookmarks, now.expiries),
            over: last.is_some(),
            last,
        })
    }

    pub(super) fn into_body(self) -> Body {
        let frames = stream::unfold(self, |mut watch| async move {
            let lines = watch.next().await?;
            Some((Ok(Frame::data(lines)), watch))
        });
        StreamBody::new(frames).boxed_unsync()
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.over {
                return self.last.take();
            }
            let faults = self.faults.borrow_and_update().clone();
            self.changed.borrow_and_update();
            if !faults.silent {
                let limit = if faults.pace.is_zero() { BATCH } else { 1 };
                if let Some(lines) = self.due(&faults, limit) {
                    takes(faults.pace).await;
                    return Some(lines);
                }
            }
            tokio::select! {
                () = sleep_until(self.deadline) => {
                    self.over = true;
                    self.last = self.bookmarks.then(|| self.bookmark(false));
                }
                Ok(()) = self.changed.changed() => {}
                Ok(()) = self.faults.changed() => {}
            }
        }
    }

    /// What can be told now: `None` when there is nothing.
    fn due(&mut self, faults: &Faults, limit: usize) -> Option<Bytes> {
        if faults.expiries != self.marked.1 {
            self.over = true;
            return Some(error(&Failure::gone(self.cursor, self.cursor + 1)));
        }
        let mut lines = Vec::new();
        for _ in 0..limit {
            if lines.len() >= CHUNK {
                break;
            }
            let Some(record) = self.initial.pop_front() else {
                break;
            };
            event(&mut lines, "ADDED", &self.view.one(record.json()));
        }
        if lines.is_empty() && std::mem::take(&mut self.says_end) {
            return Some(self.bookmark(true));
        }
        while lines.is_empty() && self.tell_changes(&mut lines, limit) {}
        if lines.is_empty() && faults.bookmarks != self.marked.0 {
            self.marked.0 = faults.bookmarks;
            return self.bookmarks.then(|| self.bookmark(false));
        }
        (!lines.is_empty()).then(|| lines.into())
    }

    /// Whether there were any, of interest or not.
    fn tell_changes(&mut self, lines: &mut Vec<u8>, limit: usize) -> bool {
        let store = self.server.store.lock().unwrap();
        let changes = match store.since(&self.kind, self.cursor, limit) {
            Ok(changes) => changes,
            Err(failure) => {
                self.over = true;
                lines.extend_from_slice(&error(&failure));
                return false;
            }
        };
        let newest = changes.last().map(|change| change.after.version);
        self.cursor = newest.unwrap_or_else(|| self.cursor.max(store.version()));
        drop(store);
        for change in &changes {
            self.tell(lines, change);
        }
        newest.is_some()
    }

    fn tell(&self, lines: &mut Vec<u8>, change: &Change) {
        let before = change
            .before
            .as_ref()
            .filter(|record| self.selection.matches(record));
        let after =
            Some(&change.after).filter(|record| !change.deleted && self.selection.matches(record));
        match (before, after) {
            (None, None) => {}
            (None, Some(after)) => event(lines, "ADDED", &self.view.one(after.json())),
            (Some(_), Some(after)) => event(lines, "MODIFIED", &self.view.one(after.json())),
            (Some(_), None) if change.deleted => {
                event(lines, "DELETED", &self.view.one(change.after.json()));
            }
            // It lives on, but not for this one: its last state here, with the version of now.
            (Some(before), None) => {
                let gone = Record::new(&self.kind, change.after.version, before.object());
                event(lines, "DELETED", &self.view.one(gone.json()));
            }
        }
    }

    fn bookmark(&self, end: bool) -> Bytes {
        let mut metadata = json!({
            "resourceVersion": self.cursor.to_string(),
            "creationTimestamp": null,
        });
        if end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = json!({
            "kind": self.kind.name,
            "apiVersion": self.kind.api_version(),
            "metadata": metadata,
        });
        let mut line = Vec::new();
        event(&mut line, "BOOKMARK", object.to_string().as_bytes());
        line.into()
    }
}

/// Whether a watch is to begin with what is there, and to say where that ends.
fn streaming(query: &Query, old: bool, kind: &Kind) -> Result<bool, Failure> {
    let how = query.text("resourceVersionMatch");
    if query.text("sendInitialEvents").is_empty() {
        if !how.is_empty() {
            let why = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch \
                       unless sendInitialEvents is provided";
            return Err(Failure::invalid(kind, "", why));
        }
        return Ok(false);
    }
    if old {
        let why = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless \
                   the WatchList feature gate is enabled";
        return Err(Failure::invalid(kind, "", why));
    }
    if how != "NotOlderThan" {
        let why = "resourceVersionMatch: Forbidden: sendInitialEvents requires setting \
                   resourceVersionMatch to NotOlderThan";
        return Err(Failure::invalid(kind, "", why));
    }
    Ok(query.is_set("sendInitialEvents"))
}

fn error(failure: &Failure) -> Bytes {
    let mut line = Vec::new();
    event(&mut line, "ERROR", failure.status().to_string().as_bytes());
    line.into()
}

fn event(lines: &mut Vec<u8>, kind: &str, object: &[u8]) {
    lines.extend_from_slice(br#"{"type":""#);
    lines.extend_from_slice(kind.as_bytes());
    lines.extend_from_slice(br#"","object":"#);
    lines.extend_from_slice(object);
    lines.extend_from_slice(b"}\n");
}

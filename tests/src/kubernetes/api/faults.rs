//! What a test makes go wrong, and what it has seen.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::target::Target;

/// One request, as it came; the test's own are not among them.
#[derive(Clone, Debug)]
pub struct Seen {
    /// As RBAC calls it: `get`, `list`, `watch`, `create`, `update`, `patch` or `delete`; `""` for
    /// what is about no objects.
    pub verb: &'static str,
    pub method: String,
    pub path: String,
    /// As it was sent, `""` without one.
    pub query: String,
    pub group: String,
    /// `ingresses`, `ingresses/status`: as RBAC calls it.
    pub resource: String,
    /// `""` for what is in none, and for lists of all.
    pub namespace: String,
    /// `""` for lists.
    pub name: String,
    /// `Null` without one, or when it is not JSON.
    pub body: Value,
}

impl Seen {
    pub(super) fn new(
        method: &str,
        path: &str,
        query: &str,
        target: Option<&Target>,
        body: &[u8],
    ) -> Seen {
        let mut seen = Seen {
            verb: "",
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            group: String::new(),
            resource: String::new(),
            namespace: String::new(),
            name: String::new(),
            body: serde_json::from_slice(body).unwrap_or_default(),
        };
        if let Some(target) = target {
            seen.verb = target.verb(method, query);
            target.kind.group.clone_into(&mut seen.group);
            seen.resource = target.resource();
            seen.namespace = target.namespace.clone().unwrap_or_default();
            seen.name = target.name.clone().unwrap_or_default();
        }
        seen
    }

    /// Whether it was to change something.
    #[must_use]
    pub fn writes(&self) -> bool {
        matches!(self.verb, "create" | "update" | "patch" | "delete")
    }
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mishap {
    /// It is refused with that code.
    Refused(u16),
    /// It is read, and there is never an answer, while its connection stands.
    Swallowed,
    /// It is carried out, and the answer comes that much later.
    Late(Duration),
}

/// Requests that something happens to.
pub(super) struct Failing {
    pub(super) left: usize,
    pub(super) mishap: Mishap,
    pub(super) which: Box<dyn Fn(&Seen) -> bool + Send>,
}

impl fmt::Debug for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Failing({} are {:?})", self.left, self.mishap)
    }
}

/// What is wrong now, and how often something was asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// Before each answer.
    pub(super) delay: Duration,
    /// Nothing is answered.
    pub(super) held: bool,
    /// Watches tell nothing.
    pub(super) silent: bool,
    /// Before each event of a watch.
    pub(super) pace: Duration,
    /// Streaming lists are refused.
    pub(super) old: bool,
    /// How often all watches were to send a bookmark.
    pub(super) bookmarks: u64,
    /// How often all watches were to end because their version is too old.
    pub(super) expiries: u64,
}

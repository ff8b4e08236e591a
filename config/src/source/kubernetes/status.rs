//! The status of an ingress, as Knative's controllers read it: what is said, and when a change of
//! it is worth a write.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What we say of an ingress, computed anew each time from what was said before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    pub(super) observed_generation: i64,
    /// Sorted by type.
    pub(super) conditions: Vec<Condition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) public_load_balancer: Option<LoadBalancer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) private_load_balancer: Option<LoadBalancer>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// `True`, `False` or `Unknown`.
    pub(super) status: String,
    /// RFC 3339.
    pub(super) last_transition_time: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) severity: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct LoadBalancer {
    pub(super) ingress: Vec<Entry>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Entry {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) ip: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) domain: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) domain_internal: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) mesh_only: bool,
}

/// The names under which the cluster reaches us. Knative refuses more than one for each list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Balancers {
    pub(super) public: Box<str>,
    pub(super) private: Box<str>,
}

/// Where an ingress stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Every replica serves it.
    Ready,
    /// It cannot be served yet: what is missing.
    NotYet(Arc<str>),
    /// We serve it; other replicas may not.
    Asking,
    /// Another ingress has one of its hosts.
    Conflict,
    /// A file has one of its hosts: files win.
    Overruled,
    /// It cannot be served as it is written.
    Failed(Arc<str>),
    /// It is another gateway's from now on: what we served of it we serve until that one does, and
    /// nothing is said of it by us.
    HandedOver,
}

const READY: &str = "Ready";
const CONFIGURED: &str = "NetworkConfigured";
const BALANCER: &str = "LoadBalancerReady";
/// Those that `Ready` is derived from.
const DEPENDENTS: [&str; 2] = [BALANCER, CONFIGURED];

const TRUE: &str = "True";
const FALSE: &str = "False";
const UNKNOWN: &str = "Unknown";

const WAITING: &str = "Waiting for load balancer to be ready";
const CONFLICT: &str = "DomainConflict";
const CONFLICT_MESSAGE: &str =
    "Ingress rejected: ingress has a conflicting domain with another ingress";
const OVERRULED_MESSAGE: &str =
    "Ingress rejected: ingress has a conflicting domain with a file of the gateway";

impl Status {
    /// What is to be said of an ingress of this generation, after `self` has been said; `now` is
    /// the time of what changes by that (RFC 3339).
    pub(super) fn after(
        &self,
        generation: i64,
        standing: &Standing,
        balancers: &Balancers,
        now: &str,
    ) -> Status {
        let mut next = self.clone();
        next.conditions
            .retain(|condition| KINDS.contains(&&*condition.kind));
        let mut marks = Marks {
            status: &mut next,
            now,
        };
        marks.initialise();
        match standing {
            Standing::Ready => {
                marks.set(CONFIGURED, TRUE, "", "");
                marks.set(BALANCER, TRUE, "", "");
                marks.set(READY, TRUE, "", "");
                next.public_load_balancer = Some(LoadBalancer::of(&balancers.public));
                next.private_load_balancer = Some(LoadBalancer::of(&balancers.private));
            }
            Standing::Asking => marks.unready(WAITING),
            Standing::NotYet(missing) => marks.unready(&format!("{WAITING}: {missing}")),
            Standing::Conflict | Standing::Overruled => {
                let message = match standing {
                    Standing::Overruled => OVERRULED_MESSAGE,
                    _ => CONFLICT_MESSAGE,
                };
                marks.set(BALANCER, FALSE, CONFLICT, message);
                marks.set(READY, FALSE, CONFLICT, message);
            }
            Standing::Failed(error) => marks.failed(error),
            Standing::HandedOver => return self.clone(),
        }
        next.observed_generation = generation;
        next.conditions.sort_by(|a, b| a.kind.cmp(&b.kind));
        next
    }

    /// Whether it says that this generation is served, and under our names.
    pub(super) fn is_ready(&self, generation: i64, balancers: &Balancers) -> bool {
        let names = |at: &Option<LoadBalancer>, name| *at == Some(LoadBalancer::of(name));
        self.observed_generation == generation
            && KINDS
                .iter()
                .all(|kind| self.condition(kind).is_some_and(|c| c.status == TRUE))
            && names(&self.public_load_balancer, &balancers.public)
            && names(&self.private_load_balancer, &balancers.private)
    }

    /// Whether it says that this generation is served, and under others' names.
    pub(super) fn is_ready_elsewhere(&self, generation: i64, balancers: &Balancers) -> bool {
        let ready = self.condition(READY).is_some_and(|c| c.status == TRUE);
        let at = self.public_load_balancer.iter();
        let mut at = at.flat_map(|balancer| &balancer.ingress).peekable();
        let names_others =
            at.peek().is_some() && at.all(|entry| *entry.domain_internal != *balancers.public);
        self.observed_generation == generation && ready && names_others
    }

    /// Whether it says that another ingress has one of its hosts.
    pub(super) fn is_conflict(&self) -> bool {
        self.condition(BALANCER)
            .is_some_and(|condition| condition.reason == CONFLICT)
    }

    fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions
            .iter()
            .find(|condition| condition.kind == kind)
    }
}

/// All conditions of an ingress.
const KINDS: [&str; 3] = [BALANCER, CONFIGURED, READY];

impl LoadBalancer {
    fn of(name: &str) -> LoadBalancer {
        let entry = Entry {
            domain_internal: name.to_owned(),
            ..Entry::default()
        };
        LoadBalancer {
            ingress: vec![entry],
        }
    }
}

/// Changes conditions; the time of one moves only when something else of it does.
struct Marks<'a> {
    status: &'a mut Status,
    now: &'a str,
}

impl Marks<'_> {
    fn initialise(&mut self) {
        for kind in KINDS {
            if self.status.condition(kind).is_none() {
                self.set(kind, UNKNOWN, "", "");
            }
        }
    }

    fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let new = Condition {
            kind: kind.to_owned(),
            status: status.to_owned(),
            last_transition_time: self.now.to_owned(),
            severity: String::new(),
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        let conditions = &mut self.status.conditions;
        let Some(old) = conditions
            .iter_mut()
            .find(|condition| condition.kind == kind)
        else {
            conditions.push(new);
            return;
        };
        let time = std::mem::take(&mut old.last_transition_time);
        let same = Condition {
            last_transition_time: String::new(),
            ..new.clone()
        } == *old;
        *old = match same && !time.is_empty() {
            true => Condition {
                last_transition_time: time,
                ..new
            },
            false => new,
        };
    }

    fn unready(&mut self, message: &str) {
        self.set(CONFIGURED, TRUE, "", "");
        self.set(BALANCER, UNKNOWN, "Uninitialized", message);
        self.set(READY, UNKNOWN, "Uninitialized", message);
    }

    /// Leaves the others as they are; one of them that is `False` counts for more.
    fn failed(&mut self, error: &str) {
        let any_false = DEPENDENTS.iter().any(|kind| {
            self.status
                .condition(kind)
                .is_some_and(|condition| condition.status == FALSE)
        });
        let status = if any_false { FALSE } else { UNKNOWN };
        self.set(READY, status, "ReconcileIngressFailed", error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balancers() -> Balancers {
        Balancers {
            public: "public.svc".into(),
            private: "private.svc".into(),
        }
    }

    fn after(before: &Status, standing: &Standing, now: &str) -> Status {
        before.after(3, standing, &balancers(), now)
    }

    /// Each condition as `TYPE STATUS REASON @TIME`.
    fn shown(status: &Status) -> Vec<String> {
        let shown = |c: &Condition| {
            format!(
                "{} {} {} @{}",
                c.kind, c.status, c.reason, c.last_transition_time
            )
        };
        status.conditions.iter().map(shown).collect()
    }

    #[test]
    fn a_new_ingress_is_asked_about_and_then_ready() {
        let asking = after(&Status::default(), &Standing::Asking, "t1");
        let expected = [
            "LoadBalancerReady Unknown Uninitialized @t1",
            "NetworkConfigured True  @t1",
            "Ready Unknown Uninitialized @t1",
        ];
        assert_eq!(shown(&asking), expected);
        assert_eq!(asking.conditions[0].message, WAITING);
        assert_eq!(asking.public_load_balancer, None);
        let ready = after(&asking, &Standing::Ready, "t2");
        let expected = [
            "LoadBalancerReady True  @t2",
            "NetworkConfigured True  @t1",
            "Ready True  @t2",
        ];
        assert_eq!(shown(&ready), expected);
        assert_eq!(
            ready.private_load_balancer,
            Some(LoadBalancer::of("private.svc"))
        );
        assert!(ready.is_ready(3, &balancers()) && !ready.is_ready(4, &balancers()));
    }

    #[test]
    fn what_has_not_changed_keeps_its_time_and_needs_no_write() {
        let ready = after(&Status::default(), &Standing::Ready, "t1");
        assert_eq!(after(&ready, &Standing::Ready, "t2"), ready);
        let other = Balancers {
            public: "kourier".into(),
            ..balancers()
        };
        assert!(!ready.is_ready(3, &other), "other names have to be written");
    }

    #[test]
    fn a_conflict_is_false_and_keeps_whether_the_network_was_configured() {
        let fresh = after(&Status::default(), &Standing::Conflict, "t1");
        let expected = [
            "LoadBalancerReady False DomainConflict @t1",
            "NetworkConfigured Unknown  @t1",
            "Ready False DomainConflict @t1",
        ];
        assert_eq!(shown(&fresh), expected);
        assert_eq!(fresh.conditions[2].message, CONFLICT_MESSAGE);
        let ready = after(&Status::default(), &Standing::Ready, "t1");
        let conflict = after(&ready, &Standing::Conflict, "t2");
        assert_eq!(shown(&conflict)[1], "NetworkConfigured True  @t1");
        assert!(conflict.is_conflict() && !ready.is_conflict());
        let ready = after(&conflict, &Standing::Ready, "t3");
        assert_eq!(
            ready.conditions[0].message, "",
            "nothing is left of the conflict"
        );
    }

    #[test]
    fn a_failure_touches_ready_alone() {
        let ready = after(&Status::default(), &Standing::Ready, "t1");
        let failed = after(&ready, &Standing::Failed("no such thing".into()), "t2");
        let expected = [
            "LoadBalancerReady True  @t1",
            "NetworkConfigured True  @t1",
            "Ready Unknown ReconcileIngressFailed @t2",
        ];
        assert_eq!(shown(&failed), expected);
        let conflict = after(&ready, &Standing::Conflict, "t2");
        let failed = after(&conflict, &Standing::Failed("no such thing".into()), "t3");
        assert_eq!(shown(&failed)[2], "Ready False ReconcileIngressFailed @t3");
    }

    #[test]
    fn what_is_missing_is_named() {
        let status = after(
            &Status::default(),
            &Standing::NotYet("service a/b is missing".into()),
            "t1",
        );
        let message = "Waiting for load balancer to be ready: service a/b is missing";
        assert_eq!(status.conditions[2].message, message);
    }

    #[test]
    fn only_what_says_something_is_written() {
        let asking = after(&Status::default(), &Standing::Asking, "t1");
        let json = serde_json::to_value(&asking).expect("JSON");
        let configured = serde_json::json!({
            "type": "NetworkConfigured", "status": "True", "lastTransitionTime": "t1",
        });
        assert_eq!(json["conditions"][1], configured);
        assert!(json.get("publicLoadBalancer").is_none());
        assert_eq!(json["observedGeneration"], 3);
    }
}

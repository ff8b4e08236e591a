//! What parts of Knative ask a gateway and an activator, and what they tell each other in header
//! fields: probes, the hash of a specification, revisions by name, marks for the queue-proxy.

use activator::admission::{EndpointState, Slot, Throttle};
use config::revision::{Backend, Knative, Revision};
use config::route::Fields;
use config::settings::Audience;
use config::snapshot::Target;

use super::Exchange;
use crate::http::answer::Answer;
use crate::http::field::Name;
use crate::live::Routed;
use crate::refusal::Reason;
use crate::serve::drain::Phase;

const PROBE: &str = "k-network-probe";
const KUBELET_PROBE: &str = "k-kubelet-probe";
pub(super) const HASH: &str = "k-network-hash";
const NAMESPACE: &str = "knative-serving-namespace";
const REVISION: &str = "knative-serving-revision";
const ORIGINAL_HOST: &str = "k-original-host";
const PROXY_REQUEST: &str = "k-proxy-request";

/// What asks for the hash instead of bringing one.
const OVERRIDE: &[u8] = b"override";

/// Whom a queue-proxy takes for somebody who looks after its pod, whatever is asked: it answers in
/// place of the service, and 400 to who brings no `K-Network-Probe` (knative.dev/pkg,
/// `network/handlers/drain.go`).
const PROBERS: [&[u8]; 3] = [
    b"kube-probe/",
    b"Knative-Activator-Probe",
    b"Knative-Autoscaling-Probe",
];

/// Most bytes of a probe's value that an answer repeats.
const QUOTED_MAX: usize = 256;

const TEXT: &str = "text/plain; charset=utf-8";

impl Exchange<'_> {
    /// On a listener of the activator: the answer to who looks whether it is there, as the kubelet,
    /// the ingress's controller and the autoscaler do.
    pub(super) fn asked_as_activator(&self) -> Option<Answer> {
        if self.client.audience != Audience::Activator {
            return None;
        }
        let head = &self.request.head;
        let agent = head.first(Name::UserAgent).unwrap_or_default();
        let kubelet = Fields::first(head, KUBELET_PROBE).is_some_and(|value| !value.is_empty());
        if agent.starts_with(b"kube-probe/") || kubelet {
            return Some(match self.worker.phase.get() {
                Phase::Poised | Phase::Serving => self.say(200, ""),
                Phase::Announced | Phase::Closing | Phase::Ended => {
                    self.say(500, "received SIGTERM from kubelet\n")
                }
            });
        }
        self.component_probe()
    }

    /// Whether it is asked for the sake of asking: by a kubelet, or by a part of Knative.
    pub(super) fn is_probe(&self) -> bool {
        let head = &self.request.head;
        let agent = head.first(Name::UserAgent).unwrap_or_default();
        let says = |name| Fields::first(head, name).is_some_and(|value| !value.is_empty());
        agent.starts_with(b"kube-probe/") || says(KUBELET_PROBE) || says(PROBE)
    }

    /// An activator's answer to `K-Network-Probe`; `None` if that is not asked.
    fn component_probe(&self) -> Option<Answer> {
        let head = &self.request.head;
        let probe = Fields::first(head, PROBE).filter(|probe| !probe.is_empty())?;
        let hash = Fields::first(head, HASH).unwrap_or_default();
        Some(match probe {
            b"probe" if hash.is_empty() => {
                let text = "a probe request must contain a non-empty \"K-Network-Hash\" header\n";
                self.say(400, text)
            }
            b"probe" => self.hashed(hash),
            b"activator" => self.say(200, "activator"),
            other => {
                let quoted = escaped(&other[..other.len().min(QUOTED_MAX)]);
                self.say(400, &format!("unexpected probe header value: {quoted}\n"))
            }
        })
    }

    /// What a route of a cluster answers by itself: its hash, once everything it leads to can be
    /// reached, and probes that must not wake what they are not for. Puts the hash into requests
    /// that only want it to be passed on.
    pub(super) fn probed(&mut self, routed: &Routed) -> Option<Answer> {
        if !self.request.head.has(Name::Control) {
            return None;
        }
        let proxied = self.leads_to_proxied(routed);
        let head = &self.request.head;
        let probes = Fields::first(head, PROBE).is_some_and(|probe| !probe.is_empty());
        let asks = Fields::first(head, HASH) == Some(OVERRIDE);
        let first = self.rerouted.first().unwrap_or(routed).clone();
        match &first.route().network_hash {
            Some(hash) if asks && Fields::first(head, PROBE) == Some(b"probe") => {
                return Some(match self.is_reachable(routed) {
                    true => self.hashed(hash.as_bytes()),
                    false => self.say(503, "no endpoint yet\n"),
                });
            }
            Some(hash) if asks => self.passed_hash = Some(hash.clone()),
            _ => {}
        }
        if !proxied {
            return None;
        }
        match probes {
            true => self.component_probe(),
            false => {
                // As an activator: it would reach an application that it is not for.
                self.request.head.drop_named(HASH.as_bytes());
                None
            }
        }
    }

    /// Whether requests that go there count with us.
    fn leads_to_proxied(&self, routed: &Routed) -> bool {
        let target = routed.target();
        let revision = target.and_then(|target| self.worker.live.revision(target));
        revision
            .is_some_and(|local| is_knative(&local.revision) && local.gate.throttle().is_proxied())
    }

    /// Whether every target that requests may be drawn to has an endpoint, or somebody who brings one.
    fn is_reachable(&self, routed: &Routed) -> bool {
        let Some(split) = routed.route().split_of(routed.rule()) else {
            return true;
        };
        let reachable = |target: &Target| {
            let Some(local) = self.worker.live.revision(target) else {
                return false;
            };
            let throttle = local.gate.throttle();
            match &local.revision.backend {
                Backend::Fed(fed) if fed.knative.is_some() && throttle.is_proxied() => true,
                Backend::Process(_) => true,
                Backend::None | Backend::Fixed { .. } | Backend::Fed(_) => has_endpoint(throttle),
            }
        };
        let drawn = |target: &&Target| target.percent > 0;
        split.targets.iter().filter(drawn).all(reachable)
    }

    /// The revision that a request to an activator names: in its fields, or by its host.
    pub(super) fn named_revision(&mut self) -> Result<Routed, Reason> {
        let (namespace, name) = self.revision_names().ok_or(Reason::NoRoute)?;
        let live = &self.worker.live;
        live.named(namespace, name).ok_or(Reason::NoRoute)
    }

    /// Namespace and name, where they are given.
    fn revision_names(&self) -> Option<(&str, &str)> {
        let head = &self.request.head;
        let field = |name| Fields::first(head, name).filter(|value| !value.is_empty());
        let text = |bytes| std::str::from_utf8(bytes).ok();
        if let (Some(namespace), Some(name)) = (field(NAMESPACE), field(REVISION)) {
            return Some((text(namespace)?, text(name)?));
        }
        let host = text(super::edits::without_port(self.request.host()))?;
        let mut parts = host.splitn(4, '.');
        let (name, namespace, svc) = (parts.next()?, parts.next()?, parts.next()?);
        let domain = parts.next()?;
        let ours = &self.worker.shared.settings.cluster_domain;
        (svc == "svc" && domain == &**ours).then_some((namespace, name))
    }

    /// What an activator says where we refuse, if it says something else.
    pub(super) fn activator_says(&self, reason: Reason) -> Option<String> {
        if self.client.audience != Audience::Activator {
            return None;
        }
        Some(match reason {
            Reason::NoRoute => {
                let name = self.revision_names().map_or("", |(_, name)| name);
                let name = escaped(&name.as_bytes()[..name.len().min(QUOTED_MAX)]);
                format!(
                    "Error getting active endpoint: \
                     revision.serving.knative.dev \"{name}\" not found\n"
                )
            }
            Reason::QueueFull => "pending request queue full\n".to_owned(),
            Reason::StartTimeout => "activator request timeout".to_owned(),
            Reason::ResponseTimeout => "activator request timeout".to_owned(),
            _ => return None,
        })
    }

    /// Keeps a queue-proxy from taking the request for a probe of its pod: those do not come by way of
    /// us, and whoever calls itself so is served as everybody is.
    pub(super) fn unlike_probe(&mut self, revision: &Revision) {
        if !is_knative(revision) {
            return;
        }
        let head = &mut self.request.head;
        let agent = head.first(Name::UserAgent).unwrap_or_default();
        if PROBERS.iter().any(|prober| agent.starts_with(prober)) {
            head.drop_all(Name::UserAgent);
        }
        if head.has(Name::Control) {
            head.drop_named(KUBELET_PROBE.as_bytes());
        }
    }

    /// Tells the queue-proxy of this endpoint who counts the request, and keeps the host for it.
    pub(super) fn mark(&mut self, slot: &Slot) {
        if !slot.is_marked() {
            if self.seen.attempts > 1 {
                self.unmark();
            }
            return;
        }
        let head = &mut self.request.head;
        let host = match self.edits.host() {
            Some(host) => host.to_vec(),
            None => self.request.host.of(&head.bytes).to_vec(),
        };
        for name in [NAMESPACE, REVISION] {
            head.drop_named(name.as_bytes());
            self.edits.unset(name);
        }
        head.drop_named(PROXY_REQUEST.as_bytes());
        self.edits.set(PROXY_REQUEST, b"activator");
        let kept = head.passes(ORIGINAL_HOST.as_bytes()) || self.edits.has(ORIGINAL_HOST);
        if !kept {
            self.edits.set(ORIGINAL_HOST, &host);
        }
        self.edits.set_host(slot.address());
    }

    /// Takes the marks off again: whoever gets the request next may be none of Knative's.
    fn unmark(&mut self) {
        if self.edits.has(PROXY_REQUEST) {
            self.edits.unset(PROXY_REQUEST);
            self.edits.unset(ORIGINAL_HOST);
            self.edits.set_host("");
        }
    }

    fn hashed(&self, hash: &[u8]) -> Answer {
        let mut answer = self.say(200, "");
        answer.line(HASH, hash);
        answer
    }

    fn say(&self, status: u16, text: &str) -> Answer {
        let content_type = if text.is_empty() { "" } else { TEXT };
        let body = text.as_bytes().to_vec();
        self.worker
            .date(|date| Answer::new(status, content_type, body, date))
    }
}

/// Fields of Knative's own that even the public may send to a route of a cluster: whether a change is
/// live is asked from outside.
pub(super) fn is_for_everybody(name: &[u8]) -> bool {
    [PROBE, HASH]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

pub(super) fn is_knative(revision: &Revision) -> bool {
    labels(revision).is_some()
}

/// What Knative says of a revision, if it is one of Knative's.
pub(super) fn labels(revision: &Revision) -> Option<&Knative> {
    match &revision.backend {
        Backend::Fed(fed) => fed.knative.as_ref(),
        Backend::None | Backend::Fixed { .. } | Backend::Process(_) => None,
    }
}

fn has_endpoint(throttle: &Throttle) -> bool {
    let endpoints = throttle.endpoints();
    endpoints
        .iter()
        .any(|endpoint| endpoint.state != EndpointState::Draining)
}

/// Quoted, and harmless in a page.
fn escaped(text: &[u8]) -> String {
    let mut out = String::new();
    for letter in String::from_utf8_lossy(text).chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

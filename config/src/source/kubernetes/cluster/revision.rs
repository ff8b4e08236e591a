//! Knative's `Revision`, as far as we read it, and what we keep of it.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;

use super::super::ingress::Readable;
use crate::revision::Knative;

const SERVICE: &str = "serving.knative.dev/service";
const CONFIGURATION: &str = "serving.knative.dev/configuration";

/// Conditions that say why a revision is not ready which has no pod that could serve.
const FATAL: [&str; 2] = ["ContainerHealthy", "ResourcesAvailable"];

/// The longest cause that clients read, in bytes.
const CAUSE_MAX: usize = 200;

/// What Knative takes for `timeoutSeconds` where nothing is said.
const TIMEOUT_SECONDS: u32 = 300;

/// One object as the API server has it.
#[derive(Clone, Debug, Default, Deserialize)]
pub(in super::super) struct Object {
    #[serde(default)]
    pub(in super::super) metadata: ObjectMeta,
    #[serde(default)]
    spec: Readable<Spec>,
    #[serde(default)]
    status: Readable<Status>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Option<Vec<Condition>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: Option<String>,
    message: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    container_concurrency: Option<u32>,
    timeout_seconds: Option<u32>,
    response_start_timeout_seconds: Option<u32>,
    idle_timeout_seconds: Option<u32>,
    containers: Option<Vec<Container>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    ports: Option<Vec<serde::de::IgnoredAny>>,
    readiness_probe: Option<Probe>,
    startup_probe: Option<serde::de::IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Probe {
    exec: Option<serde::de::IgnoredAny>,
}

impl Resource for Object {
    type DynamicType = ();
    type Scope = kube::core::NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Revision".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "serving.knative.dev".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "revisions".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Why a revision cannot start, as its status says, in words that clients may read: the reason, and the
/// first line of the message.
pub(super) fn failure_of(object: &Object) -> Option<Arc<str>> {
    let conditions = object.status.0.as_ref().ok()?.conditions.as_deref()?;
    let failed = |kind: &str| {
        let of_kind = conditions.iter().find(|condition| condition.kind == kind);
        of_kind.filter(|condition| condition.status == "False")
    };
    failed("Ready")?;
    let condition = FATAL.iter().find_map(|kind| failed(kind))?;
    let said = |text: &Option<String>| {
        let line = text.as_deref().unwrap_or_default().lines().next();
        line.unwrap_or_default()
            .trim()
            .replace(char::is_control, " ")
    };
    let cause = match (said(&condition.reason), said(&condition.message)) {
        (reason, message) if message.is_empty() => reason,
        (reason, message) if reason.is_empty() => message,
        (reason, message) => format!("{reason}: {message}"),
    };
    let cause = &cause[..cause.floor_char_boundary(CAUSE_MAX)];
    Some(match cause {
        "" => "its pods do not become ready".into(),
        cause => cause.into(),
    })
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Revision {
    pub(in super::super) limits: Limits,
    pub(in super::super) knative: Knative,
}

/// In requests and seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Limits {
    /// Most requests at a time per pod; 0 = no limit.
    pub(in super::super) concurrency: u32,
    /// From arrival to the last byte.
    pub(in super::super) timeout: u32,
    /// To the response head; 0 = no limit.
    pub(in super::super) response_start: u32,
    /// Between two bytes; 0 = no limit.
    pub(in super::super) idle: u32,
}

impl Revision {
    pub(super) fn of(object: &Object) -> Revision {
        let labels = object.metadata.labels.as_ref();
        let label = |name: &str| {
            let label = labels.and_then(|labels| labels.get(name));
            label.map_or(Box::default(), |label| label.as_str().into())
        };
        // What cannot be read has Knative's defaults, and is not trusted to be quick.
        let unreadable = Spec::default();
        let spec = object.spec.0.as_ref().unwrap_or(&unreadable);
        let given = |seconds: Option<u32>| seconds.unwrap_or(0);
        Revision {
            limits: Limits {
                concurrency: spec.container_concurrency.unwrap_or(0),
                timeout: spec
                    .timeout_seconds
                    .filter(|s| *s > 0)
                    .unwrap_or(TIMEOUT_SECONDS),
                response_start: given(spec.response_start_timeout_seconds),
                idle: given(spec.idle_timeout_seconds),
            },
            knative: Knative {
                service: label(SERVICE),
                configuration: label(CONFIGURATION),
                unready_pods: object.spec.0.is_ok() && spec.answers_for_its_pod(),
            },
        }
    }
}

impl Spec {
    /// Whether a pod that answers its queue-proxy's probe can take requests, whatever its kubelet
    /// still waits for. That proxy cannot run a command in the container, nor does it know of
    /// startup probes.
    fn answers_for_its_pod(&self) -> bool {
        let containers = self.containers.as_deref().unwrap_or_default();
        let has_port = |container: &&Container| {
            containers.len() == 1
                || container
                    .ports
                    .as_ref()
                    .is_some_and(|ports| !ports.is_empty())
        };
        let main = containers.iter().find(has_port);
        let runs = main.is_some_and(|container| {
            container
                .readiness_probe
                .as_ref()
                .is_some_and(|probe| probe.exec.is_some())
        });
        !runs
            && containers
                .iter()
                .all(|container| container.startup_probe.is_none())
    }
}

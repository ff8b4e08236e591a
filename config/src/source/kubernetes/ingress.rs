//! Knative's `Ingress` (`networking.internal.knative.dev/v1alpha1`), as far as we read it, with the
//! defaults and the checks that Knative's own implementations apply in memory.
//!
//! Fields stand in the order of Knative's types: the hash of a specification depends on it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource;
use serde::{Deserialize, Deserializer};

use super::status::Status;

/// The annotation that says which implementation an ingress is for.
pub(super) const CLASS: &str = "networking.knative.dev/ingress.class";
/// What Kourier writes to be asked before an object goes. We never add it.
pub(super) const FINALIZER: &str = "ingresses.networking.internal.knative.dev";

/// Annotations that force HTTP/1.1 to the endpoints; the first is Kourier's.
const DISABLE_HTTP2: [&str; 2] = [
    "kourier.knative.dev/disable-http2",
    "tidegate.knative.dev/disable-http2",
];

/// One object as the API server has it.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Ingress {
    #[serde(default)]
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    pub(super) spec: Readable<Spec>,
    #[serde(default)]
    pub(super) status: Readable<Status>,
}

/// A part of an object that may be of a form we cannot read: one such object must not stop the
/// list it comes in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Readable<T>(pub(super) Result<T, String>);

impl<T: Default> Default for Readable<T> {
    fn default() -> Self {
        Readable(Ok(T::default()))
    }
}

impl<'de, T: serde::de::DeserializeOwned + Default> Deserialize<'de> for Readable<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let read = serde_json::from_value::<Option<T>>(value);
        Ok(Readable(
            read.map(Option::unwrap_or_default)
                .map_err(|error| error.to_string()),
        ))
    }
}

impl Resource for Ingress {
    type DynamicType = ();
    type Scope = kube::core::NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Ingress".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "networking.internal.knative.dev".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1alpha1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "ingresses".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    #[serde(deserialize_with = "or_null")]
    pub(super) tls: Vec<Tls>,
    #[serde(deserialize_with = "or_null")]
    pub(super) rules: Vec<Rule>,
    #[serde(deserialize_with = "or_null")]
    pub(super) http_option: String,
}

/// A certificate and the hosts it is for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Tls {
    #[serde(deserialize_with = "or_null")]
    pub(super) hosts: Vec<String>,
    #[serde(deserialize_with = "or_null")]
    pub(super) secret_name: String,
    #[serde(deserialize_with = "or_null")]
    pub(super) secret_namespace: String,
}

/// What happens on some hosts.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Rule {
    #[serde(deserialize_with = "or_null")]
    pub(super) hosts: Vec<String>,
    #[serde(deserialize_with = "or_null")]
    pub(super) visibility: String,
    pub(super) http: Option<Http>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Http {
    /// `null` and an empty list differ in the hash.
    pub(super) paths: Option<Vec<Path>>,
}

/// Which requests of a host go where.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Path {
    #[serde(deserialize_with = "or_null")]
    pub(super) path: String,
    #[serde(deserialize_with = "or_null")]
    pub(super) rewrite_host: String,
    #[serde(deserialize_with = "or_null")]
    pub(super) headers: BTreeMap<String, HeaderMatch>,
    /// `null` and an empty list differ in the hash.
    pub(super) splits: Option<Vec<Split>>,
    #[serde(deserialize_with = "or_null")]
    pub(super) append_headers: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct HeaderMatch {
    /// Empty: present with any value.
    #[serde(deserialize_with = "or_null")]
    pub(super) exact: String,
}

/// A share of the requests, and the port of a Service that gets it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Split {
    #[serde(deserialize_with = "or_null")]
    pub(super) service_namespace: String,
    #[serde(deserialize_with = "or_null")]
    pub(super) service_name: String,
    #[serde(deserialize_with = "or_null")]
    pub(super) service_port: IntOrString,
    #[serde(deserialize_with = "or_null")]
    pub(super) percent: i64,
    #[serde(deserialize_with = "or_null")]
    pub(super) append_headers: BTreeMap<String, String>,
}

/// Go reads `null` as nothing.
fn or_null<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Ingress {
    /// Whether it is for this class: the annotation equals it.
    pub(super) fn is_of(&self, class: &str) -> bool {
        self.annotation(CLASS).is_some_and(|of| of == class)
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        let annotations = self.metadata.annotations.as_ref()?;
        annotations.get(name).map(String::as_str)
    }

    /// Whether its endpoints must be spoken to over HTTP/1.1.
    pub(super) fn disables_http2(&self) -> bool {
        DISABLE_HTTP2.iter().any(|name| {
            let value = self.annotation(name);
            value.is_some_and(|value| value.eq_ignore_ascii_case("true"))
        })
    }

    pub(super) fn has_finalizer(&self) -> bool {
        let finalizers = self.metadata.finalizers.iter().flatten();
        finalizers.into_iter().any(|name| name == FINALIZER)
    }
}

impl Spec {
    /// As Knative's webhook does, which not every writer goes through.
    pub(super) fn set_defaults(&mut self) {
        for rule in &mut self.rules {
            if rule.visibility.is_empty() {
                rule.visibility = EXTERNAL.to_owned();
            }
            let paths = rule.http.iter_mut().filter_map(|http| http.paths.as_mut());
            for path in paths.flatten() {
                if let Some([split]) = path.splits.as_deref_mut()
                    && split.percent == 0
                {
                    split.percent = 100;
                }
            }
        }
    }

    /// What speaks against it in an ingress of this namespace: the first thing found.
    pub(super) fn validate(&self, namespace: &str) -> Result<(), String> {
        if self.rules.is_empty() {
            return Err("spec.rules: there is no rule".to_owned());
        }
        for (index, rule) in self.rules.iter().enumerate() {
            let at = format!("spec.rules[{index}].http");
            let Some(http) = &rule.http else {
                return Err(format!("{at} is missing"));
            };
            let paths = http.paths.as_deref().unwrap_or_default();
            if paths.is_empty() {
                return Err(format!("{at}.paths: there is no path"));
            }
            for (index, path) in paths.iter().enumerate() {
                let fault = path.fault(namespace);
                fault.map_or(Ok(()), |fault| Err(format!("{at}.paths[{index}].{fault}")))?;
            }
        }
        for (index, tls) in self.tls.iter().enumerate() {
            let missing = [
                ("secretName", &tls.secret_name),
                ("secretNamespace", &tls.secret_namespace),
            ];
            if let Some((name, _)) = missing.iter().find(|(_, value)| value.is_empty()) {
                return Err(format!("spec.tls[{index}].{name} is missing"));
            }
        }
        Ok(())
    }

    /// Whether plain requests from outside are to be sent to https.
    pub(super) fn redirects(&self) -> bool {
        self.http_option == "Redirected"
    }
}

const EXTERNAL: &str = "ExternalIP";

impl Rule {
    /// Whether listeners outside the cluster serve it; internal ones serve every rule.
    pub(super) fn is_external(&self) -> bool {
        self.visibility == EXTERNAL
    }

    pub(super) fn paths(&self) -> &[Path] {
        let paths = self.http.as_ref().and_then(|http| http.paths.as_deref());
        paths.unwrap_or_default()
    }
}

impl Path {
    pub(super) fn splits(&self) -> &[Split] {
        self.splits.as_deref().unwrap_or_default()
    }

    fn fault(&self, namespace: &str) -> Option<String> {
        let splits = self.splits();
        if splits.is_empty() {
            return Some("splits: there is no split".to_owned());
        }
        for (index, split) in splits.iter().enumerate() {
            if let Some(fault) = split.fault(namespace) {
                return Some(format!("splits[{index}].{fault}"));
            }
        }
        let sum: i64 = splits.iter().map(|split| split.percent).sum();
        (sum != 100 && !(splits.len() == 1 && sum == 0))
            .then(|| format!("splits: the percents sum to {sum}, not 100"))
    }
}

impl Split {
    fn fault(&self, namespace: &str) -> Option<String> {
        if !(0..=100).contains(&self.percent) {
            return Some(format!("percent: {} is not within 0 to 100", self.percent));
        }
        if self.service_namespace.is_empty() {
            return Some("serviceNamespace is missing".to_owned());
        }
        if self.service_namespace != namespace {
            let other = &self.service_namespace;
            return Some(format!(
                "serviceNamespace: {other} is not the ingress's own namespace"
            ));
        }
        if self.service_name.is_empty() {
            return Some("serviceName is missing".to_owned());
        }
        let no_port = match &self.service_port {
            IntOrString::Int(number) => !(1..=65535).contains(number),
            IntOrString::String(name) => name.is_empty(),
        };
        no_port.then(|| "servicePort is missing".to_owned())
    }
}

/// How a port is written, without quotes.
pub(super) fn port_text(port: &IntOrString) -> String {
    match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    }
}

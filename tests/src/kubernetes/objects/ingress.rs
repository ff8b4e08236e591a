//! Ingresses: as a test says them, and as Knative's route and domain mapping controllers do.

use serde_json::{Value, json};

use super::{CLASS, CLUSTER_DOMAIN, members};

/// An ingress of our class. `rules` are [`rule`]s.
#[must_use]
pub fn ingress(namespace: &str, name: &str, rules: &[Value]) -> Value {
    json!({
        "apiVersion": "networking.internal.knative.dev/v1alpha1",
        "kind": "Ingress",
        "metadata": {
            "namespace": namespace,
            "name": name,
            "annotations": {"networking.knative.dev/ingress.class": CLASS},
        },
        "spec": {"httpOption": "Enabled", "rules": rules},
    })
}

/// `visibility` is `ExternalIP` or `ClusterLocal`; `paths` are [`path`]s.
#[must_use]
pub fn rule(hosts: &[&str], visibility: &str, paths: &[Value]) -> Value {
    json!({"hosts": hosts, "visibility": visibility, "http": {"paths": paths}})
}

/// `prefix` is `""` for every path; `splits` are [`split`]s.
#[must_use]
pub fn path(prefix: &str, append: &[(&str, &str)], splits: &[Value]) -> Value {
    let mut path = json!({"splits": splits});
    if !prefix.is_empty() {
        path["path"] = prefix.into();
    }
    if !append.is_empty() {
        path["appendHeaders"] = members(append);
    }
    path
}

/// `port` is a number or a name.
#[must_use]
pub fn split(
    namespace: &str,
    service: &str,
    port: impl Into<Value>,
    percent: u32,
    append: &[(&str, &str)],
) -> Value {
    let mut split = json!({
        "serviceNamespace": namespace,
        "serviceName": service,
        "servicePort": port.into(),
        "percent": percent,
    });
    if !append.is_empty() {
        split["appendHeaders"] = members(append);
    }
    split
}

/// The ingress of a domain mapping to a service of Knative.
#[must_use]
pub fn domain_mapping(namespace: &str, domain: &str, service: &str) -> Value {
    let mut path = path(
        "",
        &[("K-Original-Host", domain)],
        &[split(namespace, service, 80, 100, &[])],
    );
    path["rewriteHost"] = format!("{service}.{namespace}.svc.{CLUSTER_DOMAIN}").into();
    let mut ingress = ingress(namespace, domain, &[rule(&[domain], "ExternalIP", &[path])]);
    ingress["metadata"]["labels"] = json!({
        "serving.knative.dev/domainMappingNamespace": namespace,
        "serving.knative.dev/domainMappingUID": "00000000-0000-4000-8000-000000000000",
    });
    ingress
}

/// What a route of Knative says, and so the ingress of it.
#[derive(Clone, Debug)]
pub struct Route {
    namespace: String,
    name: String,
    class: String,
    option: &'static str,
    cluster_local: bool,
    by_header: bool,
    port: u16,
    /// Revisions and percents.
    traffic: Vec<(String, u32)>,
    /// Tags and their revisions.
    tags: Vec<(String, String)>,
    /// The Secret of a certificate for all external hosts.
    secret: Option<String>,
}

impl Route {
    /// Of a route with external hosts below `example.com`; traffic is still to be said.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Route {
        Route {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            class: CLASS.to_owned(),
            option: "Enabled",
            cluster_local: false,
            by_header: false,
            port: 80,
            traffic: Vec::new(),
            tags: Vec::new(),
            secret: None,
        }
    }

    #[must_use]
    pub fn to(mut self, revision: &str, percent: u32) -> Route {
        self.traffic.push((revision.to_owned(), percent));
        self
    }

    /// A revision's own hosts.
    #[must_use]
    pub fn tag(mut self, tag: &str, revision: &str) -> Route {
        self.tags.push((tag.to_owned(), revision.to_owned()));
        self
    }

    /// Tags can also be asked for by a header (`tag-header-based-routing`).
    #[must_use]
    pub fn by_header(mut self) -> Route {
        self.by_header = true;
        self
    }

    #[must_use]
    pub fn class(mut self, class: &str) -> Route {
        class.clone_into(&mut self.class);
        self
    }

    #[must_use]
    pub fn cluster_local(mut self) -> Route {
        self.cluster_local = true;
        self
    }

    /// To revisions that speak HTTP/2.
    #[must_use]
    pub fn h2c(mut self) -> Route {
        self.port = 81;
        self
    }

    /// With a certificate in that Secret of its namespace.
    #[must_use]
    pub fn tls(mut self, secret: &str) -> Route {
        self.secret = Some(secret.to_owned());
        self
    }

    /// Plain requests from outside are sent to https.
    #[must_use]
    pub fn redirected(mut self) -> Route {
        self.option = "Redirected";
        self
    }

    /// The external host, of a tag unless that is `""`.
    #[must_use]
    pub fn host(&self, tag: &str) -> String {
        format!("{}.{}.example.com", self.label(tag), self.namespace)
    }

    /// The longest of the hosts inside the cluster, of a tag unless that is `""`.
    #[must_use]
    pub fn local_host(&self, tag: &str) -> String {
        let label = self.label(tag);
        format!("{label}.{}.svc.{CLUSTER_DOMAIN}", self.namespace)
    }

    fn label(&self, tag: &str) -> String {
        match tag {
            "" => self.name.clone(),
            tag => format!("{tag}-{}", self.name),
        }
    }

    #[must_use]
    pub fn ingress(&self) -> Value {
        let mut rules = self.rules("", &self.traffic);
        let mut hosts = serde_json::Map::new();
        let mut tags = self.tags.clone();
        tags.sort();
        for (tag, revision) in &tags {
            rules.extend(self.rules(tag, &[(revision.clone(), 100)]));
            hosts.insert(tag.clone(), json!([self.host(tag), self.local_host(tag)]));
        }
        let mut ingress = ingress(&self.namespace, &self.name, &rules);
        ingress["metadata"]["labels"] = json!({
            "serving.knative.dev/route": self.name,
            "serving.knative.dev/routeNamespace": self.namespace,
        });
        let annotations = &mut ingress["metadata"]["annotations"];
        annotations["networking.knative.dev/ingress.class"] = self.class.clone().into();
        annotations["networking.internal.knative.dev/rollout"] = "{}".into();
        if !hosts.is_empty() {
            let hosts = Value::Object(hosts).to_string();
            annotations["networking.internal.knative.dev/tag-to-host"] = hosts.into();
        }
        ingress["spec"]["httpOption"] = self.option.into();
        if let Some(secret) = &self.secret {
            let all = [""].into_iter().chain(tags.iter().map(|(tag, _)| &**tag));
            let tls = all.map(|tag| {
                json!({
                    "hosts": [self.host(tag)],
                    "secretName": secret,
                    "secretNamespace": self.namespace,
                })
            });
            ingress["spec"]["tls"] = tls.collect();
        }
        ingress
    }

    /// One for the cluster, and one for who is outside.
    fn rules(&self, tag: &str, traffic: &[(String, u32)]) -> Vec<Value> {
        let near = format!("{}.{}", self.label(tag), self.namespace);
        let hosts = [near.clone(), format!("{near}.svc"), self.local_host(tag)];
        let hosts = hosts.each_ref().map(String::as_str);
        let paths = self.paths(tag, traffic);
        let mut rules = vec![rule(&hosts, "ClusterLocal", &paths)];
        if !self.cluster_local {
            rules.push(rule(&[&self.host(tag)], "ExternalIP", &paths));
        }
        rules
    }

    fn paths(&self, tag: &str, traffic: &[(String, u32)]) -> Vec<Value> {
        let mut paths = Vec::new();
        if self.by_header && tag.is_empty() {
            for (tag, revision) in &self.tags {
                let mut path = path("", &[], &[self.split(revision, 100)]);
                path["headers"] = json!({"Knative-Serving-Tag": {"exact": tag}});
                paths.push(path);
            }
        }
        let append: &[_] = match tag {
            _ if !self.by_header => &[],
            "" => &[("Knative-Serving-Default-Route", "true")],
            tag => &[("Knative-Serving-Tag", tag)],
        };
        let splits = traffic.iter().filter(|(_, percent)| *percent > 0);
        let splits: Vec<_> = splits
            .map(|(revision, percent)| self.split(revision, *percent))
            .collect();
        paths.push(path("", append, &splits));
        paths
    }

    fn split(&self, revision: &str, percent: u32) -> Value {
        let append = [
            ("Knative-Serving-Namespace", &*self.namespace),
            ("Knative-Serving-Revision", revision),
        ];
        split(&self.namespace, revision, self.port, percent, &append)
    }
}

//! What tests do to a cluster's objects, whoever serves them.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::yield_now;

use super::api::{Ask, Server};
use super::kind::{ENDPOINT_SLICE, KNOWN, Kind, NAMESPACE};
use super::objects::{self, Pods, Revision, Traffic};
use super::real::Remote;
use crate::wait::{PATIENCE, eventually, eventually_seen};

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";

/// The label that says whose an EndpointSlice is.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// How often a change is tried again that others come before.
const ATTEMPTS: usize = 100;

/// An API server from the side of who runs the cluster.
pub struct Cluster {
    reach: Reach,
    kinds: Mutex<Vec<Kind>>,
    directory: TempDir,
}

enum Reach {
    /// Past its sockets: whatever is wrong with those.
    Fake(Arc<Server>),
    Real(Remote),
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cluster({})", self.directory.path().display())
    }
}

impl Cluster {
    pub(super) fn of_fake(server: Arc<Server>, address: SocketAddr) -> Cluster {
        let user = json!({"token": "of-a-test"});
        let cluster = json!({"server": format!("http://{address}")});
        Cluster::new(Reach::Fake(server), &cluster, &user)
    }

    pub(super) fn of_real(remote: Remote, cluster: &Value, user: &Value) -> Cluster {
        Cluster::new(Reach::Real(remote), cluster, user)
    }

    fn new(reach: Reach, cluster: &Value, user: &Value) -> Cluster {
        let directory = TempDir::new().unwrap();
        // JSON is YAML.
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        });
        std::fs::write(directory.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
        Cluster {
            reach,
            kinds: Mutex::new(KNOWN.to_vec()),
            directory,
        }
    }

    /// A file for `KUBECONFIG`.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    /// A place for files that live as long as the cluster.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Any request: the answer's status and body, `Null` where there is none.
    ///
    /// # Panics
    /// When the body is not JSON.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        content_type: &'static str,
        body: &Value,
    ) -> (u16, Value) {
        let body = if body.is_null() {
            Bytes::new()
        } else {
            body.to_string().into()
        };
        let (code, json) = match &self.reach {
            Reach::Fake(server) => {
                let answer = ask_fake(server, method, path, content_type, body);
                // A test that makes thousands of objects leaves watches their turn.
                yield_now().await;
                answer
            }
            Reach::Real(remote) => remote.ask(method, path, content_type, body).await,
        };
        (code, serde_json::from_slice(&json).unwrap())
    }

    /// Makes one more kind known by its name.
    pub(super) fn learn(&self, kind: Kind) {
        self.kinds.lock().unwrap().push(kind);
    }

    /// The kind of an object, by its `apiVersion` and `kind`.
    ///
    /// # Panics
    /// When no such kind is known.
    #[must_use]
    pub fn kind(&self, object: &Value) -> Kind {
        let kinds = self.kinds.lock().unwrap();
        let named = |kind: &&Kind| {
            object["kind"] == kind.name && object["apiVersion"] == kind.api_version()
        };
        match kinds.iter().find(named) {
            Some(kind) => *kind,
            None => panic!("an object of no known kind: {object:#}"),
        }
    }

    /// Stores an object as it is, its status included.
    ///
    /// # Panics
    /// When it is there already, or refused.
    pub async fn create(&self, object: &Value) -> Value {
        let kind = self.kind(object);
        let (namespace, name) = place(object);
        let path = kind.collection(namespace);
        let mut answer = self.ask("POST", &path, JSON, object).await;
        if answer.0 == 404 && kind.namespaced {
            self.ensure_namespace(namespace).await;
            answer = self.ask("POST", &path, JSON, object).await;
        }
        let made = taken(answer, "POST", &path);
        match object.get("status").filter(|_| kind.status) {
            Some(status) => {
                self.patch_status(kind, namespace, name, status.clone())
                    .await
            }
            None => made,
        }
    }

    /// Real API servers have no objects in namespaces that are not there; the fake asks nobody.
    async fn ensure_namespace(&self, name: &str) {
        let path = NAMESPACE.collection("");
        let object = objects::namespace(name);
        let (code, answer) = self.ask("POST", &path, JSON, &object).await;
        assert!(matches!(code, 201 | 409), "namespace {name}: {answer:#}");
    }

    /// Stores an object in place of the one that is there, if there is one, its status included.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn apply(&self, object: &Value) -> Value {
        let kind = self.kind(object);
        let (namespace, name) = place(object);
        let Some(old) = self.get(kind, namespace, name).await else {
            return self.create(object).await;
        };
        let mut new = object.clone();
        let path = kind.path(namespace, name);
        let mut version = old["metadata"]["resourceVersion"].clone();
        for _ in 0..ATTEMPTS {
            new["metadata"]["resourceVersion"] = version;
            let (code, answer) = self.ask("PUT", &path, JSON, &new).await;
            if code != 409 {
                let stored = taken((code, answer), "PUT", &path);
                return match object.get("status").filter(|_| kind.status) {
                    Some(status) => {
                        self.patch_status(kind, namespace, name, status.clone())
                            .await
                    }
                    None => stored,
                };
            }
            let old = self
                .get(kind, namespace, name)
                .await
                .expect("an object that is there");
            version = old["metadata"]["resourceVersion"].clone();
        }
        panic!("others always changed {path} before")
    }

    /// Merges changes into an object (RFC 7396), but for its status.
    ///
    /// # Panics
    /// When it is not there, or the changes are refused.
    pub async fn patch(&self, kind: Kind, namespace: &str, name: &str, changes: &Value) -> Value {
        let path = kind.path(namespace, name);
        taken(
            self.ask("PATCH", &path, MERGE, changes).await,
            "PATCH",
            &path,
        )
    }

    /// Merges changes into an object's `spec`. Arrays are replaced.
    pub async fn patch_spec(&self, kind: Kind, namespace: &str, name: &str, spec: Value) -> Value {
        self.patch(kind, namespace, name, &json!({"spec": spec}))
            .await
    }

    /// Merges changes into an object's `status`, as a subresource.
    pub async fn patch_status(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        status: Value,
    ) -> Value {
        let path = format!("{}/status", kind.path(namespace, name));
        let changes = json!({"status": status});
        taken(
            self.ask("PATCH", &path, MERGE, &changes).await,
            "PATCH",
            &path,
        )
    }

    /// # Panics
    /// When it is not there.
    pub async fn delete(&self, kind: Kind, namespace: &str, name: &str) {
        let path = kind.path(namespace, name);
        taken(
            self.ask("DELETE", &path, JSON, &Value::Null).await,
            "DELETE",
            &path,
        );
    }

    /// Makes these the EndpointSlices of a Service: others of it are deleted.
    pub async fn place(&self, namespace: &str, service: &str, slices: &[Value]) {
        let named = |slice: &Value| place(slice).1.to_owned();
        let wanted: Vec<String> = slices.iter().map(named).collect();
        for slice in slices {
            self.apply(slice).await;
        }
        for old in self.list(ENDPOINT_SLICE, namespace).await {
            let of_service = old["metadata"]["labels"][SERVICE_NAME] == service;
            if of_service && !wanted.contains(&named(&old)) {
                self.delete(ENDPOINT_SLICE, namespace, &named(&old)).await;
            }
        }
    }

    /// Stores a revision with its Services, and no addresses.
    pub async fn create_revision(&self, revision: &Revision) {
        for object in [
            revision.object(),
            revision.public().object(),
            revision.private().object(),
        ] {
            self.create(&object).await;
        }
    }

    /// Says which pods a revision has, and where its public Service leads, in Endpoints and in
    /// EndpointSlices.
    pub async fn scale(&self, revision: &Revision, pods: &Pods<'_>, traffic: Traffic<'_>) {
        let (namespace, name) = (&revision.namespace, &revision.name);
        let private = revision.private();
        self.apply(&private.endpoints(pods)).await;
        let service = format!("{name}-private");
        self.place(namespace, &service, &private.slices(pods)).await;
        self.apply(&revision.public_endpoints(traffic)).await;
        let slices = revision.public_slices(traffic);
        self.place(namespace, name, &slices).await;
    }

    pub async fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Value> {
        let path = kind.path(namespace, name);
        match self.ask("GET", &path, JSON, &Value::Null).await {
            (404, _) => None,
            answer => Some(taken(answer, "GET", &path)),
        }
    }

    /// All objects of a kind in a namespace, of all namespaces with `""`.
    pub async fn list(&self, kind: Kind, namespace: &str) -> Vec<Value> {
        let path = kind.collection(namespace);
        let mut list = taken(
            self.ask("GET", &path, JSON, &Value::Null).await,
            "GET",
            &path,
        );
        match list["items"].take() {
            Value::Array(items) => items,
            other => panic!("a list without items: {other}"),
        }
    }

    /// Waits until an object is there and as wanted.
    ///
    /// # Panics
    /// After [`PATIENCE`], showing the object.
    pub async fn until(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        eventually_seen(PATIENCE, what, async || {
            match self.get(kind, namespace, name).await {
                Some(object) if wanted(&object) => Ok(object),
                other => {
                    let object = other.unwrap_or_default();
                    Err(format!("{} {namespace}/{name} is {object:#}", kind.name))
                }
            }
        })
        .await
    }

    pub async fn until_gone(&self, kind: Kind, namespace: &str, name: &str) {
        let what = format!("{} {namespace}/{name} is gone", kind.name);
        eventually(PATIENCE, &what, async || {
            self.get(kind, namespace, name)
                .await
                .is_none()
                .then_some(())
        })
        .await;
    }
}

fn ask_fake(
    server: &Arc<Server>,
    method: &str,
    path: &str,
    content_type: &str,
    body: Bytes,
) -> (u16, Bytes) {
    server.ask(&Ask {
        method,
        path,
        query: "",
        content_type,
        body,
    })
}

/// The namespace, `""` for none, and the name of an object.
fn place(object: &Value) -> (&str, &str) {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
    (text("namespace"), text("name"))
}

/// The body of an answer that says yes.
fn taken((code, answer): (u16, Value), method: &str, path: &str) -> Value {
    assert!(
        (200..300).contains(&code),
        "{method} {path}: {code} {answer:#}"
    );
    answer
}

//! A real API server and its etcd, where `KUBEBUILDER_ASSETS` names a directory with both, as the
//! envtest tools of Kubernetes have it.
//!
//! There are no controllers: nothing makes slices of Endpoints, runs pods or answers for Services.
//! It takes no endpoints on the loopback network, see [`Stage::pod_address`](super::Stage).

use std::ffi::OsStr;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use rcgen::KeyPair;
use rustls::ClientConfig;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::cluster::Cluster;
use super::kind::{CUSTOM_RESOURCE_DEFINITION, INGRESS, Kind, REVISION};
use super::objects::NOWHERE;
use super::port::Port;
use crate::body;
use crate::client::{Client, Wire, carrying, request, with};
use crate::process::Output;
use crate::tls::{Authority, connect};
use crate::wait::{PATIENCE, eventually};

/// What says who the test is: of `system:masters`.
const TOKEN: &str = "a-token-of-tests";

/// The name in the API server's certificate.
const NAME: &str = "127.0.0.1";

/// Where the binaries are, if anywhere.
#[must_use]
pub fn assets() -> Option<PathBuf> {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").filter(|value| !value.is_empty());
    assets.map(PathBuf::from)
}

/// A running API server that knows Knative's kinds. Killed when dropped.
pub struct Real {
    cluster: Cluster,
    server: Program,
    etcd: Program,
    _directory: TempDir,
}

impl Deref for Real {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl fmt::Debug for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Real({:?}, {:?})", self.server, self.etcd)
    }
}

impl Real {
    /// From the binaries `etcd` and `kube-apiserver` of a directory, on free ports.
    ///
    /// # Panics
    /// When one of them cannot be started, or is not ready in time.
    pub async fn start(assets: &Path) -> Real {
        let directory = TempDir::new().unwrap();
        let (store, peers, port) = (Port::free(), Port::free(), Port::free());
        let store = format!("http://{}", store.address);
        let mut etcd = etcd(assets, directory.path(), &store, peers.address);
        let authority = Authority::new();
        let mut server = server(assets, directory.path(), &store, port.address, &authority);
        let remote = Remote {
            address: port.address,
            client: Arc::new(authority.client(&[])),
        };
        eventually(2 * PATIENCE, "the API server is ready", async || {
            server.check();
            etcd.check();
            let answer = remote.try_ask("GET", "/readyz", "application/json", Bytes::new());
            matches!(answer.await, Ok((200, _))).then_some(())
        })
        .await;
        let cluster = json!({
            "server": format!("https://{}", port.address),
            "certificate-authority-data": BASE64_STANDARD.encode(authority.pem()),
        });
        let real = Real {
            cluster: Cluster::of_real(remote, &cluster, &json!({"token": TOKEN})),
            server,
            etcd,
            _directory: directory,
        };
        for kind in [INGRESS, REVISION] {
            real.define(kind).await;
        }
        real
    }

    /// Makes it know one more kind, of objects that may have any fields.
    pub async fn define(&self, kind: Kind) {
        let name = kind.resource();
        self.cluster.create(&definition(&kind)).await;
        let established = |definition: &Value| {
            let conditions = definition["status"]["conditions"].as_array();
            conditions.into_iter().flatten().any(|condition| {
                condition["type"] == "Established" && condition["status"] == "True"
            })
        };
        let what = "the definition is established";
        self.until(CUSTOM_RESOURCE_DEFINITION, "", &name, what, established)
            .await;
        eventually(PATIENCE, "the kind is served", async || {
            let path = kind.collection("");
            let answer = self.ask("GET", &path, "application/json", &Value::Null);
            (answer.await.0 == 200).then_some(())
        })
        .await;
    }

    /// An address of this machine that is not of the loopback network.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn pod_address() -> IpAddr {
        // Nothing is sent: the kernel only says from where it would be.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let address = socket
            .connect((NOWHERE, 9))
            .and_then(|()| socket.local_addr());
        match address {
            Ok(address) if !address.ip().is_loopback() => address.ip(),
            other => panic!("a real API server needs a machine with a network: {other:?}"),
        }
    }
}

fn etcd(assets: &Path, directory: &Path, client: &str, peers: SocketAddr) -> Program {
    let mut arguments = Arguments::default();
    arguments.add("data-dir", directory.join("etcd"));
    arguments.add("listen-client-urls", client);
    arguments.add("advertise-client-urls", client);
    arguments.add("listen-peer-urls", format!("http://{peers}"));
    arguments.add("unsafe-no-fsync", "true");
    Program::start(&assets.join("etcd"), arguments)
}

fn server(
    assets: &Path,
    directory: &Path,
    store: &str,
    address: SocketAddr,
    authority: &Authority,
) -> Program {
    let file = |name: &str, content: &str| {
        let path = directory.join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let own = authority.issue(&[NAME, "localhost"]);
    let accounts = KeyPair::generate().unwrap();
    let mut arguments = Arguments::default();
    arguments.add("etcd-servers", store);
    arguments.add("bind-address", address.ip().to_string());
    arguments.add("secure-port", address.port().to_string());
    arguments.add("advertise-address", address.ip().to_string());
    arguments.add("cert-dir", directory.join("server"));
    arguments.add("tls-cert-file", file("server.crt", &own.cert));
    arguments.add("tls-private-key-file", file("server.key", &own.key));
    let token = format!("{TOKEN},test,test,system:masters\n");
    arguments.add("token-auth-file", file("tokens.csv", &token));
    arguments.add("authorization-mode", "RBAC");
    arguments.add("service-account-issuer", "https://kubernetes.default.svc");
    let signing = file("accounts.key", &accounts.serialize_pem());
    arguments.add("service-account-signing-key-file", signing);
    let checking = file("accounts.pub", &accounts.public_key_pem());
    arguments.add("service-account-key-file", checking);
    // Room for thousands of Services.
    arguments.add("service-cluster-ip-range", "10.96.0.0/12");
    // Nobody makes accounts for pods.
    arguments.add("disable-admission-plugins", "ServiceAccount");
    Program::start(&assets.join("kube-apiserver"), arguments)
}

/// A definition of a kind that prunes nothing.
fn definition(kind: &Kind) -> Value {
    let mut version = json!({
        "name": kind.version,
        "served": true,
        "storage": true,
        "schema": {
            "openAPIV3Schema": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": true,
            },
        },
    });
    if kind.status {
        version["subresources"] = json!({"status": {}});
    }
    json!({
        "apiVersion": CUSTOM_RESOURCE_DEFINITION.api_version(),
        "kind": CUSTOM_RESOURCE_DEFINITION.name,
        "metadata": {"name": kind.resource()},
        "spec": {
            "group": kind.group,
            "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
            "names": {
                "plural": kind.plural,
                "singular": kind.name.to_lowercase(),
                "kind": kind.name,
                "listKind": format!("{}List", kind.name),
            },
            "versions": [version],
        },
    })
}

/// How to reach the API server.
#[derive(Debug)]
pub(super) struct Remote {
    address: SocketAddr,
    client: Arc<ClientConfig>,
}

impl Remote {
    /// # Panics
    /// When there is no answer.
    pub(super) async fn ask(
        &self,
        method: &str,
        path: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> (u16, Bytes) {
        match self.try_ask(method, path, content_type, body).await {
            Ok(answer) => answer,
            Err(error) => panic!("no answer to {method} {path}: {error:?}"),
        }
    }

    async fn try_ask(
        &self,
        method: &str,
        path: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> anyhow::Result<(u16, Bytes)> {
        let stream = connect(&self.client, self.address, NAME).await?;
        let mut client = Client::over(Wire::Http1, stream).await?;
        let asked = with(request(method, NAME, path), "content-type", content_type);
        let asked = with(asked, "authorization", &format!("Bearer {TOKEN}"));
        let answer = client.try_send(carrying(asked, body::full(body))).await?;
        Ok((answer.status, answer.body))
    }
}

/// `--name=value`, as Go's programs have it.
#[derive(Debug, Default)]
struct Arguments(Vec<std::ffi::OsString>);

impl Arguments {
    fn add(&mut self, name: &str, value: impl AsRef<OsStr>) {
        let mut argument = std::ffi::OsString::from(format!("--{name}="));
        argument.push(value);
        self.0.push(argument);
    }
}

/// A child, killed when dropped; a test that fails shows the end of what it said.
struct Program {
    name: String,
    child: Child,
    output: Output,
}

/// How much of what a program said is shown.
const SHOWN: usize = 4000;

impl Program {
    fn start(path: &Path, arguments: Arguments) -> Program {
        let mut child = Command::new(path)
            .args(arguments.0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be started: {error}", path.display()));
        let output = Output::of(&mut child);
        Program {
            name: path.display().to_string(),
            child,
            output,
        }
    }

    /// # Panics
    /// When it has ended.
    fn check(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{} ended with {status}", self.name);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let said = self.output.stderr();
            let start = said.floor_char_boundary(said.len().saturating_sub(SHOWN));
            eprintln!("--- {}:\n{}---", self.name, &said[start..]);
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.child.id())
    }
}

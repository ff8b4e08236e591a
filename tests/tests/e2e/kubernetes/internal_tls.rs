//! TLS between Knative's parts: turned on while requests run, with authorities that change, to pods
//! and from whoever sends requests to activators.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tests::client::with;
use tests::kubernetes::kind::SECRET;
use tests::kubernetes::objects::{Pods, Revision, Route, Traffic, config_map, tls_secret};
use tests::kubernetes::{Api, QueueProxy};
use tests::tls::{Authority, Pem};
use tests::{Answer, Client, Gateway, PATIENCE, Wire, eventually, request};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::set::{SYSTEM, launch, until_ready, until_reason};

const HOST: &str = "hello.default.example.com";
const ASKED: &str = "data-plane.knative.dev";

/// The TLS side of a pod's queue-proxy, at its address and Knative's port.
/// It knows who has left, and how many came in.
struct Tls(JoinHandle<()>, Arc<Notify>, Arc<AtomicUsize>);

impl Drop for Tls {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A pod that is ready, with a free port for TLS; nobody listens there yet.
async fn pod(name: &str) -> (QueueProxy, TcpListener) {
    for _ in 0..100 {
        let pod = QueueProxy::start(name).ready();
        let address = SocketAddr::new(pod.address.ip(), 8112);
        if let Ok(listener) = TcpListener::bind(address).await {
            return (pod, listener);
        }
    }
    panic!("no pod with a free port 8112");
}

fn serve(listener: TcpListener, pem: &Pem, to: SocketAddr) -> Tls {
    let chain = CertificateDer::pem_slice_iter(pem.cert.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    let mut config = config
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let left = Arc::new(Notify::new());
    let told = left.clone();
    let taken = Arc::new(AtomicUsize::new(0));
    let count = taken.clone();
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, left) = (acceptor.clone(), told.clone());
            let count = count.clone();
            connections.spawn(async move {
                let Ok(mut outside) = acceptor.accept(stream).await else {
                    left.notify_one();
                    return;
                };
                assert_eq!(outside.get_ref().1.server_name(), Some(ASKED));
                count.fetch_add(1, Ordering::SeqCst);
                let mut inside = TcpStream::connect(to).await.unwrap();
                // With TLS 1.3 a client that does not believe us leaves only now.
                if tokio::io::copy_bidirectional(&mut outside, &mut inside)
                    .await
                    .is_err()
                {
                    left.notify_one();
                }
            });
        }
    });
    Tls(task, left, taken)
}

/// The Secret as Knative's manifests make it: of no type.
fn serving(authority: &Authority) -> Value {
    let pem = authority.issue(&["kn-routing", ASKED]);
    let mut secret = tls_secret(SYSTEM, "routing-serving-certs", &pem);
    secret["type"] = "Opaque".into();
    secret["data"]["ca.crt"] = BASE64_STANDARD.encode(authority.pem()).into();
    secret
}

fn network(value: &str) -> Value {
    config_map(SYSTEM, "config-network", &[("system-internal-tls", value)])
}

async fn world(revision: &Revision, pod: &QueueProxy) -> (Api, Arc<Gateway>) {
    let api = Api::start();
    api.create_revision(revision).await;
    let pods = [pod.address];
    api.scale(revision, &Pods::ready(&pods), Traffic::Serve(&pods))
        .await;
    let route = Route::new("default", "hello").to(&revision.name, 100);
    api.create(&route.ingress()).await;
    let gateway = launch(&api).start().await;
    until_ready(&api, "hello").await;
    gateway.get(HOST, "/").await.expect(200);
    (api, Arc::new(gateway))
}

async fn answered(gateway: &Gateway) {
    for _ in 0..20 {
        gateway.get(HOST, "/").await.expect(200);
    }
}

/// A request that waits, for the pod that it is to go to is not believed.
async fn held(gateway: &Arc<Gateway>, tls: &Tls) -> JoinHandle<Answer> {
    eventually(PATIENCE, "the pod is not believed", async || {
        let gateway = gateway.clone();
        let mut request = tokio::spawn(async move { gateway.get(HOST, "/").await });
        tokio::select! {
            _ = &mut request => None,
            () = tls.1.notified() => Some(request),
        }
    })
    .await
}

/// Does it, and waits until the table has what follows.
async fn applied(api: &Api, gateway: &Gateway, object: &Value) {
    let before = gateway.version().await;
    api.apply(object).await;
    eventually(PATIENCE, "the table follows", async || {
        (gateway.version().await > before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn pods_are_spoken_to_over_tls_once_it_is_enabled_and_only_if_they_are_who_they_should_be() {
    let revision = Revision::new("default", "hello-00001");
    let (pod, listener) = pod("one").await;
    let authority = Authority::new();
    let (api, gateway) = world(&revision, &pod).await;
    api.create(&serving(&authority)).await;
    // A pod of another namespace shows who it is.
    let address = listener.local_addr().unwrap();
    let other = authority.issue(&["kn-user-other", ASKED]);
    let stranger = serve(listener, &other, pod.address);
    applied(&api, &gateway, &network("Enabled")).await;
    let held = held(&gateway, &stranger).await;
    let passed = pod.requests().len();
    drop(stranger);
    let listener = eventually(PATIENCE, "the port is free", async || {
        TcpListener::bind(address).await.ok()
    });
    let own = authority.issue(&["kn-user-default"]);
    let tls = serve(listener.await, &own, pod.address);
    // Nothing was lost, and nothing came in clear.
    held.await.unwrap().expect(200);
    assert_eq!(pod.requests().len(), passed + 1);
    answered(&gateway).await;
    // Probes are plain as ever, and came to the port of before.
    assert!(pod.probes().iter().all(|probe| probe.status == 200));
    // What is off again is in clear again.
    applied(&api, &gateway, &network("Disabled")).await;
    drop(tls);
    answered(&gateway).await;
}

#[tokio::test]
async fn a_request_that_waited_meanwhile_goes_over_tls() {
    let revision = Revision::new("default", "hello-00001");
    let (pod, listener) = pod("one").await;
    let authority = Authority::new();
    let (api, gateway) = world(&revision, &pod).await;
    api.create(&serving(&authority)).await;
    let activators = ["127.0.0.1:8012".parse().unwrap()];
    api.scale(&revision, &Pods::default(), Traffic::Proxy(&activators))
        .await;
    let waits = eventually(PATIENCE, "a request waits", async || {
        let asking = gateway.clone();
        let mut request = tokio::spawn(async move { asking.get(HOST, "/").await });
        tokio::select! {
            _ = &mut request => None,
            () = gateway.until_waiting("hello-00001", 1) => Some(request),
        }
    })
    .await;
    applied(&api, &gateway, &network("Enabled")).await;
    let passed = pod.requests().len();
    // In clear it would be answered as well, and that is not asked for any more.
    let (reached, own) = (listener, authority.issue(&["kn-user-default"]));
    let tls = serve(reached, &own, pod.address);
    api.scale(
        &revision,
        &Pods::ready(&[pod.address]),
        Traffic::Proxy(&activators),
    )
    .await;
    waits.await.unwrap().expect(200);
    assert_eq!(pod.requests().len(), passed + 1);
    assert!(tls.2.load(Ordering::SeqCst) > 0, "it came in clear");
}

#[tokio::test]
async fn authorities_change_without_a_restart_and_http2_is_spoken_over_tls() {
    let revision = Revision::new("default", "hello-00001").h2c();
    let (pod, listener) = pod("one").await;
    let (old, new) = (Authority::new(), Authority::new());
    let (api, gateway) = world(&revision, &pod).await;
    let tls = serve(listener, &old.issue(&["kn-user-default"]), pod.address);
    api.create(&serving(&old)).await;
    applied(&api, &gateway, &network("Enabled")).await;
    answered(&gateway).await;
    let last = pod.requests().pop().unwrap();
    assert_eq!(format!("{:?}", last.version), "HTTP/2.0");
    // Nobody whom only the old one has signed is believed any more, whatever is connected.
    applied(&api, &gateway, &serving(&new)).await;
    held(&gateway, &tls).await.abort();
    // A bundle names it again.
    let mut bundle = config_map(SYSTEM, "bundle", &[("ca.pem", &old.pem())]);
    bundle["metadata"]["labels"] = json!({"networking.knative.dev/trust-bundle": "true"});
    applied(&api, &gateway, &bundle).await;
    answered(&gateway).await;
}

#[tokio::test]
async fn without_an_authority_the_status_says_so() {
    let revision = Revision::new("default", "hello-00001");
    let (pod, listener) = pod("one").await;
    let authority = Authority::new();
    let (api, gateway) = world(&revision, &pod).await;
    let _tls = serve(
        listener,
        &authority.issue(&["kn-user-default"]),
        pod.address,
    );
    api.create(&network("Enabled")).await;
    let said = until_reason(&api, "hello", "ReconcileIngressFailed").await;
    let text = said["status"].to_string();
    assert!(text.contains("routing-serving-certs"), "{text}");
    // What is served goes on.
    gateway.get(HOST, "/").await.expect(200);
    api.create(&serving(&authority)).await;
    until_ready(&api, "hello").await;
    answered(&gateway).await;
}

#[tokio::test]
async fn whoever_sends_requests_to_activators_finds_their_certificate_under_any_name() {
    let revision = Revision::new("default", "hello-00001");
    let (pod, listener) = pod("one").await;
    let authority = Authority::new();
    let _tls = serve(
        listener,
        &authority.issue(&["kn-user-default"]),
        pod.address,
    );
    let (api, gateway) = world(&revision, &pod).await;
    let at = gateway.listeners.iter().rfind(|(_, of)| of == "activator");
    let at = at.expect("a listener").0;
    let shaken = async |of: &Authority, name: &str| {
        let client = Arc::new(of.client(&["h2", "http/1.1"]));
        tests::tls::connect(&client, at, name).await
    };
    assert!(
        shaken(&authority, ASKED).await.is_err(),
        "it is not enabled"
    );
    api.create(&serving(&authority)).await;
    api.create(&network("Enabled")).await;
    eventually(PATIENCE, "a certificate is shown", async || {
        shaken(&authority, ASKED).await.ok()
    })
    .await;
    answered(&gateway).await;
    for name in [ASKED, "kn-routing"] {
        let stream = shaken(&authority, name).await.unwrap();
        assert_eq!(tests::tls::protocol(&stream), "h2");
        let mut client = Client::over(Wire::Http2, stream).await.unwrap();
        let named = request("GET", "whatever", "/");
        let named = with(named, "knative-serving-namespace", "default");
        let named = with(named, "knative-serving-revision", "hello-00001");
        client.send(named).await.expect(200);
    }
    // The handshake of who asks for another name fails with the client, who sees a wrong name, and
    // not with us, who would have none.
    let error = shaken(&authority, "elsewhere.test").await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
    // A renewed one is shown at once.
    let renewed = Authority::new();
    let mut both = serving(&renewed);
    let all = format!("{}{}", renewed.pem(), authority.pem());
    both["data"]["ca.crt"] = BASE64_STANDARD.encode(all).into();
    api.apply(&both).await;
    eventually(PATIENCE, "the new certificate is shown", async || {
        shaken(&renewed, ASKED).await.ok()
    })
    .await;
    answered(&gateway).await;
    // It goes on while the Secret is gone, and is not shown once the option is off.
    api.delete(SECRET, SYSTEM, "routing-serving-certs").await;
    shaken(&renewed, ASKED).await.unwrap();
    api.apply(&network("Disabled")).await;
    eventually(PATIENCE, "nothing is shown", async || {
        shaken(&renewed, ASKED).await.err()
    })
    .await;
}

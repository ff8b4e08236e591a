use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::Response;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use tokio::net::TcpListener;

use super::*;
use crate::revision::Key;

/// A replica that answers what it is told to; counts connections and requests.
#[derive(Default)]
struct Replica {
    answer: Mutex<(u16, Option<String>)>,
    connections: AtomicUsize,
    requests: Mutex<Vec<String>>,
}

impl Replica {
    fn says(&self, status: u16, hash: Option<&str>) {
        *self.answer.lock().expect("not poisoned") = (status, hash.map(str::to_owned));
    }

    async fn start(self: &Arc<Self>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let replica = Arc::clone(self);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                replica.connections.fetch_add(1, Ordering::Relaxed);
                let replica = Arc::clone(&replica);
                let service = service_fn(move |request| {
                    let response = replica.respond(&request);
                    async move { Ok::<_, Infallible>(response) }
                });
                let serving =
                    server::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(serving);
            }
        });
        address
    }

    fn respond(&self, request: &Request<hyper::body::Incoming>) -> Response<Empty<Bytes>> {
        let header = |name: &str| {
            let value = request
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok());
            value.unwrap_or("-").to_owned()
        };
        let names = ["host", "k-network-probe", "k-network-hash", "tag"];
        let line = format!("{} {}", request.uri(), names.map(header).join(" "));
        self.requests.lock().expect("not poisoned").push(line);
        let (status, hash) = self.answer.lock().expect("not poisoned").clone();
        let mut response = Response::builder().status(status);
        if let Some(hash) = hash {
            response = response.header("K-Network-Hash", hash);
        }
        response.body(Empty::new()).expect("a response")
    }
}

fn ask(probes: usize) -> Ask {
    let probe = |number| Probe {
        host: "a.example.com".into(),
        path: format!("/{number}").into(),
        headers: vec![("Tag".into(), "blue".into())],
    };
    Ask {
        ingress: Key {
            namespace: "ns".into(),
            name: "a".into(),
        },
        hash: "abc".into(),
        probes: (0..probes).map(probe).collect(),
    }
}

fn peers(of: &[SocketAddr]) -> (Peers, watch::Sender<Arc<BTreeSet<SocketAddr>>>) {
    let known = watch::Sender::new(Arc::new(of.iter().copied().collect()));
    (Peers::new(known.subscribe()), known)
}

#[tokio::test]
async fn a_replica_that_answers_with_the_hash_is_asked_once_and_on_one_connection() {
    let replica = Arc::new(Replica::default());
    replica.says(200, Some("abc"));
    let (peers, _known) = peers(&[replica.start().await]);
    peers.ask(&ask(3), || panic!("it is quick")).await;
    let requests = replica.requests.lock().expect("not poisoned");
    assert_eq!(requests.len(), 3);
    assert_eq!(requests[1], "/1 a.example.com probe override blue");
    assert_eq!(replica.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_has_an_old_table_is_asked_again_until_it_has_the_new_one() {
    for (status, hash) in [(200, Some("old")), (404, None), (503, None)] {
        let replica = Arc::new(Replica::default());
        replica.says(status, hash);
        let (peers, _known) = peers(&[replica.start().await]);
        let mends = Arc::clone(&replica);
        let slow = move || mends.says(200, Some("abc"));
        peers.ask(&ask(1), slow).await;
        assert_eq!(
            replica.requests.lock().expect("not poisoned").len(),
            2,
            "{status}"
        );
    }
}

#[tokio::test]
async fn what_is_no_sign_of_an_old_table_passes() {
    for (status, hash) in [(200, None), (301, None), (401, Some("old"))] {
        let replica = Arc::new(Replica::default());
        replica.says(status, hash);
        let (peers, _known) = peers(&[replica.start().await]);
        peers.ask(&ask(1), || panic!("{status} passes")).await;
    }
}

#[tokio::test]
async fn one_that_leaves_counts_as_if_it_had_answered() {
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let gone = gone.local_addr().expect("an address");
    let (peers, known) = peers(&[gone]);
    let leaves = || drop(known.send_replace(Arc::default()));
    peers.ask(&ask(1), leaves).await;
}

#[tokio::test]
async fn without_others_there_is_nobody_to_ask() {
    let (peers, _known) = peers(&[]);
    peers.ask(&ask(1), || panic!("nobody is slow")).await;
}

//! The scaler between a real throttle, an autoscaler and queue-proxies played by the test.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Mutex;
use std::task::Poll;

use config::revision::Fed;
use futures_util::StreamExt;
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

use super::probe::{Outcome, probe};
use super::report::Measured;
use super::reporter::{LEND_AFTER, WINDOW};
use super::stat::WireStatMessages;
use super::*;
use crate::admission::{AcquireError, Claim, Clock, Gate, Holding, Limits, Slot, Waiting};
use crate::starts::{News, Start, Witness};

/// What nothing here takes.
const LONG: Duration = Duration::from_secs(20);

fn key(name: &str) -> Key {
    Key {
        namespace: "default".into(),
        name: name.into(),
    }
}

fn revision(name: &str, concurrency: u32) -> Revision {
    let knative = config::revision::Knative {
        unready_pods: true,
        ..Default::default()
    };
    Revision {
        concurrency,
        ..Revision::plain(
            key(name),
            Backend::Fed(Box::new(Fed {
                knative: Some(knative),
            })),
        )
    }
}

#[derive(Debug, Default)]
struct Told(Mutex<Vec<(Start, News)>>);

impl Witness for Told {
    fn hear(&self, start: &Start, news: News) {
        self.0.lock().unwrap().push((start.clone(), news));
    }
}

/// A revision's throttle and the one worker that uses it.
struct Bench {
    throttle: Arc<Throttle>,
    clock: Rc<Clock>,
    gate: Rc<Gate>,
}

impl Bench {
    fn new(concurrency: u32) -> Bench {
        let limits = Limits::new(concurrency, 1000);
        let holding = Holding::new(1000, 0);
        let throttle = Throttle::new(limits, Supply::None, &holding.namespace("default"), 1);
        let clock = Clock::new(Instant::now().into_std());
        Bench {
            gate: Gate::new(Arc::clone(&throttle), 0, Rc::clone(&clock)),
            throttle,
            clock,
        }
    }

    /// What is told of the revision's starts.
    fn told(&self) -> Arc<Told> {
        let told = Arc::<Told>::default();
        self.throttle.starts().set_witness(told.clone());
        told
    }

    fn wait(&self) -> Waiting {
        self.tell_time();
        self.gate.wait(Claim::new(self.clock.now())).unwrap()
    }

    fn acquire(&self) -> Option<Slot> {
        self.tell_time();
        self.gate.try_acquire(0)
    }

    fn free(&self, slot: Slot) {
        self.tell_time();
        drop(slot);
    }

    fn tell_time(&self) {
        self.clock.set(Instant::now().into_std());
    }

    fn endpoints(&self) -> Vec<SocketAddr> {
        let endpoints = self.throttle.endpoints().into_iter();
        endpoints.map(|endpoint| endpoint.address).collect()
    }

    async fn until_endpoints(&self, expected: &[SocketAddr]) {
        let there = async {
            while self.endpoints() != expected {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(LONG, there).await.unwrap();
    }
}

/// What the autoscaler heard: the revision, and what of it.
type Said = (String, f64, f64);

struct Autoscaler {
    listener: TcpListener,
    socket: Option<WebSocketStream<TcpStream>>,
}

impl Autoscaler {
    async fn new() -> Autoscaler {
        Autoscaler {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            socket: None,
        }
    }

    fn options(&self) -> Options {
        let address = self.listener.local_addr().unwrap();
        let own = IpAddr::from([10, 1, 0, 1]);
        Options::new(format!("ws://{address}"), "tidegate-0".to_owned(), own)
    }

    async fn next(&mut self) -> Vec<Said> {
        timeout(LONG, self.hear()).await.unwrap()
    }

    async fn hear(&mut self) -> Vec<Said> {
        if self.socket.is_none() {
            let (stream, _) = self.listener.accept().await.unwrap();
            self.socket = Some(accept_async(stream).await.unwrap());
        }
        let socket = self.socket.as_mut().unwrap();
        loop {
            if let Message::Binary(bytes) = socket.next().await.unwrap().unwrap() {
                let read = WireStatMessages::decode(bytes).unwrap();
                let said = read.messages.into_iter().map(|message| {
                    let stat = message.stat.unwrap();
                    let (average, count) = (stat.average_concurrent_requests, stat.request_count);
                    (message.name, average, count)
                });
                return said.collect();
            }
        }
    }
}

/// Queue-proxies on all addresses of this machine, at one port.
struct QueueProxies {
    port: u16,
    /// Each probe's address and head; it is answered through the connection.
    probes: mpsc::Receiver<(SocketAddr, String, TcpStream)>,
}

impl QueueProxies {
    async fn new() -> QueueProxies {
        QueueProxies::on(TcpListener::bind("0.0.0.0:0").await.unwrap())
    }

    fn on(listener: TcpListener) -> QueueProxies {
        let port = listener.local_addr().unwrap().port();
        let (sender, probes) = mpsc::channel(1_000);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let sender = sender.clone();
                tokio::spawn(async move {
                    let mut head = [0; 1024];
                    let count = stream.read(&mut head).await.unwrap();
                    let head = String::from_utf8_lossy(&head[..count]).into_owned();
                    let address = stream.local_addr().unwrap();
                    sender.send((address, head, stream)).await.unwrap_or(());
                });
            }
        });
        QueueProxies { port, probes }
    }

    fn pod(&self, number: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 1, number], self.port))
    }

    async fn probed(&mut self) -> (SocketAddr, String, TcpStream) {
        timeout(LONG, self.probes.recv()).await.unwrap().unwrap()
    }

    /// Answers the next probe; says whom it was for.
    async fn answer(&mut self, status: &str, body: &str) -> SocketAddr {
        let (address, _, stream) = self.probed().await;
        answer(stream, status, body).await;
        address
    }
}

async fn answer(mut stream: TcpStream, status: &str, body: &str) {
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
    // A probe that was late has gone.
    stream.write_all(text.as_bytes()).await.unwrap_or(());
}

fn proxied(ready: &[SocketAddr], unready: &[SocketAddr]) -> Addresses {
    Addresses {
        ready: ready.to_vec(),
        unready: unready.to_vec(),
        proxied: true,
        failure: None,
    }
}

async fn slot(waiting: Waiting) -> Slot {
    timeout(LONG, waiting).await.unwrap().unwrap()
}

fn is_waiting(waiting: &mut Waiting) -> bool {
    let waker = std::task::Waker::noop();
    let mut context = std::task::Context::from_waker(waker);
    matches!(Pin::new(waiting).poll(&mut context), Poll::Pending)
}

#[tokio::test]
async fn a_revision_starts_with_its_first_request_and_rests_after_the_last() {
    let (mut autoscaler, mut pods) = (Autoscaler::new().await, QueueProxies::new().await);
    let scaler = Knative::start(&autoscaler.options()).unwrap();
    let bench = Bench::new(1);
    let told = bench.told();
    scaler.adopt(&revision("a", 1), &bench.throttle);
    scaler.addresses(&key("a"), proxied(&[], &[]));
    let waiting = bench.wait();
    assert_eq!(autoscaler.next().await, [("a".to_owned(), 1.0, 1.0)]);

    // The pod is there before its kubelet says that it is ready.
    scaler.addresses(&key("a"), proxied(&[], &[pods.pod(1)]));
    assert_eq!(pods.answer("503 Unavailable", "").await, pods.pod(1));
    assert_eq!(pods.answer("200 OK", "queue").await, pods.pod(1));
    let slot = slot(waiting).await;
    assert_eq!(slot.address(), pods.pod(1));
    assert!(slot.is_marked());
    let told = std::mem::take(&mut *told.0.lock().unwrap());
    let [(start, News::Up)] = &told[..] else {
        panic!("{told:?}");
    };
    let phases = start.phases();
    assert!(phases.nudge.is_some() && phases.act.is_none(), "{phases:?}");
    assert!(phases.endpoint > Some(Duration::ZERO), "{phases:?}");
    assert!(phases.probe > Some(Duration::ZERO), "{phases:?}");
    scaler.addresses(&key("a"), proxied(&[pods.pod(1)], &[]));
    bench.free(slot);

    let mut last = autoscaler.next().await;
    // One second of one request is what was said already.
    assert_eq!(last, [("a".to_owned(), 0.0, 0.0)]);
    while !scaler.outbox.take().reports.is_empty() {
        last = autoscaler.next().await;
    }
    assert_eq!(last, [("a".to_owned(), 0.0, 0.0)]);
    let status = scaler.status();
    assert!(status.reachable);
    assert_eq!(
        (status.connections, status.errors, status.dropped),
        (1, 0, 0)
    );
}

#[tokio::test]
async fn the_first_request_of_a_proxied_revision_with_pods_is_told_of_at_once() {
    let (mut autoscaler, mut pods) = (Autoscaler::new().await, QueueProxies::new().await);
    let scaler = Knative::start(&autoscaler.options()).unwrap();
    let bench = Bench::new(0);
    // Addresses may come first.
    scaler.addresses(&key("a"), proxied(&[pods.pod(1)], &[]));
    scaler.adopt(&revision("a", 0), &bench.throttle);
    pods.answer("200 OK", "queue").await;
    bench.until_endpoints(&[pods.pod(1)]).await;
    let slot = bench.acquire().unwrap();
    assert!(slot.is_marked());
    assert_eq!(autoscaler.next().await, [("a".to_owned(), 1.0, 1.0)]);
    bench.free(slot);
}

#[tokio::test]
async fn a_probe_says_who_asks_and_whom() {
    let (autoscaler, mut pods) = (Autoscaler::new().await, QueueProxies::new().await);
    let mut options = autoscaler.options();
    for passthrough in [false, true] {
        options.mesh = Mesh::Probe { passthrough };
        let scaler = Knative::start(&options).unwrap();
        let bench = Bench::new(0);
        scaler.adopt(&revision("a", 0), &bench.throttle);
        scaler.addresses(&key("a"), proxied(&[pods.pod(1)], &[]));
        let (_, head, stream) = pods.probed().await;
        let host = match passthrough {
            true => "Host: a-private.default\r\nK-Passthrough-Lb: true".to_owned(),
            false => format!("Host: {}", pods.pod(1)),
        };
        let expected = format!(
            "GET /healthz HTTP/1.1\r\n{host}\r\nUser-Agent: Knative-Activator-Probe\r\n\
             K-Network-Probe: queue\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(head, expected);
        answer(stream, "200 OK", "queue ").await;
        // Almost is not enough, and the next probe comes by itself.
        let (_, _, stream) = pods.probed().await;
        assert_eq!(bench.endpoints(), []);
        answer(stream, "200 OK", "queue").await;
        bench.until_endpoints(&[pods.pod(1)]).await;
    }
}

#[tokio::test]
async fn a_pod_s_not_yet_is_told_from_other_answers() {
    let mut pods = QueueProxies::new().await;
    for (status, body, expected) in [
        ("503 Service Unavailable", "", Outcome::NotYet),
        ("503 Service Unavailable", "queue", Outcome::NotYet),
        ("200 OK", "other", Outcome::Failed),
        ("400 Bad Request", "", Outcome::Failed),
        ("500 Internal Server Error", "", Outcome::Failed),
    ] {
        let address = pods.pod(1);
        let asked = tokio::spawn(async move { probe(address, "", LONG).await });
        pods.answer(status, body).await;
        assert_eq!(asked.await.unwrap(), expected, "{status} {body}");
    }
}

#[tokio::test]
async fn a_pod_that_begins_to_listen_serves_soon() {
    let autoscaler = Autoscaler::new().await;
    let scaler = Knative::start(&autoscaler.options()).unwrap();
    let bench = Bench::new(0);
    scaler.adopt(&revision("a", 0), &bench.throttle);
    let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    scaler.addresses(&key("a"), proxied(&[], &[address]));
    let waiting = bench.wait();
    let mut pods = QueueProxies::on(TcpListener::bind(address).await.unwrap());
    pods.answer("200 OK", "queue").await;
    assert_eq!(slot(waiting).await.address(), address);
}

#[tokio::test]
async fn without_probes_pods_serve_as_kubernetes_says() {
    let autoscaler = Autoscaler::new().await;
    let mut options = autoscaler.options();
    options.mesh = Mesh::Believe;
    let scaler = Knative::start(&options).unwrap();
    let bench = Bench::new(0);
    scaler.adopt(&revision("a", 0), &bench.throttle);
    let pod = |number| SocketAddr::from(([127, 0, 1, number], 1));
    scaler.addresses(&key("a"), proxied(&[pod(2), pod(1)], &[pod(3)]));
    bench.until_endpoints(&[pod(1), pod(2)]).await;
    scaler.forget(&key("a"));
    bench.until_endpoints(&[]).await;
}

#[tokio::test]
async fn a_released_revision_loses_its_pods_at_once_and_for_good() {
    let autoscaler = Autoscaler::new().await;
    let mut options = autoscaler.options();
    options.mesh = Mesh::Believe;
    let scaler = Knative::start(&options).unwrap();
    let (one, other) = (Bench::new(0), Bench::new(0));
    let pod = |number| SocketAddr::from(([127, 0, 1, number], 1));
    scaler.adopt(&revision("a", 0), &one.throttle);
    scaler.addresses(&key("a"), proxied(&[pod(1)], &[]));
    one.until_endpoints(&[pod(1)]).await;
    scaler.release(&key("a"));
    assert_eq!(one.endpoints(), []);
    // What is said of it later is for its next throttle, which also knows what was said before.
    scaler.adopt(&revision("a", 0), &other.throttle);
    other.until_endpoints(&[pod(1)]).await;
    scaler.addresses(&key("a"), proxied(&[pod(2)], &[]));
    other.until_endpoints(&[pod(2)]).await;
    assert_eq!(one.endpoints(), []);
}

#[tokio::test]
async fn pods_of_a_revision_that_nobody_adopted_are_not_asked() {
    let (autoscaler, mut pods) = (Autoscaler::new().await, QueueProxies::new().await);
    let scaler = Knative::start(&autoscaler.options()).unwrap();
    let bench = Bench::new(0);
    scaler.addresses(&key("a"), proxied(&[pods.pod(1)], &[]));
    scaler.adopt(&revision("b", 0), &bench.throttle);
    scaler.addresses(&key("b"), proxied(&[pods.pod(2)], &[]));
    assert_eq!(pods.answer("200 OK", "queue").await, pods.pod(2));
    bench.until_endpoints(&[pods.pod(2)]).await;
    scaler.release(&key("b"));
    scaler.addresses(&key("b"), proxied(&[pods.pod(3)], &[]));
    scaler.adopt(&revision("c", 0), &bench.throttle);
    scaler.addresses(&key("c"), proxied(&[pods.pod(4)], &[]));
    assert_eq!(pods.answer("200 OK", "queue").await, pods.pod(4));
    bench.until_endpoints(&[pods.pod(4)]).await;
    assert!(pods.probes.try_recv().is_err(), "nobody else was asked");
}

#[tokio::test]
async fn hundreds_of_silent_pods_keep_no_other_revision_waiting() {
    let (autoscaler, mut pods) = (Autoscaler::new().await, QueueProxies::new().await);
    let mut options = autoscaler.options();
    options.probe_timeout = LONG;
    let scaler = Knative::start(&options).unwrap();
    let (large, small) = (Bench::new(0), Bench::new(0));
    scaler.adopt(&revision("large", 0), &large.throttle);
    scaler.adopt(&revision("small", 0), &small.throttle);
    let many: Vec<_> = (1..=200).map(|number| pods.pod(number)).collect();
    scaler.addresses(&key("large"), proxied(&many, &[]));
    let mut silent = Vec::new();
    for _ in 0..prober::PROBES_OF_ONE_MAX {
        silent.push(pods.probed().await);
    }
    scaler.addresses(&key("small"), proxied(&[pods.pod(201)], &[]));
    assert_eq!(pods.answer("200 OK", "queue").await, pods.pod(201));
    small.until_endpoints(&[pods.pod(201)]).await;
    // Each that answers makes room for one more.
    let mut served = Vec::new();
    while let Some((address, _, stream)) = silent.pop() {
        answer(stream, "200 OK", "queue").await;
        served.push(address);
        if served.len() + silent.len() < many.len() {
            silent.push(pods.probed().await);
        }
    }
    large.until_endpoints(&many).await;
}

#[tokio::test(start_paused = true)]
async fn a_slot_of_another_replica_is_lent_to_who_has_waited() {
    let autoscaler = Autoscaler::new().await;
    let mut options = autoscaler.options();
    options.mesh = Mesh::Believe;
    let scaler = Knative::start(&options).unwrap();
    let bench = Bench::new(1);
    scaler.adopt(&revision("a", 1), &bench.throttle);
    let pods: Vec<_> = (0..10)
        .map(|number| SocketAddr::from(([127, 0, 1, number], 1)))
        .collect();
    scaler.addresses(&key("a"), proxied(&pods, &[]));
    bench.until_endpoints(&pods).await;
    scaler.replicas(&[[10, 1, 0, 1].into(), [10, 1, 0, 2].into()]);
    let replicas = {
        let mut replicas = shares::Replicas::new([10, 1, 0, 1].into());
        replicas.set(&[[10, 1, 0, 2].into()]);
        replicas
    };
    let shares = replicas.shares(&pods, 1);
    let own = shares.iter().filter(|(_, share)| share.own == 1).count();
    assert!((1..10).contains(&own));
    sleep(Duration::from_millis(1)).await;

    let mut slots: Vec<_> = std::iter::from_fn(|| bench.acquire()).collect();
    assert_eq!(slots.len(), own);
    for number in own..10 {
        let start = Instant::now();
        let mut waiting = bench.wait();
        assert!(is_waiting(&mut waiting));
        slots.push(slot(waiting).await);
        // At first one; as none is given back, one more each second.
        let since = match number == own {
            true => LEND_AFTER,
            false => Duration::from_millis(900),
        };
        let waited = start.elapsed();
        assert!(
            (since..since + 150 * LEND_AFTER / 10).contains(&waited),
            "{waited:?}"
        );
    }
    // Nobody goes beyond what a pod takes.
    let mut waiting = bench.wait();
    sleep(10 * LEND_AFTER).await;
    assert!(is_waiting(&mut waiting));
    assert!(
        bench
            .throttle
            .endpoints()
            .iter()
            .all(|pod| pod.in_flight == 1)
    );
    // A lent slot that is given back goes on at once.
    bench.free(slots.pop().unwrap());
    assert!(!is_waiting(&mut waiting));
}

#[tokio::test(start_paused = true)]
async fn pods_that_come_while_requests_wait_are_all_used_whosever_they_are() {
    let autoscaler = Autoscaler::new().await;
    let mut options = autoscaler.options();
    options.mesh = Mesh::Believe;
    let scaler = Knative::start(&options).unwrap();
    scaler.replicas(&[2, 3, 4].map(|number| IpAddr::from([10, 1, 0, number])));
    let bench = Bench::new(1);
    scaler.adopt(&revision("a", 1), &bench.throttle);
    let mut waiting: Vec<_> = (0..10).map(|_| bench.wait()).collect();
    assert!(waiting.iter_mut().all(is_waiting));
    let pods: Vec<_> = (0..9)
        .map(|number| SocketAddr::from(([127, 0, 1, number], 1)))
        .collect();
    sleep(10 * LEND_AFTER).await;
    scaler.addresses(&key("a"), proxied(&pods, &[]));
    let last = waiting.pop().unwrap();
    let mut slots = Vec::new();
    for waiting in waiting {
        slots.push(slot(waiting).await);
    }
    drop(slots);
    drop(slot(last).await);
}

/// The reporter and its outbox, on a paused clock.
struct Reports {
    hearing: Arc<Hearing>,
    outbox: Arc<Outbox>,
    task: AbortHandle,
}

impl Reports {
    fn new() -> Reports {
        let (hearing, outbox) = (Arc::<Hearing>::default(), Arc::<Outbox>::default());
        let reporter = Reporter::new(Arc::clone(&hearing), Arc::clone(&outbox));
        Reports {
            hearing,
            outbox,
            task: tokio::spawn(reporter.run()).abort_handle(),
        }
    }

    async fn follow(&self, bench: &Bench) {
        let followed = Arc::new(Followed::new(
            1,
            key("a"),
            &bench.throttle,
            Arc::clone(&self.hearing),
            &Arc::default(),
            Terms::new(0, true),
        ));
        let supply = Supply::Scaled(Arc::clone(&followed) as _);
        bench.throttle.set_supply(supply);
        self.hearing.say(Heard::Follow(followed));
        sleep(Duration::from_millis(1)).await;
    }

    /// The next message, and when it is there.
    async fn next(&self, start: Instant) -> (u128, Vec<Measured>) {
        timeout(LONG, self.outbox.news()).await.unwrap();
        let batch = self.outbox.take();
        let said = batch.firsts.into_iter().chain(batch.reports);
        let said = said.map(|(_, measured)| measured).collect();
        (start.elapsed().as_millis(), said)
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn measured(average: f64, count: f64) -> Vec<Measured> {
    vec![Measured { average, count }]
}

#[tokio::test(start_paused = true)]
async fn reports_come_every_second_from_the_first_request_to_the_last_and_no_more() {
    let (reports, bench) = (Reports::new(), Bench::new(0));
    reports.follow(&bench).await;
    bench.throttle.set_proxied(true);
    bench.throttle.set_endpoints(&[([10, 0, 0, 1], 1).into()]);
    for _ in 0..2 {
        let start = Instant::now();
        let slot = bench.acquire().unwrap();
        assert_eq!(reports.next(start).await, (0, measured(1.0, 1.0)));
        let second = bench.acquire().unwrap();
        assert_eq!(reports.next(start).await, (1_000, measured(1.0, 1.0)));
        sleep(WINDOW / 2).await;
        bench.free(second);
        assert_eq!(reports.next(start).await, (2_000, measured(1.5, 0.0)));
        bench.free(slot);
        assert_eq!(reports.next(start).await, (3_000, measured(0.0, 0.0)));
        let silence = timeout(LONG, reports.outbox.news()).await;
        assert!(silence.is_err(), "a revision that rests is not told of");
    }
}

#[tokio::test(start_paused = true)]
async fn who_runs_unmarked_is_not_told_of_and_who_waits_is() {
    let (reports, bench) = (Reports::new(), Bench::new(1));
    reports.follow(&bench).await;
    bench.throttle.set_endpoints(&[([10, 0, 0, 1], 1).into()]);
    let slot = bench.acquire().unwrap();
    assert!(timeout(LONG, reports.outbox.news()).await.is_err());
    let start = Instant::now();
    let mut waiting = bench.wait();
    assert!(is_waiting(&mut waiting));
    assert_eq!(reports.next(start).await, (0, measured(1.0, 1.0)));
    assert_eq!(reports.next(start).await, (1_000, measured(0.0, 0.0)));
    assert_eq!(reports.next(start).await, (2_000, measured(1.0, 0.0)));
    bench.free(slot);
    let slot = self::slot(waiting).await;
    assert_eq!(reports.next(start).await, (3_000, measured(0.0, 0.0)));
    bench.free(slot);
}

#[tokio::test(start_paused = true)]
async fn who_waited_before_a_revision_was_adopted_is_told_of() {
    let (reports, bench) = (Reports::new(), Bench::new(1));
    bench.throttle.set_supply(Supply::Fixed);
    let _waiting = bench.wait();
    let start = Instant::now();
    reports.follow(&bench).await;
    assert_eq!(reports.next(start).await.1, measured(1.0, 1.0));
    reports.hearing.say(Heard::Forget(1));
    assert_eq!(reports.next(start).await.1, measured(0.0, 0.0));
}

#[tokio::test]
async fn a_revision_that_cannot_start_is_told_with_its_cause_until_a_pod_serves() {
    let (mut autoscaler, mut pods) = (Autoscaler::new().await, QueueProxies::new().await);
    let scaler = Knative::start(&autoscaler.options()).unwrap();
    let bench = Bench::new(0);
    let told = bench.told();
    let failing = |unready: &[SocketAddr]| Addresses {
        failure: Some("ImagePullBackOff".into()),
        ..proxied(&[], unready)
    };
    scaler.adopt(&revision("a", 0), &bench.throttle);
    scaler.addresses(&key("a"), proxied(&[], &[]));
    let waiting = bench.wait();
    assert_eq!(autoscaler.next().await, [("a".to_owned(), 1.0, 1.0)]);
    scaler.addresses(&key("a"), failing(&[]));
    let expected = AcquireError::StartFailed("ImagePullBackOff".into());
    let error = timeout(LONG, waiting).await.unwrap().unwrap_err();
    assert_eq!(error, expected);
    assert_eq!(
        bench.gate.wait(Claim::new(bench.clock.now())).unwrap_err(),
        expected
    );
    let (start, news) = told.0.lock().unwrap().pop().unwrap();
    assert_eq!(
        (start.cause.as_deref(), news),
        (Some("ImagePullBackOff"), News::Ended)
    );

    // A pod that serves is proof enough.
    scaler.addresses(&key("a"), failing(&[pods.pod(1)]));
    pods.answer("200 OK", "queue").await;
    bench.until_endpoints(&[pods.pod(1)]).await;
    drop(bench.acquire().unwrap());
    // Once it is gone, what is said of the revision holds again, until something else is said.
    scaler.addresses(&key("a"), failing(&[]));
    bench.until_endpoints(&[]).await;
    let is_failing = || bench.gate.wait(Claim::new(bench.clock.now())).is_err();
    while !is_failing() {
        sleep(Duration::from_millis(1)).await;
    }
    scaler.addresses(&key("a"), proxied(&[], &[]));
    while is_failing() {
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_revision_is_tried_again_after_a_pause() {
    let options = Options::new(
        "ws://127.0.0.1:1".to_owned(),
        "tidegate-0".to_owned(),
        IpAddr::from([10, 1, 0, 1]),
    );
    let scaler = Knative::start(&options).unwrap();
    let bench = Bench::new(0);
    scaler.adopt(&revision("a", 0), &bench.throttle);
    let addresses = Addresses {
        failure: Some("no image".into()),
        ..proxied(&[], &[])
    };
    scaler.addresses(&key("a"), addresses);
    let try_to_wait = || {
        bench.tell_time();
        bench.gate.wait(Claim::new(bench.clock.now()))
    };
    while try_to_wait().is_ok() {
        sleep(Duration::from_millis(1)).await;
    }
    let mut pauses = vec![];
    for _ in 0..3 {
        let failed = Instant::now();
        scaler.outbox.take();
        let waiting = loop {
            if let Ok(waiting) = try_to_wait() {
                break waiting;
            }
            assert_eq!(
                scaler.outbox.take().firsts,
                [],
                "nothing is asked for meanwhile"
            );
            sleep(Duration::from_millis(100)).await;
        };
        pauses.push(failed.elapsed().as_secs());
        let tried = Instant::now();
        let error = waiting.await.unwrap_err();
        assert_eq!(error, AcquireError::StartFailed("no image".into()));
        let attempt = tried.elapsed().as_secs();
        assert!((9..=12).contains(&attempt), "{attempt}");
        assert!(!scaler.outbox.take().reports.is_empty(), "it counted");
    }
    assert_eq!(pauses, [5, 10, 20]);
}

#[tokio::test(start_paused = true)]
async fn what_is_expected_is_told_of_until_the_pods_are_there_or_the_time_is_over() {
    let (reports, bench) = (Reports::new(), Bench::new(0));
    reports.follow(&bench).await;
    let expect = |endpoints, seconds| {
        let (now, time) = (Instant::now().into_std(), Duration::from_secs(seconds));
        // A pod may take no longer than that.
        let patience = Duration::from_secs(2);
        let floor = Floor::new(endpoints, now, time, patience);
        reports.hearing.say(Heard::Expect(1, floor));
    };
    let start = Instant::now();
    expect(1, 60);
    assert_eq!(reports.next(start).await, (0, measured(1.0, 1.0)));
    assert_eq!(reports.next(start).await, (1_000, measured(1.0, 1.0)));
    assert_eq!(reports.next(start).await, (2_000, measured(1.0, 1.0)));
    bench.throttle.set_endpoints(&[([10, 0, 0, 1], 1).into()]);
    assert_eq!(reports.next(start).await, (3_000, measured(0.0, 0.0)));
    // One is there. Three need what two can carry, and one request more: 70 % of 100 each.
    expect(1, 60);
    expect(3, 1);
    assert_eq!(reports.next(start).await, (3_000, measured(1.0, 1.0)));
    assert_eq!(reports.next(start).await, (4_000, measured(141.0, 141.0)));
    assert_eq!(reports.next(start).await, (5_000, measured(0.0, 0.0)));
    let silence = timeout(LONG, reports.outbox.news()).await;
    assert!(silence.is_err(), "nothing more is expected");
}

#[tokio::test(start_paused = true)]
async fn a_stream_at_rest_is_not_told_of_and_one_that_moves_again_is_at_once() {
    let (reports, bench) = (Reports::new(), Bench::new(0));
    reports.follow(&bench).await;
    bench.throttle.set_proxied(true);
    bench.throttle.set_endpoints(&[([10, 0, 0, 1], 1).into()]);
    let start = Instant::now();
    let slot = bench.acquire().unwrap();
    assert_eq!(reports.next(start).await, (0, measured(1.0, 1.0)));
    assert_eq!(reports.next(start).await, (1_000, measured(0.0, 0.0)));
    bench.tell_time();
    slot.rest();
    assert_eq!(reports.next(start).await, (2_000, measured(0.0, 0.0)));
    let silence = timeout(LONG, reports.outbox.news()).await;
    assert!(silence.is_err(), "it rests");
    bench.tell_time();
    slot.stir();
    let again = Instant::now();
    assert_eq!(reports.next(again).await, (0, measured(1.0, 1.0)));
    bench.free(slot);
    assert_eq!(reports.next(again).await, (1_000, measured(0.0, 0.0)));
}

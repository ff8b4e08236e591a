//! A gateway of one worker on a thread of its own, inside the test's process: for tests that count
//! what that thread takes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use activator::admission::{Holding, Limits, Supply, Throttle};
use config::{Compiler, Content, Fragment, Origin};
use tidegate::live::{Live, Published, Throttles};
use tidegate::observe::access_log::{self, AccessLog};
use tidegate::observe::metrics::Registry;
use tidegate::serve::census::Census;
use tidegate::serve::drain::Phase;
use tidegate::serve::listeners::Group;
use tidegate::serve::thread::{Seat, run};
use tidegate::serve::worker::Shared;
use tokio::sync::{oneshot, watch};

pub(crate) struct OneWorker {
    pub(crate) address: SocketAddr,
    phase: watch::Sender<Phase>,
    thread: JoinHandle<()>,
    log: AccessLog,
}

impl OneWorker {
    /// `text`: the configuration, all of whose revisions have one endpoint. `begin` is called on the
    /// worker's thread before it does anything.
    pub(crate) fn start(
        text: &str,
        endpoint: SocketAddr,
        holding: &Arc<Holding>,
        mode: access_log::Mode,
        begin: fn(),
    ) -> OneWorker {
        let (settings, live) = world(text, endpoint, holding);
        let mut group = Group::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = group.address();
        let sockets = group.seat(1).unwrap().remove(0);
        let registry = Registry::new(1, vec!["test".to_owned()]);
        let config = access_log::Config {
            mode,
            per_second: 100,
            format: access_log::Format::Text,
            file: access_log::Target::Path("/dev/null".into()),
            requests: None,
        };
        let (log, mut writers) = AccessLog::start(&config, &registry).unwrap();
        let published = Arc::new(Published::default());
        published.swap(live);
        let shared = Arc::new(Shared {
            census: Census::new(&settings, None),
            memory: Default::default(),
            settings,
            published,
            holding: holding.clone(),
            pseudonym: "tidegate-test".into(),
        });
        let (phase, phases) = watch::channel(Phase::Serving);
        let thread = std::thread::spawn(move || {
            begin();
            let seat = Seat {
                index: 0,
                shared,
                listeners: sockets.into_iter().map(|socket| (0, socket)).collect(),
                metrics: registry.worker(0),
                log: writers.remove(0),
                phase: phases,
                poised: oneshot::channel().0,
                closed: oneshot::channel().0,
                handed_over: Arc::default(),
            };
            run(seat).unwrap();
        });
        OneWorker {
            address,
            phase,
            thread,
            log,
        }
    }

    /// Goes to that phase and waits until the worker has ended.
    pub(crate) fn end(self, phase: Phase) {
        self.phase.send_replace(phase);
        self.thread.join().unwrap();
        self.log.shutdown();
    }
}

fn world(text: &str, endpoint: SocketAddr, holding: &Arc<Holding>) -> (config::Settings, Live) {
    let content = config::parse("test.yaml", text);
    assert!(matches!(content, Content::Documents { .. }), "{content:?}");
    let origin = Origin::File("test.yaml".into());
    let compiled = Compiler::default()
        .apply(vec![Fragment { origin, content }])
        .unwrap();
    let mut throttles = Throttles::default();
    for revision in compiled.snapshot.revisions() {
        let limits = Limits::new(revision.concurrency, revision.queue.depth);
        let throttle = Throttle::new(limits, Supply::Fixed, &holding.namespace("default"), 1);
        throttle.set_endpoints(&[endpoint]);
        throttles.set(revision.id, Some(throttle));
    }
    let live = Live {
        version: 1,
        snapshot: compiled.snapshot,
        throttles,
        ..Live::default()
    };
    (compiled.settings, live)
}

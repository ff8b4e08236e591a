//! Panics are counted by whose thread they end, and told to the process log. In a process of its
//! own, because the hook is the process's.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::thread::Builder;

use tidegate::observe::metrics::Registry;
use tidegate::observe::panics;

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_panic_is_counted_and_logged_with_its_thread_and_place() {
    let log = Shared::default();
    let sink = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(move || sink.clone());
    tracing::subscriber::set_global_default(subscriber.finish()).unwrap();
    panics::watch();
    panics::watch();
    for (name, times) in [("worker-0", 2), ("worker-7", 1), ("control", 1), ("x", 3)] {
        for number in 0..times {
            let thread = Builder::new().name(name.to_owned());
            let ended = thread
                .spawn(move || panic!("fault {number}\nof ours"))
                .unwrap();
            assert!(ended.join().is_err());
        }
    }
    let scrape = Registry::new(1, Vec::new()).scrape(&[]);
    for (thread, count) in [("worker", 3), ("control", 1), ("other", 3)] {
        let sample = format!("tidegate_panics_total{{thread=\"{thread}\"}} {count}\n");
        assert!(scrape.contains(&sample), "{sample} in {scrape}");
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let events: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(events.len(), 7, "{log}");
    assert_eq!(events[0]["level"], "ERROR");
    assert_eq!(events[0]["thread"], "worker-0");
    assert_eq!(events[0]["why"], "fault 0\nof ours");
    assert!(events[0]["at"].as_str().unwrap().contains("panics.rs"));
}

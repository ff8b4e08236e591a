//! Faults of ours, injected where something is logged, by whoever listens to the log.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;

use tracing::field::{Field, Visit};
use tracing::span;

/// Panics where one of these messages is logged for the first time.
pub(crate) struct Saboteur(Mutex<BTreeSet<&'static str>>);

impl Saboteur {
    pub(crate) fn at<const N: usize>(messages: [&'static str; N]) -> Saboteur {
        Saboteur(Mutex::new(BTreeSet::from(messages)))
    }
}

#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

impl tracing::Subscriber for Saboteur {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("tidegate")
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut message = Message::default();
        event.record(&mut message);
        let armed = self.0.lock().unwrap().remove(&*message.0);
        assert!(!armed, "a fault of ours");
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

//! What throttles tell of their starts, on its way to the metrics and the admin address.

use std::sync::Arc;

use activator::starts::{News, Start, Witness};
use config::revision::Key;

use crate::observe::metrics::Registry;

/// Hears of the starts of one revision.
#[derive(Debug)]
pub struct Reporter {
    revision: Key,
    registry: Arc<Registry>,
}

impl Reporter {
    #[must_use]
    pub fn new(revision: Key, registry: Arc<Registry>) -> Arc<Reporter> {
        Arc::new(Reporter { revision, registry })
    }
}

impl Witness for Reporter {
    fn hear(&self, start: &Start, news: News) {
        let Key { namespace, name } = &self.revision;
        let phases = start.phases();
        match news {
            News::Settled => self.registry.cold_start(namespace, name, start.at, phases),
            News::Written | News::Answered => {
                let registry = &self.registry;
                registry.cold_start_goes_on(namespace, name, start.at, phases);
            }
            News::Up | News::Ended => {}
        }
        self.registry.last_starts().note(&self.revision, start);
    }
}

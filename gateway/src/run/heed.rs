//! What ConfigMaps of a cluster change in the process while it runs: its logs of requests.

use std::sync::Arc;

use config::source::kubernetes::config_maps::Settings;
use tokio::sync::watch;

use crate::observe::access_log::template::Template;
use crate::observe::access_log::{AccessLog, Switches};

/// What is wrong with a request log's template.
pub(super) fn check_template(template: &str) -> Result<(), String> {
    match Template::parse(template) {
        Ok(_) => Ok(()),
        Err(bad) => Err(bad.to_string()),
    }
}

/// Logs as a cluster's maps can switch them.
#[derive(Clone, Debug)]
pub(super) struct Logs {
    switches: Arc<Switches>,
    /// A file says how the access log is to be.
    access_is_written: bool,
}

impl Logs {
    pub(super) fn of(log: &AccessLog, started_with: &config::settings::Settings) -> Logs {
        Logs {
            switches: log.switches().clone(),
            access_is_written: started_with.access_log.mode_written,
        }
    }

    /// Does what is said, and whatever comes, until nobody says anything any more.
    pub(super) async fn heed(self, mut said: watch::Receiver<Arc<Settings>>) {
        let mut template = None;
        // Every turn waits for news.
        loop {
            let settings = said.borrow_and_update().clone();
            if !self.access_is_written {
                self.switches.set_access_log(settings.kourier.access_log);
            }
            let wanted = &settings.observability.request_log;
            if template != *wanted {
                template.clone_from(wanted);
                self.write_requests(wanted.as_deref());
            }
            if said.changed().await.is_err() {
                return;
            }
        }
    }

    fn write_requests(&self, template: Option<&str>) {
        match template.map(Template::parse).transpose() {
            Ok(template) => self.switches.set_request_log(template),
            // It was read before, by the same reader.
            Err(bad) => tracing::error!(%bad, "the request log's template cannot be read"),
        }
    }
}

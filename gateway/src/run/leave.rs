//! The way out: a drain, and then the end of everything that is no worker's.

use std::sync::Arc;
use std::time::Duration;

use config::settings::Settings;

use super::crew::Crew;
use super::{RunError, Shift};
use crate::control::world::Running;
use crate::serve::drain::{LAST_WORDS, Phase};
use crate::serve::takeover::HandedOver;
use crate::systemd;

/// Beyond `LAST_WORDS`, how long workers get to come home.
const HOMECOMING: Duration = Duration::from_millis(250);

impl Shift<'_> {
    /// After a takeover nobody is to be told to go elsewhere: the same addresses are served on.
    pub(super) async fn drain(
        &self,
        crew: &mut Crew,
        settings: &Settings,
        handed_over: Option<HandedOver>,
    ) {
        tracing::info!("draining");
        // What is kept for a takeover must not outlive the workers' own.
        self.stock.clear();
        let farewell = if let Some(handed_over) = handed_over {
            crew.hand_over(handed_over.listeners);
            self.admin_leaves.send_replace(true);
            Some(handed_over.farewell)
        } else {
            systemd::stopping();
            self.running.status.drain();
            self.phase.send_replace(Phase::Announced);
            tokio::time::sleep(settings.drain.wait).await;
            None
        };
        self.phase.send_replace(Phase::Closing);
        let home = async {
            crew.closed().await;
            drop(farewell);
            while crew.next().await.is_some() {}
        };
        if tokio::time::timeout(settings.drain.timeout, home)
            .await
            .is_ok()
        {
            return;
        }
        tracing::warn!("drain timeout: refusing what waits, cutting what runs");
        self.phase.send_replace(Phase::Ended);
        let home = async { while crew.next().await.is_some() {} };
        let _in_time = tokio::time::timeout(LAST_WORDS + HOMECOMING, home).await;
    }

    /// Nobody is served any more: processes end, the log is written out.
    pub(super) async fn end(self, crew: Crew) -> Result<(), RunError> {
        if let Some(watched) = self.watched {
            watched.end().await;
        }
        for task in &self.tasks {
            task.abort();
        }
        for task in self.tasks {
            let _aborted = task.await;
        }
        if let Some(Running { local, .. }) = Arc::into_inner(self.running)
            && let Some(local) = Arc::into_inner(local)
        {
            local.shutdown().await;
        }
        for thread in crew.threads {
            if thread.is_finished() && thread.join().is_err() {
                return Err(RunError::Worker("it panicked".to_owned()));
            }
        }
        self.log.shutdown();
        tracing::info!("drained");
        Ok(())
    }
}

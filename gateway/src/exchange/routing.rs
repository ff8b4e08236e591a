//! Which route, rule and revision a request is for, and once more where that has changed.

use std::rc::Rc;
use std::sync::Arc;

use config::route::Query;
use config::settings::Audience;
use config::snapshot::Action;

use super::{End, Exchange};
use crate::http::message::Downstream;
use crate::live::{LocalRevision, Routed};
use crate::refusal::Reason;

/// Most times one request is looked up again because a rule says so.
const REROUTES_MAX: usize = 3;

impl Exchange<'_> {
    /// Where it goes, through rules that have it looked up again.
    pub(super) fn route(&mut self) -> Result<Routed, Reason> {
        if self.client.audience == Audience::Activator {
            return self.named_revision();
        }
        self.rerouted.clear();
        let mut internal = self.client.is_internal();
        loop {
            let again = match self.rerouted.last().map(|last| &last.rule().action) {
                Some(Action::Reroute(reroute)) => Some(&*reroute.host),
                _ => None,
            };
            let query = Query {
                host: again.map_or(self.request.host(), str::as_bytes),
                path: self.request.path(),
                method: self.request.method(),
                fields: &self.request.head,
                internal,
            };
            let random = self.worker.random();
            let routed = self.worker.live.route(&query, random);
            let routed = routed.ok_or(Reason::NoRoute)?;
            if !matches!(routed.rule().action, Action::Reroute(_)) {
                return Ok(routed);
            }
            if self.rerouted.len() == REROUTES_MAX {
                return Err(Reason::LoopDetected);
            }
            self.rerouted.push(routed);
            internal = true;
        }
    }

    pub(super) fn revision(&self, routed: &Routed) -> Result<Rc<LocalRevision>, Reason> {
        let target = routed.target().ok_or(Reason::NoRoute)?;
        self.worker.live.revision(target).ok_or(Reason::NoRoute)
    }

    /// Whoever routes the traffic of a revision that was removed gets this request too, as if it had just
    /// come.
    pub(super) async fn route_again<D: Downstream>(
        &mut self,
        down: &mut D,
    ) -> Result<Rc<LocalRevision>, End> {
        self.unedit();
        // Boxed: few need it, and all who wait would keep room for it.
        let prepared = Box::pin(self.prepare(down)).await?;
        prepared.ok_or(End::Answered)
    }

    /// The revision as it is now: while a request waited, how its endpoints are spoken to may have
    /// changed. `None` once it is removed.
    pub(super) fn as_of_now(&mut self, revision: &LocalRevision) -> Option<Rc<LocalRevision>> {
        self.worker.live.refresh();
        let target = self.routed.as_ref().and_then(Routed::target)?;
        let now = self.worker.live.revision(target)?;
        if !Arc::ptr_eq(now.gate.throttle(), revision.gate.throttle()) {
            return None;
        }
        self.revision = Some(now.clone());
        Some(now)
    }
}

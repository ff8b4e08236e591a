//! What happened, told once: to the counters and to the access log.

use super::Exchange;
use super::knative::labels;
use crate::http::field::Name;
use crate::http::message::{Length, Version};
use crate::observe::facts::{Asked, Facts, Names, Protocol};
use crate::refusal::Reason;

impl Exchange<'_> {
    pub(super) fn record(&self, reason: Option<Reason>) {
        let now = self.worker.tick();
        let head = &self.request.head;
        let facts = Facts {
            names: Names::default(),
            arrived: self.arrived,
            total: now.saturating_duration_since(self.arrived),
            waited: self.seen.waited,
            endpoint: self.seen.endpoint,
            rested: self.seen.rested,
            held: self.seen.held,
            wait_reason: self.seen.wait_reason,
            code: self.seen.code,
            reason,
            attempts: self.seen.attempts,
            request_bytes: head.bytes.len() as u64 + self.pace.body_bytes(),
            response_bytes: self.pace.bytes_written(),
            method: self.request.method(),
            host: self.request.host(),
            target: self.request.target(),
            user_agent: head.first(Name::UserAgent).unwrap_or_default(),
            request_id: self.edits.request_id(head),
            client: self.client.address.ip(),
            endpoint_address: self.seen.address,
            protocol: match self.request.version {
                Version::Http10 => Protocol::Http10,
                Version::Http11 => Protocol::Http11,
                Version::Http2 => Protocol::Http2,
            },
        };
        match &self.routed {
            Some(routed) => {
                let revision = self.revision.as_ref().map(|local| &*local.revision);
                let facts = routed.local.record(&self.worker.metrics, revision, facts);
                self.worker.log(&facts, || self.asked());
            }
            None => self.worker.record_unmatched(&facts),
        }
    }

    /// What a request log is told beside the facts; `None` if this request is none of its own.
    fn asked(&self) -> Option<Asked<'_>> {
        let labels = labels(&self.revision.as_ref()?.revision)?;
        let head = &self.request.head;
        (!self.is_probe()).then_some(Asked {
            service: &labels.service,
            configuration: &labels.configuration,
            port: self.client.address.port(),
            content_length: match self.request.length {
                Length::None => Some(0),
                Length::Exactly(length) => Some(length),
                Length::Chunked | Length::UntilClose => None,
            },
            answer_bytes: self.seen.answer_bytes,
            head,
        })
    }
}

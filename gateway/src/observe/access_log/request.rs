//! One record as a line of the request log.

use std::net::SocketAddr;

use super::record::{AskedRecord, Record, string};
use super::redact::redact;
use super::template::{Template, Values};

/// Replaces what `out` holds with the line of this record. Secrets in its target are hidden, as in
/// the access log.
pub(super) fn line(
    template: &Template,
    record: &Record<'_>,
    asked: &AskedRecord<'_>,
    out: &mut Vec<u8>,
) {
    let mut target = Vec::new();
    redact(record.strings[string::TARGET], &mut target);
    let headers: Vec<_> = asked.fields().collect();
    let values = Values {
        method: record.strings[string::METHOD],
        target: &target,
        host: record.strings[string::HOST],
        user_agent: record.strings[string::USER_AGENT],
        protocol: record.protocol,
        content_length: asked.content_length,
        client: SocketAddr::new(record.client, asked.port),
        code: record.code,
        size: asked.answer_bytes,
        latency: record.total,
        waited: record.waited,
        wait_reason: record.wait_reason,
        namespace: record.strings[string::NAMESPACE],
        revision: record.strings[string::REVISION],
        service: asked.service,
        configuration: asked.configuration,
        endpoint: record.endpoint_address.map(|address| address.ip()),
        headers: &headers,
    };
    out.clear();
    template.render(&values, out);
}

//! TLS, of listeners and to endpoints: what was written → what it means. No file is opened here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::check;
use super::report::{MAPPING, Path, Report};
use crate::at::{At, Mark};
use crate::document::{self, ClientAuth, Text, beside};
use crate::revision::{Authorities, EndpointTls};
use crate::settings::{Certificate, ClientCa, FileRef, Tls};

const CERTIFICATES_MAX: usize = 4096;
/// The one in use, the ones before it, and the next.
const TICKET_KEYS_MAX: usize = 8;
/// Names of one certificate.
const HOSTS_MAX: usize = 256;

pub(super) fn listener(report: &mut Report<'_>, path: &Path<'_>, at: &At<document::Tls>) -> Tls {
    let written = &at.value;
    let list = &path.key("certificates");
    let from_routes = written.from_routes.as_ref().is_some_and(|at| at.value);
    let all = written.certificates.as_ref();
    let mark = all.map_or(at.mark, |all| all.mark);
    let all = all.map_or(&[][..], |all| &all.value);
    if all.is_empty() && !from_routes {
        let hint = "write at least one: { cert: chain.pem, key: key.pem }";
        report.add(list, mark, "[]", "there is no certificate", hint);
    }
    check::at_most(report, list, mark, all.len(), CERTIFICATES_MAX);
    let mut seen = HashMap::new();
    let mut certificates = Vec::with_capacity(all.len());
    for (index, at) in all.iter().enumerate() {
        let path = &list.item(index);
        certificates.push(Certificate {
            cert: file(report, &path.key("cert"), &at.value.cert),
            key: file(report, &path.key("key"), &at.value.key),
            hosts: hosts(
                report,
                &path.key("hosts"),
                at.value.hosts.as_ref(),
                &mut seen,
            ),
        });
    }
    Tls {
        certificates,
        from_routes,
        client_ca: client_ca(report, path, written),
        ticket_keys: ticket_keys(report, &path.key("ticketKeys"), written),
        unknown_name: written.unknown_name.unwrap_or_default(),
    }
}

fn ticket_keys(report: &mut Report<'_>, path: &Path<'_>, written: &document::Tls) -> Vec<FileRef> {
    let Some(all) = &written.ticket_keys else {
        return Vec::new();
    };
    if all.value.is_empty() {
        let hint = "write at least one file, or remove the key";
        report.add(path, all.mark, "[]", "there is no ticket key", hint);
    }
    check::at_most(report, path, all.mark, all.value.len(), TICKET_KEYS_MAX);
    let all = all.value.iter().enumerate();
    all.map(|(index, at)| file(report, &path.item(index), at))
        .collect()
}

fn client_ca(
    report: &mut Report<'_>,
    path: &Path<'_>,
    written: &document::Tls,
) -> Option<ClientCa> {
    let auth = written.client_auth.as_ref();
    let Some(ca) = &written.client_ca else {
        if let Some(at) = auth {
            let value = match at.value {
                ClientAuth::Required => "required",
                ClientAuth::Optional => "optional",
            };
            let hint =
                "write the authorities of client certificates under `clientCa`, or remove it";
            let problem = "`clientAuth` without `clientCa`";
            report.add(&path.key("clientAuth"), at.mark, value, problem, hint);
        }
        return None;
    };
    Some(ClientCa {
        file: file(report, &path.key("clientCa"), ca),
        required: auth.is_none_or(|at| at.value == ClientAuth::Required),
    })
}

/// The names of one certificate; `seen` are those of all before it, and where they stand.
fn hosts(
    report: &mut Report<'_>,
    path: &Path<'_>,
    written: Option<&At<Vec<At<Text>>>>,
    seen: &mut HashMap<Arc<str>, Mark>,
) -> Vec<Arc<str>> {
    let Some(written) = written else {
        return Vec::new();
    };
    if written.value.is_empty() {
        let hint = "write names, or remove the key for those in the certificate";
        report.add(path, written.mark, "[]", "there is no host", hint);
    }
    check::at_most(report, path, written.mark, written.value.len(), HOSTS_MAX);
    let mut hosts = Vec::with_capacity(written.value.len());
    for (index, at) in written.value.iter().enumerate() {
        let path = &path.item(index);
        let host: Arc<str> = check::host_pattern(report, path, at).into();
        if &*host == "*" {
            let hint = "the first certificate is used where no other is: remove it";
            report.add(path, at.mark, &at.value, "no host is named", hint);
        } else if host.parse::<IpAddr>().is_ok() || host.starts_with('[') {
            let hint = "clients ask for host names only, and get the first certificate otherwise";
            report.add(path, at.mark, &at.value, "not a host name", hint);
        } else if let Some(mark) = seen.insert(Arc::clone(&host), at.mark) {
            let hint = format!("keep one of them; the other is at line {}", mark.line);
            let problem = "the host is given to two certificates";
            report.add(path, at.mark, &at.value, problem, hint);
        }
        hosts.push(host);
    }
    hosts
}

pub(super) fn endpoint(
    report: &mut Report<'_>,
    path: &Path<'_>,
    written: &document::EndpointTls,
) -> EndpointTls {
    let server_name = written.server_name.as_ref();
    let client_cert = written.client_cert.as_ref().map(|at| {
        let path = &path.key("clientCert");
        let cert = file(report, &path.key("cert"), &at.value.cert);
        let key = file(report, &path.key("key"), &at.value.key);
        Box::new((cert, key))
    });
    EndpointTls {
        server_name: server_name.map(|at| check::server_name(report, &path.key("serverName"), at)),
        ca: (written.ca.as_ref()).map(|at| Authorities::File(file(report, &path.key("ca"), at))),
        client_cert,
        inside: None,
    }
}

/// What probes endpoints speaks no TLS: it would never find one ready.
pub(super) fn unprobed(report: &mut Report<'_>, path: &Path<'_>, written: &document::Revision) {
    if written.tls.is_none() {
        return;
    }
    if let Some(at) = &written.health {
        let hint = "checks are made without TLS: remove `health`";
        let path = path.key("health");
        report.add(
            &path,
            at.mark,
            MAPPING,
            "`health` together with `tls`",
            hint,
        );
    }
    let process = written.process.as_ref();
    if let Some(at) = process.and_then(|at| at.value.readiness.as_ref()) {
        let problem = "`readiness` together with `tls`";
        let hint = "probes are made without TLS: remove it, and a TCP connect is enough";
        let path = path.key("process");
        let path = &path.key("readiness");
        report.add(
            &path.key("path"),
            at.path.mark,
            &at.path.value,
            problem,
            hint,
        );
    }
}

/// A file that is read by whoever needs what it holds.
pub(super) fn file(report: &mut Report<'_>, path: &Path<'_>, at: &At<Text>) -> FileRef {
    if at.value.is_empty() || at.value.contains('\0') {
        let hint = "write the path of a file";
        report.add(
            path,
            at.mark,
            at.value.escape_debug(),
            "bad file name",
            hint,
        );
    }
    FileRef {
        path: beside(report.file(), &at.value),
        at: report.place(path, at.mark, &at.value),
    }
}

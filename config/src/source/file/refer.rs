//! Other files that documents refer to: who reads them must hear when they change.

use std::path::PathBuf;

use crate::document::{Document, EndpointTls, Text, Tls, beside};

/// The certificates, keys and authorities that a document of `file` names, each once and sorted.
pub(super) fn referred(file: &str, document: &Document) -> Vec<PathBuf> {
    let gateway = document.gateway.as_ref().map(|at| &at.value);
    let listeners = gateway.and_then(|gateway| gateway.listeners.as_ref());
    let listeners = listeners.map_or(&[][..], |at| &at.value).iter();
    let listeners = listeners.filter_map(|at| at.value.tls.as_ref());
    let revisions = document.revisions.iter().flatten();
    let revisions = revisions.filter_map(|at| at.value.tls.as_ref());
    let written = listeners
        .flat_map(|at| of_listener(&at.value))
        .chain(revisions.flat_map(|at| of_endpoints(&at.value)));
    let mut paths: Vec<PathBuf> = written.map(|path| beside(file, path)).collect();
    paths.sort_unstable();
    paths.dedup();
    paths
}

fn of_listener(tls: &Tls) -> Vec<&Text> {
    let certificates = tls.certificates.iter().flat_map(|at| &at.value);
    let files = certificates.flat_map(|at| [&at.value.cert, &at.value.key]);
    let tickets = tls.ticket_keys.iter().flat_map(|at| &at.value);
    let files = files.chain(&tls.client_ca).chain(tickets);
    files.map(|at| &at.value).collect()
}

fn of_endpoints(tls: &EndpointTls) -> Vec<&Text> {
    let ours = tls.client_cert.iter();
    let files = ours.flat_map(|at| [&at.value.cert, &at.value.key]);
    let files = files.chain(&tls.ca);
    files.map(|at| &at.value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fragment::{Content, Fragment, Origin};
    use crate::revision::Authorities;
    use crate::settings::FileRef;
    use crate::{Compiler, parse};

    /// Every key that takes a file to be read later.
    const ALL: &str = "
gateway:
  listeners:
    - address: '127.0.0.1:1'
      tls: { certificates: [{ cert: a.pem, key: /k/a }, { cert: a.pem, key: b }], clientCa: ca, ticketKeys: [t, u] }
revisions:
  - { name: a, tls: { ca: ../up.pem, clientCert: { cert: c.pem, key: c.key } } }
  - { name: b }
";

    #[test]
    fn every_file_that_is_compiled_is_named() {
        let content = parse("/etc/t/f.yaml", ALL);
        let Content::Documents { documents, .. } = &content else {
            panic!("{content:?}")
        };
        let named = referred("/etc/t/f.yaml", &documents[0]);
        let origin = Origin::File("/etc/t/f.yaml".into());
        let compiled = Compiler::default().apply(vec![Fragment { origin, content }]);
        let compiled = compiled.expect("it is valid");
        let mut files: Vec<FileRef> = Vec::new();
        for listener in &compiled.settings.listeners {
            let tls = listener.tls.as_ref().expect("it has tls");
            let of = tls.certificates.iter();
            files.extend(of.flat_map(|one| [one.cert.clone(), one.key.clone()]));
            files.extend(tls.client_ca.iter().map(|ca| ca.file.clone()));
            files.extend(tls.ticket_keys.clone());
        }
        let revisions = compiled.snapshot.revisions();
        for tls in revisions.filter_map(|revision| revision.tls.as_ref()) {
            if let Some(Authorities::File(file)) = &tls.ca {
                files.push(file.clone());
            }
            let (cert, key) = &**tls.client_cert.as_ref().expect("it has one");
            files.extend([cert.clone(), key.clone()]);
        }
        let mut compiled: Vec<PathBuf> = files.into_iter().map(|file| file.path).collect();
        compiled.sort();
        compiled.dedup();
        assert_eq!(named, compiled);
        assert_eq!(named.len(), 9);
    }
}

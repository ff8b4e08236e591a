//! What stands in a certificate: names, times, and the subject as text.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// When a certificate is valid, against the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validity {
    NotYet,
    Now,
    Over,
}

pub(crate) fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    rest.is_empty().then_some(certificate)
}

pub(crate) fn validity(certificate: &X509Certificate<'_>, now: SystemTime) -> Validity {
    let now = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    if now < validity.not_before.timestamp() {
        Validity::NotYet
    } else if now > validity.not_after.timestamp() {
        Validity::Over
    } else {
        Validity::Now
    }
}

/// The alternative names of the certificate, in its order.
pub(crate) fn alternative_names<'a>(certificate: &'a X509Certificate<'_>) -> &'a [GeneralName<'a>] {
    let found = certificate.subject_alternative_name().ok().flatten();
    found.map_or(&[], |found| &found.value.general_names)
}

/// Hosts that a server's certificate is for, in lower case.
pub(crate) fn hosts(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = alternative_names(certificate).iter();
    let hosts = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    hosts.collect()
}

/// A name as RFC 4514 writes it, most specific part first, in printable ASCII: what is not, and what
/// would mean something, is escaped.
pub(crate) fn distinguished(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let parts: Vec<_> = name.iter().collect();
    for part in parts.into_iter().rev() {
        for (index, attribute) in part.iter().enumerate() {
            if index > 0 {
                text.push('+');
            } else if !text.is_empty() {
                text.push(',');
            }
            push_attribute(&mut text, attribute);
        }
    }
    text
}

fn push_attribute(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let oid = attribute.attr_type().to_id_string();
    let known = TYPES.iter().find(|(known, _)| *known == oid);
    match (known, attribute.as_str()) {
        (Some((_, name)), Ok(value)) => {
            text.push_str(name);
            text.push('=');
            push_escaped(text, value);
        }
        // RFC 4514 §2.4: what has no name of its own is written as its encoding.
        (known, _) => {
            text.push_str(known.map_or(oid.as_str(), |(_, name)| name));
            text.push_str("=#");
            push_hex(text, attribute.attr_value().data);
        }
    }
}

/// RFC 4514 §3, and the e-mail address that is often met.
const TYPES: [(&str, &str); 10] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

fn push_escaped(text: &mut String, value: &str) {
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        let edge = at == 0 || at == last;
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b'=' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b' ' if edge => text.push_str("\\ "),
            b'#' if at == 0 => text.push_str("\\#"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                text.push('\\');
                push_hex(text, &[byte]);
            }
        }
    }
}

pub(crate) fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _written = write!(text, "{byte:02x}");
    }
}

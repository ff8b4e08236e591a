//! What stands before and around HTTP: the PROXY protocol, authorities, gRPC's timeouts, certificates.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::exchange::grpc;
use crate::http::authority::{is_authority, same_authority};
use crate::serve::proxy_protocol::{Parsed, parse};
use crate::serve::tls::{identity, x509};

/// Signature, addresses and extensions of version 2 at their longest.
const PROXY_BYTES_MAX: usize = 16 + 216 + 4096;

pub(super) fn proxy_header(bytes: &[u8]) {
    let whole = parse(bytes);
    let mut ends: Vec<usize> = (0..bytes.len().min(64)).collect();
    ends.extend(bytes.len().saturating_sub(8)..bytes.len());
    for end in ends {
        let part = parse(&bytes[..end]);
        assert!(
            part == whole || part == Parsed::More,
            "{part:?} of {end} bytes, {whole:?} of the whole"
        );
    }
    match whole {
        Parsed::More => assert!(bytes.len() < PROXY_BYTES_MAX),
        Parsed::Malformed => {}
        Parsed::Header { length, source } => {
            assert!(length <= bytes.len() && length <= PROXY_BYTES_MAX);
            if let Some(text) = v1(&bytes[..length]) {
                assert_eq!(
                    text,
                    source.map(|source| (source.ip().to_string(), source.port()))
                );
            }
        }
    }
}

/// What a header of version 1 says, by its words.
fn v1(header: &[u8]) -> Option<Option<(String, u16)>> {
    let line = header.strip_prefix(b"PROXY ")?.strip_suffix(b"\r\n")?;
    let line = std::str::from_utf8(line).unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    if words[0] == "UNKNOWN" {
        return Some(None);
    }
    let [_family, source, _destination, port, _port] = words[..] else {
        panic!("{line}");
    };
    let address: std::net::IpAddr = source.parse().unwrap();
    Some(Some((address.to_string(), port.parse().unwrap())))
}

/// Two authorities, a line each.
pub(super) fn authority(bytes: &[u8]) {
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let (one, other) = (
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
    );
    for text in [one, other] {
        if !is_authority(text) {
            continue;
        }
        let text = std::str::from_utf8(text).expect("ASCII");
        assert!(!text.contains([
            '/', '?', '#', '@', '\\', '"', '<', '>', '^', '`', '{', '|', '}'
        ]));
        assert!(!text.contains(|c: char| c.is_whitespace() || c.is_control()));
        let end = text.rfind(']').map_or(0, |at| at + 1);
        let port = text[end..].split_once(':');
        let port = port.map_or("", |(_, port)| port);
        assert!(port.bytes().all(|byte| byte.is_ascii_digit()));
        let address = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        if let Some((address, _)) = address {
            assert!(address.parse::<std::net::Ipv6Addr>().is_ok(), "{text}");
        } else {
            assert!(!text.contains(['[', ']']), "{text}");
        }
    }
    for scheme in [&b"http://"[..], b"https://"] {
        let same = same_authority(one, other, scheme);
        assert_eq!(same, same_authority(other, one, scheme));
        assert!(same_authority(one, one, scheme));
        if same && is_authority(one) && is_authority(other) {
            let bare = |text: &[u8]| {
                let text = String::from_utf8(text.to_ascii_lowercase()).unwrap();
                let port = if scheme.len() == 7 { ":80" } else { ":443" };
                text.strip_suffix(port).unwrap_or(&text).to_owned()
            };
            assert_eq!(bare(one), bare(other));
        }
    }
}

pub(super) fn grpc_timeout(value: &[u8]) {
    let told = grpc::timeout(value);
    let text = std::str::from_utf8(value).unwrap_or_default();
    let wanted = text.char_indices().last().and_then(|(at, unit)| {
        let digits = &text[..at];
        let plain = (1..=8).contains(&at) && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number: u64 = digits.parse().ok().filter(|_| plain)?;
        match unit {
            'H' => Some(Duration::from_secs(number * 3600)),
            'M' => Some(Duration::from_secs(number * 60)),
            'S' => Some(Duration::from_secs(number)),
            'm' => Some(Duration::from_millis(number)),
            'u' => Some(Duration::from_micros(number)),
            'n' => Some(Duration::from_nanos(number)),
            _ => None,
        }
    });
    assert_eq!(told, wanted);
}

/// A certificate, in PEM or bare: what others are told of it is harmless text.
pub(super) fn certificate(bytes: &[u8]) {
    let mut all: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(bytes)
        .take(4)
        .filter_map(Result::ok)
        .collect();
    all.push(CertificateDer::from(bytes));
    for der in &all {
        let Some(parsed) = x509::parse(der) else {
            continue;
        };
        for host in x509::hosts(&parsed) {
            assert!(!host.bytes().any(|byte| byte.is_ascii_uppercase()));
        }
        let subject = x509::distinguished(parsed.subject());
        assert!(
            subject.bytes().all(|byte| matches!(byte, b' '..=b'~')),
            "{subject}"
        );
        let since = u64::try_from(parsed.validity().not_before.timestamp()).unwrap_or(0);
        let Some(now) = UNIX_EPOCH.checked_add(Duration::from_secs(since)) else {
            continue;
        };
        for now in [now, SystemTime::UNIX_EPOCH] {
            let Some(value) = identity::of(der, now) else {
                continue;
            };
            assert!(value.iter().all(|byte| matches!(byte, b' '..=b'~')));
            assert!(value.len() <= 4096 && value.starts_with(b"Hash="));
            let quotes = unescaped_quotes(&value);
            assert_eq!(quotes % 2, 0, "{}", value.escape_ascii());
        }
    }
}

/// Quotes that no backslash takes their meaning.
fn unescaped_quotes(value: &[u8]) -> usize {
    let mut count = 0;
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'"' => count += 1,
            _ => {}
        }
    }
    count
}

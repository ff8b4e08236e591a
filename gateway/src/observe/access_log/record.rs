//! Records in a ring: a length, a fixed part, then the strings, each with its length; behind them, if
//! there is a request log, what only that wants to know.
//!
//! Written and read by this process only; even so, the reader trusts no length.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::template::{FIELDS_MAX, NAME_MAX};
use crate::observe::facts::{Asked, Facts, Protocol, WaitReason, nanos};
use crate::refusal::Reason;

/// The strings of a record, in their order.
pub(super) mod string {
    pub(in super::super) const NAMESPACE: usize = 0;
    pub(in super::super) const ROUTE: usize = 1;
    pub(in super::super) const REVISION: usize = 2;
    pub(in super::super) const METHOD: usize = 3;
    pub(in super::super) const HOST: usize = 4;
    pub(in super::super) const TARGET: usize = 5;
    pub(in super::super) const USER_AGENT: usize = 6;
    pub(in super::super) const REQUEST_ID: usize = 7;
    pub(super) const COUNT: usize = 8;
}

/// Longest strings, before and after escaping. Together they stay below 4 KiB.
pub(super) const LIMITS: [usize; string::COUNT] = [63, 253, 253, 32, 255, 2560, 512, 128];

/// Longest label of a revision, and longest value of a header field in a request log.
const LABEL_MAX: usize = 253;
const VALUE_MAX: usize = 1024;
/// Header fields of one record; of those that come several times each counts.
const VALUES_MAX: usize = 2 * FIELDS_MAX;
/// Bytes of them, with their lengths.
const FIELDS_BYTES_MAX: usize = 16 * 1024;

const FIXED: usize = 7 * 8 + 2 * 4 + 2 + 5 + 16 + 18;

/// What a request log adds is no longer.
const LONGEST_ASKED: usize = 2 + 8 + 8 + 2 * (2 + LABEL_MAX) + FIELDS_BYTES_MAX;

/// Most of what stands in front of that, and all there is without it.
pub(super) const LONGEST: usize = {
    let mut sum = 2 + FIXED;
    let mut i = 0;
    while i < string::COUNT {
        sum += 2 + LIMITS[i];
        i += 1;
    }
    sum
};
const _: () = assert!(LONGEST - FIXED <= 4096);
const _: () = assert!(LONGEST + LONGEST_ASKED <= u16::MAX as usize);
const _: () = assert!(4 + NAME_MAX + VALUE_MAX <= FIELDS_BYTES_MAX);

/// One record, as the log's thread sees it.
#[derive(Debug, PartialEq)]
pub(super) struct Record<'a> {
    /// Counted from the base it was written with.
    pub(super) arrived: Duration,
    pub(super) total: Duration,
    pub(super) waited: Duration,
    pub(super) endpoint: Duration,
    pub(super) rested: Duration,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    pub(super) weight: u32,
    pub(super) attempts: u32,
    pub(super) code: u16,
    pub(super) reason: Option<Reason>,
    pub(super) protocol: Protocol,
    pub(super) held: bool,
    pub(super) wait_reason: Option<WaitReason>,
    pub(super) client: IpAddr,
    pub(super) endpoint_address: Option<SocketAddr>,
    /// By the constants of [`string`].
    pub(super) strings: [&'a [u8]; string::COUNT],
    /// For the request log, if it is one of its own.
    pub(super) asked: Option<AskedRecord<'a>>,
}

/// What a request log asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct AskedRecord<'a> {
    pub(super) port: u16,
    /// -1 = nobody said.
    pub(super) content_length: i64,
    pub(super) answer_bytes: u64,
    pub(super) service: &'a [u8],
    pub(super) configuration: &'a [u8],
    /// Read by [`AskedRecord::fields`].
    fields: &'a [u8],
}

/// Replaces what `out` holds with one record. Strings are cut at their limits. `asked`: what a request
/// log wants to know, and the names of the header fields it looks at, in lower case. A weight of 0
/// means that the record is for that one only.
pub(super) fn encode(
    out: &mut Vec<u8>,
    facts: &Facts<'_>,
    weight: u32,
    base: Instant,
    asked: Option<(&Asked<'_>, &[Box<str>])>,
) {
    out.clear();
    out.extend_from_slice(&[0; 2]);
    for number in [
        nanos(facts.arrived.saturating_duration_since(base)),
        nanos(facts.total),
        nanos(facts.waited),
        nanos(facts.endpoint),
        nanos(facts.rested),
        facts.request_bytes,
        facts.response_bytes,
    ] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for number in [weight, facts.attempts] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&facts.code.to_le_bytes());
    out.extend_from_slice(&[
        facts.reason.map_or(0, |reason| reason as u8 + 1),
        facts.protocol as u8,
        u8::from(facts.held),
        facts.wait_reason.map_or(0, |reason| reason as u8 + 1),
        u8::from(facts.endpoint_address.is_some()),
    ]);
    let nowhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let endpoint = facts.endpoint_address.unwrap_or(nowhere);
    out.extend_from_slice(&octets(facts.client));
    out.extend_from_slice(&octets(endpoint.ip()));
    out.extend_from_slice(&endpoint.port().to_le_bytes());
    let strings: [&[u8]; string::COUNT] = [
        facts.names.namespace.as_bytes(),
        facts.names.route.as_bytes(),
        facts.names.revision.as_bytes(),
        facts.method,
        facts.host,
        facts.target,
        facts.user_agent,
        facts.request_id,
    ];
    for (string, limit) in strings.iter().zip(LIMITS) {
        put(out, string, limit);
    }
    if let Some((asked, names)) = asked {
        encode_asked(out, asked, names);
    }
    let rest = length(out.len() - 2);
    out[..2].copy_from_slice(&rest);
}

fn encode_asked(out: &mut Vec<u8>, asked: &Asked<'_>, names: &[Box<str>]) {
    out.extend_from_slice(&asked.port.to_le_bytes());
    let said = asked.content_length;
    let said = said.map_or(-1, |length| i64::try_from(length).unwrap_or(i64::MAX));
    out.extend_from_slice(&said.to_le_bytes());
    out.extend_from_slice(&asked.answer_bytes.to_le_bytes());
    for label in [asked.service, asked.configuration] {
        put(out, label.as_bytes(), LABEL_MAX);
    }
    let most = out.len() + FIELDS_BYTES_MAX;
    let head = asked.head;
    let is_asked = |name: &[u8]| {
        let mut names = names.iter();
        names.any(|asked| asked.as_bytes().eq_ignore_ascii_case(name))
    };
    let fields = head.fields().iter();
    let fields = fields.map(|field| (field.name.of(&head.bytes), head.value(field)));
    let fields = fields.filter(|(name, _)| is_asked(name));
    for (name, value) in fields.take(VALUES_MAX) {
        if out.len() + 4 + NAME_MAX + VALUE_MAX > most {
            break;
        }
        put(out, name, NAME_MAX);
        put(out, value, VALUE_MAX);
    }
}

/// With its length, cut at the limit.
fn put(out: &mut Vec<u8>, bytes: &[u8], limit: usize) {
    let bytes = &bytes[..bytes.len().min(limit)];
    out.extend_from_slice(&length(bytes.len()));
    out.extend_from_slice(bytes);
}

/// Takes the first record off `bytes`. `None` at their end.
pub(super) fn decode<'a>(bytes: &mut &'a [u8]) -> Option<Record<'a>> {
    let mut rest = sized(bytes)?;
    let rest = &mut rest;
    let (arrived, total) = (duration(rest)?, duration(rest)?);
    let (waited, endpoint) = (duration(rest)?, duration(rest)?);
    let rested = duration(rest)?;
    let request_bytes = u64::from_le_bytes(array(rest)?);
    let response_bytes = u64::from_le_bytes(array(rest)?);
    let weight = u32::from_le_bytes(array(rest)?);
    let attempts = u32::from_le_bytes(array(rest)?);
    let code = u16::from_le_bytes(array(rest)?);
    let [reason, protocol, held, wait_reason, has_endpoint] = array(rest)?;
    let client = address(rest)?;
    let endpoint_address = SocketAddr::new(address(rest)?, u16::from_le_bytes(array(rest)?));
    let mut strings: [&[u8]; string::COUNT] = [&[]; string::COUNT];
    for string in &mut strings {
        *string = sized(rest)?;
    }
    let asked = match rest.is_empty() {
        true => None,
        false => Some(decode_asked(rest)?),
    };
    Some(Record {
        arrived,
        total,
        waited,
        endpoint,
        rested,
        request_bytes,
        response_bytes,
        weight,
        attempts,
        code,
        reason: usize::from(reason)
            .checked_sub(1)
            .and_then(|index| Reason::ALL.get(index).copied()),
        protocol: match protocol {
            0 => Protocol::Http10,
            1 => Protocol::Http11,
            _ => Protocol::Http2,
        },
        held: held != 0,
        wait_reason: usize::from(wait_reason)
            .checked_sub(1)
            .and_then(|index| WaitReason::ALL.get(index).copied()),
        client,
        endpoint_address: (has_endpoint != 0).then_some(endpoint_address),
        strings,
        asked,
    })
}

fn decode_asked<'a>(rest: &mut &'a [u8]) -> Option<AskedRecord<'a>> {
    Some(AskedRecord {
        port: u16::from_le_bytes(array(rest)?),
        content_length: i64::from_le_bytes(array(rest)?),
        answer_bytes: u64::from_le_bytes(array(rest)?),
        service: sized(rest)?,
        configuration: sized(rest)?,
        fields: rest,
    })
}

impl<'a> AskedRecord<'a> {
    /// Names and values of header fields, in their order.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut rest = self.fields;
        std::iter::from_fn(move || Some((sized(&mut rest)?, sized(&mut rest)?)))
    }
}

fn length(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes()
}

/// IPv4 addresses travel mapped, and IPv6 sockets see them mapped anyway.
fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn address(bytes: &mut &[u8]) -> Option<IpAddr> {
    Some(Ipv6Addr::from(array::<16>(bytes)?).to_canonical())
}

fn duration(bytes: &mut &[u8]) -> Option<Duration> {
    Some(Duration::from_nanos(u64::from_le_bytes(array(bytes)?)))
}

fn array<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (array, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*array)
}

fn sized<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u16::from_le_bytes(array(bytes)?);
    let (string, rest) = bytes.split_at_checked(usize::from(length))?;
    *bytes = rest;
    Some(string)
}

//! Records in a ring: a length, a fixed part, then the strings, each with its length.
//!
//! Written and read by this process only; even so, the reader trusts no length.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::observe::facts::{Facts, Protocol, nanos};
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

const FIXED: usize = 6 * 8 + 2 * 4 + 2 + 4 + 16 + 18;

/// No record is longer.
pub(super) const LONGEST: usize = {
    let mut sum = 2 + FIXED;
    let mut i = 0;
    while i < string::COUNT {
        sum += 2 + LIMITS[i];
        i += 1;
    }
    sum
};
const _: () = assert!(LONGEST <= u16::MAX as usize && LONGEST - FIXED <= 4096);

/// One record, as the log's thread sees it.
#[derive(Debug, PartialEq)]
pub(super) struct Record<'a> {
    /// Counted from the base it was written with.
    pub(super) arrived: Duration,
    pub(super) total: Duration,
    pub(super) waited: Duration,
    pub(super) endpoint: Duration,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    pub(super) weight: u32,
    pub(super) attempts: u32,
    pub(super) code: u16,
    pub(super) reason: Option<Reason>,
    pub(super) protocol: Protocol,
    pub(super) held: bool,
    pub(super) client: IpAddr,
    pub(super) endpoint_address: Option<SocketAddr>,
    /// By the constants of [`string`].
    pub(super) strings: [&'a [u8]; string::COUNT],
}

/// Replaces what `out` holds with one record. Strings are cut at their limits.
pub(super) fn encode(out: &mut Vec<u8>, facts: &Facts<'_>, weight: u32, base: Instant) {
    out.clear();
    out.extend_from_slice(&[0; 2]);
    for number in [
        nanos(facts.arrived.saturating_duration_since(base)),
        nanos(facts.total),
        nanos(facts.waited),
        nanos(facts.endpoint),
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
        let string = &string[..string.len().min(limit)];
        out.extend_from_slice(&length(string.len()));
        out.extend_from_slice(string);
    }
    let rest = length(out.len() - 2);
    out[..2].copy_from_slice(&rest);
}

/// Takes the first record off `bytes`. `None` at their end.
pub(super) fn decode<'a>(bytes: &mut &'a [u8]) -> Option<Record<'a>> {
    let mut rest = sized(bytes)?;
    let rest = &mut rest;
    let (arrived, total) = (duration(rest)?, duration(rest)?);
    let (waited, endpoint) = (duration(rest)?, duration(rest)?);
    let request_bytes = u64::from_le_bytes(array(rest)?);
    let response_bytes = u64::from_le_bytes(array(rest)?);
    let weight = u32::from_le_bytes(array(rest)?);
    let attempts = u32::from_le_bytes(array(rest)?);
    let code = u16::from_le_bytes(array(rest)?);
    let [reason, protocol, held, has_endpoint] = array(rest)?;
    let client = address(rest)?;
    let endpoint_address = SocketAddr::new(address(rest)?, u16::from_le_bytes(array(rest)?));
    let mut strings: [&[u8]; string::COUNT] = [&[]; string::COUNT];
    for string in &mut strings {
        *string = sized(rest)?;
    }
    Some(Record {
        arrived,
        total,
        waited,
        endpoint,
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
        client,
        endpoint_address: (has_endpoint != 0).then_some(endpoint_address),
        strings,
    })
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

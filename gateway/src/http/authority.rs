//! Authorities: who a request is for (RFC 3986 §3.2), and whether two spellings mean the same.

/// A host, perhaps with a port, and nothing else (RFC 3986 §3.2; no user part, no zone).
pub(crate) fn is_authority(authority: &[u8]) -> bool {
    let name_end = match authority.first() {
        Some(b'[') => memchr::memchr(b']', authority).map_or(0, |close| close + 1),
        _ => memchr::memchr(b':', authority).unwrap_or(authority.len()),
    };
    let (name, port) = authority.split_at(name_end);
    let fits = match port {
        [] => true,
        [b':', digits @ ..] => is_port(digits),
        _ => false,
    };
    fits && is_host(name)
}

/// Digits of a port that there can be, or none at all (RFC 3986 §3.2.3).
fn is_port(digits: &[u8]) -> bool {
    let number = digits.iter().try_fold(0u16, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
        sum.checked_mul(10)?.checked_add(u16::from(digit))
    });
    number.is_some()
}

fn is_host(name: &[u8]) -> bool {
    match name {
        [] => false,
        [b'[', address @ .., b']'] => std::str::from_utf8(address)
            .is_ok_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()),
        name => is_name(name),
    }
}

/// Labels with a dot between each two, and perhaps one behind the last.
fn is_name(name: &[u8]) -> bool {
    let mut before = b'.';
    name.iter().all(|byte| {
        let empty_label = *byte == b'.' && before == b'.';
        before = *byte;
        HOST_BYTES[usize::from(*byte)] && !empty_label
    })
}

/// What a registered name is made of (RFC 3986 §3.2.2), but for encoded octets: no name needs one,
/// and who decodes them may find another host, or the end of it.
const HOST_BYTES: [bool; 256] = {
    let others = b"-._~!$&'()*+,;=";
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128u8 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

/// Case-insensitive, the default port of the scheme (`http://` or `https://`) stripped.
pub(crate) fn same_authority(one: &[u8], other: &[u8], scheme: &[u8]) -> bool {
    let port: &[u8] = if scheme.len() == b"http://".len() {
        b":80"
    } else {
        b":443"
    };
    let strip = |authority: &[u8]| {
        authority.len()
            - if authority.ends_with(port) {
                port.len()
            } else {
                0
            }
    };
    one[..strip(one)].eq_ignore_ascii_case(&other[..strip(other)])
}

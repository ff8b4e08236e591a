//! What the values of header fields say.

/// The number of a Content-Length: digits alone, and not too many of them.
pub(crate) fn number(value: &[u8]) -> Option<u64> {
    if !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Whether a list of tokens has this one.
pub(crate) fn has(value: &[u8], token: &str) -> bool {
    value
        .split(|byte| *byte == b',')
        .any(|one| one.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_digits_alone() {
        assert_eq!(number(b"0042"), Some(42));
        for value in [&b""[..], b"+5", b"-5", b"5 ", b"18446744073709551616"] {
            assert_eq!(number(value), None, "{}", value.escape_ascii());
        }
    }
}

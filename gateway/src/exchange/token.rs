//! A claim of a bearer token, read without looking whether it is true: it tells clients apart that take
//! turns, nothing more.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// Longest token (`Authorization` without its scheme).
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// The value of a claim in the JWT (RFC 7519) that these credentials carry, if it is a text or a number.
pub(super) fn claim(credentials: &[u8], name: &str) -> Option<String> {
    let (scheme, token) = credentials.split_at_checked(b"Bearer ".len())?;
    if !scheme.eq_ignore_ascii_case(b"Bearer ") || token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    // RFC 7515 §7.1: header, payload, signature.
    let mut parts = token.trim_ascii().split(|byte| *byte == b'.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let mut claims: Value = serde_json::from_slice(&payload).ok()?;
    match claims.get_mut(name)?.take() {
        Value::String(text) if !text.is_empty() => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(payload: &[u8]) -> Vec<u8> {
        format!("Bearer e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload)).into_bytes()
    }

    #[test]
    fn texts_and_numbers_are_read_whoever_signed_them() {
        let payload = br#"{"sub":"ann","tenant":7,"at":1.5,"admin":true,"none":null,"in":{"sub":"b"},"":"x","empty":""}"#;
        let of = |name| claim(&bearer(payload), name);
        assert_eq!(of("sub").as_deref(), Some("ann"));
        assert_eq!(of("tenant").as_deref(), Some("7"));
        assert_eq!(of("at").as_deref(), Some("1.5"));
        for name in ["admin", "none", "in", "empty", "missing", "0"] {
            assert_eq!(of(name), None, "{name}");
        }
        let lower = bearer(payload).to_ascii_lowercase();
        assert_eq!(claim(&lower[..7], "sub"), None);
        let mut lower = bearer(payload);
        lower[..6].make_ascii_lowercase();
        assert_eq!(claim(&lower, "sub").as_deref(), Some("ann"));
    }

    #[test]
    fn what_is_no_token_has_no_claim() {
        let deep = [b"{\"a\":".as_slice(), &b"[".repeat(2000)].concat();
        let cases: [&[u8]; 12] = [
            b"",
            b"Bearer",
            b"Bearer ",
            b"Bearer a",
            b"Bearer a.b",
            b"Bearer a.b.c.d",
            b"Bearer ..",
            b"Bearer \xff.\xff.\xff",
            b"Basic e30.eyJzdWIiOiJhIn0.c2ln",
            &bearer(b"[1,2]"),
            &bearer(b"{\"sub\":\"a\""),
            &bearer(&deep),
        ];
        for credentials in cases {
            assert_eq!(claim(credentials, "sub"), None, "{credentials:?}");
        }
    }

    #[test]
    fn a_token_beyond_its_bound_is_not_read() {
        let payload = |bytes: usize| format!("{{\"sub\":\"a\",\"x\":\"{}\"}}", "x".repeat(bytes));
        let small = bearer(payload(5 * 1024).as_bytes());
        assert_eq!(claim(&small, "sub").as_deref(), Some("a"));
        let large = bearer(payload(TOKEN_BYTES_MAX).as_bytes());
        assert_eq!(claim(&large, "sub"), None);
    }
}

//! Hides secrets in request targets: values of query parameters with telling names, and userinfo.

use percent_encoding::percent_decode;

const HIDDEN: &[u8] = b"***";

/// Parameters whose value is a secret, in lower case with `_` for `-`. A name that ends in `_` and
/// one of these (`x-amz-signature`, `client_secret`) is one too.
const SECRET: [&str; 24] = [
    "accesskey",
    "access_key",
    "apikey",
    "api_key",
    "assertion",
    "auth",
    "authorization",
    "credential",
    "credentials",
    "jwt",
    "key",
    "pass",
    "passwd",
    "password",
    "private_key",
    "pwd",
    "secret",
    "session",
    "sessionid",
    "session_id",
    "sid",
    "sig",
    "signature",
    "token",
];

/// A secret under just this name: what a client gets a token for (RFC 6749 §4.1.2).
const AUTHORIZATION_CODE: &str = "code";

/// Appends `target` with every secret replaced by `***`.
pub(super) fn redact(target: &[u8], out: &mut Vec<u8>) {
    let query = memchr::memchr2(b'?', b'#', target).unwrap_or(target.len());
    let (path, query) = target.split_at(query);
    without_userinfo(path, out);
    // Nested query strings (`?to=/x?token=...`) and fragments are looked through too.
    let separator = |byte: &u8| matches!(byte, b'?' | b'&' | b';' | b'#');
    for part in query.split_inclusive(separator) {
        let (parameter, end) = match part.split_last() {
            Some((last, parameter)) if separator(last) => (parameter, &part[parameter.len()..]),
            _ => (part, &[][..]),
        };
        match memchr::memchr(b'=', parameter) {
            Some(equals) if is_secret(&parameter[..equals]) => {
                out.extend_from_slice(&parameter[..=equals]);
                out.extend_from_slice(HIDDEN);
            }
            _ => out.extend_from_slice(parameter),
        }
        out.extend_from_slice(end);
    }
}

/// `http://user:password@host/` in absolute form (RFC 9110 §4.2.4).
fn without_userinfo(path: &[u8], out: &mut Vec<u8>) {
    let authority = path
        .windows(3)
        .position(|window| window == b"://")
        .map(|scheme| scheme + 3);
    if let Some(start) = authority {
        let length = memchr::memchr(b'/', &path[start..]).unwrap_or(path.len() - start);
        if let Some(at) = memchr::memrchr(b'@', &path[start..start + length]) {
            out.extend_from_slice(&path[..start]);
            out.extend_from_slice(HIDDEN);
            out.extend_from_slice(&path[start + at..]);
            return;
        }
    }
    out.extend_from_slice(path);
}

fn is_secret(name: &[u8]) -> bool {
    let name: String = percent_decode(name)
        .map(|byte| match byte.to_ascii_lowercase() {
            b'-' => '_',
            other => char::from(other),
        })
        .collect();
    name == AUTHORIZATION_CODE
        || SECRET.iter().any(|secret| {
            name.strip_suffix(secret)
                .is_some_and(|before| before.is_empty() || before.ends_with('_'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_redacted(target: &str, expected: &str) {
        let mut out = Vec::new();
        redact(target.as_bytes(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn secrets_in_queries_are_hidden() {
        assert_redacted("/a?token=abc&x=1", "/a?token=***&x=1");
        assert_redacted("/a?x=1&access_token=a=b", "/a?x=1&access_token=***");
        assert_redacted("/a?API-Key=1;Password=2", "/a?API-Key=***;Password=***");
        assert_redacted("/a?X-Amz-Signature=ff&n=1", "/a?X-Amz-Signature=***&n=1");
        assert_redacted("/a?client_secret=s&sig=t", "/a?client_secret=***&sig=***");
        assert_redacted("/a?%74oken=abc", "/a?%74oken=***");
        assert_redacted(
            "/a?to=/b?key=1&x=2#token=3",
            "/a?to=/b?key=***&x=2#token=***",
        );
        assert_redacted("/a?secret=", "/a?secret=***");
        assert_redacted("/back?code=SplxlO&state=x", "/back?code=***&state=x");
    }

    #[test]
    fn everything_else_is_kept() {
        for target in [
            "/",
            "/token=1/x",
            "/a?monkey=1&tokens=2&page=3",
            "/a?country_code=ch&codec=x",
            "/a?token",
            "/a?&&=&",
            "*",
            "host:443",
            "/mail/@me",
            "http://host/@a",
        ] {
            assert_redacted(target, target);
        }
    }

    #[test]
    fn userinfo_is_hidden() {
        assert_redacted("http://u:p@host/x?a=1", "http://***@host/x?a=1");
        assert_redacted("http://u@p@host", "http://***@host");
    }
}

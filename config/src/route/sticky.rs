//! The key of a sticky split, out of a request's fields.

use super::Fields;
use crate::snapshot::Sticky;

/// `Cookie` fields that are looked through; HTTP/2 clients may send one per cookie (RFC 9113
/// §8.2.3).
const COOKIE_FIELDS_READ: usize = 64;

impl Sticky {
    /// The key, or `None` when the request carries none (an empty one counts as none).
    #[must_use]
    pub fn key<'a>(&self, fields: &'a dyn Fields) -> Option<&'a [u8]> {
        let key = match self {
            Sticky::Header(name) => fields.first(name),
            Sticky::Cookie { name, .. } => (0..COOKIE_FIELDS_READ)
                .map_while(|index| fields.nth("cookie", index))
                .find_map(|field| cookie(field, name.as_bytes())),
        };
        key.filter(|key| !key.is_empty())
    }
}

/// The value of a cookie in a `Cookie` field: pairs parted by `; ` (RFC 6265 §4.2.1).
fn cookie<'a>(field: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    field
        .split(|byte| *byte == b';')
        .find_map(|pair| pair.trim_ascii().strip_prefix(name)?.strip_prefix(b"="))
        .map(unquoted)
}

fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        bare => bare,
    }
}

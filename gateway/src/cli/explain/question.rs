//! The request that is asked about, as it is typed.

use std::str::FromStr;

use hyper::Method;
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::uri::Authority;

use crate::admin::place::Place;

/// A whole request head on paper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) method: Method,
    /// Perhaps with a port.
    pub(super) host: String,
    /// Raw, without the query; begins with a slash.
    pub(super) path: String,
    pub(super) headers: Vec<Field>,
    /// Asked at an internal listener.
    pub(super) internal: bool,
}

impl Question {
    /// Every field of the head, `Host` included.
    pub(super) fn fields(&self) -> Vec<(String, String)> {
        let others = self.headers.iter().filter(|field| !field.is_host());
        std::iter::once(("Host".to_owned(), self.host.clone()))
            .chain(others.map(|field| (field.name.clone(), field.value.clone())))
            .collect()
    }
}

/// A field as `-H` takes it: `Name: value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Field {
    pub(super) name: String,
    /// Without surrounding spaces.
    pub(super) value: String,
}

impl Field {
    fn is_host(&self) -> bool {
        self.name.eq_ignore_ascii_case("host")
    }
}

impl FromStr for Field {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Field, &'static str> {
        let (name, value) = text.split_once(':').ok_or("write 'Name: value'")?;
        let value = value.trim_matches([' ', '\t']);
        HeaderName::from_bytes(name.as_bytes()).map_err(|_invalid| "not the name of a field")?;
        HeaderValue::from_str(value).map_err(|_invalid| "not the value of a field")?;
        Ok(Field {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// The host that is asked for: a `Host` field says it before the URL does, as with curl.
///
/// # Errors
/// A usage error, for people.
pub(super) fn host(url: &Place, headers: &[Field]) -> Result<String, &'static str> {
    let mut said = headers.iter().filter(|field| field.is_host());
    let host = match (said.next(), said.next()) {
        (Some(_), Some(_)) => return Err("a request has one Host"),
        (Some(field), None) => field.value.parse::<Authority>().ok(),
        (None, _) => match &url.host {
            Some(host) => host.parse().ok(),
            None => return Err("name the host: http://HOST/PATH, or `-H 'Host: HOST'`"),
        },
    };
    let plain = host.filter(|authority| !authority.as_str().contains('@'));
    Ok(plain.ok_or("that is no host")?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        text.parse().unwrap()
    }

    fn field(text: &str) -> Field {
        text.parse().unwrap()
    }

    #[test]
    fn fields_are_names_and_trimmed_values() {
        for (text, name, value) in [
            ("x-canary: 1", "x-canary", "1"),
            ("Referer:http://a:1/ ", "Referer", "http://a:1/"),
            ("Empty:", "Empty", ""),
        ] {
            let got = field(text);
            assert_eq!((&*got.name, &*got.value), (name, value), "{text}");
        }
        for text in ["", "x", ": 1", "a b: 1", "a : 1", "a: x\ny"] {
            assert!(text.parse::<Field>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_host_field_takes_the_place_of_the_urls_host() {
        let named = place("http://a/x");
        assert_eq!(host(&named, &[]), Ok("a".to_owned()));
        assert_eq!(host(&named, &[field("HOST: b:80")]), Ok("b:80".to_owned()));
        let bare = place("/x");
        assert_eq!(host(&bare, &[field("Host: b")]), Ok("b".to_owned()));
    }

    #[test]
    fn without_exactly_one_host_there_is_nothing_to_explain() {
        let url = place("/x");
        assert!(host(&url, &[]).is_err());
        for fields in [
            &["Host: a", "host: b"][..],
            &["Host:"],
            &["Host: a/b"],
            &["Host: u@a"],
        ] {
            let fields: Vec<Field> = fields.iter().map(|text| field(text)).collect();
            assert!(host(&url, &fields).is_err(), "{fields:?}");
        }
    }

    #[test]
    fn rules_see_the_host_that_is_asked_for_once() {
        let question = Question {
            method: Method::GET,
            host: "b".to_owned(),
            path: "/".to_owned(),
            headers: vec![field("host: b"), field("X: 1")],
            internal: false,
        };
        let expected = [("Host", "b"), ("X", "1")];
        assert_eq!(
            question.fields(),
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }
}

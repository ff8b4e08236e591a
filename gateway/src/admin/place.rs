//! Where a request would go, as people type it or copy it from a browser.

use std::str::FromStr;

use hyper::Uri;

/// What a URL says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Perhaps with a port; missing in `/path`.
    pub(crate) host: Option<String>,
    pub(crate) path: String,
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Place, &'static str> {
        const USAGE: &str = "write http://HOST/PATH";
        let whole = if text.contains("://") || text.starts_with('/') {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let uri: Uri = whole.parse().map_err(|_malformed| USAGE)?;
        if !matches!(uri.scheme_str(), None | Some("http" | "https")) {
            return Err("the scheme is http or https");
        }
        let host = uri.authority().map(|authority| {
            let whole = authority.as_str();
            let after_user = whole.rsplit_once('@').map_or(whole, |(_, host)| host);
            after_user.to_owned()
        });
        Ok(Place {
            host,
            path: uri.path().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_give_host_and_raw_path() {
        for (text, host, path) in [
            ("http://a.example.com", Some("a.example.com"), "/"),
            ("https://a:8443/x?y=/z#f", Some("a:8443"), "/x"),
            (
                "a.example.com/x%2fy/../z",
                Some("a.example.com"),
                "/x%2fy/../z",
            ),
            ("http://u:p@a/", Some("a"), "/"),
            ("http://[::1]:80/", Some("[::1]:80"), "/"),
            ("http://a?q", Some("a"), "/"),
            ("/x//y?q", None, "/x//y"),
        ] {
            let expected = Place {
                host: host.map(str::to_owned),
                path: path.to_owned(),
            };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for text in ["", "ftp://a/", "http:///x", "http://a b/", "http://a/x y"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}

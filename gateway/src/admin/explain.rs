//! The question that `/api/explain` was asked.

use hyper::Uri;

use crate::observe::world::Request;

/// Reads the query string: `url`, and perhaps `method`, `audience` and any number of `header`s.
///
/// # Errors
/// A sentence for whoever asked.
pub(crate) fn parse(query: &str) -> Result<Request, &'static str> {
    let mut request = None;
    let mut method = "GET".to_owned();
    let mut headers = Vec::new();
    let mut internal = false;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "url" => request = Some(url(&value)?),
            "method" => method = value.into_owned(),
            "header" => {
                let (name, value) = value.split_once(':').ok_or("header is Name:value")?;
                headers.push((name.trim().to_owned(), value.trim().to_owned()));
            }
            "audience" => {
                internal = match &*value {
                    "public" => false,
                    "internal" => true,
                    _ => return Err("audience is public or internal"),
                };
            }
            _ => return Err("parameters are url, method, header and audience"),
        }
    }
    let (host, path) = request.ok_or("url is missing")?;
    Ok(Request {
        method,
        host,
        path,
        headers,
        internal,
    })
}

/// Host and path of a URL, whose scheme may be missing.
fn url(text: &str) -> Result<(String, String), &'static str> {
    let whole = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let url: Uri = whole.parse().map_err(|_malformed| "url is malformed")?;
    let authority = url.authority().ok_or("url has no host")?.as_str();
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    Ok((host.to_owned(), url.path().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(host: &str, path: &str) -> Request {
        Request {
            method: "GET".to_owned(),
            host: host.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            internal: false,
        }
    }

    #[test]
    fn questions_are_read() {
        let cases = [
            ("url=http://a.example.com", asked("a.example.com", "/")),
            (
                "url=a.example.com:80/x%2520y",
                asked("a.example.com:80", "/x%20y"),
            ),
            ("url=https://u:p@h/a/../b?q%23f", asked("h", "/a/../b")),
            (
                "url=h&method=POST&header=A:1&header=B%3A%20x:y&audience=internal",
                Request {
                    method: "POST".to_owned(),
                    headers: vec![
                        ("A".to_owned(), "1".to_owned()),
                        ("B".to_owned(), "x:y".to_owned()),
                    ],
                    internal: true,
                    ..asked("h", "/")
                },
            ),
        ];
        for (query, expected) in cases {
            assert_eq!(parse(query), Ok(expected), "{query}");
        }
    }

    #[test]
    fn malformed_questions_are_told_why() {
        for query in [
            "",
            "method=GET",
            "url=",
            "url=/path",
            "url=http://a%20b/",
            "url=h&header=novalue",
            "url=h&audience=all",
            "url=h&verbose=1",
        ] {
            assert!(parse(query).is_err(), "{query}");
        }
    }
}

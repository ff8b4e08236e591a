//! `POST /api/prewarm`: who may, and what was asked.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use config::duration;
use hyper::StatusCode;
use hyper::header::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use super::place::Place;
use crate::observe::world::{Prewarm, Wanted};

/// Bytes of the longest question.
pub(super) const BODY_MAX: usize = 16 * 1024;

/// Bytes of the longest file with a token.
const TOKEN_MAX: u64 = 4096;

const ENDPOINTS_MAX: u32 = 1000;

const KNOWN: &str = "namespace, revision, route, endpoints, for and wait";

/// How long endpoints stay, or are asked for, where nothing is said.
const TIME: Duration = Duration::from_secs(60);
const TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long an answer may be waited for.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(120);

/// A refusal: its status, and a sentence for whoever asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) StatusCode, pub(super) String);

/// What is asked for, and how long an answer may take.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) prewarm: Prewarm,
    /// `None`: the answer says what was set in motion.
    pub(super) wait: Option<Duration>,
}

/// A body, whatever its members are.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Members {
    namespace: Option<Value>,
    revision: Option<Value>,
    route: Option<Value>,
    endpoints: Option<Value>,
    #[serde(rename = "for")]
    time: Option<Value>,
    wait: Option<Value>,
}

#[derive(Debug, Default)]
struct Written {
    namespace: Option<String>,
    revision: Option<String>,
    route: Option<String>,
    endpoints: Option<u32>,
    time: Option<String>,
    wait: Option<String>,
}

/// Whether the request brings the token that the file holds. The file is read each time, so that a
/// token can be changed while the process runs.
///
/// # Errors
/// Why not.
pub(super) async fn authorise(file: Option<&Path>, headers: &HeaderMap) -> Result<(), Refused> {
    let Some(file) = file else {
        let why = "nothing can be changed here: set `gateway.adminTokenFile` to the path of a file that \
                   holds a token, start again, and send `authorization: Bearer TOKEN`";
        return Err(Refused(StatusCode::FORBIDDEN, why.to_owned()));
    };
    let path = file.to_owned();
    let read = tokio::task::spawn_blocking(move || read(&path)).await;
    let token = match read.map_err(std::io::Error::other).flatten() {
        Ok(token) => token,
        Err(error) => {
            tracing::error!(file = %file.display(), %error, "cannot read the admin token");
            let why = "the token cannot be read: see the log of the gateway";
            return Err(Refused(StatusCode::INTERNAL_SERVER_ERROR, why.to_owned()));
        }
    };
    let brought = headers.get(hyper::header::AUTHORIZATION);
    let brought = brought.and_then(|value| bearer(value.as_bytes()));
    // Only how long the token is can be learnt from how long this takes.
    let is_it = |brought: &[u8]| verify_slices_are_equal(brought, &token).is_ok();
    let why = match brought {
        Some(brought) if is_it(brought) => return Ok(()),
        Some(_) => {
            "the token is not the gateway's: send what is in the file of `gateway.adminTokenFile`"
        }
        None => "send `authorization: Bearer TOKEN` with the token of `gateway.adminTokenFile`",
    };
    Err(Refused(StatusCode::UNAUTHORIZED, why.to_owned()))
}

fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut token = Vec::new();
    let file = std::fs::File::open(file)?;
    file.take(TOKEN_MAX + 1).read_to_end(&mut token)?;
    let problem = |why| Err(std::io::Error::new(std::io::ErrorKind::InvalidData, why));
    if token.len() as u64 > TOKEN_MAX {
        return problem("the file is too large for a token");
    }
    let token = token.trim_ascii();
    match token.is_empty() {
        true => problem("the file is empty"),
        false => Ok(token.to_owned()),
    }
}

/// The token of `Bearer TOKEN` (RFC 6750 §2.1); the scheme in any case (RFC 9110 §11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

/// Reads a question: parameters of the query, members of a JSON object in the body, or some of each.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(query: &str, body: &[u8]) -> Result<Question, Refused> {
    let bad = |why: String| Refused(StatusCode::BAD_REQUEST, why);
    let mut written = match body.trim_ascii() {
        b"" => Written::default(),
        body => self::body(body).map_err(bad)?,
    };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let field = match &*name {
            "namespace" => &mut written.namespace,
            "revision" => &mut written.revision,
            "route" => &mut written.route,
            "for" => &mut written.time,
            "wait" => &mut written.wait,
            "endpoints" => {
                let count = value.parse();
                let count =
                    count.map_err(|_malformed| bad("endpoints is a whole number".to_owned()))?;
                if written.endpoints.replace(count).is_some() {
                    return Err(bad("endpoints is given twice".to_owned()));
                }
                continue;
            }
            _ => {
                return Err(bad(format!("parameters are {KNOWN}")));
            }
        };
        if field.replace(value.into_owned()).is_some() {
            return Err(bad(format!("{name} is given twice")));
        }
    }
    question(written).map_err(bad)
}

fn body(body: &[u8]) -> Result<Written, String> {
    let members: Members = serde_json::from_slice(body).map_err(|error| match error.is_data() {
        true => format!("the body is not as expected: its members are {KNOWN}, each at most once"),
        false => format!("the body is not as expected: no JSON object: {error}"),
    })?;
    let text = |name, value| match value {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{name} is a text in quotes")),
    };
    let endpoints = members.endpoints.map(|value| {
        let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
        count.ok_or_else(|| {
            format!("endpoints is a whole number of 1 to {ENDPOINTS_MAX}, without quotes")
        })
    });
    Ok(Written {
        namespace: text("namespace", members.namespace)?,
        revision: text("revision", members.revision)?,
        route: text("route", members.route)?,
        endpoints: endpoints.transpose()?,
        time: text("for", members.time)?,
        wait: text("wait", members.wait)?,
    })
}

fn question(written: Written) -> Result<Question, String> {
    let wanted = match (written.revision, written.route) {
        (Some(name), None) => Wanted::Revision {
            namespace: written.namespace.unwrap_or_else(|| "default".to_owned()),
            name,
        },
        (None, Some(_)) if written.namespace.is_some() => {
            return Err("namespace goes with revision; a route is HOST/PATH".to_owned());
        }
        (None, Some(route)) => {
            let form = "route is HOST/PATH or a URL, like hello.default.example.com/ or \
                        https://hello.default.example.com/";
            let place: Place = route.parse().map_err(|_malformed| form)?;
            let host = place.host.ok_or(form)?;
            Wanted::Route {
                host,
                path: place.path,
            }
        }
        _ => return Err("give one of revision (with namespace) and route".to_owned()),
    };
    let endpoints = written.endpoints.unwrap_or(1);
    if !(1..=ENDPOINTS_MAX).contains(&endpoints) {
        return Err(format!("endpoints is 1 to {ENDPOINTS_MAX}"));
    }
    let time = time("for", written.time.as_deref(), TIME_MAX)?.unwrap_or(TIME);
    if time.is_zero() {
        return Err("for is longer than nothing, like 60s".to_owned());
    }
    let wait = self::time("wait", written.wait.as_deref(), WAIT_MAX)?;
    Ok(Question {
        prewarm: Prewarm {
            wanted,
            endpoints,
            time,
        },
        wait,
    })
}

fn time(name: &str, text: Option<&str>, most: Duration) -> Result<Option<Duration>, String> {
    let Some(text) = text else { return Ok(None) };
    let parsed =
        duration::parse(text).map_err(|_malformed| format!("{name} is a duration like 60s"))?;
    match parsed > most {
        true => Err(match most.as_secs() {
            seconds if seconds.is_multiple_of(3600) => {
                format!("{name} is at most {}h", seconds / 3600)
            }
            seconds => format!("{name} is at most {seconds}s"),
        }),
        false => Ok(Some(parsed)),
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::{AUTHORIZATION, HeaderValue};

    use super::*;

    fn asked(query: &str, body: &str) -> Result<Question, String> {
        parse(query, body.as_bytes()).map_err(|Refused(status, why)| {
            assert_eq!(status, StatusCode::BAD_REQUEST);
            why
        })
    }

    fn revision(endpoints: u32, seconds: u64) -> Prewarm {
        Prewarm {
            wanted: Wanted::Revision {
                namespace: "default".to_owned(),
                name: "a".to_owned(),
            },
            endpoints,
            time: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn a_question_is_read_from_query_and_body_alike() {
        let expected = Question {
            prewarm: revision(3, 90),
            wait: Some(Duration::from_secs(10)),
        };
        let query = "namespace=default&revision=a&endpoints=3&for=1m30s&wait=10s";
        assert_eq!(asked(query, "").as_ref(), Ok(&expected));
        let body = r#"{"namespace":"default","revision":"a","endpoints":3,"for":"1m30s"}"#;
        assert_eq!(asked("wait=10s", body), Ok(expected));
        let least = Question {
            prewarm: revision(1, 60),
            wait: None,
        };
        assert_eq!(asked("", r#"{"revision":"a"}"#), Ok(least));
    }

    #[test]
    fn a_route_is_a_host_and_a_path_or_a_url() {
        for (route, host, path) in [
            ("a.test", "a.test", "/"),
            ("a.test/", "a.test", "/"),
            ("a.test/x/y", "a.test", "/x/y"),
            ("a.test:8080/x", "a.test:8080", "/x"),
            ("http://a.test", "a.test", "/"),
            ("https://a.test:8443/x?y=http://b", "a.test:8443", "/x"),
        ] {
            let query = form_urlencoded::Serializer::new(String::new())
                .append_pair("route", route)
                .finish();
            let question = asked(&query, "").unwrap();
            let expected = Wanted::Route {
                host: host.to_owned(),
                path: path.to_owned(),
            };
            assert_eq!(question.prewarm.wanted, expected, "{route}");
        }
    }

    #[test]
    fn what_is_no_question_is_refused_with_a_sentence() {
        for (query, body, sentence) in [
            ("", "", "give one of revision (with namespace) and route"),
            ("revision=a&route=b", "", "give one of"),
            ("route=/x", "", "route is HOST/PATH or a URL"),
            ("route=", "", "route is HOST/PATH or a URL"),
            ("route=ftp://a.test/", "", "route is HOST/PATH or a URL"),
            ("route=a&namespace=b", "", "namespace goes with revision"),
            ("revision=a&endpoints=0", "", "endpoints is 1 to 1000"),
            ("revision=a&endpoints=1001", "", "endpoints is 1 to 1000"),
            (
                "revision=a&endpoints=many",
                "",
                "endpoints is a whole number",
            ),
            ("revision=a&for=0s", "", "for is longer than nothing"),
            ("revision=a&for=25h", "", "for is at most 24h"),
            ("revision=a&for=soon", "", "for is a duration like 60s"),
            ("revision=a&wait=3m", "", "wait is at most 120s"),
            ("revision=a&who=me", "", "parameters are namespace,"),
            ("revision=a&revision=b", "", "revision is given twice"),
            (
                "endpoints=1",
                r#"{"revision":"a","endpoints":1}"#,
                "endpoints is given twice",
            ),
            (
                "",
                r#"{"revision":"a","who":"me"}"#,
                "the body is not as expected",
            ),
            ("", "[]", "the body is not as expected: its members are"),
            (
                "",
                r#"{"revision":"a","revision":"b"}"#,
                "the body is not as expected: its members are",
            ),
            ("", "{", "the body is not as expected: no JSON object"),
            (
                "",
                r#"{"revision":"a","endpoints":"2"}"#,
                "endpoints is a whole number of 1 to 1000, without quotes",
            ),
            (
                "",
                r#"{"revision":"a","endpoints":-1}"#,
                "endpoints is a whole number",
            ),
            (
                "",
                r#"{"revision":"a","for":60}"#,
                "for is a text in quotes",
            ),
            ("", r#"{"revision":["a"]}"#, "revision is a text in quotes"),
        ] {
            let why = asked(query, body).unwrap_err();
            assert!(why.starts_with(sentence), "{query} {body}: {why}");
        }
    }

    #[test]
    fn tokens_are_behind_their_scheme() {
        for (value, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic abc", None),
            ("Bearer ", None),
            ("Bearer", None),
            ("", None),
        ] {
            assert_eq!(
                bearer(value.as_bytes()),
                token.map(str::as_bytes),
                "{value}"
            );
        }
    }

    #[tokio::test]
    async fn only_the_token_of_the_file_opens() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        let status = async |path: Option<&Path>, value: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert("authorization", value.parse().unwrap());
            }
            let authorised = authorise(path, &headers).await;
            authorised.map_err(|Refused(status, _)| status.as_u16())
        };
        assert_eq!(status(None, Some("Bearer abc")).await, Err(403));
        assert_eq!(status(Some(&file), Some("Bearer abc")).await, Err(500));
        std::fs::write(&file, "\n").unwrap();
        assert_eq!(status(Some(&file), Some("Bearer ")).await, Err(500));
        std::fs::write(&file, "abc\n").unwrap();
        assert_eq!(status(Some(&file), Some("Bearer abc")).await, Ok(()));
        for wrong in [
            None,
            Some("Bearer abd"),
            Some("Bearer ab"),
            Some("Basic abc"),
        ] {
            assert_eq!(status(Some(&file), wrong).await, Err(401), "{wrong:?}");
        }
        let why = async |value: &'static str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))]);
            authorise(Some(&file), &headers).await.unwrap_err().1
        };
        assert!(
            why("Bearer abd")
                .await
                .starts_with("the token is not the gateway's")
        );
        assert!(
            why("Basic abc")
                .await
                .starts_with("send `authorization: Bearer TOKEN`")
        );
        // It is read again each time.
        std::fs::write(&file, "xyz").unwrap();
        assert_eq!(status(Some(&file), Some("Bearer abc")).await, Err(401));
        assert_eq!(status(Some(&file), Some("Bearer xyz")).await, Ok(()));
        std::fs::write(&file, "x".repeat(5000)).unwrap();
        assert_eq!(status(Some(&file), Some("Bearer x")).await, Err(500));
    }
}

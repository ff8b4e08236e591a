//! `prewarm`: endpoints of a running gateway, before requests come.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{ArgGroup, Args};
use hyper::StatusCode;
use serde::Deserialize;

use super::admin::{Admin, TIMEOUT};
use super::{print, tell};

const EXAMPLES: &str = "\
Examples:
  tidegate prewarm --token-file token default/hello-00002
  tidegate prewarm --token-file token --endpoints 3 --for 10m --wait 30s default/hello-00002
  tidegate prewarm --token-file token --route hello.default.example.com/";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group(ArgGroup::new("what").required(true).args(["revision", "route"])))]
pub(super) struct PrewarmArgs {
    /// The gateway's admin address.
    #[arg(
        long,
        value_name = "URL|IP:PORT",
        default_value = "http://127.0.0.1:9901",
        env = "TIDEGATE_ADMIN"
    )]
    pub(super) admin: Admin,
    /// A file with the token of the gateway's `adminTokenFile`.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_TOKEN_FILE")]
    pub(super) token_file: PathBuf,
    /// How many endpoints; no more than the revision may have.
    #[arg(
        long,
        value_name = "N",
        default_value = "1",
        env = "TIDEGATE_ENDPOINTS"
    )]
    pub(super) endpoints: u32,
    /// For how long they are to stay at least, from when they are ready.
    #[arg(
        long = "for",
        value_name = "TIME",
        default_value = "60s",
        env = "TIDEGATE_FOR",
        value_parser = time
    )]
    pub(super) time: Time,
    /// Wait so long until they are ready.
    #[arg(long, value_name = "TIME", env = "TIDEGATE_WAIT", value_parser = time)]
    pub(super) wait: Option<Time>,
    /// Every target of the route that leads from HOST/PATH; a URL will do.
    #[arg(long, value_name = "HOST/PATH", env = "TIDEGATE_ROUTE")]
    pub(super) route: Option<String>,
    /// A revision; without a namespace, one of `default`.
    #[arg(value_name = "NAMESPACE/REVISION")]
    pub(super) revision: Option<String>,
}

/// As it was written, and what that means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Time(String, Duration);

fn time(text: &str) -> Result<Time, &'static str> {
    let time = config::duration::parse(text);
    let time = time.map_err(|_malformed| "write a number and a unit, like 60s")?;
    Ok(Time(text.to_owned(), time))
}

/// What an admin address answers.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Answered {
    Asked { revisions: Vec<Revision> },
    Refused { problem: String },
}

#[derive(Debug, Deserialize)]
struct Revision {
    namespace: String,
    name: String,
    scaler: String,
    endpoints: u32,
    ready: u32,
    why: Option<String>,
}

pub(super) fn prewarm(args: &PrewarmArgs) -> anyhow::Result<ExitCode> {
    let file = &args.token_file;
    let token = std::fs::read_to_string(file);
    let token = token.with_context(|| format!("cannot read {}", file.display()))?;
    let wait = args.wait.as_ref().map_or(Duration::ZERO, |wait| wait.1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let question = path_and_query(args);
    let asked = args.admin.post(&question, token.trim(), TIMEOUT + wait);
    let (status, body) = runtime.block_on(asked)?;
    print(&told(&revisions(status, &body)?))?;
    match status {
        StatusCode::OK | StatusCode::ACCEPTED => Ok(ExitCode::SUCCESS),
        StatusCode::GATEWAY_TIMEOUT => {
            tell("tidegate: not ready in time; what was asked for is under way\n");
            Ok(ExitCode::FAILURE)
        }
        _ => Ok(ExitCode::FAILURE),
    }
}

/// What an answer says.
fn revisions(status: StatusCode, body: &[u8]) -> anyhow::Result<Vec<Revision>> {
    match serde_json::from_slice(body) {
        Ok(Answered::Asked { revisions }) => Ok(revisions),
        Ok(Answered::Refused { problem }) => anyhow::bail!("{problem}"),
        Err(_) => anyhow::bail!(
            "status {status}, and not what Tidegate's admin address would say: `--admin` is the \
             address that `tidegate run` prints behind `admin`, none of its listeners"
        ),
    }
}

fn path_and_query(args: &PrewarmArgs) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some(revision) = &args.revision {
        let (namespace, name) = revision.split_once('/').unwrap_or(("default", revision));
        query.append_pair("namespace", namespace);
        query.append_pair("revision", name);
    }
    if let Some(route) = &args.route {
        query.append_pair("route", route);
    }
    query.append_pair("endpoints", &args.endpoints.to_string());
    query.append_pair("for", &args.time.0);
    if let Some(wait) = &args.wait {
        query.append_pair("wait", &wait.0);
    }
    format!("/api/prewarm?{}", query.finish())
}

/// A line for each revision.
fn told(revisions: &[Revision]) -> String {
    let mut lines = String::new();
    for one in revisions {
        let Revision {
            namespace,
            name,
            scaler,
            endpoints,
            ready,
            ..
        } = one;
        let why = one.why.as_deref().map(|why| format!(": {why}"));
        let why = why.unwrap_or_default();
        let count = match ready > endpoints {
            true => format!("{ready} ready, {endpoints} asked for"),
            false => format!("{ready} of {endpoints} ready"),
        };
        let line = format!("{namespace}/{name} {scaler} {count}{why}");
        let written = writeln!(lines, "{line}");
        debug_assert!(written.is_ok(), "writing to memory cannot fail");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> PrewarmArgs {
        PrewarmArgs {
            admin: "127.0.0.1:9901".parse().unwrap(),
            token_file: "token".into(),
            endpoints: 2,
            time: time("1m").unwrap(),
            wait: None,
            route: None,
            revision: Some("shop/cart-1".to_owned()),
        }
    }

    #[test]
    fn a_question_is_asked_with_all_its_parts() {
        assert_eq!(
            path_and_query(&args()),
            "/api/prewarm?namespace=shop&revision=cart-1&endpoints=2&for=1m"
        );
        let bare = PrewarmArgs {
            revision: Some("cart-1".to_owned()),
            wait: Some(time("10s").unwrap()),
            ..args()
        };
        assert_eq!(
            path_and_query(&bare),
            "/api/prewarm?namespace=default&revision=cart-1&endpoints=2&for=1m&wait=10s"
        );
        let route = PrewarmArgs {
            revision: None,
            route: Some("a.test/x".to_owned()),
            ..args()
        };
        assert_eq!(
            path_and_query(&route),
            "/api/prewarm?route=a.test%2Fx&endpoints=2&for=1m"
        );
    }

    #[test]
    fn an_answer_is_a_line_for_each_revision() {
        let body = r#"{"ready":false,"revisions":[
            {"namespace":"a","name":"b","scaler":"process","endpoints":2,"ready":0,"why":"it exited"},
            {"namespace":"a","name":"c","scaler":"fixed","endpoints":1,"ready":1,"why":null},
            {"namespace":"a","name":"d","scaler":"process","endpoints":1,"ready":2,"why":null}]}"#;
        let told = told(&revisions(StatusCode::OK, body.as_bytes()).unwrap());
        assert_eq!(
            told,
            "a/b process 0 of 2 ready: it exited\na/c fixed 1 of 1 ready\n\
             a/d process 2 ready, 1 asked for\n"
        );
    }

    #[test]
    fn who_is_no_admin_address_is_told_apart_from_one_that_refuses() {
        let said = |body: &[u8]| {
            let revisions = revisions(StatusCode::NOT_FOUND, body);
            revisions.unwrap_err().to_string()
        };
        assert_eq!(
            said(br#"{"problem":"there is no such revision"}"#),
            "there is no such revision"
        );
        for other in [
            &b"no_route: nothing here"[..],
            b"",
            b"{}",
            br#"{"error":"x"}"#,
            b"[]",
        ] {
            let said = said(other);
            let words = "status 404 Not Found, and not what Tidegate's admin address would say";
            assert!(said.starts_with(words), "{said}");
        }
    }
}

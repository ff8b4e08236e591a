//! Asks a running gateway.

use anyhow::Context;
use config::route::{ExplainedTarget, Explanation};
use hyper::StatusCode;
use serde::Deserialize;

use super::{Admin, Answer, Question, Reason};

/// What `/api/explain` answers: either `route` or `reason` is there, or `problem` with status 400.
#[derive(Deserialize)]
struct Answered {
    namespace: Option<String>,
    route: Option<String>,
    rule: Option<u32>,
    #[serde(default)]
    targets: Vec<Target>,
    host: Option<String>,
    reason: Option<String>,
    #[serde(default)]
    why: Vec<String>,
    problem: Option<String>,
}

#[derive(Deserialize)]
struct Target {
    revision: String,
    percent: u8,
    asked: Option<u8>,
    tag: Option<String>,
}

pub(super) fn ask(admin: &Admin, question: &Question) -> anyhow::Result<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (status, body) = runtime.block_on(admin.get(&path_and_query(question)))?;
    answer(status, &body)
}

fn path_and_query(question: &Question) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    let url = format!("http://{}{}", question.host, question.path);
    query.append_pair("url", &url);
    query.append_pair("method", question.method.as_str());
    for (name, value) in question.fields() {
        query.append_pair("header", &format!("{name}: {value}"));
    }
    if question.internal {
        query.append_pair("audience", "internal");
    }
    format!("/api/explain?{}", query.finish())
}

fn answer(status: StatusCode, body: &[u8]) -> anyhow::Result<Answer> {
    let not_ours = || format!("status {status} with a body that is no explanation");
    let answered: Answered = serde_json::from_slice(body).with_context(not_ours)?;
    if let Some(problem) = answered.problem {
        anyhow::bail!("the gateway does not understand the question: {problem}");
    }
    let route = match (answered.namespace, answered.route, answered.reason) {
        (Some(namespace), Some(route), None) => Some(format!("{namespace}/{route}")),
        (_, None, Some(reason)) if reason == Reason::NoRoute.word() => None,
        (_, None, Some(reason)) => {
            let why = answered.why;
            return Ok(Answer::Refused { reason, why });
        }
        _ => anyhow::bail!(not_ours()),
    };
    let targets = answered.targets.into_iter().map(|target| ExplainedTarget {
        revision: target.revision,
        percent: target.percent,
        asked: target.asked.unwrap_or(target.percent),
        tag: target.tag,
    });
    Ok(Answer::Explained(Explanation {
        route,
        rule: answered.rule,
        targets: targets.collect(),
        host: answered.host,
        why: answered.why,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_asked_with_all_its_parts() {
        let question = Question {
            method: hyper::Method::POST,
            host: "a:80".to_owned(),
            path: "/x%2fy".to_owned(),
            headers: vec!["X: 1&2".parse().unwrap()],
            internal: true,
        };
        assert_eq!(
            path_and_query(&question),
            "/api/explain?url=http%3A%2F%2Fa%3A80%2Fx%252fy&method=POST\
             &header=Host%3A+a%3A80&header=X%3A+1%262&audience=internal"
        );
    }

    #[test]
    fn a_routed_answer_is_the_explanation_a_file_would_give() {
        let body = br#"{"namespace":"default","route":"hello","rule":2,"host":"a",
            "targets":[{"revision":"hello-1","percent":100,"tag":null}],"why":["because"]}"#;
        let Answer::Explained(got) = answer(StatusCode::OK, body).unwrap() else {
            panic!("not explained");
        };
        let expected = Explanation {
            route: Some("default/hello".to_owned()),
            rule: Some(2),
            targets: vec![ExplainedTarget {
                revision: "hello-1".to_owned(),
                percent: 100,
                asked: 100,
                tag: None,
            }],
            host: Some("a".to_owned()),
            why: vec!["because".to_owned()],
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn refusals_keep_their_word() {
        let body = br#"{"reason":"no_route","why":["nobody has it"]}"#;
        let got = answer(StatusCode::OK, body).unwrap();
        assert!(
            matches!(got, Answer::Explained(Explanation { route: None, why, .. }) if why.len() == 1)
        );
        let got = answer(
            StatusCode::OK,
            br#"{"reason":"bad_request","why":["dots"]}"#,
        )
        .unwrap();
        assert_eq!(got.to_string(), "bad_request\nwhy dots\n");
    }

    #[test]
    fn what_is_no_explanation_is_an_error() {
        let problem = answer(
            StatusCode::BAD_REQUEST,
            br#"{"problem":"url is malformed"}"#,
        );
        let error = problem.map(drop).unwrap_err().to_string();
        assert!(error.contains("url is malformed"), "{error}");
        for body in ["", "not found\n", "{}", "[]", r#"{"route":"a"}"#] {
            let answer = answer(StatusCode::NOT_FOUND, body.as_bytes());
            let error = answer.map(drop).unwrap_err().to_string();
            assert!(error.contains("404"), "{error}");
        }
    }
}

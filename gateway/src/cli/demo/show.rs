//! What has changed between two looks at the revisions, as lines for people.

use serde::Deserialize;

/// What is looked at of a revision in `/api/revisions`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct View {
    namespace: String,
    name: String,
    waiting: u64,
    endpoints: Vec<Endpoint>,
    last_start: Option<Start>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Endpoint {
    state: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Start {
    /// Tells one start from another.
    at: String,
    phases: Phases,
}

/// Seconds, one phase after the other; what the gateway knows of them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Phases {
    nudge: Option<f64>,
    act: Option<f64>,
    endpoint: Option<f64>,
    probe: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AtZero,
    /// Nobody can answer yet.
    Waking,
    /// So many processes answer.
    Ready(usize),
    /// The last processes finish what they do.
    Stopping,
}

impl View {
    fn state(&self) -> State {
        let in_state = |state| {
            self.endpoints
                .iter()
                .filter(move |e| e.state == state)
                .count()
        };
        let (starting, draining) = (in_state("starting"), in_state("draining"));
        // Suspect and lingering ones are processes that run, too.
        match self.endpoints.len() - starting - draining {
            0 if starting > 0 || self.waiting > 0 => State::Waking,
            0 if draining > 0 => State::Stopping,
            0 => State::AtZero,
            ready => State::Ready(ready),
        }
    }
}

/// One line per change, revision by revision. A start that was over between two looks is told, too.
pub(super) fn lines(before: &[View], after: &[View]) -> Vec<String> {
    let mut lines = Vec::new();
    for view in after {
        let known =
            |other: &&View| (&other.namespace, &other.name) == (&view.namespace, &view.name);
        let old = before.iter().find(known);
        let name = &view.name;
        lines.extend(changes(old, view).map(|change| format!("{name}  {change}")));
    }
    lines
}

fn changes(old: Option<&View>, new: &View) -> impl Iterator<Item = String> {
    let (was, is) = (old.map(View::state), new.state());
    let unseen = matches!(
        (was, is),
        (Some(State::AtZero | State::Stopping), State::Ready(_))
    );
    let waking = unseen.then(|| "waking".to_owned());
    let change = (was != Some(is)).then(|| match is {
        State::AtZero if was.is_none() => "at zero".to_owned(),
        State::AtZero => "at zero again".to_owned(),
        State::Waking => match new.waiting {
            0 => "waking".to_owned(),
            1 => "waking: 1 request is held".to_owned(),
            waiting => format!("waking: {waiting} requests are held"),
        },
        State::Ready(count) => format!("ready ({count})"),
        State::Stopping => "stopping".to_owned(),
    });
    // It may be known a look later than that somebody is ready.
    let start = new.last_start.as_ref().filter(|start| {
        let last = old.and_then(|old| old.last_start.as_ref());
        old.is_some() && last.is_none_or(|last| last.at != start.at)
    });
    let took = start.map(|start| {
        let took = start.phases.milliseconds();
        format!("took requests {took:.0} ms after the first one came")
    });
    waking.into_iter().chain(change).chain(took)
}

impl Phases {
    /// From the request until a process takes requests.
    fn milliseconds(&self) -> f64 {
        let known = [self.nudge, self.act, self.endpoint, self.probe];
        known.into_iter().flatten().sum::<f64>() * 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(waiting: u64, states: &[&str]) -> View {
        View {
            namespace: "default".to_owned(),
            name: "hello-00001".to_owned(),
            waiting,
            endpoints: states
                .iter()
                .map(|state| Endpoint {
                    state: (*state).to_owned(),
                })
                .collect(),
            last_start: None,
        }
    }

    fn started(mut view: View, at: &str) -> View {
        view.last_start = Some(Start {
            at: at.to_owned(),
            phases: Phases {
                nudge: Some(0.0005),
                act: None,
                endpoint: Some(0.02),
                probe: Some(0.0015),
            },
        });
        view
    }

    /// The changes along a row of looks.
    fn told(looks: &[View]) -> Vec<String> {
        let mut told = Vec::new();
        let mut before: &[View] = &[];
        for look in looks.chunks(1) {
            told.extend(lines(before, look));
            before = look;
        }
        told
    }

    #[test]
    fn a_tour_from_zero_and_back_is_told_once() {
        let looks = [
            view(0, &[]),
            view(0, &[]),
            view(1, &[]),
            view(3, &["starting"]),
            view(0, &["ready"]),
            started(view(0, &["ready"]), "1"),
            started(view(0, &["ready", "starting"]), "1"),
            started(view(0, &["lingering", "suspect"]), "1"),
            started(view(0, &["ready", "draining"]), "1"),
            started(view(0, &["draining"]), "1"),
            started(view(0, &[]), "1"),
        ];
        let expected = [
            "hello-00001  at zero",
            "hello-00001  waking: 1 request is held",
            "hello-00001  ready (1)",
            "hello-00001  took requests 22 ms after the first one came",
            "hello-00001  ready (2)",
            "hello-00001  ready (1)",
            "hello-00001  stopping",
            "hello-00001  at zero again",
        ];
        assert_eq!(told(&looks), expected);
    }

    #[test]
    fn a_start_between_two_looks_is_told() {
        let looks = [view(0, &[]), started(view(0, &["ready"]), "1")];
        let expected = [
            "hello-00001  at zero",
            "hello-00001  waking",
            "hello-00001  ready (1)",
            "hello-00001  took requests 22 ms after the first one came",
        ];
        assert_eq!(told(&looks), expected);
    }

    #[test]
    fn scaling_out_is_no_cold_start() {
        let old = started(view(0, &["ready"]), "1");
        let new = started(view(0, &["ready", "ready"]), "1");
        assert_eq!(lines(&[old], &[new]), ["hello-00001  ready (2)"]);
    }

    #[test]
    fn a_revision_that_is_up_when_first_seen_is_not_said_to_wake() {
        let told = told(&[started(view(0, &["ready"]), "1")]);
        assert_eq!(told, ["hello-00001  ready (1)"]);
    }

    #[test]
    fn revisions_are_told_apart_by_namespace_and_name() {
        let other = View {
            namespace: "other".to_owned(),
            ..view(0, &["ready"])
        };
        let before = [view(0, &[]), other.clone()];
        let after = [view(2, &[]), other];
        let expected = ["hello-00001  waking: 2 requests are held"];
        assert_eq!(lines(&before, &after), expected);
    }

    #[test]
    fn the_admin_apis_shape_is_understood() {
        let body = r#"[{"namespace":"default","name":"hello-00001","limit":10,"inFlight":3,
            "waiting":2,"average":{"1s":4.5,"6s":1.0,"60s":0.25},
            "endpoints":[{"address":"127.0.0.1:9001","state":"ready","inFlight":3}],"coldStarts":1,
            "lastStart":{"at":"1970-01-01T00:00:01.250Z","phases":{"nudge":0.0003,"act":null,
            "endpoint":null,"probe":null,"wire":null,"firstByte":1.5}}}]"#;
        let views: Vec<View> = serde_json::from_str(body).unwrap();
        assert_eq!(views[0].state(), State::Ready(1));
        assert_eq!(views[0].waiting, 2);
    }
}

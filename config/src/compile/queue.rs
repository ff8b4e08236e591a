//! Waiting, of revisions, routes and rules: what was written → what it means.

use std::sync::Arc;
use std::time::Duration;

use super::check;
use super::report::{BYTES_MAX, FAIR_BY, Path, REQUESTS_MAX, Report, WAIT};
use crate::at::{At, Mark};
use crate::document::{self, DurationText, Text, WaitText};
use crate::duration;
use crate::revision::{FairBy, Priority, Queue, RampUp, Wait};
use crate::snapshot::{PriorityFrom, Urgency};

/// Shortest duration that is not zero.
const SOME: Duration = Duration::from_millis(1);
/// Fields that say where a request comes from, as anybody may who sends one.
const MADE_UP: [&str; 3] = ["forwarded", "x-forwarded-for", "x-real-ip"];
/// Longest name of a claim.
const CLAIM_BYTES_MAX: usize = 256;
const RAMP_INITIAL: u32 = 8;
const RAMP_INTERVAL: Duration = Duration::from_secs(1);
const RAMP_INTERVAL_MIN: Duration = Duration::from_millis(10);

pub(super) fn queue(
    report: &mut Report<'_>,
    path: &Path<'_>,
    queue: Option<&document::Queue>,
) -> Arc<Queue> {
    let Some(queue) = queue else {
        return Queue::usual();
    };
    let default = Queue::default();
    let most = 0..=REQUESTS_MAX;
    let bytes = queue.bytes.as_ref();
    let of_bytes = check::integer(report, &path.key("bytes"), bytes, 0..=BYTES_MAX, 0);
    let (depth, per_client) = (queue.depth.as_ref(), queue.per_client.as_ref());
    let wait = queue.wait.as_ref();
    let (fair_by, priority) = (queue.fair_by.as_ref(), queue.priority.as_ref());
    let all = &path.key("depth");
    let all = check::integer(report, all, depth, most.clone(), default.depth);
    let one = check::integer(report, &path.key("perClient"), per_client, most, 0);
    check::part_of(
        report,
        path,
        ("perClient", per_client),
        &one,
        ("depth", &all),
    );
    Arc::new(Queue {
        depth: all,
        bytes: bytes.map(|_| of_bytes),
        wait: wait.map_or(default.wait, |at| self::wait(report, &path.key("wait"), at)),
        per_client: one,
        fair_by: fair_by.map_or(default.fair_by, |at| {
            self::fair_by(report, &path.key("fairBy"), at)
        }),
        priority: priority.map_or(default.priority, |at| {
            class(report, &path.key("priority"), at.value, at.mark)
        }),
    })
}

fn wait(report: &mut Report<'_>, path: &Path<'_>, at: &At<WaitText>) -> Wait {
    if &*at.value.0 == "auto" {
        return Wait::Auto;
    }
    if let Err(fault) = duration::parse(&at.value.0)
        && fault.hint == duration::FORM
    {
        report.add(path, at.mark, &at.value.0, fault.problem, WAIT);
        return Wait::Auto;
    }
    let duration = At {
        value: DurationText(at.value.0.clone()),
        mark: at.mark,
    };
    let example = Duration::from_secs(300);
    Wait::For(check::duration(
        report,
        path,
        Some(&duration),
        SOME,
        example,
    ))
}

fn fair_by(report: &mut Report<'_>, path: &Path<'_>, at: &At<Text>) -> FairBy {
    let text = &*at.value;
    match text.split_once(':') {
        None if text == "address" => FairBy::Address,
        None if text == "none" => FairBy::Nothing,
        Some(("header", name)) => FairBy::Header(fair_header(report, path, at, name)),
        Some(("claim", name)) => {
            let fine = |name: &str| !name.chars().any(char::is_control);
            if name.is_empty() || name.len() > CLAIM_BYTES_MAX || !fine(name) {
                let hint = format!("write 1 to {CLAIM_BYTES_MAX} characters, like claim:sub");
                report.add(path, at.mark, text.escape_debug(), "bad claim name", hint);
            }
            FairBy::Claim(name.into())
        }
        _ => {
            let problem = "this does not tell clients apart";
            report.add(path, at.mark, text.escape_debug(), problem, FAIR_BY);
            FairBy::Address
        }
    }
}

/// The name behind `header:`.
fn fair_header(report: &mut Report<'_>, path: &Path<'_>, at: &At<Text>, name: &str) -> Box<str> {
    let (trimmed, mark) = (name.trim(), at.mark);
    let mut refuse = |problem: &str, hint: String| {
        report.add(path, mark, at.value.escape_debug(), problem, hint);
        Box::default()
    };
    if MADE_UP.contains(&&*trimmed.to_ascii_lowercase()) {
        let hint = "write address: behind `gateway.trustedProxies` it is what they say in \
                    X-Forwarded-For";
        return refuse("anybody can make this header up", hint.to_owned());
    }
    if trimmed.is_empty() {
        return refuse("the name of the header is missing", FAIR_BY.to_owned());
    }
    if trimmed != name {
        return refuse(
            "there is a space beside the name",
            format!("write header:{trimmed}"),
        );
    }
    let value = name.into();
    header(report, path, &At { value, mark })
}

/// The name of a request header to be read, in lower case.
fn header(report: &mut Report<'_>, path: &Path<'_>, at: &At<Text>) -> Box<str> {
    if !check::is_token(&at.value) {
        let hint = "use letters, digits and `-`";
        let shown = at.value.escape_debug();
        report.add(path, at.mark, shown, "bad header name", hint);
    }
    at.value.to_ascii_lowercase().into()
}

fn class(report: &mut Report<'_>, path: &Path<'_>, class: i64, mark: Mark) -> Priority {
    Priority::new(class).unwrap_or_else(|| {
        let most = Priority::MOST;
        let hint = format!("write an integer of 0 to {most}; {most} goes first");
        report.add(path, mark, class, "there is no such class", hint);
        Priority::default()
    })
}

/// What a route or rule says of how urgent its requests are.
pub(super) fn urgency(
    report: &mut Report<'_>,
    path: &Path<'_>,
    priority: Option<&At<document::Priority>>,
    deadline: Option<&At<document::Deadline>>,
) -> Urgency {
    let priority = priority.and_then(|at| {
        let path = &path.key("priority");
        match &at.value {
            document::Priority::Class(written) => {
                let class = class(report, path, *written, at.mark);
                Some(PriorityFrom::Class(class))
            }
            document::Priority::Header(name) => {
                let name = header(report, &path.key("header"), name);
                Some(PriorityFrom::Header(name))
            }
            document::Priority::Neither(text) => {
                let most = Priority::MOST;
                let hint = format!("write an integer of 0 to {most}, or {{header: NAME}}");
                let shown = text.escape_debug();
                report.add(path, at.mark, shown, "this says no class", hint);
                None
            }
        }
    });
    let deadline = deadline.map(|at| {
        let path = &path.key("deadline");
        header(report, &path.key("header"), &at.value.header)
    });
    Urgency { priority, deadline }
}

/// `None` = a new endpoint is like any other.
pub(super) fn ramp_up(
    report: &mut Report<'_>,
    path: &Path<'_>,
    written: Option<&document::RampUp>,
) -> Option<RampUp> {
    let default = document::RampUp::default();
    let written = written.unwrap_or(&default);
    let initial = written.initial.as_ref();
    let most = 0..=REQUESTS_MAX;
    let initial = check::integer(report, &path.key("initial"), initial, most, RAMP_INITIAL);
    let interval = check::duration(
        report,
        &path.key("interval"),
        written.interval.as_ref(),
        RAMP_INTERVAL_MIN,
        RAMP_INTERVAL,
    );
    if let Some(at) = written.interval.as_ref().filter(|_| initial == 0) {
        let problem = "`interval` with `initial: 0`";
        let hint = "remove it: new endpoints are like any other, and nothing grows";
        let (path, value) = (&path.key("interval"), &*at.value.0);
        report.add(path, at.mark, value, problem, hint);
    }
    (initial > 0).then_some(RampUp { initial, interval })
}

//! One revision: what was written → what it means.

use std::time::Duration;

use super::report::{MAPPING, Path, REQUESTS_MAX, Report};
use super::{check, queue, tls};
use crate::at::At;
use crate::document::{self, DurationText, Protocol, Text, beside};
use crate::revision::{
    Address, Backend, Health, Key, Process, Readiness, Revision, RevisionId, Scale,
};

const ENDPOINTS_MAX: usize = 4096;
const ARGUMENTS_MAX: usize = 1024;
const VARIABLES_MAX: usize = 1024;
const PROCESSES_MAX: i64 = 10_000;

const TIMEOUT: Duration = Duration::from_secs(300);
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
const SCALE_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(30);
/// Share of `concurrency` that a process is meant to carry.
const UTILISATION: f64 = 0.7;
/// Target of a process without a limit.
const TARGET_UNLIMITED: f64 = 100.0;
/// Shortest duration that is not zero.
const SOME: Duration = Duration::from_millis(1);

pub(super) fn compile(
    report: &mut Report<'_>,
    path: &Path<'_>,
    written: &document::Revision,
    key: Key,
    id: RevisionId,
) -> Revision {
    check::names(report, path, &written.name, written.namespace.as_ref());
    let concurrency = written.concurrency.as_ref();
    let concurrency = check::integer(
        report,
        &path.key("concurrency"),
        concurrency,
        0..=REQUESTS_MAX,
        0,
    );
    let mut bound = |name, at: &Option<_>, default| {
        check::unless_zero(report, &path.key(name), at.as_ref(), default)
    };
    let timeout = bound("timeout", &written.timeout, TIMEOUT);
    let max_duration = bound("maxDuration", &written.max_duration, Duration::ZERO);
    let idle = bound("idle", &written.idle, Duration::ZERO);
    let queue = queue::queue(report, &path.key("queue"), written.queue.as_deref());
    let scale = written.scale.as_ref().map(|at| &at.value);
    let ramp_up = scale.and_then(|scale| scale.ramp_up.as_deref());
    let ramp_up = queue::ramp_up(report, &path.key("scale").key("rampUp"), ramp_up);
    let idle_stream = scale.and_then(|scale| scale.idle_stream.as_ref());
    let scale = &path.key("scale");
    let idle_stream = check::unless_zero(
        report,
        &scale.key("idleStream"),
        idle_stream,
        Duration::ZERO,
    );
    tls::unprobed(report, path, written);
    let tls = written.tls.as_ref();
    let tls = tls.map(|at| Box::new(tls::endpoint(report, &path.key("tls"), &at.value)));
    let tls = tls.or_else(|| written.fed_tls.clone());
    Revision {
        id,
        key,
        protocol: protocol(written),
        tls,
        concurrency,
        timeout,
        max_duration,
        idle,
        queue,
        ramp_up,
        idle_stream,
        backend: backend(report, path, written, concurrency),
    }
}

fn protocol(written: &document::Revision) -> Protocol {
    let written = written.protocol.as_ref();
    written.map_or(Protocol::Http1, |at| at.value)
}

fn backend(
    report: &mut Report<'_>,
    path: &Path<'_>,
    written: &document::Revision,
    concurrency: u32,
) -> Backend {
    if let (Some(_), Some(process)) = (&written.endpoints, &written.process) {
        let problem = "both `endpoints` and `process`";
        let hint = "keep `endpoints` for fixed addresses, or `process` to start it on demand";
        report.add(&path.key("process"), process.mark, MAPPING, problem, hint);
    }
    if let (Some(scale), None) = (&written.scale, &written.process) {
        unscaled(report, &path.key("scale"), &scale.value);
    }
    if let (Some(health), None) = (&written.health, &written.endpoints) {
        let problem = "`health` without `endpoints`";
        let hint = match written.process {
            Some(_) => "use `readiness` of `process`",
            None => "only fixed endpoints are checked: add `endpoints`, or remove `health`",
        };
        report.add(&path.key("health"), health.mark, MAPPING, problem, hint);
    }
    if let Some(fed) = &written.fed {
        return Backend::Fed(fed.clone());
    }
    let protocol = protocol(written);
    if let Some(process) = &written.process {
        let scale = written.scale.as_ref().map(|at| &at.value);
        let scale = scaling(report, &path.key("scale"), scale, concurrency);
        let path = &path.key("process");
        let process = self::process(report, path, &process.value, protocol, scale);
        return Backend::Process(Box::new(process));
    }
    let Some(written_endpoints) = &written.endpoints else {
        return Backend::None;
    };
    let endpoints = endpoints(report, &path.key("endpoints"), written_endpoints);
    let health = written.health.as_ref();
    let path = &path.key("health");
    let health = health.map(|at| Box::new(self::health(report, path, &at.value, protocol)));
    match endpoints.is_empty() {
        true => Backend::None,
        false => Backend::Fixed {
            endpoints: endpoints.into(),
            health,
        },
    }
}

/// Only processes are scaled by us.
fn unscaled(report: &mut Report<'_>, path: &Path<'_>, written: &document::Scale) {
    let number = |at: &At<i64>| (at.mark, at.value.to_string());
    let duration = |at: &At<DurationText>| (at.mark, at.value.0.to_string());
    let target = |at: &At<f64>| (at.mark, at.value.to_string());
    let keys = [
        ("min", written.min.as_ref().map(number)),
        ("max", written.max.as_ref().map(number)),
        ("target", written.target.as_ref().map(target)),
        ("window", written.window.as_ref().map(duration)),
        ("grace", written.grace.as_ref().map(duration)),
    ];
    for (key, written) in keys {
        if let Some((mark, value)) = written {
            let problem = format!("`{key}` without `process`");
            let hint = format!("only processes are scaled: add `process`, or remove `{key}`");
            report.add(&path.key(key), mark, value, problem, hint);
        }
    }
}

fn endpoints(
    report: &mut Report<'_>,
    path: &Path<'_>,
    written: &At<Vec<At<Text>>>,
) -> Vec<Address> {
    let mut endpoints = Vec::with_capacity(written.value.len());
    let mut seen = std::collections::HashSet::new();
    for (index, at) in written.value.iter().enumerate() {
        let path = &path.item(index);
        let Some(address) = check::endpoint(report, path, at) else {
            continue;
        };
        if seen.insert(address.clone()) {
            endpoints.push(address);
        } else {
            let hint = "keep one of them";
            report.add(path, at.mark, &at.value, "endpoint given twice", hint);
        }
    }
    check::at_most(
        report,
        path,
        written.mark,
        written.value.len(),
        ENDPOINTS_MAX,
    );
    endpoints
}

fn health(
    report: &mut Report<'_>,
    path: &Path<'_>,
    written: &document::Health,
    protocol: Protocol,
) -> Health {
    let interval = written.interval.as_ref();
    Health {
        path: check::raw_path(report, &path.key("path"), &written.path).into(),
        protocol,
        interval: check::duration(
            report,
            &path.key("interval"),
            interval,
            SOME,
            HEALTH_INTERVAL,
        ),
    }
}

fn process(
    report: &mut Report<'_>,
    path: &Path<'_>,
    written: &document::Process,
    protocol: Protocol,
    scale: Scale,
) -> Process {
    let readiness = match &written.readiness {
        Some(readiness) => {
            let path = path.key("readiness");
            Readiness::Http {
                path: check::raw_path(report, &path.key("path"), &readiness.path).into(),
                protocol,
            }
        }
        None => Readiness::Tcp,
    };
    let directory = written.directory.as_ref().map(|at| {
        without_nul(report, &path.key("directory"), at);
        if at.value.is_empty() {
            let hint = "write a path, or remove it for the gateway's own directory";
            report.add(
                &path.key("directory"),
                at.mark,
                "",
                "the directory is empty",
                hint,
            );
        }
        beside(report.file(), &at.value)
    });
    Process {
        command: command(report, &path.key("command"), &written.command),
        env: environment(report, &path.key("env"), written),
        directory,
        readiness,
        scale,
    }
}

fn without_nul(report: &mut Report<'_>, path: &Path<'_>, at: &At<Text>) {
    if at.value.contains('\0') {
        let hint = "remove it: the system cannot pass it on";
        report.add(
            path,
            at.mark,
            at.value.escape_debug(),
            "a NUL character",
            hint,
        );
    }
}

fn command(report: &mut Report<'_>, path: &Path<'_>, written: &At<Vec<At<Text>>>) -> Vec<String> {
    let first = written.value.first();
    if first.is_none_or(|program| program.value.is_empty()) {
        let mark = first.map_or(written.mark, |program| program.mark);
        let hint = "write the program and its arguments: [python3, app.py]";
        report.add(path, mark, "[]", "the command is empty", hint);
    }
    check::at_most(
        report,
        path,
        written.mark,
        written.value.len(),
        ARGUMENTS_MAX,
    );
    for (index, argument) in written.value.iter().enumerate() {
        without_nul(report, &path.item(index), argument);
    }
    written
        .value
        .iter()
        .map(|at| at.value.to_string())
        .collect()
}

fn environment(
    report: &mut Report<'_>,
    path: &Path<'_>,
    written: &document::Process,
) -> Vec<(String, String)> {
    let pairs = written.env.as_ref().map_or(&[][..], |pairs| &pairs.0);
    for (name, value) in pairs {
        let path = &path.key(&name.value);
        if name.value.is_empty() || name.value.contains(['=', '\0']) {
            let hint = "use letters, digits and `_`";
            report.add(
                path,
                name.mark,
                name.value.escape_debug(),
                "bad variable name",
                hint,
            );
        }
        if &*name.value == "PORT" {
            let hint = "the gateway chooses the port: remove it";
            report.add(
                path,
                name.mark,
                &name.value,
                "this variable cannot be set",
                hint,
            );
        }
        without_nul(report, path, value);
    }
    if let Some((name, _)) = pairs.get(VARIABLES_MAX) {
        check::at_most(report, path, name.mark, pairs.len(), VARIABLES_MAX);
    }
    let text =
        |(name, value): &(At<Text>, At<Text>)| (name.value.to_string(), value.value.to_string());
    pairs.iter().map(text).collect()
}

fn scaling(
    report: &mut Report<'_>,
    path: &Path<'_>,
    written: Option<&document::Scale>,
    concurrency: u32,
) -> Scale {
    let default_target = match concurrency {
        0 => TARGET_UNLIMITED,
        limit => (f64::from(limit) * UTILISATION).max(1.0),
    };
    let mut scale = Scale {
        min: 0,
        max: SCALE_MAX,
        target: default_target,
        window: WINDOW,
        grace: GRACE,
    };
    let Some(written) = written else { return scale };
    let processes = 0..=PROCESSES_MAX;
    let (min, max) = (written.min.as_ref(), written.max.as_ref());
    scale.min = check::integer(report, &path.key("min"), min, processes.clone(), 0);
    scale.max = check::integer(report, &path.key("max"), max, processes, SCALE_MAX);
    if let Some(at) = min
        .or(max)
        .filter(|_| scale.max > 0 && scale.min > scale.max)
    {
        let hint = format!(
            "write at most max ({}), or raise max; max 0 is unlimited",
            scale.max
        );
        report.add(
            &path.key("min"),
            at.mark,
            at.value,
            "`min` is greater than `max`",
            hint,
        );
    }
    if let Some(at) = &written.target {
        // Written so that NaN is refused too.
        if at.value >= 1.0 && at.value <= f64::from(u32::MAX) {
            scale.target = at.value;
        } else {
            let hint = "write how many requests one process should carry, at least 1";
            report.add(
                &path.key("target"),
                at.mark,
                at.value,
                "the target is below 1",
                hint,
            );
        }
    }
    let second = Duration::from_secs(1);
    let (window, grace) = (written.window.as_ref(), written.grace.as_ref());
    scale.window = check::duration(report, &path.key("window"), window, second, WINDOW);
    scale.grace = check::duration(report, &path.key("grace"), grace, Duration::ZERO, GRACE);
    scale
}

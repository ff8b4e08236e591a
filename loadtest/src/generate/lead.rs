//! From options to a report: starts the threads, watches over the time, adds up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use tokio::signal::unix::{Signal as Interrupts, SignalKind, signal};
use tokio::sync::oneshot::{Receiver, channel};
use tokio::task::JoinHandle;
use tokio::time::timeout_at;

use super::args::RunArgs;
use super::job::Shared;
use super::pace::Schedule;
use super::plan::Plan;
use super::progress::{boards, show};
use super::tally::Tally;
use super::thread::{Seat, run as run_thread};
use crate::report::{Latency, Report};
use crate::system::tell;

/// Descriptors besides those of connections: standard streams, files, what leads the run.
const DESCRIPTORS: u64 = 64;

/// Descriptors of a thread besides: its event loop and its clock.
const DESCRIPTORS_PER_THREAD: u64 = 8;

/// Between two looks at how many connections of `--hold` have had their answer.
const LOOK: Duration = Duration::from_millis(5);

/// What a run found.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) report: Report,
    /// Latency in microseconds, in full.
    pub(super) latency: Histogram<u64>,
}

/// Does what the options say.
///
/// # Errors
/// They have no meaning, or the machine does not let us.
pub(super) fn run(args: &RunArgs) -> anyhow::Result<Outcome> {
    let plan = Arc::new(Plan::new(args)?);
    raise_descriptors(plan.connections, plan.threads)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(lead(&args.url, plan))
}

/// Lets this process open as many connections as it was asked to.
fn raise_descriptors(connections: usize, threads: usize) -> anyhow::Result<()> {
    let besides = DESCRIPTORS + threads as u64 * DESCRIPTORS_PER_THREAD;
    let needed = connections as u64 + besides;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let raised = Rlimit {
        current: Some(needed),
        maximum: limit.maximum.map(|maximum| maximum.max(needed)),
    };
    setrlimit(Resource::Nofile, raised).with_context(|| {
        format!("{connections} connections need {needed} descriptors: raise the limit (ulimit -n)")
    })
}

async fn lead(url: &str, plan: Arc<Plan>) -> anyhow::Result<Outcome> {
    // Before anything is asked: whoever sees a request may interrupt the run.
    let mut interrupts = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
    let start = Instant::now();
    let measured = start + plan.warmup;
    let schedule = Schedule {
        start,
        measured,
        end: match plan.duration {
            Some(duration) if !plan.hold => Some(measured + duration),
            _ => None,
        },
    };
    let shared = Arc::new(Shared::default());
    let boards = boards(plan.threads, schedule);
    let mut threads = Vec::with_capacity(plan.threads);
    for index in 0..plan.threads {
        threads.push(spawn(Seat {
            index,
            plan: plan.clone(),
            shared: shared.clone(),
            schedule,
            board: boards.get(index).cloned(),
        })?);
    }
    let tallies = tokio::spawn(gather(threads));
    let over = async {
        match schedule.end {
            Some(end) => {
                tokio::time::sleep_until(end.into()).await;
                end
            }
            None if plan.hold => {
                hold(&plan, &shared).await;
                Instant::now()
            }
            None => std::future::pending().await,
        }
    };
    let shown = tokio::spawn(show(boards, schedule));
    let spent = tokio::select! {
        spent = spend(schedule.measured, over, tallies) => spent,
        () = interrupted_twice(&mut interrupts, &shared) => {
            bail!("interrupted again; nothing is reported");
        }
    };
    shown.abort();
    let spent = spent?;
    let interrupted = shared.stop.load(Ordering::Relaxed);
    let end = end(&plan, schedule, &spent, interrupted);
    Ok(report(url, &plan, end - schedule.measured, spent))
}

type Done = anyhow::Result<Tally>;

fn spawn(seat: Seat) -> anyhow::Result<Receiver<std::io::Result<Tally>>> {
    let (done, result) = channel();
    std::thread::Builder::new()
        .name(format!("load-{}", seat.index))
        .spawn(move || {
            // Nobody waits any longer when the run has failed elsewhere.
            drop(done.send(run_thread(seat)));
        })
        .context("cannot start a thread")?;
    Ok(result)
}

async fn gather(threads: Vec<Receiver<std::io::Result<Tally>>>) -> Done {
    let mut all: Option<Tally> = None;
    for thread in threads {
        let tally = thread.await.context("a thread has failed")??;
        match &mut all {
            Some(all) => all.add(&tally),
            None => all = Some(tally),
        }
    }
    all.context("there are no threads")
}

/// Lets a run that is interrupted end with a report, when the answers under way are there; comes to
/// an end itself when whoever does not want to wait for those interrupts it again.
async fn interrupted_twice(interrupts: &mut Interrupts, shared: &Shared) {
    // One listener for both: of two, the second would miss what comes before it is there.
    interrupts.recv().await;
    shared.stop.store(true, Ordering::Relaxed);
    tell("loadtest: interrupted; waiting for answers under way, once more to leave without");
    interrupts.recv().await;
}

/// What was counted, and what the measured time of it cost.
struct Spent {
    tally: Tally,
    cpu: Duration,
    /// When the measured time was over, if not all requests had ended by then.
    end: Option<Instant>,
}

async fn spend(
    measured: Instant,
    over: impl Future<Output = Instant>,
    mut tallies: JoinHandle<Done>,
) -> anyhow::Result<Spent> {
    let begun = timeout_at(measured.into(), &mut tallies).await;
    let before = cpu();
    let (done, end) = match begun {
        Ok(done) => (Some(done), None),
        Err(_elapsed) => tokio::select! {
            done = &mut tallies => (Some(done), None),
            end = over => (None, Some(end)),
        },
    };
    let cpu = cpu().saturating_sub(before);
    let tally = match done {
        Some(done) => done??,
        None => tallies.await??,
    };
    Ok(Spent { tally, cpu, end })
}

/// When the measured time was over.
fn end(plan: &Plan, schedule: Schedule, spent: &Spent, interrupted: bool) -> Instant {
    let Spent { tally, end, .. } = spent;
    let all = |requests| tally.sent + tally.missed >= requests;
    let last = || tally.last_answer.unwrap_or_else(Instant::now);
    match end.or(schedule.end) {
        Some(end) if interrupted || plan.requests.is_some_and(all) => last().min(end),
        Some(end) => end,
        None => last(),
    }
}

/// User and system time of this process.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(time.tv_sec.cast_unsigned(), nanos)
}

fn report(url: &str, plan: &Plan, time: Duration, spent: Spent) -> Outcome {
    let Spent { tally, cpu, .. } = spent;
    let seconds = time.as_secs_f64();
    let per = |amount: f64, over: f64| if over > 0.0 { amount / over } else { 0.0 };
    let report = Report {
        url: url.to_owned(),
        protocol: plan.protocol_name().to_owned(),
        connections: plan.connections,
        streams: plan.streams,
        target_rate: plan.rate,
        seconds,
        sent: tally.sent,
        answers: tally.answers,
        errors: tally.errors,
        missed: tally.missed,
        held: plan.hold.then_some(tally.held),
        statuses: (0..)
            .zip(&*tally.statuses)
            .filter(|(status, count)| *status > 0 && **count > 0)
            .map(|(status, count)| (status, *count))
            .collect(),
        bytes_up: tally.bytes_up,
        bytes_down: tally.bytes_down,
        rate: per(tally.within as f64, seconds),
        latency: latency(&tally.latency),
        cpu_micros: per(cpu.as_secs_f64() * 1e6, tally.within as f64),
        first_error: tally.first_error,
    };
    Outcome {
        report,
        latency: tally.latency,
    }
}

fn latency(histogram: &Histogram<u64>) -> Latency {
    let at = |quantile| histogram.value_at_quantile(quantile);
    if histogram.is_empty() {
        return Latency::default();
    }
    Latency {
        min: histogram.min(),
        mean: histogram.mean(),
        p50: at(0.5),
        p75: at(0.75),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: histogram.max(),
    }
}

/// Waits until every connection has had its answer, holds them all for the duration, lets go.
async fn hold(plan: &Plan, shared: &Shared) {
    let stopped = || shared.stop.load(Ordering::Relaxed);
    while shared.settled.load(Ordering::Relaxed) < plan.connections && !stopped() {
        tokio::time::sleep(LOOK).await;
    }
    tell(&format!(
        "loadtest: holding {} connections",
        plan.connections
    ));
    if let Some(duration) = plan.duration {
        let end = tokio::time::Instant::now() + duration;
        while tokio::time::Instant::now() < end && !stopped() {
            tokio::time::sleep(LOOK.min(duration)).await;
        }
    }
    shared.release.store(true, Ordering::Relaxed);
}

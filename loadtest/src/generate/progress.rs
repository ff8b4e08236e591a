//! What a run has counted so far, shown to who waits for it.

use std::io::{IsTerminal, stderr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use tokio::time::interval;

use super::pace::Schedule;
use super::tally::Tally;

/// Between two lines.
const EVERY: Duration = Duration::from_millis(250);

/// Where a thread leaves what it has counted.
pub(super) type Board = Arc<Mutex<Tally>>;

/// One board per thread, if standard error is a terminal; else none.
pub(super) fn boards(threads: usize, schedule: Schedule) -> Vec<Board> {
    if !stderr().is_terminal() {
        return Vec::new();
    }
    let empty = Tally::new(schedule.measured, schedule.end);
    (0..threads)
        .map(|_| Arc::new(Mutex::new(empty.clone())))
        .collect()
}

/// Shows a line until it is dropped.
pub(super) async fn show(boards: Vec<Board>, schedule: Schedule) {
    if boards.is_empty() {
        return;
    }
    let line = Line(ProgressBar::new_spinner());
    let mut ticks = interval(EVERY);
    let mut before = (Instant::now(), 0);
    while !line.0.is_finished() {
        ticks.tick().await;
        let now = Instant::now();
        if now < schedule.measured {
            line.0.set_message("warming up");
            before.0 = schedule.measured;
            continue;
        }
        let sum = sum(&boards, schedule);
        let passed = now.saturating_duration_since(before.0).as_secs_f64();
        let rate = (sum.answers - before.1) as f64 / passed.max(1e-3);
        before = (now, sum.answers);
        line.0.set_message(words(&sum, rate, schedule, now));
        line.0.tick();
    }
}

/// Cleared when it is dropped.
struct Line(ProgressBar);

impl Drop for Line {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn sum(boards: &[Board], schedule: Schedule) -> Tally {
    let mut sum = Tally::new(schedule.measured, schedule.end);
    for board in boards {
        if let Ok(board) = board.lock() {
            sum.add(&board);
        }
    }
    sum
}

fn words(sum: &Tally, rate: f64, schedule: Schedule, now: Instant) -> String {
    let passed = now.saturating_duration_since(schedule.measured);
    let p99 = Duration::from_micros(sum.latency.value_at_quantile(0.99));
    let of = match schedule.end {
        Some(end) => format!(" of {:.0?}", end - schedule.measured),
        None => String::new(),
    };
    let errors = sum.errors.total();
    format!("{passed:.1?}{of}: {rate:.0} answers/s, {errors} errors, p99 so far {p99:.1?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::tally::{Answer, Fault, Ticket};

    #[test]
    fn the_line_has_rate_errors_and_p99_of_all_threads() {
        let start = Instant::now();
        let schedule = Schedule {
            start,
            measured: start,
            end: Some(start + Duration::from_secs(10)),
        };
        let ticket = Ticket {
            due: start,
            begun: start,
            counted: true,
        };
        let mut one = Tally::new(start, schedule.end);
        let later = start + Duration::from_millis(2);
        one.answer(&ticket, later, Answer::default(), 0);
        let mut other = one.clone();
        other.fault(&ticket, Fault::Timeout("late"), 0);
        let boards: Vec<Board> = [one, other].map(|tally| Arc::new(Mutex::new(tally))).into();
        let sum = sum(&boards, schedule);
        let now = start + Duration::from_secs(3);
        assert_eq!(
            words(&sum, 7.0, schedule, now),
            "3.0s of 10s: 7 answers/s, 1 errors, p99 so far 2.0ms"
        );
    }
}

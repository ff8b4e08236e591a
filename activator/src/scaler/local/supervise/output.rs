//! Reads what a process prints, line by line, and remembers how its standard error ended.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use crate::scaler::local::protocol::{Event, Id, LINE_MAX, Stream, TAIL_MAX};

/// Between the lines of a tail.
const SEPARATOR: &str = " | ";
/// Read from a pipe at once.
const CHUNK: usize = 8192;

/// Passes lines on until the pipe closes or nobody takes them any more; returns whose they were.
/// It reads no faster than
/// lines are taken, so a process that prints more than that waits on its full pipe.
pub(super) async fn pass_on(output: Output, mut pipe: pipe::Receiver) -> Id {
    let mut chunk = vec![0; CHUNK];
    let mut line = Line::default();
    loop {
        let count = match pipe.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        for &byte in &chunk[..count] {
            let Some(line) = line.push(byte) else {
                continue;
            };
            if !output.send(line).await {
                return output.id;
            }
        }
    }
    if let Some(line) = line.take_rest() {
        output.send(line).await;
    }
    output.id
}

/// Where the lines of one pipe go.
pub(super) struct Output {
    pub(super) id: Id,
    pub(super) stream: Stream,
    pub(super) tail: Arc<Mutex<Tail>>,
    pub(super) events: mpsc::Sender<Event>,
}

impl Output {
    async fn send(&self, line: String) -> bool {
        if self.stream == Stream::Stderr {
            let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
            tail.push(&line);
        }
        let (id, stream) = (self.id, self.stream);
        let event = Event::Output { id, stream, line };
        self.events.send(event).await.is_ok()
    }
}

/// The line being read, at most [`LINE_MAX`] bytes of it.
#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
}

impl Line {
    /// The line this byte ended.
    fn push(&mut self, byte: u8) -> Option<String> {
        if byte == b'\n' {
            return Some(self.take());
        }
        if self.bytes.len() < LINE_MAX {
            self.bytes.push(byte);
        }
        None
    }

    /// What came after the last newline.
    fn take_rest(&mut self) -> Option<String> {
        (!self.bytes.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> String {
        let line = String::from_utf8_lossy(&self.bytes)
            .trim_end_matches('\r')
            .to_owned();
        self.bytes.clear();
        line
    }
}

/// The last lines of a standard error, at most [`TAIL_MAX`] bytes.
#[derive(Debug, Default)]
pub(super) struct Tail {
    lines: VecDeque<String>,
    /// Of all lines, each with a separator.
    length: usize,
}

impl Tail {
    fn push(&mut self, line: &str) {
        let line = plain(line);
        if line.is_empty() {
            return;
        }
        self.length += line.len() + SEPARATOR.len();
        self.lines.push_back(line);
        while self.length > TAIL_MAX + SEPARATOR.len() {
            let Some(first) = self.lines.pop_front() else {
                break;
            };
            self.length -= first.len() + SEPARATOR.len();
        }
    }

    pub(super) fn text(&self) -> String {
        let lines: Vec<&str> = self.lines.iter().map(String::as_str).collect();
        lines.join(SEPARATOR)
    }
}

/// The text of a line without control characters, cut to [`TAIL_MAX`] bytes: it ends up in an
/// answer to a client.
fn plain(line: &str) -> String {
    let mut text: String = line
        .trim_end()
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    let mut end = TAIL_MAX.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<String> {
        let mut line = Line::default();
        let mut lines: Vec<String> = bytes.iter().filter_map(|&byte| line.push(byte)).collect();
        lines.extend(line.take_rest());
        lines
    }

    #[test]
    fn output_is_cut_into_lines_of_bounded_length() {
        assert_eq!(lines(b"a\r\n\nb\xff\nlast"), ["a", "", "b\u{fffd}", "last"]);
        let mut long = vec![b'x'; 3 * LINE_MAX];
        long.extend(b"\nnext\n");
        let lines = lines(&long);
        assert_eq!(lines[0].len(), LINE_MAX);
        assert_eq!(lines[1], "next");
    }

    #[test]
    fn a_tail_keeps_the_last_lines_within_its_bound() {
        let mut tail = Tail::default();
        for number in 0..1000 {
            tail.push(&format!("line {number}\u{1b}[0m"));
            assert!(tail.text().len() <= TAIL_MAX);
        }
        assert!(tail.text().ends_with("line 998 [0m | line 999 [0m"));
        assert!(tail.text().len() > TAIL_MAX - 40);
        tail.push(&"é".repeat(LINE_MAX));
        assert_eq!(tail.text(), "é".repeat(TAIL_MAX / 2));
    }
}

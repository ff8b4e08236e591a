//! Exchanges between a client and an endpoint that both say whatever an input says. Nothing may
//! hang, no place may be lost, and what either side hears is well framed.

use std::cell::RefCell;

use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::Notify;

use super::*;
use crate::http::field::Name;
use crate::http::h1::body::{Decoder, Step};
use crate::http::h1::{HeadLimits, Parsed, request, response};
use crate::http::h2::link::Link;
use crate::http::message::{Length, RequestHead, ResponseHead};

const NARROW: usize = 61;

/// In a script: a second passes.
const WAIT: u8 = 0x1c;
/// In a script: the others go on.
const YIELD: u8 = 0x1d;
/// In a script: nothing more is said.
const END: u8 = 0x1e;
/// Between the scripts of an input.
const NEXT: u8 = 0x1f;

/// Most connections to endpoints of one input.
const ENDPOINTS_MAX: usize = 4;

/// By then whatever was begun has ended, by one limit or the other.
const PATIENCE: Duration = Duration::from_secs(3 * 3600);

/// Every limit there is, so that nothing may go on for ever.
const LIMITED: &str = "timeout: 30s, maxDuration: 120s, idle: 20s";

/// Bits of the first byte of an input.
#[derive(Clone, Copy)]
struct Options(u8);

impl Options {
    fn leaves(self) -> bool {
        self.0 & 1 != 0
    }

    fn capacity(self) -> usize {
        if self.0 & 2 != 0 { NARROW } else { PLENTY }
    }

    fn world(self, more: &str) -> World {
        let limited = if self.0 & 4 != 0 {
            ", concurrency: 1"
        } else {
            ""
        };
        World::new("", &format!("{LIMITED}{limited}{more}"))
    }

    fn closes(self) -> bool {
        self.0 & 8 != 0
    }

    fn who(self) -> impl FnOnce(&mut Client) {
        move |client| {
            client.trusted = self.0 & 16 != 0;
            client.audience = match self.0 & 32 {
                0 => Audience::Public,
                _ => Audience::Internal,
            };
        }
    }
}

/// What somebody hears.
#[derive(Default)]
struct Hearing {
    bytes: RefCell<Vec<u8>>,
    /// Told of the first of it, and of the end.
    stirred: Notify,
}

type Seen = Rc<Hearing>;

/// Keeps what comes until the other side ends.
async fn keep(mut read: ReadHalf<DuplexStream>, seen: Seen) {
    let mut window = [0; 4096];
    while let Ok(count @ 1..) = read.read(&mut window).await {
        seen.bytes.borrow_mut().extend_from_slice(&window[..count]);
        seen.stirred.notify_one();
    }
    seen.stirred.notify_one();
}

/// Says what a script says, for as long as somebody listens.
async fn play(write: &mut WriteHalf<DuplexStream>, script: &[u8]) {
    for line in script.split_inclusive(|byte| matches!(*byte, WAIT | YIELD | END)) {
        let (said, pause) = match line.split_last() {
            Some((pause @ (&WAIT | &YIELD | &END), said)) => (said, Some(*pause)),
            _ => (line, None),
        };
        if write.write_all(said).await.is_err() {
            return;
        }
        match pause {
            Some(WAIT) => tokio::time::sleep(seconds(1)).await,
            Some(YIELD) => tokio::task::yield_now().await,
            Some(_) => drop(write.shutdown().await),
            None => {}
        }
    }
}

/// An endpoint that plays a script once it was asked something; what it hears.
fn endpoint(world: &World, options: Options, script: &[u8]) -> Seen {
    let stream = world.endpoint_holding(options.capacity());
    let (read, mut write) = tokio::io::split(stream);
    let (seen, script) = (Seen::default(), script.to_vec());
    let heard = seen.clone();
    spawn_local(async move {
        let reading = spawn_local(keep(read, heard.clone()));
        // Unless it speaks before it is asked.
        if script.first() != Some(&YIELD) {
            heard.stirred.notified().await;
        }
        play(&mut write, &script).await;
        if options.closes() {
            reading.abort();
        } else {
            let _ended = reading.await;
        }
    });
    seen
}

/// A client that plays a script, and then leaves or waits for the end; what it hears.
async fn client(world: &World, options: Options, script: &[u8]) -> Vec<u8> {
    let (io, stream) = Io::memory(options.capacity());
    let served = world.serve_as(io, options.who());
    let (read, mut write) = tokio::io::split(stream);
    let seen = Seen::default();
    let reading = spawn_local(keep(read, seen.clone()));
    play(&mut write, script).await;
    if options.leaves() {
        reading.abort();
        drop(reading.await);
        drop(write);
    } else {
        let ended = tokio::time::timeout(PATIENCE, reading).await;
        assert!(ended.is_ok(), "the connection does not end");
    }
    let ended = tokio::time::timeout(PATIENCE, served).await;
    ended.expect("serving does not end").expect("it panicked");
    seen.bytes.take()
}

/// Nothing is left of what was begun, and nothing failed by a fault of ours.
async fn is_clean(world: &World) {
    while world.throttle.in_flight() > 0 {
        tokio::time::sleep(seconds(1)).await;
    }
    assert_eq!(world.throttle.waiting(), 0);
    assert_eq!(world.worker.connections.get(), 0);
    // A fuzzer ends at any panic; here they are caught.
    #[cfg(test)]
    assert_eq!(world.counted(500, "internal"), 0);
}

pub(crate) fn h1_exchange(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let options = Options(*first);
    let mut scripts = rest.split(|byte| *byte == NEXT);
    let asked = scripts.next().unwrap_or_default();
    run(async {
        let world = options.world("");
        let scripts = scripts.take(ENDPOINTS_MAX);
        let seen: Vec<Seen> = scripts
            .map(|script| endpoint(&world, options, script))
            .collect();
        let heard = client(&world, options, asked).await;
        is_clean(&world).await;
        for seen in seen {
            is_asked(&seen.bytes.borrow());
        }
        // The answer to HEAD says a length and has no body: nobody else knows which it is. HTTP/2
        // is another target's matter.
        let other = asked.starts_with(b"PRI") || asked.windows(4).any(|word| word == b"HEAD");
        if !other {
            is_answered(&heard);
        }
    });
}

const LARGE: HeadLimits = HeadLimits {
    bytes: 1 << 18,
    fields: 1000,
    target: 1 << 16,
};

/// Whole requests, the last of which may be cut short.
fn is_asked(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let mut head = RequestHead::default();
        let length = match request::parse(bytes, &LARGE, &mut head) {
            Ok(Parsed::Head(length)) => length,
            Ok(Parsed::More) => return,
            Err(reason) => panic!("{}: {}", reason.word(), bytes.escape_ascii()),
        };
        match behind(&bytes[length..], head.length) {
            Some(rest) if !head.wants_websocket => bytes = rest,
            _ => return,
        }
    }
}

/// Whole answers, the last of which may be cut short.
fn is_answered(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let mut head = ResponseHead::default();
        let length = match response::parse(bytes, &LARGE, false, &mut head) {
            Ok(Parsed::Head(length)) => length,
            Ok(Parsed::More) => return,
            Err(error) => panic!("{error}: {}", bytes.escape_ascii()),
        };
        bytes = &bytes[length..];
        match head.status {
            101 => return,
            100..200 => {}
            _ => match behind(bytes, head.length) {
                Some(rest) => bytes = rest,
                None => return,
            },
        }
    }
}

/// What stands behind a body; `None`: its end is not there.
fn behind(mut bytes: &[u8], length: Length) -> Option<&[u8]> {
    let mut decoder = Decoder::new(length, 1 << 16);
    loop {
        match decoder.step(bytes).expect("a well-framed body") {
            Step::Data(count) => {
                decoder.took(count);
                bytes = &bytes[count..];
            }
            Step::Skip(count) => bytes = &bytes[count..],
            Step::End(count, _) => return Some(&bytes[count..]),
            Step::More => return None,
        }
    }
}

/// Fields of a request: what the endpoint hears of who asks.
pub(crate) fn forwarded(input: &[u8]) {
    let Some((first, fields)) = input.split_first() else {
        return;
    };
    let options = Options(first & 0b11_0000);
    let host = b"a.default.example.com";
    let asked = [
        b"GET / HTTP/1.1\r\nhost: ",
        &host[..],
        b"\r\nconnection: close\r\n",
        fields,
        b"\r\n\r\n",
    ]
    .concat();
    run(async {
        let world = options.world("");
        let seen = endpoint(&world, options, b"HTTP/1.1 204 Done\r\n\r\n");
        client(&world, options, &asked).await;
        is_clean(&world).await;
        let seen = seen.bytes.borrow();
        let mut head = RequestHead::default();
        if let Ok(Parsed::Head(_)) = request::parse(&seen, &LARGE, &mut head) {
            is_told(&head, options);
        } else {
            assert!(seen.is_empty(), "{}", seen.escape_ascii());
        }
    });
}

/// What a head says of the client is what we know, and what a trusted proxy says.
fn is_told(head: &RequestHead, options: Options) {
    let shown = head.head.bytes.escape_ascii();
    let mut who = world_client();
    options.who()(&mut who);
    let all = |name| head.head.all(name).collect::<Vec<_>>();
    let for_whom = all(Name::XForwardedFor);
    assert!(
        for_whom.len() == 1 && for_whom[0].ends_with(b"192.0.2.7"),
        "{shown}"
    );
    assert!(!all(Name::XForwardedProto).is_empty(), "{shown}");
    assert!(!all(Name::XForwardedHost).is_empty(), "{shown}");
    assert!(!all(Name::XRequestId).is_empty(), "{shown}");
    assert_eq!(
        all(Name::Via).last(),
        Some(&&b"1.1 tidegate-test"[..]),
        "{shown}"
    );
    for never in [Name::XForwardedClientCert, Name::Lookalike] {
        assert!(all(never).is_empty(), "{never:?}: {shown}");
    }
    if !who.is_internal() {
        assert!(all(Name::Control).is_empty(), "{shown}");
    }
    if !who.trusted {
        assert_eq!(for_whom, [b"192.0.2.7"], "{shown}");
        assert_eq!(all(Name::XForwardedProto), [b"http"], "{shown}");
        assert_eq!(
            all(Name::XForwardedHost),
            [b"a.default.example.com"],
            "{shown}"
        );
        assert!(all(Name::Forwarded).is_empty(), "{shown}");
        assert_eq!(all(Name::XRequestId).len(), 1, "{shown}");
        assert_eq!(all(Name::XRequestId)[0].len(), 32, "{shown}");
    }
}

/// What a client of HTTP/2 begins with, its settings included.
const BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Fields of requests (RFC 7541): GET and POST of `/` at `a.default.example.com`.
const BLOCKS: [&[u8]; 4] = [
    b"\x82\x86\x84\x41\x15a.default.example.com",
    b"\x83\x86\x84\x41\x15a.default.example.com",
    b"\x83\x86\x84\x41\x15a.default.example.com\x0f\x0d\x015",
    b"\x82\x86\x44\x06/empty\x41\x15b.default.example.com",
];

/// Fields of answers: 200, 200 with a length, 204, 103.
const ANSWERS: [&[u8]; 4] = [b"\x88", b"\x88\x0f\x0d\x015", b"\x89", b"\x08\x03103"];

/// What endpoints of HTTP/1.1 say to a client of HTTP/2.
const SAID: [&[u8]; 6] = [
    b"HTTP/1.1 204 Done\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello\x1e",
    b"HTTP/1.1 103 Early\r\nlink: a\r\n\r\n\x1cHTTP/1.1 200 OK\r\n\r\nuntil the end\x1e",
    b"\x1e",
];

/// The next of an input, 0 at its end.
struct Taken<'a>(&'a [u8]);

impl<'a> Taken<'a> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Frames and pauses that an input asks for: a kind, then what it needs. `blocks`: heads to choose from.
fn frames(input: &[u8], blocks: &[&[u8]]) -> Vec<(Vec<u8>, Option<u8>)> {
    let mut taken = Taken(input);
    let mut said = Vec::new();
    while !taken.0.is_empty() {
        let kind = taken.byte();
        let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
            let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
            [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
        };
        match kind {
            0..0x40 => {
                let (flags, stream, length) = (taken.byte(), taken.byte(), taken.byte());
                let payload = taken.bytes(usize::from(length));
                said.push((frame(kind & 0xf, flags, stream, payload), None));
            }
            0x40..0x80 => {
                let (flags, stream) = (taken.byte(), taken.byte());
                let block = blocks[usize::from(kind) % blocks.len()];
                said.push((frame(1, flags, stream, block), None));
            }
            0x80..0xc0 => {
                // The same again, many times: floods.
                let times = usize::from(taken.byte()) + 1;
                if let Some((last, _)) = said.last() {
                    said.push((
                        last.repeat(times.min(1 + (1 << 16) / (last.len() + 1))),
                        None,
                    ));
                }
            }
            0xc0..0xe0 => {
                let length = usize::from(taken.byte());
                said.push((taken.bytes(length).to_vec(), None));
            }
            0xe0.. => said.push((Vec::new(), Some(WAIT + kind % 2))),
        }
    }
    said
}

async fn say_all(write: &mut WriteHalf<DuplexStream>, said: Vec<(Vec<u8>, Option<u8>)>) {
    for (bytes, pause) in said {
        if write.write_all(&bytes).await.is_err() {
            return;
        }
        match pause {
            Some(WAIT) => tokio::time::sleep(seconds(1)).await,
            Some(_) => tokio::task::yield_now().await,
            None => {}
        }
    }
}

/// A client that says frames.
pub(crate) fn h2_client(input: &[u8]) {
    let [first, said, rest @ ..] = input else {
        return;
    };
    let options = Options(*first);
    run(async {
        let world = options.world("");
        let seen: Vec<Seen> = (0..ENDPOINTS_MAX)
            .map(|at| {
                endpoint(
                    &world,
                    options,
                    SAID[(usize::from(*said) + at) % SAID.len()],
                )
            })
            .collect();
        let (io, stream) = Io::memory(options.capacity());
        let served = world.serve_as(io, options.who());
        let (read, mut write) = tokio::io::split(stream);
        let heard = Seen::default();
        let reading = spawn_local(keep(read, heard.clone()));
        let begun = write.write_all(BEGIN).await;
        assert!(begun.is_ok());
        say_all(&mut write, frames(rest, &BLOCKS)).await;
        if options.leaves() {
            reading.abort();
            drop(write);
        } else {
            let ended = tokio::time::timeout(PATIENCE, reading).await;
            assert!(ended.is_ok(), "the connection does not end");
        }
        let ended = tokio::time::timeout(PATIENCE, served).await;
        ended.expect("serving does not end").expect("it panicked");
        is_clean(&world).await;
        are_frames(&heard.bytes.borrow());
        for seen in seen {
            is_asked(&seen.bytes.borrow());
        }
    });
}

/// Whole frames, the last of which may be cut short, none larger than may be.
fn are_frames(mut bytes: &[u8]) {
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = bytes {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        assert!(
            length <= 16 * 1024 && *kind <= 9,
            "{length} bytes of {kind}"
        );
        bytes = rest.get(length..).unwrap_or_default();
    }
}

/// An endpoint that says frames to requests of HTTP/1.1.
pub(crate) fn h2_endpoint(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let options = Options(*first);
    let host = "host: a.default.example.com\r\n";
    let asked = format!(
        "GET /1 HTTP/1.1\r\n{host}\r\n\
         POST /2 HTTP/1.1\r\n{host}content-length: 5\r\n\r\nhello\
         POST /3 HTTP/1.1\r\n{host}transfer-encoding: chunked\r\nte: trailers\r\nconnection: te\r\n\r\n\
         1\r\nx\r\n0\r\nx-a: b\r\n\r\n\
         GET /4 HTTP/1.1\r\n{host}connection: close\r\n\r\n"
    );
    run(async {
        let world = options.world(", protocol: h2c");
        let (io, stream) = Io::memory(options.capacity());
        let (read, mut write) = tokio::io::split(stream);
        let heard = Seen::default();
        let _reading = spawn_local(keep(read, heard.clone()));
        let (said, endpoint) = (frames(rest, &ANSWERS), world.throttle.endpoints()[0].id);
        let saying = spawn_local(async move {
            let settings = b"\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0";
            let _heard = write.write_all(settings).await;
            // So that the requests are there.
            tokio::time::sleep(TICK * 4).await;
            say_all(&mut write, said).await;
            if options.closes() {
                let _ended = write.shutdown().await;
            }
            write
        });
        let worker = &world.worker;
        let quota = worker.pool.quota(endpoint);
        let opening = Link::open(io, &worker.clock, worker.timers.timer(), &quota);
        let opened = tokio::time::timeout(PATIENCE, opening).await;
        if let Ok(link) = opened.expect("opening does not end") {
            worker.pool.share(endpoint, link);
        }
        let answered = client(&world, options, asked.as_bytes()).await;
        is_answered(&answered);
        is_clean(&world).await;
        saying.abort();
    });
}

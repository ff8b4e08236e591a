//! One client, or one endpoint, cannot make the gateway hold much: not by reading nothing, not by
//! heads that are large or unfold.

use tests::frames::{self, Frames, Outcome, get};
use tests::process::resident;
use tests::{Backend, Client, Gateway, PATIENCE, Raw, RawBackend, Wire, eventually, settled};

use crate::{HELLO, hello, hello_h2c};

/// What memory may vary by, with what allocators and workers keep of it.
const LITTLE: u64 = 8 << 20;

/// What a request under way costs by itself, its connection to an endpoint included, in builds that
/// are not optimised.
const STREAM: u64 = 24 << 10;

/// What one connection may hold of bodies.
const CONNECTION: u64 = 1 << 20;

/// What one connection may hold of heads.
const HEADS: u64 = 256 << 10;

async fn connected(gateway: &Gateway) -> Frames {
    let mut client = Frames::connect(gateway.public()).await;
    client.settled().await;
    client
}

async fn others_are_served(gateway: &Gateway) {
    let mut calm = Client::speaking(Wire::Http2, gateway.public()).await;
    calm.get(HELLO, "/?size=500000").await.expect(200);
}

/// Memory beyond what it was before.
fn grown(gateway: &Gateway, before: u64) -> u64 {
    resident(gateway.pid()).saturating_sub(before)
}

/// Waits until no more is taken from the endpoints, and gives what the gateway's memory has grown by.
async fn held(gateway: &Gateway, before: u64) -> u64 {
    let read = || usize::try_from(grown(gateway, before) + 1).unwrap();
    settled("nothing more is taken", read).await as u64
}

/// Each worker has connections of its own, and keeps spare buffers.
fn one_worker(yaml: &str) -> String {
    "gateway: { workers: 1 }\n".to_owned() + yaml
}

/// Two connections with 100 large answers each, of which nothing is read.
async fn stalled(window: u32) {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&one_worker(&hello(&backend))).await;
    others_are_served(&gateway).await;
    let before = resident(gateway.pid());
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = connected(&gateway).await;
        client
            .setting(&[(frames::INITIAL_WINDOW_SIZE, window)])
            .await;
        let more = (1_u32 << 30).to_be_bytes();
        client.send(frames::WINDOW_UPDATE, 0, 0, &more).await;
        for stream in (1..200).step_by(2) {
            client.get(stream, HELLO, "/?size=300000").await;
        }
        clients.push(client);
    }
    eventually(PATIENCE, "all are asked", async || {
        (backend.total() == 201).then_some(())
    })
    .await;
    let held = held(&gateway, before).await;
    let most = 2 * CONNECTION + 200 * STREAM + LITTLE;
    assert!(held < most, "{} KiB are held", held >> 10);
    others_are_served(&gateway).await;
    // What waits is not lost.
    let mut client = clients.remove(0);
    client
        .setting(&[(frames::INITIAL_WINDOW_SIZE, 1 << 20)])
        .await;
    let mut length = 0;
    let mut open = 100;
    while open > 0 {
        let frame = client.next().await.expect("the answers come");
        assert!(frame.kind != frames::RST_STREAM && frame.kind != frames::GOAWAY);
        if frame.kind == frames::DATA {
            length += frame.payload.len();
        }
        open -= usize::from(frame.ends());
    }
    assert_eq!(length, 100 * 300_000);
}

#[tokio::test]
async fn client_that_gives_no_window_makes_us_hold_little() {
    stalled(0).await;
}

#[tokio::test]
async fn client_that_gives_little_window_makes_us_hold_little() {
    stalled(1000).await;
}

#[tokio::test]
async fn client_that_takes_nothing_from_its_socket_makes_us_hold_little() {
    stalled(1 << 20).await;
}

#[tokio::test]
async fn stream_that_is_not_read_is_reset_after_a_while() {
    let backend = Backend::start("one");
    let stall = "gateway:\n  limits: { writeStall: 300ms }\n".to_owned();
    let gateway = Gateway::start(&(stall + &hello(&backend))).await;
    let mut client = connected(&gateway).await;
    client.setting(&[(frames::INITIAL_WINDOW_SIZE, 0)]).await;
    client.get(1, HELLO, "/?size=300000").await;
    assert!(matches!(client.outcome(1).await, Outcome::Reset(_)));
    // One that needs no window is fine.
    client.get(3, HELLO, "/?size=0").await;
    assert_eq!(client.outcome(3).await, Outcome::Status(200));
}

#[tokio::test]
async fn client_that_reads_nothing_is_left_though_it_goes_on_speaking() {
    let backend = Backend::start("one");
    let stall = "gateway:\n  limits: { writeStall: 2s }\n".to_owned();
    let gateway = Gateway::start(&(stall + &hello(&backend))).await;
    let mut client = connected(&gateway).await;
    // More than the kernel keeps for one that does not read.
    let more = (1_u32 << 30).to_be_bytes();
    client.send(frames::WINDOW_UPDATE, 0, 0, &more).await;
    client.get(1, HELLO, "/?hold").await;
    eventually(PATIENCE, "it arrives", async || {
        (backend.running() == 1).then_some(())
    })
    .await;
    for stream in (3..190).step_by(2) {
        // Small enough to be given to the connection whole.
        client.get(stream, HELLO, "/?size=60000").await;
    }
    let mut looks = 0;
    eventually(PATIENCE, "it is left", async || {
        // Fewer than would be too many by themselves.
        if looks % 20 == 0 {
            let ping = frames::encode(frames::PING, 0, 0, &[0; 8]);
            client.flood(&ping).await;
        }
        looks += 1;
        (backend.running() == 0).then_some(())
    })
    .await;
    // Not for what it said.
    let why = [("why", "frames")];
    let left = gateway.metric("tidegate_http2_closed_total", &why).await;
    assert_eq!(left, 0.0);
    others_are_served(&gateway).await;
}

#[tokio::test]
async fn endpoint_that_reads_nothing_makes_us_hold_little() {
    // It gives all the window there is, and takes nothing after the heads.
    let backend = RawBackend::scripted(|_, raw| async move {
        let mut server = Frames::accept(raw).await;
        server
            .setting(&[(frames::INITIAL_WINDOW_SIZE, 1 << 30)])
            .await;
        let more = (1_u32 << 30).to_be_bytes();
        server.send(frames::WINDOW_UPDATE, 0, 0, &more).await;
        server.settled().await;
        std::future::pending::<()>().await;
    });
    let gateway = Gateway::start(&one_worker(&hello_h2c(&backend))).await;
    let mut clients = Vec::new();
    let post = format!("POST / HTTP/1.1\r\nhost: {HELLO}\r\ncontent-length: 300000\r\n\r\nx");
    for _ in 0..100 {
        let mut client = Raw::connect(gateway.public()).await;
        client.send(&post).await;
        clients.push(client);
    }
    gateway
        .until_metric("tidegate_inflight", &[], |count| count == 100.0)
        .await;
    let before = resident(gateway.pid());
    let clients: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                drop(client.try_send(&[b'x'; 299_999]).await);
                client
            })
        })
        .collect();
    let held = held(&gateway, before).await;
    assert!(held < CONNECTION + LITTLE, "{} KiB are held", held >> 10);
    for client in clients {
        client.abort();
    }
}

#[tokio::test]
async fn head_without_end_is_not_kept() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let before = resident(gateway.pid());
    for whole in [&[][..], &frames::block(&get(HELLO, "/"))] {
        let mut client = connected(&gateway).await;
        client
            .flood(&frames::encode(frames::HEADERS, 0, 1, whole))
            .await;
        let more = frames::block(&[("x-more", &"x".repeat(16_000))]);
        let more = frames::encode(frames::CONTINUATION, 0, 1, &more);
        for _ in 0..2_000 {
            client.flood(&more).await;
        }
        client.end().await;
    }
    assert!(grown(&gateway, before) < LITTLE);
    others_are_served(&gateway).await;
}

#[tokio::test]
async fn head_that_unfolds_is_not_unfolded() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let before = resident(gateway.pid());
    let mut client = connected(&gateway).await;
    // One field of 3 KiB, kept in the table, then named again and again with one byte each.
    let mut block = frames::block(&get(HELLO, "/"));
    let first = block.len();
    block.extend(frames::block(&[("x-bomb", &"x".repeat(3_000))]));
    block[first] = 0x40;
    block.extend([0x80 | 62; 12_000]);
    let flags = frames::END_HEADERS | frames::END_STREAM;
    for stream in (1..20).step_by(2) {
        let bomb = frames::encode(frames::HEADERS, flags, stream, &block);
        client.flood(&bomb).await;
    }
    // It is not heard out.
    client.end().await;
    assert_eq!(backend.total(), 0);
    assert!(grown(&gateway, before) < LITTLE);
    others_are_served(&gateway).await;
}

#[tokio::test]
async fn heads_that_stop_in_the_middle_are_kept_small() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    others_are_served(&gateway).await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(connected(&gateway).await);
    }
    let before = resident(gateway.pid());
    for client in &mut clients {
        // A value of which most never comes: as much as is taken before it is too much.
        let mut block = frames::block(&get(HELLO, "/"));
        block.extend(b"\x00\x06x-more\x7f\x80\xff\xff\x07");
        block.resize(16_384, b'x');
        let start = frames::encode(frames::HEADERS, 0, 1, &block);
        client.flood(&start).await;
        for _ in 0..3 {
            let more = frames::encode(frames::CONTINUATION, 0, 1, &[b'x'; 16_384]);
            client.flood(&more).await;
        }
    }
    let held = held(&gateway, before).await;
    assert!(held < 50 * HEADS + LITTLE, "{} KiB are held", held >> 10);
    others_are_served(&gateway).await;
}

#[tokio::test]
async fn client_whose_heads_are_too_large_is_left_after_the_fourth() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let large = "x".repeat(40_000);
    let crumb = ("cookie", "a=1");
    // By size, by number, and in crumbs of one cookie.
    for more in [
        vec![("x-large", &large[..])],
        vec![("x-many", "1"); 101],
        vec![crumb; 101],
    ] {
        let mut client = connected(&gateway).await;
        let mut fields = get(HELLO, "/").to_vec();
        fields.extend(more);
        for stream in [1, 3, 5] {
            client.head(stream, &fields, true).await;
            assert_eq!(client.outcome(stream).await, Outcome::Status(431));
        }
        client.get(7, HELLO, "/").await;
        assert_eq!(client.outcome(7).await, Outcome::Status(200));
        client.head(9, &fields, true).await;
        assert_eq!(client.goaway().await.1, frames::ENHANCE_YOUR_CALM);
        client.end().await;
    }
    let heads = [("why", "heads")];
    let left = gateway.metric("tidegate_http2_closed_total", &heads).await;
    assert_eq!(left, 3.0);
    assert_eq!(backend.total(), 3);
    others_are_served(&gateway).await;
}

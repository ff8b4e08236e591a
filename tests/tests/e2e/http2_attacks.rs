//! Clients who mean ill are left, at little cost, and others are served.

use tests::frames::{self, Frames, get};
use tests::process::resident;
use tests::{Backend, Client, Gateway, Wire};

use crate::{HELLO, hello};

/// How much memory an attack may cost, with what the allocator keeps of it: the promise is 256 KiB
/// for each connection.
const LITTLE: u64 = 8 << 20;

/// A connection on which nothing was asked yet.
async fn frames(gateway: &Gateway) -> Frames {
    let mut client = Frames::connect(gateway.public()).await;
    client.settled().await;
    client
}

async fn others_are_served(gateway: &Gateway) {
    let mut calm = Client::speaking(Wire::Http2, gateway.public()).await;
    calm.get(HELLO, "/").await.expect(200);
}

#[tokio::test]
async fn client_that_resets_without_end_is_left() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = frames(&gateway).await;
    let block = frames::block(&get(HELLO, "/?hold"));
    let begin = frames::END_STREAM | frames::END_HEADERS;
    let attack: Vec<u8> = (1..5_000)
        .step_by(2)
        .flat_map(|stream| {
            let cancel = frames::CANCEL.to_be_bytes();
            let mut both = frames::encode(frames::HEADERS, begin, stream, &block);
            both.extend(frames::encode(frames::RST_STREAM, 0, stream, &cancel));
            both
        })
        .collect();
    client.flood(&attack).await;
    assert_eq!(client.goaway().await.1, frames::ENHANCE_YOUR_CALM);
    gateway.until_idle().await;
    others_are_served(&gateway).await;
}

#[tokio::test]
async fn client_that_makes_us_reset_without_end_is_left() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = frames(&gateway).await;
    let block = frames::block(&get(HELLO, "/?hold"));
    let begin = frames::END_STREAM | frames::END_HEADERS;
    // A window of nothing more is an error of its stream, which we must reset.
    let attack: Vec<u8> = (1..5_000)
        .step_by(2)
        .flat_map(|stream| {
            let mut both = frames::encode(frames::HEADERS, begin, stream, &block);
            both.extend(frames::encode(frames::WINDOW_UPDATE, 0, stream, &[0; 4]));
            both
        })
        .collect();
    client.flood(&attack).await;
    client.goaway().await;
    client.end().await;
    gateway.until_idle().await;
    others_are_served(&gateway).await;
}

#[tokio::test]
async fn head_without_end_is_not_kept() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let before = resident(gateway.pid());
    for whole in [&[][..], &frames::block(&get(HELLO, "/"))] {
        let mut client = frames(&gateway).await;
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
    assert!(resident(gateway.pid()) < before + LITTLE);
    others_are_served(&gateway).await;
}

#[tokio::test]
async fn head_that_unfolds_is_not_unfolded() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let before = resident(gateway.pid());
    let mut client = frames(&gateway).await;
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
    assert!(resident(gateway.pid()) < before + LITTLE);
    others_are_served(&gateway).await;
}

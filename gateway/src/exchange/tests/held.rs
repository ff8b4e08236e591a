//! What held requests keep is within bounds: their heads like their bodies.

use super::*;
use crate::exchange::hold::HEAD_FREE;
use crate::serve::buffers::SIZES;

/// A request whose head is at least so large.
fn headed(bytes: usize, body: &str) -> String {
    let (length, filler) = (body.len(), "x".repeat(bytes));
    format!(
        "POST / HTTP/1.1\r\nhost: a.default.example.com\r\nx-filler: {filler}\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

async fn waiting(world: &World, wanted: u32) {
    while world.throttle.waiting() != wanted {
        tokio::time::sleep(TICK).await;
    }
}

/// A world whose only slot is taken.
async fn taken() -> (World, DuplexStream, DuplexStream) {
    let world = World::new("", "concurrency: 1");
    let (mut first, mut endpoint) = (world.client(), world.endpoint());
    say(&mut first, GET).await;
    read_head(&mut endpoint).await;
    (world, first, endpoint)
}

#[test]
fn a_held_request_pays_for_its_head_beyond_what_is_free() {
    run(async {
        let (world, _first, _endpoint) = taken().await;
        let bytes = || world.throttle.held_bytes();
        let mut small = world.client();
        say(&mut small, GET).await;
        waiting(&world, 1).await;
        assert_eq!(bytes(), 0);
        drop(small);
        waiting(&world, 0).await;

        let mut large = world.client();
        say(&mut large, headed(50_000, "")).await;
        waiting(&world, 1).await;
        let beyond = 50_000 - HEAD_FREE as u64;
        assert!((beyond..beyond + 2048).contains(&bytes()), "{}", bytes());
        let of_head = bytes();
        drop(large);
        waiting(&world, 0).await;
        assert_eq!(bytes(), 0);

        let mut both = world.client();
        say(&mut both, headed(50_000, "body")).await;
        waiting(&world, 1).await;
        assert_eq!(bytes(), of_head + 4);
    });
}

#[test]
fn a_head_of_http2_is_paid_for_as_well() {
    run(async {
        let (world, _first, _endpoint) = taken().await;
        let mut caller = streams::Caller::new(&world).await;
        let _small = caller.get().await;
        waiting(&world, 1).await;
        assert_eq!(world.throttle.held_bytes(), 0);
        let mut large = streams::asks("GET");
        let filler = "x".repeat(20_000).parse().unwrap();
        large.headers_mut().insert("x-filler", filler);
        let _large = caller.ask(large, true).await;
        waiting(&world, 2).await;
        let (bytes, beyond) = (world.throttle.held_bytes(), 20_000 - HEAD_FREE as u64);
        assert!((beyond..beyond + 2048).contains(&bytes), "{bytes}");
    });
}

#[test]
fn what_was_before_on_the_connection_is_not_paid_for() {
    run(async {
        let (world, mut first, mut endpoint) = taken().await;
        say(&mut endpoint, "HTTP/1.1 204 Done\r\n\r\n").await;
        read_head(&mut first).await;
        // Its memory is used again: not so much that it would be freed.
        let answered = headed(10_000, "").replace("POST /", "POST /empty");
        let answered = answered.replace("host: a.", "host: b.");
        say(&mut first, answered).await;
        assert!(read_head(&mut first).await.starts_with("HTTP/1.1 204 "));
        let mut second = world.client();
        say(&mut second, GET).await;
        read_head(&mut endpoint).await;
        say(&mut first, GET).await;
        waiting(&world, 1).await;
        assert_eq!(world.throttle.held_bytes(), 0);
    });
}

#[test]
fn large_heads_beyond_the_bound_are_refused_and_give_back_what_they_kept() {
    run(async {
        let (world, mut first, mut endpoint) = taken().await;
        let most = 1 << 20;
        let mut clients = Vec::new();
        let fit = u32::try_from(most / (50_000 - HEAD_FREE)).unwrap();
        for _ in 0..fit {
            let mut client = world.client();
            say(&mut client, headed(50_000, "")).await;
            clients.push(client);
        }
        waiting(&world, fit).await;
        let mut refused = world.client();
        say(&mut refused, headed(50_000, "")).await;
        refusal(&mut refused, 503, "queue_full").await;
        assert!(world.throttle.held_bytes() <= most as u64);
        let mut small = world.client();
        say(&mut small, GET).await;
        waiting(&world, fit + 1).await;
        say(&mut endpoint, "HTTP/1.1 204 Done\r\n\r\n").await;
        assert!(read_head(&mut first).await.starts_with("HTTP/1.1 204 "));
        for client in clients.iter_mut().chain([&mut small]) {
            read_head(&mut endpoint).await;
            say(&mut endpoint, "HTTP/1.1 204 Done\r\n\r\n").await;
            assert!(read_head(client).await.starts_with("HTTP/1.1 204 "));
        }
        assert_eq!(world.throttle.held_bytes(), 0);
    });
}

#[test]
fn what_came_behind_a_large_head_does_not_keep_its_room() {
    run(async {
        let (world, _first, _endpoint) = taken().await;
        let before = world.worker.buffers.lent.get();
        let mut client = world.client();
        say(&mut client, headed(50_000, "body")).await;
        waiting(&world, 1).await;
        assert_eq!(world.worker.buffers.lent.get(), before + SIZES[0]);
    });
}

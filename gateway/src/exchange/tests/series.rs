//! Metrics have as many series as the configuration has routes, whatever clients ask.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::*;

const CONNECTIONS: usize = 20;
const REQUESTS: usize = 500;

/// Names and labels of all samples.
fn series(world: &World) -> BTreeSet<String> {
    let text = world.registry.scrape(&[]);
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let series = samples.filter_map(|line| line.rsplit_once(' '));
    series.map(|(name, _)| name.to_owned()).collect()
}

fn requests(world: &World) -> u64 {
    let text = world.registry.scrape(&[]);
    let counts = text
        .lines()
        .filter(|line| line.starts_with("tidegate_requests_total{"));
    let counts = counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
    counts.sum()
}

/// Some letters.
fn word(random: &mut fastrand::Rng) -> String {
    let length = random.usize(1..20);
    std::iter::repeat_with(|| random.alphanumeric())
        .take(length)
        .collect()
}

#[test]
fn ten_thousand_strange_requests_make_no_series() {
    run(async {
        let world = World::new("", "");
        let ask = async |request: &str| {
            let mut client = world.client();
            say(&mut client, request).await;
            read_all(&mut client).await
        };
        let close = "connection: close\r\n\r\n";
        ask(&format!("GET / HTTP/1.1\r\nhost: x.test\r\n{close}")).await;
        ask(&format!(
            "GET /empty HTTP/1.1\r\nhost: b.default.example.com\r\n{close}"
        ))
        .await;
        let before = series(&world);
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..CONNECTIONS {
            let mut asked = String::new();
            for number in 1..=REQUESTS {
                let (method, path) = (word(&mut random), word(&mut random));
                let (host, under) = match random.bool() {
                    true => (format!("{}.test", word(&mut random)), ""),
                    false => ("b.default.example.com".to_owned(), "empty/"),
                };
                let ends = if number == REQUESTS {
                    "close"
                } else {
                    "keep-alive"
                };
                let _infallible = write!(
                    asked,
                    "{method} /{under}{path}?{path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: {path}\r\n\
                     x-request-id: {path}\r\nconnection: {ends}\r\n\r\n"
                );
            }
            ask(&asked).await;
        }
        assert_eq!(requests(&world), 2 + (CONNECTIONS * REQUESTS) as u64);
        assert_eq!(series(&world), before);
    });
}

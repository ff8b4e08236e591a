//! The kinds of work.
//!
//! One more is a variant here and a file beside this one with a function from the lab to sections.

mod cold;
mod generator;
mod idle;
mod limit;
mod load;
mod queue;
mod routes;
mod swap;

use std::fmt;

use clap::ValueEnum;

use super::lab::Lab;
use super::section::Section;

/// A kind of work that proxies are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Small GETs over connections that stay.
    Keepalive,
    /// 1 KiB up and 1 KiB down.
    Post,
    /// 1 MiB down; 1 MiB up.
    Large,
    /// A new client connection for every request.
    Connect,
    /// HTTP/2, in clear and over TLS: 10 connections of 10 streams.
    H2c,
    /// New TLS connections; small GETs over kept ones.
    Tls,
    /// Connections that say nothing: memory.
    Idle,
    /// Tidegate starts what is asked for: time, and memory of requests that wait for it.
    Cold,
    /// Requests that wait in Tidegate: beside floods of others, and let go to a process that has just
    /// started.
    Queue,
    /// 1, 1 000 and 100 000 hosts: memory, lookup, and the time to change one.
    Routes,
    /// Latency while Tidegate's files change a hundred times per second.
    Swap,
    /// Tidegate's limit on concurrency, small and reached, with one and with two workers.
    Limit,
    /// The load generator beside wrk, without a proxy.
    Generator,
}

impl Scenario {
    /// Every one, in the order of the report.
    pub const ALL: [Scenario; 13] = [
        Scenario::Keepalive,
        Scenario::Post,
        Scenario::Large,
        Scenario::Connect,
        Scenario::H2c,
        Scenario::Tls,
        Scenario::Idle,
        Scenario::Cold,
        Scenario::Queue,
        Scenario::Routes,
        Scenario::Swap,
        Scenario::Limit,
        Scenario::Generator,
    ];

    pub(crate) async fn run(self, lab: &Lab) -> anyhow::Result<Vec<Section>> {
        match self {
            Scenario::Keepalive => load::keepalive(lab).await,
            Scenario::Post => load::post(lab).await,
            Scenario::Large => load::large(lab).await,
            Scenario::Connect => load::connect(lab).await,
            Scenario::H2c => load::h2c(lab).await,
            Scenario::Tls => load::tls(lab).await,
            Scenario::Idle => idle::run(lab).await,
            Scenario::Cold => cold::run(lab).await,
            Scenario::Queue => queue::run(lab).await,
            Scenario::Routes => routes::run(lab).await,
            Scenario::Swap => swap::run(lab).await,
            Scenario::Limit => limit::run(lab).await,
            Scenario::Generator => generator::run(lab).await,
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::peers::PEERS;

    #[test]
    fn the_page_names_every_scenario_and_every_proxy() {
        let page = include_str!("../../../../docs/performance.md");
        for scenario in Scenario::ALL {
            let row = format!("\n| `{scenario}` | ");
            assert!(page.contains(&row), "nothing about {scenario}");
        }
        for peer in PEERS {
            let row = format!("\n| `{}` | ", peer.name);
            assert!(page.contains(&row), "nothing about {}", peer.name);
        }
        assert_eq!(Scenario::value_variants(), Scenario::ALL);
    }
}

//! `keepalive`, `post`, `large`, `connect`, `h2c`, `tls`.

use loadtest::compare::{Comparison, Rounds, Section};

use crate::support::{PEERS, Written, check_sample, check_whole, compare, compare_for};

/// Length of a measurement over TLS: on a busy machine a debug build may take a while until its
/// handshakes are made, and is to send something nevertheless.
const SECURE: &str = "1s";

/// Checks everything a section of load through several proxies says.
fn check_section(written: &Written, section: &Section) {
    assert_eq!(section.problems, Vec::<String>::new());
    let rounds: Rounds = serde_json::from_value(section.raw.clone()).unwrap();
    assert!(rounds.rate > 0.0);
    assert_eq!(rounds.peers.len(), section.tables[0].rows.len());
    assert_eq!(rounds.peers.len(), section.charts[0].bars.len());
    assert_eq!(rounds.peers.len(), section.shown.len());
    for (peer, shown) in rounds.peers.iter().zip(&section.shown) {
        assert_eq!(peer.name, shown.name);
        assert_eq!((peer.saturation.len(), peer.fixed.len()), (1, 1));
        assert!(peer.sound());
        peer.saturation.iter().for_each(check_sample);
        peer.fixed.iter().for_each(check_sample);
        let row = format!("| {} | ", peer.name);
        assert!(written.markdown.contains(&row), "{}", written.markdown);
        assert!(written.markdown.contains(&shown.command));
        assert!(written.svg.contains(&peer.name));
    }
}

/// Checks a scenario, whose sections are these; returns them.
fn check(scenario: &str, names: &[&str]) -> Comparison {
    check_for("250ms", scenario, names)
}

fn check_for(duration: &str, scenario: &str, names: &[&str]) -> Comparison {
    let scenario = format!("--scenario={scenario}");
    let written = compare_for(duration, 8, &[PEERS, &scenario]);
    check_whole(&written);
    let sections = &written.comparison.sections;
    let found: Vec<&str> = sections.iter().map(|section| &*section.name).collect();
    assert_eq!(found, names);
    for section in sections {
        check_section(&written, section);
    }
    written.comparison
}

#[test]
fn keepalive_counts_right() {
    check("keepalive", &["keepalive"]);
}

#[test]
fn post_counts_right() {
    check("post", &["post"]);
}

#[test]
fn large_counts_right() {
    check("large", &["large-down", "large-up"]);
}

#[test]
fn connect_counts_right() {
    check("connect", &["connect"]);
}

#[test]
fn http2_counts_right_and_says_who_cannot_speak_it() {
    let found = check_for(SECURE, "h2c", &["h2c", "h2", "h2c-h2c"]);
    for (section, unable) in found.sections.iter().zip(["copier", "copier", "nginx"]) {
        let rounds: Rounds = serde_json::from_value(section.raw.clone()).unwrap();
        let tls = section.name == "h2";
        for peer in &rounds.peers {
            let report = &peer.saturation[0].report;
            assert_ne!(peer.name, unable);
            assert_eq!((report.connections, report.streams), (10, 10));
            assert_eq!(report.protocol, if tls { "h2" } else { "h2c" });
            assert_eq!(report.url.starts_with("https://"), tls);
        }
        let measured = section.measured.as_deref().unwrap_or_default();
        assert!(
            measured.contains("10 connections of 10 streams"),
            "{measured}"
        );
        let notes = section.notes.join("\n");
        let absent = found.missing.iter().any(|one| one.name == unable);
        let said = notes.contains(&format!("{unable} (it "));
        assert_eq!(said, !absent, "{notes}");
    }
}

#[test]
fn tls_counts_right_and_makes_a_connection_for_each_request_or_keeps_them() {
    let found = check_for(SECURE, "tls", &["tls-connect", "tls-keepalive"]);
    for section in &found.sections {
        let rounds: Rounds = serde_json::from_value(section.raw.clone()).unwrap();
        for peer in &rounds.peers {
            let report = &peer.saturation[0].report;
            assert_eq!(report.protocol, "http1");
            assert!(report.url.starts_with("https://"), "{}", report.url);
        }
        let fresh = section.name == "tls-connect";
        let load = section
            .commands
            .iter()
            .filter(|line| line.contains(" run "));
        for line in load {
            assert!(line.contains("--ca=$CERTIFICATES/cert.pem"), "{line}");
            assert_eq!(line.contains("--new-connection"), fresh, "{line}");
        }
        let column = "connections per second of CPU".to_owned();
        assert_eq!(section.tables[0].head.contains(&column), fresh);
    }
}

#[test]
fn those_that_add_the_least_take_part_in_keepalive_only() {
    let peers = "--peers=copier,nginx-bare,haproxy-bare";
    let written = compare(2, &["--scenario=keepalive,post", "--rate=100", peers]);
    check_whole(&written);
    let missing = |name: &str| {
        let mut missing = written.comparison.missing.iter();
        missing.any(|one| one.name == name)
    };
    let mut all = vec!["copier"];
    all.extend(
        ["nginx-bare", "haproxy-bare"]
            .into_iter()
            .filter(|name| !missing(name)),
    );
    for (section, expected) in written.comparison.sections.iter().zip([&*all, &["copier"]]) {
        check_section(&written, section);
        let names: Vec<&str> = section.shown.iter().map(|shown| &*shown.name).collect();
        assert_eq!(names, expected);
        let notes = section.notes.join("\n");
        assert!(
            notes.contains("Added to each forwarded request: nothing by copier"),
            "{notes}"
        );
        let bare = expected.len() > 1;
        assert_eq!(notes.contains("X-Forwarded-For by "), bare, "{notes}");
    }
}

#[test]
fn a_rate_below_one_is_kept_as_it_was_given() {
    let args = ["--scenario=keepalive", "--rate=0.4", "--peers=copier"];
    let written = compare(1, &args);
    let section = &written.comparison.sections[0];
    check_section(&written, section);
    let rounds: Rounds = serde_json::from_value(section.raw.clone()).unwrap();
    assert_eq!(rounds.rate, 0.4);
    assert_eq!(rounds.peers[0].fixed[0].report.target_rate, Some(0.4));
}

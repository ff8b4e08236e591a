//! `idle`.

use loadtest::compare::Section;
use serde_json::Value;

use crate::support::{PEERS, check_whole, compare};

/// Fifty connections to each of these proxies.
fn check_section(section: &Section, expected: &[&str]) {
    assert_eq!(section.problems, Vec::<String>::new());
    let peers = section.raw.as_array().unwrap();
    let name = |peer: &Value| peer["name"].as_str().unwrap().to_owned();
    let names: Vec<String> = peers.iter().map(name).collect();
    assert_eq!(names, expected);
    assert_eq!(section.tables[0].rows.len(), names.len());
    assert_eq!(section.charts[0].bars.len(), names.len());
    for peer in peers {
        assert_eq!(peer["connections"], 50);
        let [turn] = &**peer["turns"].as_array().unwrap() else {
            panic!("one round, but {peer}");
        };
        assert_eq!(turn["held"], 50);
        let rss = |when: &str| turn[when]["rss"].as_u64().unwrap();
        // A process takes some memory, and fifty connections do not take as much as all of it.
        assert!(rss("before") > 1 << 20, "{peer}");
        assert!(rss("with_all") < 2 * rss("before"), "{peer}");
    }
    let [verdict] = &*section.verdicts else {
        panic!("{:?}", section.verdicts);
    };
    assert!(verdict.figure.is_some());
}

#[test]
fn idle_connections_stay_open_and_are_weighed() {
    let written = compare(2, &["--scenario=idle", "--held=50", PEERS]);
    check_whole(&written);
    let here = |name: &&str| {
        let mut missing = written.comparison.missing.iter();
        !missing.any(|one| one.name == *name)
    };
    // The copier would hold two connections for each, and is no proxy for requests.
    let peers: Vec<&str> = ["nginx", "tidegate"].into_iter().filter(here).collect();
    let sections = &written.comparison.sections;
    let names: Vec<&str> = sections.iter().map(|section| &*section.name).collect();
    assert_eq!(names, ["idle", "idle-tls", "idle-h2c", "idle-h2"]);
    for section in sections {
        check_section(section, &peers);
    }
}

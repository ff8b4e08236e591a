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
    if expected.contains(&"tidegate") {
        let [verdict] = &*section.verdicts else {
            panic!("{:?}", section.verdicts);
        };
        assert!(verdict.figure.is_some());
    }
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
    let all: Vec<&str> = ["nginx", "tidegate"].into_iter().filter(here).collect();
    let others: Vec<&str> = ["nginx"].into_iter().filter(here).collect();
    let sections = written.comparison.sections.iter();
    let expected = [
        ("idle", &all),
        ("idle-tls", &others),
        ("idle-h2c", &all),
        ("idle-h2", &others),
    ]
    .into_iter()
    .filter(|(_, peers)| !peers.is_empty());
    let names: Vec<&str> = sections.clone().map(|section| &*section.name).collect();
    let wanted: Vec<&str> = expected.clone().map(|(name, _)| name).collect();
    assert_eq!(names, wanted);
    for (section, (_, peers)) in sections.zip(expected) {
        check_section(section, peers);
    }
}

//! `idle`.

use serde_json::Value;

use crate::support::{PEERS, compare, only};

#[test]
fn idle_connections_stay_open_and_are_weighed() {
    let written = compare(2, &["--scenario=idle", "--held=50", PEERS]);
    let section = only(&written, "idle");
    let peers = section.raw.as_array().unwrap();
    let names: Vec<&str> = peers
        .iter()
        .map(|peer| peer["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"tidegate"), "{names:?}");
    // It would hold two connections for each, and is no proxy for requests.
    assert!(!names.contains(&"copier"), "{names:?}");
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
    let of_ours = |peer: &&Value| peer["name"] == "tidegate";
    assert!(peers.iter().any(|peer| of_ours(&peer)));
    let [verdict] = &*section.verdicts else {
        panic!("{:?}", section.verdicts);
    };
    assert!(verdict.figure.is_some());
}

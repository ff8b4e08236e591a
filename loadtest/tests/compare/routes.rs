//! `routes`.

use loadtest::compare::Sample;

use crate::support::{PEERS, check_sample, compare, only};

#[test]
fn every_number_of_hosts_is_served_and_changed() {
    let written = compare(8, &["--scenario=routes", "--routes=1,20", PEERS]);
    let section = only(&written, "routes");
    let cases = section.raw.as_array().unwrap();
    let of = |name: &str| {
        let cases = cases.iter().filter(|case| case["name"] == name);
        let hosts: Vec<u64> = cases.map(|case| case["hosts"].as_u64().unwrap()).collect();
        hosts
    };
    assert_eq!(of("tidegate"), [1, 20]);
    let missing = |name| {
        let mut missing = written.comparison.missing.iter();
        missing.any(|one| one.name == name)
    };
    let nginx: &[u64] = if missing("nginx") { &[] } else { &[1, 20] };
    assert_eq!(of("nginx"), nginx);
    assert_eq!(section.tables[0].rows.len(), cases.len());
    for case in cases {
        assert!(case["start"].as_f64().unwrap() > 0.0);
        assert!(case["memory"]["rss"].as_u64().unwrap() > 1 << 20);
        let samples: Vec<Sample> = serde_json::from_value(case["samples"].clone()).unwrap();
        assert_eq!(samples.len(), 1);
        samples.iter().for_each(check_sample);
        let changes = case["changes"].as_array().unwrap();
        assert_eq!(changes.len(), 7);
        assert!(changes.iter().all(|ms| ms.as_f64().unwrap() > 0.0));
    }
}

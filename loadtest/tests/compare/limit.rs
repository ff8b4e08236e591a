//! `limit`.

use loadtest::compare::Sample;

use crate::support::{check_sample, compare, only};

#[test]
fn a_limit_is_never_exceeded_at_the_backend() {
    let written = compare(32, &["--scenario=limit", "--peers=tidegate"]);
    let section = only(&written, "limit");
    assert_eq!(section.verdicts.len(), 4);
    assert!(
        section
            .verdicts
            .iter()
            .all(|verdict| verdict.holds == Some(true))
    );
    for case in section.raw.as_array().unwrap() {
        let samples: Vec<Sample> = serde_json::from_value(case["samples"].clone()).unwrap();
        samples.iter().for_each(check_sample);
        let limit = case["limit"].as_u64().unwrap();
        assert!(
            samples
                .iter()
                .all(|sample| (1..=limit).contains(&sample.peak))
        );
        assert!(samples.iter().all(|sample| sample.refused == 0));
    }
}

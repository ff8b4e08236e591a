//! `swap`.

use loadtest::compare::Sample;

use crate::support::{check_sample, compare, only};

#[test]
fn changes_under_load_cost_no_request_and_the_last_one_shows() {
    let args = ["--scenario=swap", "--peers=tidegate", "--rate=200"];
    let section = only(&compare(8, &args), "swap");
    assert_eq!(section.raw["rate"], 200.0);
    let cases = section.raw["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 3);
    assert_eq!(section.tables[0].rows.len(), 3);
    let mut bursts = Vec::new();
    for case in cases {
        let [turn] = &**case["turns"].as_array().unwrap() else {
            panic!("one round, but {case}");
        };
        let sample: Sample = serde_json::from_value(turn["sample"].clone()).unwrap();
        check_sample(&sample);
        let burst = case["burst"].as_u64().unwrap();
        let written = turn["written"].as_u64().unwrap();
        let swaps = turn["swaps"].as_u64().unwrap();
        let shown = turn["shown"].as_f64();
        if burst == 0 {
            assert_eq!((written, swaps, shown), (0, 0, None), "{turn}");
        } else {
            // Not fewer than one version, for the last change shows; not more than one for each.
            assert!(written >= burst && written.is_multiple_of(burst), "{turn}");
            assert!((1..=written).contains(&swaps), "{turn}");
            assert!(shown.is_some_and(|ms| ms > 0.0), "{turn}");
        }
        bursts.push(burst);
    }
    assert_eq!(bursts, [0, 1, 10]);
}

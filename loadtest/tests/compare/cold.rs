//! `cold`.

use serde_json::Value;

use crate::support::{compare, only};

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

#[test]
fn a_cold_start_is_told_in_the_order_it_happens() {
    let written = compare(2, &["--scenario=cold", "--held=50", "--peers=tidegate"]);
    let section = only(&written, "cold");
    let starts = section.raw["starts"].as_array().unwrap();
    assert_eq!(starts.len(), 3);
    for start in starts {
        let times = &start["times"];
        // One clock: a process runs, listens, is asked, and then there is an answer.
        let order = [
            &start["sent"],
            &times["started"],
            &times["listening"],
            &times["request"],
            &start["answered"],
        ];
        assert!(order.map(number).is_sorted(), "{start}");
        for phase in ["nudge", "act", "endpoint", "probe", "wire", "firstByte"] {
            let seconds = start["phases"][phase].as_f64();
            assert!(
                seconds.is_some_and(|it| (0.0..60.0).contains(&it)),
                "{start}"
            );
        }
    }
    assert_eq!(section.raw["requests"], 50);
    let [held] = &**section.raw["held"].as_array().unwrap() else {
        panic!("one round, but {}", section.raw["held"]);
    };
    let times = &held["times"];
    let order = [
        &times["started"],
        &times["listening"],
        &times["request"],
        &held["last"],
    ];
    assert!(order.map(number).is_sorted(), "{held}");
    assert!(number(&held["idle"]["rss"]) > 1 << 20, "{held}");
    assert!(number(&held["held"]["rss"]) > 1 << 20, "{held}");
    assert_eq!(section.verdicts.len(), 3);
    assert!(section.verdicts.iter().all(|one| one.figure.is_some()));
}

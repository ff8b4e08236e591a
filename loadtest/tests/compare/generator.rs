//! `generator`.

use std::process::Command;

use crate::support::{check_whole, compare};

#[test]
fn the_generator_is_priced_where_wrk_is_there() {
    let written = compare(8, &["--scenario=generator"]);
    check_whole(&written);
    let [section] = &*written.comparison.sections else {
        panic!("{:?}", written.comparison.sections);
    };
    if Command::new("wrk").arg("-v").output().is_err() {
        assert!(section.problems[0].contains("wrk (Debian)"));
        return;
    }
    assert_eq!(section.problems, Vec::<String>::new());
    assert_eq!(section.tables[0].rows.len(), 2);
    for name in ["wrk", "loadtest"] {
        let turns = section.raw[name].as_array().unwrap();
        assert_eq!(turns.len(), 1);
        assert!(turns[0]["answers"].as_u64().unwrap() > 0);
        assert!(turns[0]["cost"].as_f64().unwrap() > 0.0);
    }
    assert!(section.verdicts[0].figure.is_some());
}

use std::collections::BTreeSet;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use thin_vec::ThinVec;

use super::*;
use crate::Compiler;
use crate::fragment::{Fragment, Origin};
use crate::revision::RevisionId;

fn key(name: &str) -> Key {
    Key {
        namespace: "default".into(),
        name: name.into(),
    }
}

fn split(shares: &[(&str, u8)]) -> Split {
    let target = |&(name, percent): &(&str, u8)| Target {
        revision: RevisionId(0),
        revision_key: key(name),
        percent,
        asked: percent,
        tag: None,
        set_headers: ThinVec::new(),
    };
    Split {
        targets: shares.iter().map(target).collect(),
    }
}

/// Percents of four revisions that add up to 100.
fn shares() -> impl Strategy<Value = Vec<u8>> {
    vec(0..=100_u8, 3).prop_map(|mut cuts| {
        cuts.sort_unstable();
        let ends = cuts.iter().chain([&100]);
        let starts = [0].iter().chain(&cuts);
        ends.zip(starts).map(|(end, start)| end - start).collect()
    })
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn named(shares: &[u8]) -> Vec<(&'static str, u8)> {
    let pairs = NAMES.into_iter().zip(shares.iter().copied());
    // As people write it: who has nothing is not named, now and then.
    pairs
        .filter(|(name, share)| *share > 0 || *name < "c")
        .collect()
}

proptest! {
    #[test]
    fn shares_that_wait_stay_with_those_that_lose_them(
        old in shares(),
        new in shares(),
        warm in btree_set(0..4_usize, 0..4),
    ) {
        let warm: BTreeSet<&str> = warm.into_iter().map(|at| NAMES[at]).collect();
        let before = split(&named(&old));
        let mut held = split(&named(&new));
        let is_warm = |key: &Key| warm.contains(&*key.name);
        let terms = Terms { warm: &is_warm, there: &|_| true };
        hold_split(&mut held, &before, &terms);
        let sum: u32 = held.targets.iter().map(|target| u32::from(target.percent)).sum();
        prop_assert_eq!(sum, 100);
        for (at, name) in NAMES.into_iter().enumerate() {
            let got = share(&held, &key(name));
            let waits = old[at] == 0 && new[at] > 0 && !warm.contains(name);
            match waits {
                true => prop_assert_eq!(got, 0),
                false => {
                    prop_assert!(got >= u32::from(new[at]));
                    prop_assert!(got <= u32::from(old[at].max(new[at])));
                }
            }
        }
        // Once all are warm, it is as it was written.
        let mut shifted = split(&named(&new));
        hold_split(&mut shifted, &held, &Terms { warm: &|_| true, there: &|_| true });
        prop_assert_eq!(shifted, split(&named(&new)));
    }
}

fn effective(old: &[(&str, u8)], new: &[(&str, u8)], warm: &[&str], gone: &[&str]) -> Vec<String> {
    let mut held = split(new);
    let terms = Terms {
        warm: &|key| warm.contains(&&*key.name),
        there: &|key| !gone.contains(&&*key.name),
    };
    hold_split(&mut held, &split(old), &terms);
    let told = |target: &Target| format!("{} {}", target.revision_key.name, target.percent);
    held.targets.iter().map(told).collect()
}

#[test]
fn what_is_kept_is_in_proportion_to_what_is_lost() {
    let old = [("a", 60), ("b", 40)];
    let held = effective(&old, &[("a", 30), ("b", 20), ("c", 50)], &[], &[]);
    assert_eq!(held, ["a 60", "b 40", "c 0"]);
    let held = effective(&old, &[("a", 60), ("c", 40)], &[], &[]);
    assert_eq!(held, ["a 60", "c 0", "b 40"]);
    let new = [("a", 50), ("b", 25), ("c", 25)];
    let held = effective(&[("a", 100)], &new, &["b"], &[]);
    assert_eq!(held, ["a 75", "b 25", "c 0"]);
    // Two thirds of one percent and one third of it: the larger remainder has it.
    let held = effective(&[("a", 67), ("b", 33)], &[("c", 99), ("d", 1)], &["c"], &[]);
    assert_eq!(held, ["c 99", "d 0", "a 1"]);
}

#[test]
fn what_has_gone_keeps_nothing_and_with_nobody_left_nothing_waits() {
    let old = [("a", 60), ("b", 40)];
    let new = [("c", 100)];
    assert_eq!(effective(&old, &new, &[], &["a"]), ["c 0", "b 100"]);
    assert_eq!(effective(&old, &new, &[], &["a", "b"]), ["c 100"]);
}

/// One file with a route `r` and the revisions a to d.
struct File(Compiler);

impl File {
    fn new() -> File {
        File(Compiler::default())
    }

    /// What each revision gets under the rule at this place once the file says so; `warm` have an
    /// endpoint, the revisions of `gone` are in the file no longer.
    fn say(&mut self, route: &str, warm: &[&str], gone: &[&str]) -> Vec<String> {
        let there = NAMES.into_iter().filter(|name| !gone.contains(name));
        let revisions = there.map(|name| format!("  - {{name: {name}}}\n"));
        let revisions: String = revisions.collect();
        let text = format!("routes:\n  - {{name: r, {route}}}\nrevisions:\n{revisions}");
        let fragment = Fragment {
            origin: Origin::File("f.yaml".into()),
            content: crate::parse("f.yaml", &text),
        };
        let is_warm = |key: &Key| warm.contains(&&*key.name);
        let applied = self.0.apply_once_warm(vec![fragment], &is_warm);
        assert!(applied.is_ok(), "{applied:?}");
        self.told()
    }

    fn become_warm(&mut self, warm: &[&str]) -> Vec<String> {
        let is_warm = |key: &Key| warm.contains(&&*key.name);
        self.0.shift(&is_warm);
        self.told()
    }

    /// Of every rule; what is written too, where it differs.
    fn told(&self) -> Vec<String> {
        let route = self.0.snapshot().route_by_key(&key("r")).unwrap();
        let splits = route.rules.iter().filter_map(|rule| route.split_of(rule));
        let targets = splits.flat_map(|split| &split.targets);
        let told = targets.map(|target| {
            let waits = if target.is_warming() { "?" } else { "" };
            format!("{} {}{waits}", target.revision_key.name, target.percent)
        });
        told.collect()
    }

    fn shifting(&self) -> usize {
        self.0.shifting().count()
    }
}

const TO_A: &str = "warmBeforeShift: true, traffic: [{revision: a}]";
const TO_B: &str = "warmBeforeShift: true, traffic: [{revision: b, tag: new}]";

#[test]
fn a_route_that_is_new_waits_for_nothing() {
    assert_eq!(File::new().say(TO_A, &[], &[]), ["a 100"]);
}

#[test]
fn who_had_the_traffic_keeps_it_until_the_new_one_is_warm() {
    let mut file = File::new();
    file.say(TO_A, &[], &[]);
    assert_eq!(file.say(TO_B, &[], &[]), ["b 0?", "a 100"]);
    // Said again, or with something else changed, it waits still.
    assert_eq!(file.say(TO_B, &["a"], &[]), ["b 0?", "a 100"]);
    assert_eq!(
        (file.shifting(), file.become_warm(&["a"])),
        (1, vec!["b 0?".into(), "a 100".into()])
    );
    assert_eq!(file.become_warm(&["b"]), ["b 100"]);
    assert_eq!(file.shifting(), 0);
    // Later it is cold like any other.
    assert_eq!(file.say(TO_B, &[], &[]), ["b 100"]);
    // From nothing once more, it waits once more.
    file.say(TO_A, &["a"], &[]);
    assert_eq!(file.say(TO_B, &[], &[]), ["b 0?", "a 100"]);
    assert_eq!(file.say(TO_A, &[], &[]), ["a 100"]);
    assert_eq!(file.shifting(), 0);
}

#[test]
fn a_route_without_the_key_shifts_at_once_and_so_does_one_to_the_warm() {
    let mut file = File::new();
    file.say(TO_A, &[], &[]);
    assert_eq!(file.say("traffic: [{revision: b}]", &[], &[]), ["b 100"]);
    assert_eq!(file.say(TO_A, &["a"], &[]), ["a 100"]);
}

#[test]
fn several_that_wait_get_their_shares_one_by_one() {
    let mut file = File::new();
    file.say(TO_A, &[], &[]);
    let three = "warmBeforeShift: true, traffic: [{revision: a, percent: 20}, \
                 {revision: b, percent: 50}, {revision: c, percent: 30}]";
    assert_eq!(file.say(three, &[], &[]), ["a 100", "b 0?", "c 0?"]);
    assert_eq!(file.become_warm(&["c"]), ["a 70", "b 0?", "c 30"]);
    assert_eq!(file.become_warm(&["b", "c"]), ["a 20", "b 50", "c 30"]);
}

#[test]
fn a_revision_that_is_removed_keeps_nothing() {
    let mut file = File::new();
    file.say(TO_A, &[], &[]);
    file.say(TO_B, &[], &[]);
    assert_eq!(file.say(TO_B, &[], &["a"]), ["b 100"]);
    assert_eq!(file.shifting(), 0);
    // In one change as well.
    let mut file = File::new();
    file.say(TO_A, &[], &[]);
    assert_eq!(file.say(TO_B, &[], &["a"]), ["b 100"]);
}

#[test]
fn processes_that_are_removed_go_on_until_the_new_ones_are_warm() {
    let mut compiler = Compiler::default();
    let say = |compiler: &mut Compiler, route: &str, names: &[&str], warm: &str| {
        let revisions = names
            .iter()
            .map(|name| format!("  - {{name: {name}, process: {{command: [{name}]}}}}\n"));
        let revisions: String = revisions.collect();
        let text = format!("routes:\n  - {{name: r, {route}}}\nrevisions:\n{revisions}");
        let fragment = Fragment {
            origin: Origin::File("f.yaml".into()),
            content: crate::parse("f.yaml", &text),
        };
        let names = |keys: Vec<Key>| keys.iter().map(|key| key.name.to_string()).collect();
        let is_warm = |key: &Key| warm.contains(&*key.name);
        let applied = compiler.apply_once_warm(vec![fragment], &is_warm);
        applied.map(|compiled| -> Vec<String> { names(compiled.removed_revisions) })
    };
    let nobody: Vec<String> = Vec::new();
    say(&mut compiler, TO_A, &["a"], "").unwrap();
    assert_eq!(say(&mut compiler, TO_B, &["b"], "").unwrap(), nobody);
    assert_eq!(compiler.shifting().count(), 1);
    let a = compiler.snapshot().revision_by_key(&key("a")).unwrap().id;
    // It is kept, and yet nobody can name it.
    assert!(say(&mut compiler, TO_A, &["b"], "").is_err());
    // What comes next takes over from whoever still has the traffic; what never had any just goes.
    let to_c = TO_B.replace("b,", "c,");
    assert_eq!(say(&mut compiler, &to_c, &["c"], "").unwrap(), ["b"]);
    // It may come back as it was.
    assert_eq!(say(&mut compiler, &to_c, &["a", "c"], "").unwrap(), nobody);
    let back = compiler.snapshot().revision_by_key(&key("a")).unwrap().id;
    assert_eq!(a, back);
    say(&mut compiler, TO_A, &["a", "c"], "").unwrap();
    assert_eq!(say(&mut compiler, &to_c, &["c"], "").unwrap(), nobody);
    assert!(!compiler.has_leftovers());
    compiler.shift(&|one| one == &key("c"));
    // Nobody needs it any more, and the next batch lets it go.
    assert!(compiler.has_leftovers());
    let compiled = compiler.apply(Vec::new()).unwrap();
    assert_eq!(compiled.removed_revisions, [key("a")]);
    assert!(!compiler.has_leftovers());
    assert!(compiler.snapshot().revision_by_key(&key("a")).is_none());
    assert!(
        compiler
            .apply(Vec::new())
            .unwrap()
            .removed_revisions
            .is_empty()
    );
}

#[test]
fn a_revision_of_another_file_may_be_removed_while_a_route_shifts() {
    let mut compiler = Compiler::default();
    let fragment = |file: &str, text: &str| Fragment {
        origin: Origin::File(file.into()),
        content: crate::parse(file, text),
    };
    let route = |to: &str| fragment("r.yaml", &format!("routes: [{{name: r, {to}}}]"));
    let revisions = |text: &str| fragment("v.yaml", text);
    let cold = |_: &Key| false;
    let first = vec![route(TO_A), revisions("revisions: [{name: a}, {name: b}]")];
    compiler.apply_once_warm(first, &cold).unwrap();
    compiler.apply_once_warm(vec![route(TO_B)], &cold).unwrap();
    assert_eq!(compiler.shifting().count(), 1);
    let removed = vec![revisions("revisions: [{name: b}]")];
    compiler.apply_once_warm(removed, &cold).unwrap();
    assert_eq!(compiler.shifting().count(), 0);
}

#[test]
fn rules_are_compared_with_those_that_mean_the_same_requests() {
    let mut file = File::new();
    let rules = |of_x: &str, of_y: &str| {
        format!(
            "warmBeforeShift: true, rules: [{{path: /x, traffic: [{{revision: {of_x}}}]}}, \
             {{path: /y, methods: [GET], traffic: [{{revision: {of_y}}}]}}]"
        )
    };
    file.say(&rules("a", "b"), &[], &[]);
    // In order of precedence.
    assert_eq!(
        file.say(&rules("c", "b"), &[], &[]),
        ["b 100", "c 0?", "a 100"]
    );
    // A route without rules has one for everything, written like this otherwise.
    let mut file = File::new();
    let everything = "warmBeforeShift: true, traffic: [{revision: a}], \
                      rules: [{path: /, traffic: [{revision: b}]}]";
    file.say(TO_A, &[], &[]);
    assert_eq!(file.say(everything, &[], &[]), ["b 0?", "a 100"]);
    assert_eq!(file.say(TO_B, &[], &[]), ["b 0?", "a 100"]);
    // What no rule leads to is for tags only, and nobody waits for it.
    file.say(everything, &["a", "b"], &[]);
    let unused = everything.replace("[{revision: a}]", "[{revision: c}]");
    assert_eq!(file.say(&unused, &[], &[]), ["b 100"]);
    assert_eq!(file.shifting(), 0);
    // A rule that is new has no traffic anybody could keep.
    let only_z = "warmBeforeShift: true, rules: [{path: /z, traffic: [{revision: d}]}]";
    assert_eq!(file.say(only_z, &[], &[]), ["d 100"]);
}

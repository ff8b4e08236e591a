//! Whose a host is, when ingresses take hosts from each other in any order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{accepted, ingress, key, object, refused, service, slice, synced};
use crate::source::Verdict;
use crate::source::kubernetes::state::{Kind, State};
use crate::source::kubernetes::status::Standing;
use crate::{Content, Fragment};

/// The hosts that the table has for each ingress.
#[derive(Debug, Default, PartialEq)]
struct Table(BTreeMap<String, BTreeSet<String>>);

impl Table {
    /// Offers what there is to offer, once; whether there was anything.
    fn turn(&mut self, state: &mut State, verdict: impl FnOnce(&[String]) -> Verdict) -> bool {
        self.turn_late(state, |_| {}, verdict)
    }

    /// The same; `meanwhile` happens before the verdict is heard.
    fn turn_late(
        &mut self,
        state: &mut State,
        meanwhile: impl FnOnce(&mut State),
        verdict: impl FnOnce(&[String]) -> Verdict,
    ) -> bool {
        let Some((batch, fragments)) = state.take_batch() else {
            meanwhile(state);
            return false;
        };
        let of_ingress = |fragment: &Fragment| {
            let name = fragment.origin.name().strip_prefix("ingress ns/")?;
            Some((name.to_owned(), fragment.content.clone()))
        };
        let said: Vec<_> = fragments.iter().filter_map(of_ingress).collect();
        let names: Vec<_> = said.iter().map(|(name, _)| name.clone()).collect();
        let verdict = verdict(&names);
        if matches!(verdict, Verdict::Accepted { .. }) {
            for (name, content) in said {
                let Content::Documents { documents, .. } = content else {
                    self.0.remove(&name);
                    continue;
                };
                let routes = documents.iter().flat_map(|one| one.routes.iter().flatten());
                let hosts = routes.flat_map(|route| route.value.hosts.iter().flatten());
                let hosts = hosts.map(|host| host.value.to_string()).collect();
                self.0.insert(name, hosts);
            }
            self.nobody_shares();
        }
        meanwhile(state);
        state.heard(batch, &verdict);
        true
    }

    fn nobody_shares(&self) {
        let mut all = BTreeSet::new();
        for host in self.0.values().flatten() {
            assert!(all.insert(host), "{host} is served for two: {self:?}");
        }
    }

    fn settle(&mut self, state: &mut State) {
        for _ in 0..50 {
            if !self.turn(state, |_| accepted()) {
                return;
            }
        }
        panic!("it never ends");
    }

    fn shown(&self) -> Vec<String> {
        let shown = |(name, hosts): (&String, &BTreeSet<String>)| {
            let hosts = hosts.iter().map(String::as_str).collect::<Vec<_>>();
            format!("{name}: {}", hosts.join(" "))
        };
        self.0.iter().map(shown).collect()
    }
}

/// Two Services, of which `late` has no endpoint.
fn world(ingresses: Vec<Value>) -> (State, Table) {
    let mut objects = vec![service("web", "http"), slice("web", 1, &["10.0.0.1"])];
    objects.push(service("late", "http"));
    objects.extend(ingresses);
    let (mut state, mut table) = (synced(objects), Table::default());
    table.settle(&mut state);
    (state, table)
}

/// Ingress `one` has host `a`, `two` has `b`.
fn two() -> (State, Table) {
    world(vec![
        ingress("one", 1, &["a"], "web"),
        ingress("two", 1, &["b"], "web"),
    ])
}

/// They want each other's, and `one` not before its Service has endpoints.
fn two_of_which_one_is_late() -> (State, Table) {
    let (mut state, mut table) = two();
    put(&mut state, "one", 2, &["b"], "late");
    put(&mut state, "two", 2, &["a"], "web");
    table.settle(&mut state);
    (state, table)
}

fn put(state: &mut State, name: &str, generation: i64, hosts: &[&str], to: &str) {
    state.put(&object(ingress(name, generation, hosts, to)));
}

fn standing(state: &State, name: &str) -> Standing {
    let write = state.unsaid(&key("ns", name), "now");
    write.expect("something to be said").standing
}

#[test]
fn two_that_swap_their_hosts_swap_them_at_once() {
    let (mut state, mut table) = two();
    put(&mut state, "one", 2, &["b"], "web");
    table.settle(&mut state);
    assert_eq!(standing(&state, "one"), Standing::Conflict);
    assert_eq!(table.shown(), ["one: a", "two: b"], "its old routes stay");
    put(&mut state, "two", 2, &["a"], "web");
    assert!(table.turn(&mut state, |names| {
        assert_eq!(names, ["one", "two"]);
        accepted()
    }));
    assert_eq!(table.shown(), ["one: b", "two: a"]);
}

#[test]
fn three_that_pass_their_hosts_on_all_get_them_and_a_fourth_gets_none_of_them() {
    let (mut state, mut table) = world(vec![
        ingress("i1", 1, &["a"], "web"),
        ingress("i2", 1, &["b"], "web"),
        ingress("i3", 1, &["c"], "web"),
        ingress("i4", 1, &["a", "d"], "web"),
    ]);
    put(&mut state, "i1", 2, &["b"], "web");
    put(&mut state, "i2", 2, &["c"], "web");
    put(&mut state, "i3", 2, &["a"], "web");
    table.settle(&mut state);
    // The fourth was first in line for what the first has left, and all of them were there before.
    assert_eq!(table.shown(), ["i1: b", "i2: c", "i3: a"]);
    assert_eq!(standing(&state, "i4"), Standing::Conflict);
}

#[test]
fn nobody_moves_before_all_can() {
    let (mut state, mut table) = two_of_which_one_is_late();
    assert_eq!(table.shown(), ["one: a", "two: b"]);
    let Standing::NotYet(why) = standing(&state, "two") else {
        panic!("it does not wait");
    };
    assert_eq!(&*why, "a is still served for ns/one");
    state.put(&object(slice("late", 1, &["10.0.0.2"])));
    table.settle(&mut state);
    assert_eq!(table.shown(), ["one: b", "two: a"]);
}

#[test]
fn who_changes_its_mind_before_it_has_moved_keeps_what_it_has() {
    let (mut state, mut table) = two_of_which_one_is_late();
    put(&mut state, "one", 3, &["a"], "web");
    table.settle(&mut state);
    assert_eq!(table.shown(), ["one: a", "two: b"]);
    assert_eq!(standing(&state, "two"), Standing::Conflict);
    state.remove(Kind::Ingress, &key("ns", "one"));
    table.settle(&mut state);
    assert_eq!(table.shown(), ["two: a"]);
}

#[test]
fn a_swap_that_is_refused_changes_nothing_and_is_tried_again_later() {
    let (mut state, mut table) = two();
    put(&mut state, "one", 2, &["b"], "web");
    put(&mut state, "two", 2, &["a"], "web");
    // Nobody is to blame, so they are offered by themselves, which for these is together.
    for _ in 0..2 {
        assert!(table.turn(&mut state, |_| refused("file routes.yaml")));
    }
    assert!(!table.turn(&mut state, |_| accepted()));
    assert!(matches!(standing(&state, "two"), Standing::Failed(_)));
    state.retry();
    table.settle(&mut state);
    assert_eq!(table.shown(), ["one: b", "two: a"]);
}

#[derive(Clone, Debug)]
enum Step {
    Put(usize, BTreeSet<usize>, bool),
    Remove(usize),
    /// What is out is accepted, superseded, or refused because of one or nobody.
    Turn(u8),
}

fn a_step() -> impl Strategy<Value = Step> {
    let hosts = prop::collection::btree_set(0..4usize, 1..3);
    prop_oneof![
        4 => (0..4usize, hosts, any::<bool>()).prop_map(|(i, hosts, late)| Step::Put(i, hosts, late)),
        1 => (0..4usize).prop_map(Step::Remove),
        4 => (0..16u8).prop_map(Step::Turn),
    ]
}

fn take(state: &mut State, number: i64, step: &Step) {
    match step {
        Step::Put(i, hosts, late) => {
            let hosts: Vec<String> = hosts.iter().map(|host| format!("h{host}")).collect();
            let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
            let to = if *late { "late" } else { "web" };
            put(state, &format!("i{i}"), number, &hosts, to);
        }
        Step::Remove(i) => state.remove(Kind::Ingress, &key("ns", &format!("i{i}"))),
        Step::Turn(_) => {}
    }
}

proptest! {
    /// However hosts were asked for before, and whatever happened while an offer was out: no host is
    /// ever served for two, and once nobody asks for the host of another, everybody has its own.
    #[test]
    fn in_the_end_everybody_has_what_nobody_else_asks_for(
        steps in prop::collection::vec(a_step(), 1..50),
        last in Just(["h0", "h1", "h2", "h3"]).prop_shuffle(),
    ) {
        let (mut state, mut table) = world(vec![]);
        let mut steps = (1..).zip(steps).peekable();
        while let Some((number, step)) = steps.next() {
            let Step::Turn(how) = step else {
                take(&mut state, number, &step);
                continue;
            };
            let is_late = how % 2 == 0;
            let late = std::iter::from_fn(|| {
                steps.next_if(|(_, step)| is_late && !matches!(step, Step::Turn(_)))
            });
            let late: Vec<_> = late.collect();
            let meanwhile = |state: &mut State| {
                late.iter().for_each(|(number, step)| take(state, *number, step));
            };
            table.turn_late(&mut state, meanwhile, |names| match how / 2 {
                0 => Verdict::Superseded,
                1 => refused(&format!("ingress ns/{}", names.first().map_or("", String::as_str))),
                2 => refused("file routes.yaml"),
                _ => accepted(),
            });
        }
        let mut expected = Vec::new();
        for (i, host) in last.iter().enumerate() {
            put(&mut state, &format!("i{i}"), 1000, &[host], "web");
            expected.push(format!("i{i}: {host}"));
        }
        table.settle(&mut state);
        prop_assert_eq!(table.shown(), expected);
    }
}

#[test]
fn who_stands_against_a_file_says_so_and_tries_again_later() {
    let (mut state, mut table) = world(vec![]);
    put(&mut state, "a", 1, &["a"], "web");
    put(&mut state, "b", 1, &["b"], "web");
    // Both are named, and which of them it is shows only when each is offered by itself.
    let both = || {
        let mut problems = Vec::new();
        for file in ["ingress ns/a", "routes.yaml"] {
            let Verdict::Rejected(some) = refused(file) else {
                continue;
            };
            problems.extend(some);
        }
        Verdict::Rejected(problems)
    };
    assert!(table.turn(&mut state, |_| both()));
    assert!(table.turn(&mut state, |names| {
        assert_eq!(names, ["a"]);
        both()
    }));
    table.settle(&mut state);
    assert_eq!(table.shown(), ["b: b"]);
    assert_eq!(standing(&state, "a"), Standing::Overruled);
    state.retry();
    table.settle(&mut state);
    assert_eq!(table.shown(), ["a: a", "b: b"]);
    // A file that comes later takes it away again.
    state.overruled(&key("ns", "a"));
    assert_eq!(standing(&state, "a"), Standing::Overruled);
    state.retry();
    assert!(table.turn(&mut state, |names| {
        assert_eq!(names, ["a"]);
        both()
    }));
    assert_eq!(standing(&state, "a"), Standing::Overruled);
}

/// As it is once it is somebody else's; `by`: who is said to serve it.
fn of_another(mut value: Value, by: &str) -> Value {
    value["metadata"]["annotations"]["networking.knative.dev/ingress.class"] = json!("other");
    let ready = ["LoadBalancerReady", "NetworkConfigured", "Ready"]
        .map(|kind| json!({"type": kind, "status": "True"}));
    let at = json!({"ingress": [{"domainInternal": by}]});
    value["status"] = json!({
        "observedGeneration": value["metadata"]["generation"],
        "conditions": ready, "publicLoadBalancer": at, "privateLoadBalancer": at,
    });
    value
}

#[test]
fn an_ingress_of_another_class_is_served_until_the_other_gateway_does() {
    let (mut state, mut table) = world(vec![ingress("a", 1, &["a"], "web")]);
    state.take_addresses();
    let ours = "tidegate.tidegate-system.svc.cluster.local";
    state.put(&object(of_another(ingress("a", 1, &["a"], "web"), ours)));
    table.settle(&mut state);
    assert_eq!(table.shown(), ["a: a"]);
    // Its endpoints are followed, and its status is not ours to write, whoever leads.
    state.put(&object(slice("web", 1, &["10.0.0.9"])));
    assert_eq!(state.take_addresses().0.len(), 1);
    state.lead();
    assert!(state.take_asks().is_empty());
    assert!(state.unsaid(&key("ns", "a"), "now").is_none());
    // What it asks for by now is the other's to serve, and its host is not free.
    state.put(&object(of_another(ingress("a", 2, &["b"], "web"), ours)));
    put(&mut state, "late", 1, &["a"], "web");
    table.settle(&mut state);
    assert_eq!(table.shown(), ["a: a"]);
    let theirs = "kourier.kourier-system.svc.cluster.local";
    state.put(&object(of_another(ingress("a", 2, &["b"], "web"), theirs)));
    table.settle(&mut state);
    assert_eq!(table.shown(), ["late: a"]);
}

#[test]
fn an_ingress_that_comes_back_before_anybody_else_served_it_was_never_away() {
    let (mut state, mut table) = world(vec![ingress("a", 1, &["a"], "web")]);
    let other = of_another(ingress("a", 1, &["a"], "web"), "nobody");
    let mut other_unready = other.clone();
    other_unready["status"] = Value::Null;
    state.put(&object(other_unready.clone()));
    table.settle(&mut state);
    put(&mut state, "a", 2, &["b"], "web");
    table.settle(&mut state);
    assert_eq!(table.shown(), ["a: b"]);
    // What goes is gone, whosever it is.
    state.put(&object(other_unready.clone()));
    other_unready["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    state.put(&object(other_unready));
    table.settle(&mut state);
    assert!(table.shown().is_empty());
    // What never was ours is passed over.
    state.put(&object(other));
    table.settle(&mut state);
    assert!(table.shown().is_empty());
}

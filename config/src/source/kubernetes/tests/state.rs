//! What follows from changes, and how little of it.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{accepted, identity, ingress, key, object, origins, refused, service, slice, synced};
use crate::Content;
use crate::source::Verdict;
use crate::source::feed::Addresses;
use crate::source::kubernetes::state::{Kind, State};
use crate::source::kubernetes::status::Standing;

/// Everything that follows, if all of it is accepted; the origins that were offered.
fn settle(state: &mut State) -> Vec<String> {
    let mut offered = Vec::new();
    while let Some((batch, fragments)) = state.take_batch() {
        offered.extend(origins(&fragments));
        state.heard(batch, &accepted());
    }
    offered
}

fn standing(state: &State, name: &str) -> Standing {
    let write = state.unsaid(&key("ns", name), "now");
    write.expect("something to be said").standing
}

#[test]
fn nothing_is_offered_before_everything_is_listed_and_then_all_at_once() {
    let mut state = State::new(identity(), |_| Ok(()));
    for value in [
        service("web", "http"),
        ingress("a", 1, &["a"], "web"),
        ingress("b", 1, &["b"], "web"),
    ] {
        state.put(&object(value));
        assert!(state.take_batch().is_none());
    }
    state.sync();
    assert_eq!(
        settle(&mut state),
        ["ingress ns/a", "ingress ns/b", "revision ns/web:80"]
    );
    assert!(state.take_batch().is_none());
}

#[test]
fn endpoints_are_fed_and_offered_to_nobody() {
    let mut state = synced(vec![
        service("web", "http"),
        service("other", "http"),
        slice("web", 1, &["10.0.0.1"]),
        ingress("a", 1, &["a"], "web"),
    ]);
    settle(&mut state);
    let (fed, _) = state.take_addresses();
    assert_eq!(fed.len(), 1);
    assert_eq!(
        fed[0].1.ready,
        ["10.0.0.1:8000".parse().expect("an address")]
    );
    state.put(&object(slice("web", 2, &["10.0.0.2"])));
    state.put(&object(slice("other", 1, &["10.0.0.3"])));
    assert!(state.take_batch().is_none());
    let (fed, _) = state.take_addresses();
    assert_eq!(fed.len(), 1);
    assert_eq!(fed[0].1.ready.len(), 2);
    state.put(&object(slice("web", 2, &["10.0.0.2"])));
    assert!(state.take_addresses().0.is_empty(), "nothing has changed");
    state.remove(Kind::Slice, &key("ns", "web-1"));
    state.remove(Kind::Slice, &key("ns", "web-2"));
    assert_eq!(state.take_addresses().0[0].1, Addresses::default());
}

#[test]
fn a_revision_that_nobody_names_any_more_goes_with_its_last_route() {
    let mut state = synced(vec![
        service("web", "http"),
        slice("web", 1, &["10.0.0.1"]),
        ingress("a", 1, &["a"], "web"),
        ingress("b", 1, &["b"], "web"),
    ]);
    settle(&mut state);
    state.take_addresses();
    state.remove(Kind::Ingress, &key("ns", "a"));
    assert_eq!(settle(&mut state), ["-ingress ns/a"]);
    state.remove(Kind::Ingress, &key("ns", "b"));
    assert_eq!(settle(&mut state), ["-ingress ns/b", "-revision ns/web:80"]);
    assert_eq!(state.take_addresses().1, [key("ns", "web:80")]);
}

#[test]
fn who_is_to_blame_is_refused_and_the_others_are_offered_again() {
    let mut state = synced(vec![
        service("web", "http"),
        slice("web", 1, &["10.0.0.1"]),
        ingress("bad", 1, &["a"], "web"),
        ingress("good", 1, &["b"], "web"),
    ]);
    let (batch, _) = state.take_batch().expect("an offer");
    state.heard(batch, &refused("ingress ns/bad"));
    let Standing::Failed(error) = standing(&state, "bad") else {
        panic!("it has not failed");
    };
    assert_eq!(&*error, "routes[0]: it is bad (x); mend it");
    assert_eq!(
        settle(&mut state),
        ["ingress ns/good", "revision ns/web:80"]
    );
}

#[test]
fn what_was_refused_is_offered_again_after_a_while() {
    let mut state = synced(vec![
        service("web", "http"),
        slice("web", 1, &["10.0.0.1"]),
        ingress("a", 1, &["a"], "web"),
    ]);
    let (batch, _) = state.take_batch().expect("an offer");
    state.heard(batch, &refused("ingress ns/a"));
    assert!(state.take_batch().is_none());
    state.retry();
    assert_eq!(settle(&mut state), ["ingress ns/a", "revision ns/web:80"]);
    assert_eq!(standing(&state, "a"), Standing::Asking);
    state.retry();
    assert!(state.take_batch().is_none(), "nothing is refused any more");
}

/// An ingress and a Service of its own each.
fn many(count: usize) -> State {
    let mut objects = Vec::new();
    for number in 0..count {
        let name = format!("s{number}");
        objects.push(service(&name, "http"));
        objects.push(slice(&name, 1, &["10.0.0.1"]));
        let host = format!("{name}.example.com");
        objects.push(ingress(&format!("i{number}"), 1, &[&host], &name));
    }
    synced(objects)
}

#[test]
fn one_change_among_many_touches_what_depends_on_it_alone() {
    let count = if std::env::var_os("TIDEGATE_LONG").is_some() {
        10_000
    } else {
        500
    };
    let mut state = many(count);
    assert_eq!(settle(&mut state).len(), 2 * count);
    assert_eq!(state.take_addresses().0.len(), count);
    assert_eq!(state.take_asks().len(), count);
    state.put(&object(slice("s7", 1, &["10.0.0.2"])));
    assert!(state.take_batch().is_none());
    assert_eq!(state.take_addresses().0.len(), 1);
    assert_eq!(state.take_asks().len(), 1);
    state.put(&object(service("s7", "h2c")));
    assert_eq!(settle(&mut state), ["ingress ns/i7", "revision ns/s7:80"]);
    state.put(&object(ingress("i7", 2, &["new.example.com"], "s8")));
    assert_eq!(settle(&mut state), ["ingress ns/i7", "-revision ns/s7:80"]);
    assert!(state.take_unsaid().len() <= 2);
}

#[test]
fn where_nobody_is_named_each_is_offered_by_itself() {
    let mut state = synced(vec![
        service("web", "http"),
        slice("web", 1, &["10.0.0.1"]),
        ingress("a", 1, &["a"], "web"),
        ingress("b", 1, &["b"], "web"),
    ]);
    let (batch, _) = state.take_batch().expect("an offer");
    state.heard(batch, &refused("file routes.yaml"));
    let (batch, fragments) = state.take_batch().expect("an offer");
    assert_eq!(origins(&fragments), ["ingress ns/a", "revision ns/web:80"]);
    state.heard(batch, &refused("file routes.yaml"));
    assert!(matches!(standing(&state, "a"), Standing::Failed(_)));
    let (batch, fragments) = state.take_batch().expect("an offer");
    assert_eq!(origins(&fragments), ["ingress ns/b", "revision ns/web:80"]);
    state.heard(batch, &accepted());
    assert!(state.take_batch().is_none());
}

#[test]
fn an_update_that_is_refused_leaves_revisions_and_hosts_as_they_were() {
    let mut state = synced(vec![
        service("web", "http"),
        service("new", "http"),
        slice("web", 1, &["10.0.0.1"]),
        slice("new", 1, &["10.0.0.2"]),
        ingress("a", 1, &["x"], "web"),
    ]);
    settle(&mut state);
    state.take_addresses();
    state.put(&object(ingress("a", 2, &["y"], "new")));
    let (batch, fragments) = state.take_batch().expect("an offer");
    assert_eq!(
        origins(&fragments),
        ["ingress ns/a", "revision ns/new:80", "-revision ns/web:80"]
    );
    assert_eq!(state.take_addresses().0[0].0, key("ns", "new:80"));
    state.heard(batch, &refused("ingress ns/a"));
    assert_eq!(state.take_addresses().1, [key("ns", "new:80")]);
    state.put(&object(ingress("b", 1, &["x"], "web")));
    assert_eq!(
        standing(&state, "b"),
        Standing::Conflict,
        "the old routes keep their host"
    );
    state.put(&object(slice("web", 1, &["10.0.0.9"])));
    assert_eq!(
        state.take_addresses().0[0].0,
        key("ns", "web:80"),
        "and their endpoints"
    );
}

#[test]
fn what_changes_while_an_offer_is_out_comes_after_it() {
    let mut state = synced(vec![
        service("web", "http"),
        slice("web", 1, &["10.0.0.1"]),
        ingress("a", 1, &["x"], "web"),
        ingress("b", 1, &["y"], "web"),
    ]);
    let (batch, _) = state.take_batch().expect("an offer");
    state.put(&object(ingress("a", 2, &["z"], "web")));
    state.remove(Kind::Ingress, &key("ns", "b"));
    state.heard(batch, &accepted());
    assert!(state.take_asks().is_empty(), "neither is what it was");
    assert_eq!(settle(&mut state), ["ingress ns/a", "-ingress ns/b"]);
    let asks = state.take_asks();
    assert_eq!(asks.len(), 1);
    assert_eq!(&*asks[0].probes[0].host, "z");
    state.put(&object(ingress("c", 1, &["x", "y"], "web")));
    assert_eq!(
        settle(&mut state),
        ["ingress ns/c"],
        "hosts that were let go are free"
    );
}

#[test]
fn an_ingress_that_comes_back_while_it_goes_is_offered_again() {
    let mut state = synced(vec![
        service("web", "http"),
        slice("web", 1, &["10.0.0.1"]),
        ingress("a", 1, &["x"], "web"),
    ]);
    settle(&mut state);
    state.remove(Kind::Ingress, &key("ns", "a"));
    let (batch, fragments) = state.take_batch().expect("an offer");
    assert_eq!(
        origins(&fragments),
        ["-ingress ns/a", "-revision ns/web:80"]
    );
    state.put(&object(ingress("a", 1, &["x"], "web")));
    state.heard(batch, &accepted());
    assert_eq!(settle(&mut state), ["ingress ns/a", "revision ns/web:80"]);
}

#[test]
fn only_what_is_served_here_is_asked_about_and_only_all_peers_make_it_ready() {
    let mut state = synced(vec![service("web", "http"), ingress("a", 1, &["x"], "web")]);
    settle(&mut state);
    assert!(state.take_asks().is_empty(), "there is no endpoint");
    assert_eq!(standing(&state, "a"), Standing::Asking);
    state.put(&object(slice("web", 1, &["10.0.0.1"])));
    assert!(state.take_batch().is_none(), "the table has it");
    let asks = state.take_asks();
    state.passed(&asks[0].ingress, "another hash");
    assert_eq!(standing(&state, "a"), Standing::Asking);
    state.passed(&asks[0].ingress, &asks[0].hash);
    assert_eq!(standing(&state, "a"), Standing::Ready);
}

#[test]
fn a_list_takes_away_what_is_not_in_it() {
    let mut state = synced(vec![
        service("web", "http"),
        slice("web", 1, &["10.0.0.1"]),
        ingress("a", 1, &["x"], "web"),
        ingress("b", 1, &["y"], "web"),
    ]);
    settle(&mut state);
    state.listed(Kind::Ingress, &HashSet::from([key("ns", "b")]));
    state.listed(Kind::Service, &HashSet::from([key("ns", "web")]));
    assert_eq!(settle(&mut state), ["-ingress ns/a"]);
}

#[test]
fn a_finalizer_is_taken_away_from_what_goes_and_is_ours() {
    let mut value = ingress("a", 1, &["x"], "web");
    value["metadata"]["finalizers"] = json!(["ingresses.networking.internal.knative.dev"]);
    let mut state = synced(vec![service("web", "http"), value.clone()]);
    assert!(state.finalizers().is_empty(), "it lives");
    value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    state.put(&object(value.clone()));
    assert_eq!(
        state.finalizers().iter().collect::<Vec<_>>(),
        [&key("ns", "a")]
    );
    assert!(state.take_batch().is_none());
    value["metadata"]["annotations"] = json!({});
    state.put(&object(value));
    assert!(state.finalizers().is_empty(), "it is somebody else's");
}

#[test]
fn where_activators_are_decides_about_every_revision_of_knative() {
    let public = |ip: &str| {
        let mut value = slice("rev", 1, &[ip]);
        value["metadata"]["name"] = json!("rev-public");
        value
    };
    let activators = |ip: &str| {
        let mut value = slice("activator-service", 1, &[ip]);
        value["metadata"]["namespace"] = json!("knative-serving");
        value
    };
    let mut service = service("rev", "http");
    service["metadata"]["labels"] =
        json!({"networking.internal.knative.dev/serviceType": "Public"});
    let revision =
        json!({"kind": "Revision", "metadata": {"namespace": "ns", "name": "rev"}, "spec": {}});
    let mut state = synced(vec![service, revision, ingress("a", 1, &["x"], "rev")]);
    settle(&mut state);
    let proxied = |state: &mut State| {
        let (fed, _) = state.take_addresses();
        fed.into_iter()
            .map(|(_, addresses)| addresses.proxied)
            .collect::<Vec<_>>()
    };
    assert_eq!(proxied(&mut state), [true], "it leads nowhere");
    state.put(&object(public("10.0.0.1")));
    assert_eq!(proxied(&mut state), [false]);
    state.put(&object(activators("10.0.0.1")));
    assert_eq!(proxied(&mut state), [true]);
    state.put(&object(activators("10.0.0.2")));
    assert_eq!(proxied(&mut state), [false]);
    state.put(&object(public("10.0.9.1")));
    assert_eq!(proxied(&mut state), [true], "that is our own address");
}

#[test]
fn what_config_maps_say_is_told_when_it_is_good_and_new() {
    let map = |data: Value| {
        json!({"kind": "ConfigMap", "metadata": {"namespace": "knative-serving", "name": "config-leader-election"},
               "data": data})
    };
    let mut state = synced(vec![]);
    let lasts = |state: &mut State| {
        let settings = state.take_settings()?;
        Some(settings.leader_election.lease_duration.as_secs())
    };
    state.put(&object(map(json!({"lease-duration": "50s"}))));
    assert_eq!(lasts(&mut state), Some(50));
    assert_eq!(lasts(&mut state), None);
    state.put(&object(map(json!({"lease-duration": "soon"}))));
    assert_eq!(lasts(&mut state), None, "the last good one holds");
    state.listed(Kind::ConfigMap, &HashSet::new());
    assert_eq!(lasts(&mut state), Some(60));
}

#[test]
fn replicas_are_those_that_are_ready() {
    let mut replicas = slice("tidegate-internal", 1, &["10.0.9.1", "10.0.9.2"]);
    replicas["metadata"]["namespace"] = json!("tidegate-system");
    replicas["ports"] = json!([{"name": "https", "port": 8444}, {"name": "http2", "port": 8081}]);
    let mut state = synced(vec![]);
    assert_eq!(state.take_replicas().expect("never asked before").len(), 0);
    assert!(state.take_replicas().is_none());
    state.put(&object(replicas));
    let replicas: Vec<_> = state.take_replicas().into_iter().flatten().collect();
    assert_eq!(
        replicas.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.0.9.1:8081", "10.0.9.2:8081"]
    );
}

/// Small worlds: services `s0..s3`, ingresses `i0..i3`, each with a host of its own.
#[derive(Clone, Debug)]
enum Step {
    Put(Value),
    Remove(Kind, String),
    /// The batch that is out is accepted (or not), and the next one goes out.
    Turn(bool),
}

fn a_step() -> impl Strategy<Value = Step> {
    let name = 0..4usize;
    prop_oneof![
        (name.clone(), any::<bool>()).prop_map(|(s, h2)| Step::Put(service(
            &format!("s{s}"),
            if h2 { "h2c" } else { "http" }
        ))),
        (name.clone(), 1..3usize, prop::collection::vec(1..9u8, 0..3)).prop_map(|(s, n, ips)| {
            let ips: Vec<String> = ips.iter().map(|ip| format!("10.0.0.{ip}")).collect();
            let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
            Step::Put(slice(&format!("s{s}"), n, &ips))
        }),
        (name.clone(), name.clone(), 1..100i64).prop_map(|(i, s, generation)| {
            let (ingress_name, host) = (format!("i{i}"), format!("h{i}"));
            Step::Put(ingress(
                &ingress_name,
                generation,
                &[&host],
                &format!("s{s}"),
            ))
        }),
        name.clone()
            .prop_map(|i| Step::Remove(Kind::Ingress, format!("i{i}"))),
        name.clone()
            .prop_map(|s| Step::Remove(Kind::Service, format!("s{s}"))),
        (name, 1..3usize).prop_map(|(s, n)| Step::Remove(Kind::Slice, format!("s{s}-{n}"))),
        prop::bool::weighted(0.8).prop_map(Step::Turn),
    ]
}

/// What the rest of the program has been told.
#[derive(Debug, Default, PartialEq)]
struct Told {
    fragments: BTreeMap<String, String>,
    addresses: BTreeMap<String, Addresses>,
}

impl Told {
    fn turn(&mut self, state: &mut State, accept: bool) {
        if let Some((batch, fragments)) = state.take_batch() {
            self.hear(state);
            match accept {
                true => {
                    for fragment in fragments {
                        let name = fragment.origin.name().to_string();
                        match fragment.content {
                            Content::Gone => drop(self.fragments.remove(&name)),
                            content => drop(self.fragments.insert(name, format!("{content:?}"))),
                        }
                    }
                    state.heard(batch, &accepted());
                }
                false => state.heard(batch, &Verdict::Superseded),
            }
        }
        self.hear(state);
    }

    fn hear(&mut self, state: &mut State) {
        let (fed, forgotten) = state.take_addresses();
        for key in forgotten {
            self.addresses.remove(&key.to_string());
        }
        for (key, addresses) in fed {
            self.addresses.insert(key.to_string(), addresses);
        }
    }

    fn settle(&mut self, state: &mut State) {
        for _ in 0..10 {
            self.turn(state, true);
        }
        assert!(state.take_batch().is_none());
    }
}

proptest! {
    /// However it came about: once everything is there, it is as if it had been there at once.
    #[test]
    fn what_has_grown_is_what_would_be_made_anew(steps in prop::collection::vec(a_step(), 1..60)) {
        let mut objects = BTreeMap::<(String, String), Value>::new();
        let mut state = synced(vec![]);
        let mut told = Told::default();
        for step in steps {
            match step {
                Step::Put(value) => {
                    let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                    state.put(&object(value.clone()));
                    objects.insert((value["kind"].to_string(), name), value);
                }
                Step::Remove(kind, name) => {
                    state.remove(kind, &key("ns", &name));
                    let word = match kind { Kind::Ingress => "Ingress", Kind::Service => "Service", _ => "EndpointSlice" };
                    objects.remove(&(format!("{word:?}"), name));
                }
                Step::Turn(accept) => told.turn(&mut state, accept),
            }
        }
        // Nothing is missing, so that nothing is kept only because it was there before.
        for number in 0..4 {
            let name = format!("s{number}");
            let whole = [service(&name, "http"), slice(&name, 1, &["10.0.0.1"])];
            for value in whole {
                state.put(&object(value.clone()));
                let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                objects.insert((value["kind"].to_string(), name), value);
            }
        }
        told.settle(&mut state);
        let mut anew = synced(objects.into_values().collect());
        let mut expected = Told::default();
        expected.settle(&mut anew);
        prop_assert_eq!(told, expected);
    }
}

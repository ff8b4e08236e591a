use proptest::prelude::*;

use super::*;
use crate::fragment::{Fragment, Origin};
use crate::revision::{Key, RevisionId};
use crate::snapshot::{Split, Sticky};
use crate::{Compiler, parse};

fn compile(text: &str) -> Result<Snapshot, Vec<crate::Problem>> {
    let fragment = Fragment {
        origin: Origin::File("f.yaml".into()),
        content: parse("f.yaml", text),
    };
    let compiled = Compiler::default().apply(vec![fragment])?;
    Ok(compiled.snapshot)
}

#[track_caller]
fn snapshot(text: &str) -> Snapshot {
    match compile(text) {
        Ok(snapshot) => snapshot,
        Err(problems) => panic!("{problems:#?}"),
    }
}

/// A request in one line: `[METHOD] HOST/PATH [name:value ...]`, `internal` for the listener.
struct Request {
    method: String,
    host: String,
    path: String,
    fields: FieldList,
    internal: bool,
}

fn request(line: &str) -> Request {
    let mut words: Vec<&str> = line.split(' ').collect();
    let internal = words.first() == Some(&"internal");
    if internal {
        words.remove(0);
    }
    let method = match words[0].bytes().all(|b| b.is_ascii_uppercase()) {
        true => words.remove(0),
        false => "GET",
    };
    let slash = words[0].find(['/', '*']).expect("a path");
    let (host, path) = words[0].split_at(slash);
    let field = |word: &&str| {
        let (name, value) = word.split_once(':').expect("a field");
        (name.to_owned(), value.to_owned())
    };
    Request {
        method: method.to_owned(),
        host: host.to_owned(),
        path: path.to_owned(),
        fields: FieldList(words[1..].iter().map(field).collect()),
        internal,
    }
}

impl Request {
    fn query(&self) -> Query<'_> {
        Query {
            host: self.host.as_bytes(),
            path: self.path.as_bytes(),
            method: self.method.as_bytes(),
            fields: &self.fields,
            internal: self.internal,
        }
    }
}

/// `route#rule`, then `+tag` when a tag chose, or `-`.
fn found(snapshot: &Snapshot, line: &str) -> String {
    let request = request(line);
    match find(snapshot, &request.query()) {
        None => "-".to_owned(),
        Some(found) => {
            let tag = found.tagged.and_then(|target| target.tag.as_deref());
            let tag = tag.map_or(String::new(), |tag| format!("+{tag}"));
            format!("{}#{}{tag}", found.route.key.name, found.rule().number)
        }
    }
}

#[track_caller]
fn check(snapshot: &Snapshot, cases: &[(&str, &str)]) {
    for (line, wanted) in cases {
        assert_eq!(found(snapshot, line), *wanted, "{line}");
    }
}

#[test]
fn exact_beats_wildcard_longer_beats_shorter_and_star_comes_last() {
    let snapshot = snapshot(
        "
revisions: [{name: r}]
routes:
  - {name: any, hosts: ['*'], traffic: [{revision: r}]}
  - {name: short, hosts: ['*.example.com'], traffic: [{revision: r}]}
  - {name: long, hosts: ['*.bot.example.com'], traffic: [{revision: r}]}
  - {name: exact, hosts: [x.bot.example.com], traffic: [{revision: r}]}
",
    );
    check(
        &snapshot,
        &[
            ("x.bot.example.com/", "exact#1"),
            ("X.Bot.EXAMPLE.com./", "exact#1"),
            ("x.bot.example.com:8080/", "exact#1"),
            ("x.bot.example.com.:8080/", "exact#1"),
            ("y.bot.example.com/", "long#1"),
            ("z.y.bot.example.com/", "long#1"),
            ("bot.example.com/", "short#1"),
            ("example.com/", "any#1"),
            (".bot.example.com/", "short#1"),
            (".com/", "any#1"),
            ("a..bot.example.com/", "long#1"),
            ("exact.default.example.com/", "exact#1"),
            ("/", "any#1"),
            ("[::1]:8080/", "any#1"),
        ],
    );
    let long = format!("{}.bot.example.com/", "x".repeat(250));
    check(&snapshot, &[(&long, "any#1")]);
}

#[test]
fn a_host_that_is_too_long_matches_no_name() {
    let snapshot =
        snapshot("revisions: [{name: r}]\nroutes: [{name: a, traffic: [{revision: r}]}]");
    let long = format!("{}/", "a.default.example.com".repeat(100));
    check(&snapshot, &[(&long, "-"), ("nobody/", "-"), ("/", "-")]);
}

#[test]
fn an_ipv6_host_keeps_its_brackets() {
    let snapshot = snapshot(
        "revisions: [{name: r}]\nroutes: [{name: a, hosts: ['[::1]'], traffic: [{revision: r}]}]",
    );
    check(
        &snapshot,
        &[
            ("[::1]/", "a#1"),
            ("[::1]:8080/", "a#1"),
            ("[::2]/", "-"),
            ("[::1/", "-"),
        ],
    );
}

#[test]
fn rules_go_by_path_length_exactness_headers_methods_and_order() {
    let snapshot = snapshot(
        "
revisions: [{name: r}]
routes:
  - name: a
    rules:
      - {path: /, traffic: [{revision: r}]}
      - {path: /api, traffic: [{revision: r}]}
      - {path: /api, methods: [PUT], traffic: [{revision: r}]}
      - {path: /api, headers: {x-a: '1'}, traffic: [{revision: r}]}
      - {path: /api, headers: {x-a: '1', x-b: ''}, traffic: [{revision: r}]}
      - {pathExact: /api, traffic: [{revision: r}]}
      - {path: /api, headers: {x-c: ''}, traffic: [{revision: r}]}
      - {path: /api/v1/, traffic: [{revision: r}]}
",
    );
    let host = "a.default.example.com";
    for (rest, rule) in [
        ("/", "a#1"),
        ("/ap", "a#1"),
        ("*", "a#1"),
        ("/api", "a#6"),
        ("/apis", "a#2"),
        ("/api/x", "a#2"),
        ("/api/v1/x", "a#8"),
        ("/api/v1", "a#2"),
        ("/apis x-a:1", "a#4"),
        ("/apis x-a:2", "a#2"),
        ("/apis X-A:1 x-b:anything", "a#5"),
        ("/apis x-a:2 x-a:1", "a#4"),
        ("/apis x-c:1 x-a:1", "a#4"),
        ("/apis x-c:1", "a#7"),
    ] {
        check(&snapshot, &[(&format!("{host}{rest}"), rule)]);
    }
    check(&snapshot, &[("PUT a.default.example.com/apis", "a#3")]);
    check(
        &snapshot,
        &[("PUT a.default.example.com/apis x-a:1", "a#4")],
    );
}

#[test]
fn the_host_is_chosen_before_the_path() {
    let snapshot = snapshot(
        "
revisions: [{name: r}]
routes:
  - {name: wild, hosts: ['*.test'], traffic: [{revision: r}]}
  - {name: exact, hosts: [a.test], rules: [{path: /only, traffic: [{revision: r}]}]}
",
    );
    check(
        &snapshot,
        &[
            ("a.test/only", "exact#1"),
            ("a.test/other", "-"),
            ("b.test/other", "wild#1"),
        ],
    );
}

#[test]
fn routes_that_share_a_host_go_by_precedence_and_then_by_place() {
    let snapshot = snapshot(
        "
revisions: [{name: r}]
routes:
  - {name: z, hosts: [s.test], rules: [{path: /x, headers: {b: ''}, traffic: [{revision: r}]}]}
  - {name: a, hosts: [s.test], rules: [{path: /x, headers: {a: ''}, traffic: [{revision: r}]}, {path: /x/y, traffic: [{revision: r}]}]}
",
    );
    check(
        &snapshot,
        &[
            ("s.test/x a:1 b:1", "z#1"),
            ("s.test/x a:1", "a#1"),
            ("s.test/x/y a:1 b:1", "a#2"),
            ("s.test/x", "-"),
        ],
    );
}

#[test]
fn cluster_local_routes_are_served_on_internal_listeners_only() {
    let snapshot = snapshot(
        "
revisions: [{name: r}]
routes:
  - {name: local, visibility: cluster-local, hosts: [l.test, s.test], rules: [{path: /l, traffic: [{revision: r, tag: t}]}]}
  - {name: open, hosts: ['*.test'], traffic: [{revision: r}]}
  - {name: shared, hosts: [s.test], traffic: [{revision: r}]}
",
    );
    for host in [
        "local.default",
        "local.default.svc",
        "local.default.svc.cluster.local",
        "t-local.default",
        "t-local.default.svc.cluster.local",
    ] {
        let tag = if host.starts_with("t-") { "+t" } else { "" };
        check(&snapshot, &[(&format!("{host}/l"), "-")]);
        check(
            &snapshot,
            &[(&format!("internal {host}/l"), &format!("local#1{tag}"))],
        );
    }
    check(
        &snapshot,
        &[
            ("local.default.example.com/l", "-"),
            ("internal local.default.example.com/l", "-"),
            ("internal open.default.example.com/", "open#1"),
            // What only internal listeners know does not hide a wildcard from public ones.
            ("l.test/l", "open#1"),
            ("internal l.test/l", "local#1"),
            ("internal l.test/", "-"),
            ("s.test/l", "shared#1"),
            ("internal s.test/l", "local#1"),
        ],
    );
}

const TAGS: &str = "
revisions: [{name: r1}, {name: r2}]
routes:
  - name: bot
    hosts: [bot.test]
    traffic: [{revision: r1, percent: 100, tag: current}, {revision: r2, percent: 0, tag: latest}]
    rules:
      - {path: /api, traffic: [{revision: r2, tag: current}]}
      - {path: /go, redirect: {path: /}}
      - {path: /other, traffic: [{revision: r1, tag: special}]}
";

#[test]
fn a_tag_is_reached_by_its_host_and_by_header() {
    let snapshot = snapshot(TAGS);
    let tagged = |line: &str| {
        let request = request(line);
        let found = find(&snapshot, &request.query()).expect("it is found");
        found
            .tagged
            .map(|target| target.revision_key.name.to_string())
    };
    let r = |name: &str| Some(name.to_owned());
    // The rule's own tag first, else the route's.
    assert_eq!(tagged("current-bot.default.example.com/api"), r("r2"));
    assert_eq!(tagged("current-bot.default.example.com/other"), r("r1"));
    assert_eq!(tagged("latest-bot.default.example.com/api"), r("r2"));
    assert_eq!(tagged("LATEST-bot.default.example.com:80/api"), r("r2"));
    assert_eq!(tagged("bot.test/api Knative-Serving-Tag:current"), r("r2"));
    assert_eq!(
        tagged("bot.default.example.com/other knative-serving-tag:latest"),
        r("r2")
    );
    assert_eq!(tagged("bot.test/api knative-serving-tag:nobody"), None);
    assert_eq!(tagged("bot.test/api"), None);
    // The host decides, not the header.
    assert_eq!(
        tagged("latest-bot.default.example.com/api knative-serving-tag:current"),
        r("r2")
    );
    check(
        &snapshot,
        &[
            // No rule matches: the tag does not help.
            ("current-bot.default.example.com/", "-"),
            ("bot.test/ knative-serving-tag:current", "-"),
            // A rule that answers itself does so for tagged requests too.
            ("current-bot.default.example.com/go", "bot#2"),
            ("bot.test/go knative-serving-tag:current", "bot#2"),
            // A tag of another rule names nothing here.
            ("special-bot.default.example.com/api", "-"),
            ("special-bot.default.example.com/other", "bot#3+special"),
            ("bot.test/api knative-serving-tag:special", "bot#1"),
            ("nobody-bot.default.example.com/api", "-"),
        ],
    );
}

#[test]
fn explain_says_what_matched_and_what_was_passed_over() {
    let snapshot = snapshot(TAGS);
    let said = |line: &str| explain(&snapshot, &request(line).query()).to_string();
    assert_eq!(
        said("bot.test/other"),
        "route default/bot
rule 3
target r1 100% special
host bot.test
why the host is one of route default/bot
why rule 3 of default/bot matches: the path is below `/other`
why drawn per request
"
    );
    assert_eq!(
        said("latest-bot.default.example.com/api"),
        "route default/bot
rule 1
target r2 0% latest
host latest-bot.default.example.com
why the host is a tag host of route default/bot
why rule 3 of default/bot was passed over: the path is not below `/other`
why rule 1 of default/bot matches: the path is below `/api`
why tag `latest` selects its target
"
    );
    assert_eq!(
        said("nobody.test/"),
        "no_route\nwhy no route answers on host `nobody.test` on a public listener\n"
    );
    let passed = said("bot.test/x");
    assert!(passed.starts_with("no_route\nhost bot.test\n"), "{passed}");
    assert!(passed.ends_with("why no rule of this host matches, and other hosts are not tried\n"));
    let json = serde_json::to_value(explain(&snapshot, &request("bot.test/go").query()));
    let json = json.expect("it can be written");
    assert_eq!(
        (&json["route"], &json["rule"]),
        (&"default/bot".into(), &2.into())
    );
}

#[test]
fn explain_agrees_with_find_on_unreachable_tags() {
    let snapshot = snapshot(TAGS);
    let request = request("special-bot.default.example.com/api");
    let explanation = explain(&snapshot, &request.query());
    assert_eq!((explanation.route, explanation.targets), (None, vec![]));
}

// --- splits ---

fn split_of(shares: &[(&str, u8)]) -> Split {
    let target = |(position, (name, percent)): (usize, &(&str, u8))| Target {
        revision: RevisionId(u32::try_from(position).expect("few")),
        revision_key: Key {
            namespace: "default".into(),
            name: (*name).into(),
        },
        percent: *percent,
        asked: *percent,
        tag: None,
        set_headers: thin_vec::ThinVec::new(),
    };
    Split {
        targets: shares.iter().enumerate().map(target).collect(),
    }
}

fn name_of(target: Option<&Target>) -> &str {
    target.map_or("none", |target| &target.revision_key.name)
}

fn keys(count: u32) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("user-{number}"))
}

#[test]
fn drawn_shares_are_exact_and_nothing_goes_to_zero_percent() {
    let split = split_of(&[("zero", 0), ("a", 70), ("b", 30), ("nil", 0)]);
    let mut counts = std::collections::BTreeMap::new();
    // Evenly spread over all of u64.
    for step in 0..10_000_u64 {
        let random = step * (u64::MAX / 10_000) + u64::MAX / 20_000;
        *counts.entry(name_of(split.pick(None, random))).or_insert(0) += 1;
    }
    assert_eq!(
        counts.into_iter().collect::<Vec<_>>(),
        [("a", 7000), ("b", 3000)]
    );
    assert_eq!(name_of(split.pick(None, 0)), "a");
    assert_eq!(name_of(split.pick(None, u64::MAX)), "b");
    assert_eq!(Split::default().pick(None, 7), None);
    assert_eq!(Split::default().pick(Some(b"key"), 7), None);
}

#[test]
fn sticky_shares_are_near_their_percents_and_never_zero_percent() {
    let split = split_of(&[("a", 70), ("zero", 0), ("b", 30)]);
    let to_b = keys(10_000).filter(|key| name_of(split.pick(Some(key.as_bytes()), 0)) == "b");
    let to_b = to_b.count();
    assert!((2800..=3200).contains(&to_b), "{to_b}");
    let zero = keys(10_000).any(|key| name_of(split.pick(Some(key.as_bytes()), 0)) == "zero");
    assert!(!zero);
}

#[test]
fn ten_to_twenty_percent_moves_ten_percent_of_keys_and_none_back() {
    let before = split_of(&[("old", 90), ("new", 10)]);
    let after = split_of(&[("old", 80), ("new", 20)]);
    let mut moved = 0;
    for key in keys(10_000) {
        let key = Some(key.as_bytes());
        match (name_of(before.pick(key, 0)), name_of(after.pick(key, 0))) {
            ("old", "new") => moved += 1,
            ("new", "old") => panic!("a key moved back"),
            _ => {}
        }
    }
    assert!((850..=1150).contains(&moved), "{moved}");
}

#[test]
fn a_revision_that_stands_twice_holds_both_shares() {
    let mut split = split_of(&[("a", 30), ("b", 50), ("a", 20)]);
    split.targets[2].revision = split.targets[0].revision;
    let to_a = keys(10_000).filter(|key| name_of(split.pick(Some(key.as_bytes()), 0)) == "a");
    let to_a = to_a.count();
    assert!((4800..=5200).contains(&to_a), "{to_a}");
}

#[test]
fn sticky_picks_are_the_same_in_every_version() {
    let split = split_of(&[("coffee-00001", 50), ("coffee-00002", 50)]);
    let picks: String = keys(24)
        .map(|key| match name_of(split.pick(Some(key.as_bytes()), 0)) {
            "coffee-00001" => '1',
            _ => '2',
        })
        .collect();
    assert_eq!(picks, "221222222121112112212111");
}

#[test]
fn sticky_keys_come_from_headers_and_cookies() {
    let header = Sticky::Header("x-user".into());
    let cookie = Sticky::Cookie {
        name: "sid".into(),
        ttl: std::time::Duration::from_secs(1),
    };
    let key = |sticky: &Sticky, fields: &[(&str, &str)]| {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let fields = FieldList(fields.iter().map(owned).collect());
        let key = sticky
            .key(&fields)
            .map(|key| String::from_utf8_lossy(key).into_owned());
        key.unwrap_or_else(|| "none".to_owned())
    };
    assert_eq!(key(&header, &[("X-User", "ada")]), "ada");
    assert_eq!(key(&header, &[("x-user", "")]), "none");
    assert_eq!(key(&header, &[]), "none");
    assert_eq!(key(&cookie, &[("Cookie", "a=b; sid=42;c=d")]), "42");
    assert_eq!(
        key(&cookie, &[("cookie", "a=b"), ("cookie", "sid=43")]),
        "43"
    );
    assert_eq!(
        key(&cookie, &[("cookie", "xsid=1; sid2=2; SID=3; sid")]),
        "none"
    );
    assert_eq!(key(&cookie, &[("cookie", "sid=")]), "none");
    assert_eq!(key(&cookie, &[("cookie", "sid=a=b")]), "a=b");
}

proptest! {
    #[test]
    fn sticky_picks_do_not_depend_on_the_order_of_targets(
        weights in proptest::collection::vec(0_u8..=40, 2..6),
        key in proptest::collection::vec(any::<u8>(), 0..20),
        turn in 0_usize..6,
    ) {
        let names = ["a", "b", "c", "d", "e", "f"];
        let shares: Vec<(&str, u8)> = names.into_iter().zip(weights).collect();
        let mut turned = shares.clone();
        turned.rotate_left(turn % shares.len());
        let one = split_of(&shares);
        let other = split_of(&turned);
        prop_assert_eq!(name_of(one.pick(Some(&key), 0)), name_of(other.pick(Some(&key), 0)));
    }

    #[test]
    fn only_the_changed_revision_gains_or_loses_keys(
        weights in proptest::collection::vec(0_u8..=30, 3),
        more in 1_u8..=30,
        key in any::<u64>(),
    ) {
        let before = split_of(&[("a", weights[0]), ("b", weights[1]), ("c", weights[2])]);
        let after = split_of(&[("a", weights[0] + more), ("b", weights[1]), ("c", weights[2])]);
        let key = key.to_le_bytes();
        let (from, to) = (before.pick(Some(&key), 0), after.pick(Some(&key), 0));
        prop_assert!(name_of(from) == name_of(to) || name_of(to) == "a");
    }
}

// --- find against an oracle that tries everything ---

#[derive(Clone, Debug)]
struct RuleModel {
    exact: bool,
    path: String,
    method: Option<&'static str>,
    headers: Vec<&'static str>,
}

#[derive(Clone, Debug)]
struct RouteModel {
    local: bool,
    hosts: Vec<&'static str>,
    rules: Vec<RuleModel>,
}

const HOSTS: [&str; 6] = ["a.x.test", "b.x.test", "*.x.test", "*.test", "*", "c"];

fn rule_model() -> impl Strategy<Value = RuleModel> {
    let path =
        proptest::collection::vec(proptest::sample::select(vec!["/", "/a", "/b", "a"]), 0..4);
    let method = proptest::option::weighted(0.3, proptest::sample::select(vec!["GET", "PUT"]));
    let headers = proptest::sample::subsequence(vec!["h", "i"], 0..=2);
    (any::<bool>(), path, method, headers).prop_map(|(exact, path, method, headers)| RuleModel {
        exact,
        path: format!("/{}", path.concat()),
        method,
        headers,
    })
}

fn route_model() -> impl Strategy<Value = RouteModel> {
    let hosts = proptest::sample::subsequence(HOSTS.to_vec(), 0..=3);
    let rules = proptest::collection::vec(rule_model(), 1..30);
    (proptest::bool::weighted(0.3), hosts, rules).prop_map(|(local, hosts, mut rules)| {
        let mut seen = std::collections::HashSet::new();
        rules.retain(|rule| seen.insert(format!("{rule:?}")));
        RouteModel {
            local,
            hosts,
            rules,
        }
    })
}

fn text_of(routes: &[RouteModel]) -> String {
    let mut text = String::from("revisions: [{name: r}]\nroutes:\n");
    for (index, route) in routes.iter().enumerate() {
        let visibility = if route.local {
            "cluster-local"
        } else {
            "public"
        };
        text.push_str(&format!(
            "  - name: r{index}\n    visibility: {visibility}\n"
        ));
        text.push_str(&format!("    hosts: {:?}\n    rules:\n", route.hosts));
        for rule in &route.rules {
            let key = if rule.exact { "pathExact" } else { "path" };
            let methods: Vec<_> = rule.method.iter().collect();
            let headers: Vec<_> = rule
                .headers
                .iter()
                .map(|name| format!("{name}: ''"))
                .collect();
            text.push_str(&format!(
                "      - {{{key}: {:?}, methods: {methods:?}, headers: {{{}}}, traffic: [{{revision: r}}]}}\n",
                rule.path,
                headers.join(", ")
            ));
        }
    }
    text
}

/// How well a pattern covers a host: exact, then by length of the suffix, then `*`.
fn cover(pattern: &str, host: &str) -> Option<usize> {
    match pattern.strip_prefix('*') {
        Some("") => Some(0),
        Some(suffix) => {
            (host.ends_with(suffix) && host.len() > suffix.len()).then_some(suffix.len())
        }
        None => (pattern == host).then_some(1000),
    }
}

fn oracle(routes: &[RouteModel], request: &Request) -> String {
    let seen = |route: &&RouteModel| request.internal || !route.local;
    let covers = routes.iter().filter(seen).flat_map(|route| &route.hosts);
    let best = covers
        .filter_map(|pattern| cover(pattern, &request.host))
        .max();
    let mut matching = Vec::new();
    for (index, route) in routes.iter().enumerate().filter(|(_, route)| seen(route)) {
        let here = |pattern: &&str| cover(pattern, &request.host) == best;
        if best.is_none() || !route.hosts.iter().any(here) {
            continue;
        }
        for (number, rule) in route.rules.iter().enumerate() {
            let path = match rule.exact {
                true => request.path == rule.path,
                false => rule.path == "/" || request.path.starts_with(&rule.path),
            };
            let method = rule.method.is_none_or(|method| method == request.method);
            let headers = rule
                .headers
                .iter()
                .all(|name| request.fields.first(name).is_some());
            if path && method && headers {
                let rank = (
                    usize::MAX - rule.path.len(),
                    !rule.exact,
                    2 - rule.headers.len(),
                    rule.method.is_none(),
                    index,
                    number,
                );
                matching.push((rank, format!("r{index}#{}", number + 1)));
            }
        }
    }
    matching
        .into_iter()
        .min()
        .map_or("-".to_owned(), |(_, name)| name)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn find_agrees_with_trying_everything(
        routes in proptest::collection::vec(route_model(), 1..5),
        paths in proptest::collection::vec("(/[ab/]{0,6}|\\*)", 8),
        hosts in proptest::sample::subsequence(vec!["a.x.test", "b.x.test", "q.x.test", "p.q.x.test", "x.test", "c", "zz"], 3),
        fields in proptest::sample::subsequence(vec!["h:1", "i:1"], 0..=2),
        internal: bool,
    ) {
        // Rules that collide between routes are refused; that is another test's matter.
        let snapshot = compile(&text_of(&routes));
        prop_assume!(snapshot.is_ok());
        let snapshot = snapshot.expect("it was assumed");
        for host in &hosts {
            for path in &paths {
                let internal = if internal { "internal " } else { "" };
                let line = format!("{internal}{host}{path} {}", fields.join(" "));
                let line = line.trim_end();
                prop_assert_eq!(found(&snapshot, line), oracle(&routes, &request(line)), "{}", line);
            }
        }
    }
}

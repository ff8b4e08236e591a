use super::*;

fn problems(text: &str) -> Vec<Problem> {
    match parse("f.yaml", text) {
        Content::Broken { problems, .. } => problems,
        Content::Documents { .. } | Content::Gone => Vec::new(),
    }
}

/// `line:column path value`, problem, hint.
fn first(text: &str) -> (String, String, String) {
    let problem = problems(text).remove(0);
    let place = format!(
        "{}:{} {} {}",
        problem.line, problem.column, problem.path, problem.value
    );
    (place, problem.problem, problem.hint)
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_nearest_known_one() {
    let (place, problem, hint) = first("routes:\n  - name: a\n    trafic: []\n");
    assert_eq!(place, "3:5 routes[0].trafic trafic");
    assert_eq!(problem, "unknown key");
    assert_eq!(hint, "did you mean `traffic`?");
}

#[test]
fn an_unknown_key_that_begins_its_mapping_is_told_apart_from_the_mapping() {
    let (place, _, hint) = first("routes:\n  - name: a\n  - bogus: []\n");
    assert_eq!(place, "3:5 routes[1].bogus bogus");
    assert_eq!(
        hint,
        "one of: name, namespace, hosts, defaultHost, visibility, traffic, sticky, rules, priority, \
         deadline, warmBeforeShift, networkHash"
    );
}

#[test]
fn a_missing_key_points_at_its_mapping() {
    let (place, problem, _) = first("routes:\n  - hosts: [a]\n");
    assert_eq!(place, "2:5 routes[0] {…}");
    assert_eq!(problem, "the key `name` is missing");
    for (text, expected) in [
        ("routes: [{ hosts: [a] }]", "1:12 routes[0] {…}"),
        ("routes:\n- {}", "2:3 routes[0] {…}"),
        ("routes:\n- hosts: [a]\n  rules: []", "3:3 routes[0] {…}"),
        (
            "gateway: { listeners: [{}, { audience: public }] }",
            "1:24 gateway.listeners[0] {…}",
        ),
    ] {
        assert_eq!(first(text).0, expected, "{text}");
    }
}

#[test]
fn a_number_that_is_none_is_shown() {
    let text = "routes:\n  - name: a\n    traffic:\n      - {revision: x, percent: 70%}\n";
    let (place, problem, _) = first(text);
    assert_eq!(place, "4:32 routes[0].traffic[0].percent 70%");
    assert_eq!(problem, "this is not an integer");
}

#[test]
fn what_is_neither_true_nor_false_is_told_wherever_one_of_them_belongs() {
    for (before, after, path) in [
        ("gateway: { serverTiming: ", " }", "gateway.serverTiming"),
        (
            "routes: [{ name: a, rules: [{ httpsOnly: ",
            " }] }]",
            "routes[0].rules[0].httpsOnly",
        ),
        (
            "routes: [{ name: a, defaultHost: ",
            " }]",
            "routes[0].defaultHost",
        ),
        (
            "routes: [{ name: a, warmBeforeShift: ",
            " }]",
            "routes[0].warmBeforeShift",
        ),
    ] {
        for value in ["1", "0", "maybe", "1.5", "\"\""] {
            let text = format!("{before}{value}{after}");
            let (place, problem, hint) = first(&text);
            let value = value.trim_matches('"');
            assert!(place.ends_with(&format!(" {path} {value}")), "{place}");
            assert_eq!(problem, "this is neither true nor false", "{text}");
            assert_eq!(hint, "write true or false", "{text}");
        }
        for value in ["true", "false"] {
            let text = format!("{before}{value}{after}");
            assert_eq!(problems(&text), [], "{text}");
        }
    }
}

#[test]
fn a_wrong_variant_lists_the_right_ones() {
    let (place, problem, hint) = first("routes:\n  - name: a\n    visibility: publik\n");
    assert_eq!(place, "3:17 routes[0].visibility publik");
    assert_eq!(problem, "unknown value");
    assert_eq!(hint, "did you mean `public`? one of: public, cluster-local");
}

#[test]
fn a_scalar_in_place_of_a_list_is_told() {
    let (place, problem, hint) = first("routes:\n  - name: a\n    hosts: a.example.com\n");
    assert_eq!(place, "3:12 routes[0].hosts a.example.com");
    assert_eq!(problem, "expected a list");
    assert_eq!(hint, "write it as a list: [a.example.com]");
}

#[test]
fn every_document_of_a_stream_tells_its_first_error() {
    let text = "routes: 5\n---\ndomain: a\n---\nroutez: []\nfoo: bar\n";
    let places: Vec<_> = problems(text).iter().map(|p| (p.line, p.column)).collect();
    assert_eq!(places, [(1, 9), (5, 1)]);
    let Content::Broken { readable, .. } = parse("f.yaml", text) else {
        panic!("it is broken");
    };
    assert_eq!(readable.len(), 1);
}

#[test]
fn a_key_given_twice_is_an_error() {
    let (place, problem, _) = first("domain: a\ndomain: b\n");
    assert_eq!(place, "2:1 domain domain");
    assert_eq!(problem, "the key is given twice");
}

#[test]
fn broken_yaml_is_told_with_its_place() {
    let (place, problem, _) = first("routes: [\n");
    assert!(place.starts_with("1:9"), "{place}");
    assert!(problem.contains("unclosed bracket"), "{problem}");
}

#[test]
fn nothing_and_empty_documents_are_fine() {
    for text in ["", "\n", "# nothing\n", "---\n", "---\n---\n", "routes:\n"] {
        assert_eq!(problems(text), [], "{text:?}");
    }
}

#[test]
fn many_lines_of_comments_are_fine() {
    let text = format!("routes:\n{}  []\n", "# a line\n".repeat(1000));
    assert_eq!(problems(&text), []);
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut bomb = String::from("routes:\n  - name: a\n    traffic: &t\n");
    bomb.push_str(&"      - {revision: x}\n".repeat(2000));
    for number in 0..1000 {
        bomb.push_str(&format!("  - {{name: a{number}, traffic: *t}}\n"));
    }
    let problems = problems(&bomb);
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].problem.contains("alias replay limit"),
        "{problems:?}"
    );
}

#[test]
fn deep_nesting_is_refused() {
    let text = format!("routes: {}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(problems(&text).len(), 1);
}

#[test]
fn an_anchor_may_serve_many_routes() {
    let mut text = String::from("routes:\n  - {name: r, traffic: &t [{revision: x}]}\n");
    for number in 0..1000 {
        text.push_str(&format!("  - {{name: r{number}, traffic: *t}}\n"));
    }
    assert_eq!(problems(&text), []);
}

/// Problem and hint of a revision, route or gateway that goes on with a key.
#[track_caller]
fn told(before: &str, written: &str) -> (String, String) {
    let (_, problem, hint) = first(&format!("{before}{written}\n"));
    (problem, hint)
}

const QUEUE: &str = "revisions:\n- name: a\n  queue:\n    ";
const SCALE: &str = "revisions:\n- name: a\n  scale:\n    ";
const ROUTE: &str = "routes:\n- name: a\n  ";
const LIMITS: &str = "gateway:\n  limits:\n    ";

const DURATION: &str = "write a number and a unit: 500ms, 10s, 5m, 1h";
const WAIT: &str = "write auto, or a number and a unit: 500ms, 10s, 5m, 1h";
const FAIR_BY: &str = "write address, header:NAME, claim:NAME or none";
const CLASS: &str =
    "only a number here, 0 to 7; `{ header: NAME }` goes to `priority` of the route or of a rule";
const RAMP: &str = "write `{ initial: NUMBER }`; `{ initial: 0 }` switches it off";
const DEADLINE: &str = "write `{ header: NAME }`: the request header in which clients say it";
/// Where, what is written, and what is said of it.
const WRONG_KINDS: &[(&str, &str, &str, &str)] = &[
    (QUEUE, "wait: [5s]", "expected a duration", WAIT),
    (
        QUEUE,
        "depth: {a: b}",
        "expected an integer",
        "write an integer of 0 to 1000000",
    ),
    (
        QUEUE,
        "priority: {header: X-P}",
        "expected an integer",
        CLASS,
    ),
    (
        QUEUE,
        "priority: high",
        "this is not an integer",
        "write an integer of 0 to 7",
    ),
    (QUEUE, "fairBy: {header: X-T}", "expected a text", FAIR_BY),
    (
        SCALE,
        "target: [1]",
        "expected a number",
        "write a number like 7 or 0.5",
    ),
    (
        SCALE,
        "target: high",
        "this is not a number",
        "write a number like 7 or 0.5",
    ),
    (
        SCALE,
        "min: [1]",
        "expected an integer",
        "write an integer like 7",
    ),
    (SCALE, "idleStream: {a: b}", "expected a duration", DURATION),
    (SCALE, "rampUp: off", "expected a mapping", RAMP),
    (SCALE, "rampUp: false", "expected a mapping", RAMP),
    (SCALE, "rampUp: 5", "expected a mapping", RAMP),
    (ROUTE, "deadline: 5s", "expected a mapping", DEADLINE),
    (
        ROUTE,
        "warmBeforeShift: {a: b}",
        "expected true or false",
        "write true or false",
    ),
    (
        ROUTE,
        "hosts: {a: b}",
        "expected a list",
        "begin each entry with `- `",
    ),
    (
        ROUTE,
        "namespace: [b]",
        "expected a text",
        "write one text, neither a list nor a mapping",
    ),
    (
        ROUTE,
        "visibility: [public]",
        "expected a text",
        "one of: public, cluster-local",
    ),
    (
        ROUTE,
        "sticky: X-User",
        "expected a mapping",
        "write `key: value` pairs; keys: header, cookie, ttl",
    ),
    (
        ROUTE,
        "traffic: [a]",
        "expected a mapping",
        "write `{ revision: ... }`; keys: revision, percent, tag, setHeaders",
    ),
    (
        ROUTE,
        "rules: [{headers: [a]}]",
        "expected a mapping",
        "write `NAME: TEXT` pairs",
    ),
    (
        ROUTE,
        "rules: [{headers: {a.b: [a]}}]",
        "expected a text",
        "",
    ),
    (
        "gateway:\n  ",
        "accessLog: off",
        "expected a mapping",
        "write `{ mode: limited }`, all or off, or other keys of it",
    ),
];

#[test]
fn a_value_of_the_wrong_kind_says_what_to_write() {
    for (before, written, problem, hint) in WRONG_KINDS {
        let wanted = ((*problem).to_owned(), (*hint).to_owned());
        assert_eq!(told(before, written), wanted, "{written}");
    }
}

#[test]
fn a_number_with_a_unit_is_worked_out_where_its_meaning_is_clear() {
    const BYTES: &str =
        "write an integer of 0 to 1125899906842624, without a unit or sign like `%`";
    const ANY: &str = "write an integer like 7, without a unit or sign like `%`";
    for (before, written, hint) in [
        (
            LIMITS,
            "heldBytes: 256Mi",
            "write 268435456: there are no units here",
        ),
        (
            LIMITS,
            "heldBytes: 1MiB",
            "write 1048576: there are no units here",
        ),
        (
            LIMITS,
            "memory: 1 GiB",
            "write 1073741824: there are no units here",
        ),
        (
            LIMITS,
            "headBytes: 64Ki",
            "write 65536: there are no units here",
        ),
        (LIMITS, "heldBytes: 10k", ANY),
        (LIMITS, "heldBytes: 9999999999Gi", ANY),
        (QUEUE, "bytes: 64m", BYTES),
        (QUEUE, "bytes: 1.5Gi", BYTES),
    ] {
        let (problem, said) = told(before, written);
        assert_eq!(
            (&*problem, &*said),
            ("this is not an integer", hint),
            "{written}"
        );
    }
    let percent = "traffic: [{revision: a, percent: 70%}]";
    assert_eq!(told(ROUTE, percent).1, "write 70: there are no units here");
}

#[test]
fn a_number_beyond_all_numbers_is_out_of_range() {
    for (before, written, hint) in [
        (
            QUEUE,
            "depth: 99999999999999999999999",
            "write an integer of 0 to 1000000",
        ),
        (
            QUEUE,
            "priority: -99999999999999999999999",
            "write an integer of 0 to 7",
        ),
        (
            LIMITS,
            "held: 99999999999999999999999",
            "no integer of 64 bits is so large: write another",
        ),
    ] {
        let wanted = ("the number is out of range".to_owned(), hint.to_owned());
        assert_eq!(told(before, written), wanted, "{written}");
    }
}

const REVISION: &str = "revisions:\n- name: a\n  ";
/// Where, what is written, and what is said of it.
const UNKNOWN_KEYS: &[(&str, &str, &str)] = &[
    // Deeper down.
    (REVISION, "perClient: 1", "it belongs under `queue`"),
    (REVISION, "fairBy: none", "it belongs under `queue`"),
    (REVISION, "depth: 1", "it belongs under `queue`"),
    (REVISION, "rampUp: {}", "it belongs under `scale`"),
    (REVISION, "idleStream: 5s", "it belongs under `scale`"),
    (
        REVISION,
        "path: /x",
        "it belongs under `health` or under `process.readiness`",
    ),
    (
        ROUTE,
        "percent: 5",
        "it belongs under `traffic[]` or under `rules[].traffic[]`",
    ),
    // Further up.
    (
        QUEUE,
        "concurrency: 5",
        "it belongs beside `queue`; here, one of: depth, bytes, wait, perClient, fairBy, priority",
    ),
    (
        "gateway:\n  ",
        "domain: a",
        "did you mean `drain`, or `domain` at the top?",
    ),
    // Here, with a slip of the pen, or there.
    (
        ROUTE,
        "host: a",
        "did you mean `hosts`, or `host` under `rules[].redirect` or under `rules[].reroute`?",
    ),
    // In another part.
    (
        QUEUE,
        "rampUp: {}",
        "it belongs under `revisions[].scale`; here, one of: depth, bytes, wait, perClient, fairBy, priority",
    ),
    (
        SCALE,
        "depth: 1",
        "it belongs under `revisions[].queue`; here, one of: min, max, target, window, grace, rampUp, idleStream",
    ),
    (
        QUEUE,
        "held: 1",
        "it belongs under `gateway.limits`; here, one of: depth, bytes, wait, perClient, fairBy, priority",
    ),
    (
        LIMITS,
        "perClient: 1",
        "it belongs under `revisions[].queue`",
    ),
    (
        REVISION,
        "warmBeforeShift: true",
        "it belongs under `routes[]`",
    ),
    // In other words.
    (REVISION, "minScale: 1", "did you mean `min` under `scale`?"),
    (
        REVISION,
        "scale_max: 1",
        "did you mean `max` under `scale`?",
    ),
    (QUEUE, "queueDepth: 1", "did you mean `depth`?"),
    (
        REVISION,
        "containerConcurrency: 1",
        "did you mean `concurrency`?",
    ),
    (
        LIMITS,
        "heldPerIP: 1",
        "did you mean `heldPerNamespace` or `heldPerAddress`?",
    ),
    (
        LIMITS,
        "heldPerClient: 1",
        "did you mean `heldPerNamespace` or `heldPerAddress`?",
    ),
    // In too many places.
    (
        SCALE,
        "header: a",
        "one of: min, max, target, window, grace, rampUp, idleStream",
    ),
];

#[test]
fn an_unknown_key_is_looked_for_elsewhere() {
    for (before, written, hint) in UNKNOWN_KEYS {
        let wanted = ("unknown key".to_owned(), (*hint).to_owned());
        assert_eq!(told(before, written), wanted, "{written}");
    }
}

#[test]
fn a_colon_that_parts_no_key_is_to_be_quoted() {
    for written in ["fairBy: header: X-Tenant", "fairBy: header:"] {
        let (_, hint) = told(QUEUE, written);
        assert!(
            hint.starts_with("put a text with a `:`"),
            "{written}: {hint}"
        );
    }
}

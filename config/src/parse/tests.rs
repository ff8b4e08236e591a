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

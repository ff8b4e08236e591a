//! Whatever is wrong with a file is found before it can do harm, and told with its place.

use serde_json::Value;
use tests::Launch;
use tests::gateway::Exit;

const VALID: &str = "
routes:
  - name: hello
    traffic: [{ revision: hello-1, percent: 70, tag: current }, { revision: hello-2, percent: 30 }]
revisions:
  - { name: hello-1, endpoints: ['127.0.0.1:9'], concurrency: 1, queue: { depth: 1, wait: 1s } }
  - { name: hello-2, process: { command: [sleep, '1'] }, scale: { target: 2 } }
";

/// A problem is where `at` begins (the last time, where it occurs more than once), and one of
/// its texts says `word`.
struct Mistake {
    yaml: &'static str,
    at: &'static str,
    word: &'static str,
}

const fn mistake(yaml: &'static str, at: &'static str, word: &'static str) -> Mistake {
    Mistake { yaml, at, word }
}

/// Errors of shape and of meaning. All of them stand on a line of their own.
const MISTAKES: &[Mistake] = &[
    mistake("routes:\n  - name: a\n    hots: [b.c]\n", "hots", "hots"),
    mistake("gatway: {}\n", "gatway", "gatway"),
    mistake("revisions:\n  - name: r\n    endpoints: 7\n", "7", ""),
    mistake(
        "revisions:\n  - name: r\n    endpoints: ['127.0.0.1:9']\n    concurrency: many\n",
        "many",
        "",
    ),
    mistake(
        "revisions:\n  - name: r\n    endpoints: ['127.0.0.1:9']\n    concurrency: -1\n",
        "-1",
        "",
    ),
    mistake(
        "revisions:\n  - name: r\n    endpoints: ['127.0.0.1:9']\n    timeout: 5 parsecs\n",
        "5 parsecs",
        "",
    ),
    mistake(
        "revisions:\n  - name: r\n    endpoints:\n      - 10.0.0.5\n",
        "10.0.0.5",
        "port",
    ),
    mistake(
        "revisions:\n  - name: r\n    endpoints:\n      - 10.0.0.5:99999\n",
        "10.0.0.5:99999",
        "",
    ),
    mistake(
        "revisions:\n  - name: r\n    process:\n      command: []\n",
        "[]",
        "command",
    ),
    mistake(
        "revisions:\n  - name: No Name\n    endpoints: ['127.0.0.1:9']\n",
        "No Name",
        "",
    ),
    mistake(
        "routes:\n  - name: a\n    traffic:\n      - revision: nowhere\n",
        "nowhere",
        "nowhere",
    ),
    mistake(
        "routes:\n  - name: a\n    hosts:\n      - 'a.*.c'\n    rules: [{ respond: { status: 200 } }]\n",
        "'a.*.c'",
        "*",
    ),
    mistake(
        "routes:\n  - name: a\n    hosts:\n      - 'a b'\n    rules: [{ respond: { status: 200 } }]\n",
        "'a b'",
        "",
    ),
    mistake(
        "routes:\n  - name: a\n    rules:\n      - path: api\n        respond: { status: 200 }\n",
        "api",
        "/",
    ),
    mistake(
        "routes:\n  - name: a\n    rules:\n      - respond:\n          status: 99\n",
        "99",
        "",
    ),
    mistake(
        "routes:\n  - name: a\n    rules:\n      - respond: { status: 200 }\n        setResponseHeaders:\n          'no name': x\n",
        "'no name'",
        "",
    ),
    mistake(
        "routes:\n  - name: a\n    rules:\n      - respond: { status: 200 }\n        setResponseHeaders:\n          x: \"a\\nb\"\n",
        "\"a\\nb\"",
        "",
    ),
    mistake(
        "routes:\n  - name: a\n    visibility: secret\n    rules: [{ respond: { status: 200 } }]\n",
        "secret",
        "cluster-local",
    ),
    mistake("domain: 'not a domain'\n", "'not a domain'", ""),
    mistake(
        "gateway:\n  listeners:\n    - address: nowhere\n",
        "nowhere",
        "",
    ),
    mistake(
        "gateway:\n  limits:\n    dotSegments: maybe\n",
        "maybe",
        "reject",
    ),
];

#[tokio::test]
async fn every_mistake_is_told_with_its_line_and_column() {
    for Mistake { yaml, at, word } in MISTAKES {
        let problems = problems(yaml).await;
        let start = yaml.rfind(at).unwrap();
        let line = yaml[..start].matches('\n').count() + 1;
        let column = start - yaml[..start].rfind('\n').map_or(0, |newline| newline + 1) + 1;
        let there = problems
            .iter()
            .find(|p| p["line"] == line && p["column"] == column);
        let there =
            there.unwrap_or_else(|| panic!("nothing at {line}:{column} of {yaml}: {problems:#?}"));
        assert!(
            there.to_string().contains(word),
            "{word:?} is not in {there:#}"
        );
        assert!(
            there["file"].as_str().unwrap().ends_with("tidegate.yaml"),
            "{there:#}"
        );
    }
}

/// What two places of a file have to do with each other: its routes (and what follows them), and
/// a word of the problem.
const CONTRADICTIONS: &[(&str, &str)] = &[
    // Percents that are not 100.
    (
        "[{ name: hello, traffic: [{ revision: r-1, percent: 60 }, { revision: r-1, percent: 30 }] }]",
        "100",
    ),
    // A lone target of less.
    (
        "[{ name: hello, traffic: [{ revision: r-1, percent: 60 }] }]",
        "100",
    ),
    // A tag twice.
    (
        "[{ name: hello, traffic: [{ revision: r-1, percent: 60, tag: now }, { revision: r-1, percent: 40, tag: now }] }]",
        "now",
    ),
    // Both endpoints and process.
    (
        "[]\nrevisions: [{ name: x, endpoints: ['127.0.0.1:9'], process: { command: [a] } }]\n---",
        "process",
    ),
    // A revision twice.
    (
        "[]\n---\nrevisions: [{ name: r-1, endpoints: ['127.0.0.1:10'] }]\n---",
        "r-1",
    ),
    // A route twice.
    (
        "[{ name: hello, traffic: [{ revision: r-1 }] }, { name: hello, traffic: [{ revision: r-1 }] }]",
        "hello",
    ),
    // A host twice.
    (
        "[{ name: a, hosts: [own.example.org], traffic: [{ revision: r-1 }] }, { name: b, hosts: [own.example.org], traffic: [{ revision: r-1 }] }]",
        "own.example.org",
    ),
    // A default host that another route claims.
    (
        "[{ name: hello, traffic: [{ revision: r-1 }] }, { name: b, hosts: [hello.default.example.com], traffic: [{ revision: r-1 }] }]",
        "hello.default.example.com",
    ),
    // A tag host that another route claims.
    (
        "[{ name: hello, traffic: [{ revision: r-1, tag: now }] }, { name: now-hello, traffic: [{ revision: r-1 }] }]",
        "now-hello.default.example.com",
    ),
    // Two ways to be sticky.
    (
        "[{ name: hello, sticky: { header: a, cookie: b }, traffic: [{ revision: r-1 }] }]",
        "cookie",
    ),
    // A redirect and traffic.
    (
        "[{ name: hello, rules: [{ redirect: { status: 301, path: /a }, traffic: [{ revision: r-1 }] }] }]",
        "redirect",
    ),
    // Two kinds of path.
    (
        "[{ name: hello, rules: [{ path: /a, pathExact: /b, traffic: [{ revision: r-1 }] }] }]",
        "pathExact",
    ),
    // Two gateways.
    (
        "[]\n---\ngateway: { workers: 1 }\n---\ngateway: { workers: 2 }\n---",
        "gateway",
    ),
];

#[tokio::test]
async fn contradictions_are_found() {
    let revisions = "\nrevisions:\n  - { name: r-1, endpoints: ['127.0.0.1:9'] }\n";
    for (routes, word) in CONTRADICTIONS {
        let problems = problems(&format!("routes: {routes}{revisions}")).await;
        let told = problems
            .iter()
            .any(|problem| problem.to_string().contains(word));
        assert!(told, "{word:?} is not told of {routes}: {problems:#?}");
    }
}

#[tokio::test]
async fn two_of_one_name_are_told_at_both_places() {
    let problems = problems(
        "routes:
  - name: hello
    rules: [{ respond: { status: 200 } }]
  - name: hello
    rules: [{ respond: { status: 201 } }]
",
    )
    .await;
    let lines: Vec<_> = problems
        .iter()
        .filter_map(|problem| problem["line"].as_u64())
        .collect();
    let told = format!("{problems:?}");
    assert!(lines.contains(&2) || told.contains(":2:"), "{problems:#?}");
    assert!(lines.contains(&4) || told.contains(":4:"), "{problems:#?}");
}

#[tokio::test]
async fn all_errors_of_meaning_are_told_at_once_and_the_first_of_shape() {
    let problems = problems(
        "routes:
  - name: a
    traffic: [{ revision: r, percent: 60 }]
  - name: b
    traffic: [{ revision: r, percent: 60 }]
revisions:
  - { name: r, endpoints: ['127.0.0.1:9'] }
---
revisions: 1
---
routes:
  - name: c
    traffic: [{ revision: r, percent: 60 }]
",
    )
    .await;
    let lines: Vec<_> = problems
        .iter()
        .filter_map(|problem| problem["line"].as_u64())
        .collect();
    for line in [3, 5, 9, 13] {
        assert!(
            lines.contains(&line),
            "nothing about line {line}: {problems:#?}"
        );
    }
}

#[tokio::test]
async fn valid_file_passes() {
    validate(VALID, "text").await.expect(0);
    assert_eq!(
        json(&validate(VALID, "json").await.expect(0)),
        Value::Array(Vec::new())
    );
}

#[tokio::test]
async fn what_is_no_configuration_at_all_is_no_surprise() {
    validate("routes: [", "text").await.expect(1);
    validate("hello", "text").await.expect(1);
    validate("\u{0}\u{1}", "text").await.expect(1);
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n\
                c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n\
                e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n\
                g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nroutes: [*g,*g,*g,*g,*g,*g,*g,*g,*g]\n";
    validate(bomb, "text").await.expect(1);
}

#[tokio::test]
async fn people_are_told_place_value_and_what_to_write_instead() {
    let yaml =
        "routes:\n  - name: a\n    visibility: secret\n    rules: [{ respond: { status: 200 } }]\n";
    let exit = validate(yaml, "text").await.expect(1);
    let said = exit.stdout + &exit.stderr;
    for part in ["tidegate.yaml:3:17", "secret", "cluster-local"] {
        assert!(said.contains(part), "{part} is missing: {said}");
    }
}

#[tokio::test]
async fn directory_is_read_and_its_files_are_told_apart() {
    let launch = Launch::without_file().file("d/good.yaml", VALID).file(
        "d/bad.yaml",
        "routes: [{ name: b, traffic: [{ revision: nowhere }] }]",
    );
    let flags = ["validate", "-f", "d", "--format", "json"];
    let problems = json(&launch.command(flags).run().await.expect(1));
    assert!(
        problems[0]["file"].as_str().unwrap().ends_with("bad.yaml"),
        "{problems:#}"
    );
    let launch = Launch::without_file().file("d/good.yaml", VALID);
    launch
        .command(["validate", "-f", "d"])
        .run()
        .await
        .expect(0);
}

#[tokio::test]
async fn wrong_usage_exits_with_2() {
    for flags in [
        &["validate", "--frobnicate"][..],
        &["validate", "-f", "a", "--format", "xml"],
    ] {
        Launch::without_file()
            .command(flags.iter().copied())
            .run()
            .await
            .expect(2);
    }
}

async fn validate(yaml: &str, format: &str) -> Exit {
    let flags = ["validate", "-f", "tidegate.yaml", "--format", format];
    Launch::new(yaml).command(flags).run().await
}

async fn problems(yaml: &str) -> Vec<Value> {
    let exit = validate(yaml, "json").await;
    assert_eq!(exit.code(), Some(1), "{yaml}\n{exit:#?}");
    let problems = json(&exit);
    let keys = ["file", "line", "column", "path", "value", "problem", "hint"];
    for problem in problems.as_array().expect("an array of problems") {
        let missing: Vec<_> = keys
            .iter()
            .filter(|key| problem.get(key).is_none())
            .collect();
        assert!(missing.is_empty(), "{missing:?} missing: {problem:#}");
    }
    problems.as_array().unwrap().clone()
}

fn json(exit: &Exit) -> Value {
    serde_json::from_str(&exit.stdout).unwrap_or_else(|error| panic!("{error}: {exit:#?}"))
}

//! What no compiler checks: documents that say what the code says, borders between crates, and
//! habits that keep files readable.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tidegate::observe::metrics::{FAMILIES, Kind};
use tidegate::refusal::Reason;

/// Lines of a file, tests not counted.
const LINES_MAX: usize = 500;

/// Lines of `ARCHITECTURE.md`: a map is read in one sitting.
const MAP_LINES_MAX: usize = 200;

/// Which of our crates each of them may depend on, in any way.
const BORDERS: [(&str, &[&str]); 5] = [
    ("config", &[]),
    ("activator", &["config"]),
    ("gateway", &["config", "activator"]),
    ("loadtest", &[]),
    ("tests", &[]),
];

/// Directories that are not ours to read.
const FOREIGN: [&str; 2] = ["target", "node_modules"];

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.expect("the crate lies in the workspace").to_owned()
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file below `directory` with this ending, from the root, sorted.
fn files(directory: &str, ending: &str) -> Vec<String> {
    let root = root();
    let mut found = Vec::new();
    let mut open = vec![root.join(directory)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let foreign = name.starts_with('.') || FOREIGN.contains(&&*name);
            if path.is_dir() && !foreign {
                open.push(path);
            } else if path.is_file() && name.ends_with(ending) {
                let below = path.strip_prefix(&root).unwrap();
                found.push(below.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

fn rust_files() -> Vec<String> {
    let files: Vec<String> = BORDERS
        .iter()
        .flat_map(|(crate_name, _)| files(crate_name, ".rs"))
        .collect();
    assert!(files.len() > 50, "found only {files:?}");
    files
}

fn documents() -> Vec<String> {
    let documents = files("", ".md");
    assert!(documents.iter().any(|path| path == "README.md"));
    documents
}

/// Tests need no header and may be long.
fn is_test(path: &str) -> bool {
    path.ends_with("tests.rs") || path.contains("/tests/")
}

/// The text in front of a `mod tests { ... }` at the end of a file.
fn without_tests(text: &str) -> &str {
    let mut at = 0;
    let mut attribute = None;
    for line in text.split_inclusive('\n') {
        match attribute {
            Some(end) if line.starts_with("mod ") && line.trim_end().ends_with('{') => {
                return &text[..end];
            }
            Some(_) if line.starts_with("#[") => {}
            _ => attribute = None,
        }
        if line.starts_with("#[cfg(") && line.contains("test") {
            attribute = Some(at);
        }
        at += line.len();
    }
    text
}

/// The cells of each row of the tables between this heading and the next of its rank.
fn rows(document: &str, heading: &str) -> Vec<Vec<String>> {
    let start = document
        .find(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("there is no {heading:?}"));
    let rank = heading.split(' ').next().unwrap();
    let section = &document[start + 1 + heading.len()..];
    let end = section.find(&format!("\n{rank} ")).unwrap_or(section.len());
    section[..end]
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"))
        .map(|row| {
            let cells = row.split('|').map(|cell| cell.trim().to_owned());
            let mut cells: Vec<String> = cells.collect();
            cells[0] = cells[0].trim_end_matches('`').to_owned();
            cells
        })
        .collect()
}

#[test]
fn every_reason_word_has_its_row_and_every_row_its_word() {
    let operations = text("docs/operations.md");
    let rows = rows(&operations, "## Reason words");
    let shown: BTreeSet<(String, String)> = rows
        .iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let known: BTreeSet<(String, String)> = Reason::ALL
        .iter()
        .map(|reason| (reason.word().to_owned(), reason.status().to_string()))
        .collect();
    assert_eq!(shown, known, "words and their status");
    assert_eq!(rows.len(), Reason::ALL.len(), "a word has one row");
}

#[test]
fn every_metric_family_has_its_row_and_every_row_its_family() {
    let operations = text("docs/operations.md");
    let rows = rows(&operations, "## Metrics");
    let shown: BTreeSet<[String; 3]> = rows
        .iter()
        .map(|row| [row[0].clone(), row[1].clone(), row[2].clone()])
        .collect();
    let known: BTreeSet<[String; 3]> = FAMILIES
        .iter()
        .map(|family| {
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let labels = family.labels.iter().map(|label| format!("`{label}`"));
            let labels: Vec<String> = labels.collect();
            [family.name.to_owned(), kind.to_owned(), labels.join(", ")]
        })
        .collect();
    assert_eq!(shown, known, "names, kinds and labels");
}

/// Requirements of `docs/security.md` that are not the gateway's: of control planes, of long runs,
/// of how releases are made.
const ELSEWHERE: [u32; 4] = [47, 49, 50, 57];

#[test]
fn every_requirement_names_tests_and_every_test_exists() {
    let security = text("docs/security.md");
    let rows = rows(&security, "## Requirements");
    let shown: Vec<String> = rows.iter().map(|row| row[0].clone()).collect();
    let numbers = (1..=57).filter(|number| !ELSEWHERE.contains(number));
    let known: Vec<String> = numbers.map(|number| format!("R-{number:02}")).collect();
    assert_eq!(shown, known, "each has one row, in order");
    let sources = rust_files();
    for row in &rows {
        let tests: Vec<String> = code_spans(&row[2]);
        assert!(!tests.is_empty(), "{} has no test", row[0]);
        for test in tests {
            // A file alone stands for all of its tests.
            let (file, name) = test.split_once("::").unwrap_or((&test, ""));
            let mut named = sources.iter().filter(|path| path.ends_with(file));
            let has_it = |path: &String| text(path).contains(&format!("fn {name}"));
            assert!(
                named.any(has_it),
                "{} names {test}, which is not there",
                row[0]
            );
        }
    }
}

/// Names under every table of dependencies of a crate.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines() {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section.ends_with("dependencies");
            // `[dependencies.name]`
            if let Some((_, name)) = section.rsplit_once("dependencies.") {
                names.insert(name.to_owned());
            }
        } else if inside {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            names.insert(name.to_owned());
        }
    }
    names
}

#[test]
fn dependencies_point_one_way() {
    let workspace = text("Cargo.toml");
    for (crate_name, allowed) in BORDERS {
        assert!(workspace.contains(&format!("\"{crate_name}\"")));
        let used = dependencies(&text(&format!("{crate_name}/Cargo.toml")));
        assert!(!used.is_empty(), "{crate_name} uses nothing");
        for ours in ["config", "activator", "gateway", "tidegate", "tests"] {
            let may = allowed.contains(&ours);
            assert!(may || !used.contains(ours), "{crate_name} uses {ours}");
        }
    }
}

#[test]
fn the_core_of_config_does_not_know_its_sources() {
    for path in files("config/src", ".rs") {
        if path.contains("/source/") || path.ends_with("config/src/lib.rs") {
            continue;
        }
        let text = text(&path);
        let text = without_tests(&text);
        for word in [
            "crate::source",
            "tokio",
            "notify",
            "std::net::Tcp",
            "Instant",
        ] {
            assert!(is_test(&path) || !text.contains(word), "{path}: {word}");
        }
    }
}

#[test]
fn every_crate_inherits_the_lints() {
    for (crate_name, _) in BORDERS {
        let manifest = text(&format!("{crate_name}/Cargo.toml"));
        assert!(
            manifest.contains("[lints]\nworkspace = true\n"),
            "{crate_name} has lints of its own"
        );
    }
}

#[test]
fn only_allocators_of_tests_are_unsafe() {
    let word = concat!("un", "safe");
    let counting = [
        "config/tests/memory.rs",
        "gateway/tests/amplification.rs",
        "gateway/tests/observe_alloc.rs",
        "gateway/tests/warm_path.rs",
    ];
    let mut found = Vec::new();
    for path in rust_files() {
        let text = text(&path);
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let marks = [
            format!("{word} {{"),
            format!("{word} impl"),
            format!("{word} fn"),
            format!("allow({word}"),
        ];
        if code
            .clone()
            .any(|line| marks.iter().any(|mark| line.contains(mark)))
        {
            found.push(path);
        }
    }
    assert_eq!(found, counting);
    assert!(text("Cargo.toml").contains(&format!("{word}_code = \"deny\"")));
}

#[test]
fn dependencies_are_checked_for_advisories_licences_and_sources() {
    let config = text("deny.toml");
    for section in ["[advisories]", "[licenses]", "[bans]", "[sources]"] {
        assert!(config.contains(section), "{section}");
    }
    assert!(text(".ci/run").contains("cargo deny"));
}

#[test]
fn files_stay_small() {
    for path in rust_files() {
        let text = text(&path);
        let lines = without_tests(&text).lines().count();
        let small = is_test(&path) || lines <= LINES_MAX;
        assert!(small, "{path} has {lines} lines: split it");
    }
    let lines = text("ARCHITECTURE.md").lines().count();
    assert!(lines < MAP_LINES_MAX, "ARCHITECTURE.md has {lines} lines");
}

#[test]
fn every_module_says_what_it_is() {
    for path in rust_files() {
        let exempt = is_test(&path) || path.ends_with("/main.rs");
        let headed = text(&path).starts_with("//! ");
        assert!(exempt || headed, "{path} has no `//!` header");
    }
}

#[test]
fn nothing_is_left_to_be_done() {
    // Written in two parts, so that this file does not hold them.
    let words = [
        concat!("to", "do!"),
        concat!("unimple", "mented!"),
        concat!("db", "g!("),
        concat!("FIX", "ME"),
        concat!("TO", "DO"),
        concat!("XX", "X"),
    ];
    for path in rust_files().into_iter().chain(documents()) {
        let text = text(&path);
        for word in words {
            assert!(!text.contains(word), "{path} says {word}");
        }
    }
}

#[test]
fn documents_name_no_lines_of_code() {
    for path in documents() {
        let text = text(&path);
        for (at, _) in text.match_indices(".rs:") {
            let next = text[at + ".rs:".len()..].chars().next();
            let line = next.is_some_and(|c| c.is_ascii_digit());
            assert!(!line, "{path} names a line, which will be another soon");
        }
    }
}

/// What stands between single backticks, outside of code blocks.
fn code_spans(document: &str) -> Vec<String> {
    let prose = document.split("```").step_by(2);
    prose
        .flat_map(|prose| prose.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

#[test]
fn files_that_documents_name_exist() {
    let sources = rust_files();
    for path in documents() {
        for span in code_spans(&text(&path)) {
            let is_file = span.ends_with(".rs") && !span.contains([' ', '*', '{']);
            let known = |file: &&String| **file == span || file.ends_with(&format!("/{span}"));
            let exists = !is_file || sources.iter().find(known).is_some();
            assert!(exists, "{path} names {span}, which is not there");
        }
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for path in documents() {
        let text = text(&path);
        for (_, after) in text
            .match_indices("](")
            .map(|(at, _)| text.split_at(at + 2))
        {
            let target = after.split(')').next().unwrap_or_default();
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let from = root().join(&path);
            let file = from.parent().unwrap().join(target);
            assert!(file.exists(), "{path} links to {target}");
        }
    }
}

#[test]
fn end_to_end_tests_wait_for_conditions_and_not_for_time() {
    for path in files("tests/tests", ".rs") {
        assert!(!text(&path).contains("sleep("), "{path} sleeps");
    }
}

#[test]
fn tests_at_the_end_of_a_file_are_not_counted() {
    let code = "fn a() {}\n\n";
    let tests = "#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n";
    assert_eq!(without_tests(&format!("{code}{tests}")), code);
    let sibling = "#[cfg(test)]\nmod tests;\n\nfn a() {}\n";
    assert_eq!(without_tests(sibling), sibling);
    let guarded = "#[cfg(all(test, not(tidegate_loom)))]\nmod tests {\n}\n";
    assert_eq!(without_tests(guarded), "");
}

//! Applying changes one by one must end where compiling everything at once does.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{dump, fragment, gone};
use crate::compile::Compiler;
use crate::route::{FieldList, Query, find};
use crate::snapshot::Snapshot;

const FILES: [&str; 3] = ["a.yaml", "b.yaml", "c.yaml"];

/// One entry of a file, as a line of YAML under `routes` or `revisions`.
#[derive(Clone, Debug)]
enum Entry {
    Route { name: usize, text: String },
    Revision { name: usize, concurrency: usize },
}

fn entry() -> impl Strategy<Value = Entry> {
    let hosts = proptest::sample::subsequence(vec!["s.test", "*.s.test", "*"], 0..=2);
    let path = proptest::sample::select(vec!["/", "/a", "/ab", "/b"]);
    let tag = proptest::option::weighted(0.3, proptest::sample::select(vec!["x", "r1"]));
    let route = (0_usize..4, 0_usize..3, hosts, path, tag, any::<bool>());
    let route = route.prop_map(|(name, revision, hosts, path, tag, local)| {
        let tag = tag.map_or(String::new(), |tag| format!(", tag: {tag}"));
        let visibility = if local { "cluster-local" } else { "public" };
        let text = format!(
            "visibility: {visibility}, hosts: {hosts:?}, \
             rules: [{{path: {path}{name}, traffic: [{{revision: v{revision}{tag}}}]}}, \
             {{path: {path}, headers: {{h{name}: ''}}, traffic: [{{revision: v{revision}}}]}}]"
        );
        Entry::Route { name, text }
    });
    let revision = (0_usize..3, 0_usize..2)
        .prop_map(|(name, concurrency)| Entry::Revision { name, concurrency });
    prop_oneof![2 => route, 3 => revision]
}

fn text_of(entries: &[Entry]) -> String {
    let (mut routes, mut revisions) = (String::from("routes:\n"), String::from("revisions:\n"));
    for entry in entries {
        match entry {
            Entry::Route { name, text } => {
                routes.push_str(&format!("  - {{name: r{name}, {text}}}\n"));
            }
            Entry::Revision { name, concurrency } => {
                revisions.push_str(&format!(
                    "  - {{name: v{name}, concurrency: {concurrency}}}\n"
                ));
            }
        }
    }
    routes + &revisions
}

/// What a client would see.
fn behaviour(snapshot: &Snapshot) -> Vec<String> {
    let hosts = [
        "s.test",
        "q.s.test",
        "other",
        "r0.default.example.com",
        "r1.default",
        "x-r2.default",
    ];
    let mut seen = Vec::new();
    for host in hosts {
        for (path, field) in [("/a0", "h0"), ("/ab1", "h1"), ("/b", "h2"), ("/a", "h3")] {
            let fields = FieldList(vec![
                (field.to_owned(), "1".to_owned()),
                ("h1".to_owned(), "1".to_owned()),
            ]);
            let query = Query {
                host: host.as_bytes(),
                path: path.as_bytes(),
                method: b"GET",
                fields: &fields,
                internal: path.len() % 2 == 0,
            };
            let found = find(snapshot, &query);
            let found = found.map(|f| {
                format!(
                    "{}#{} {:?}",
                    f.route.key,
                    f.rule().number,
                    f.tagged.map(|t| &t.tag)
                )
            });
            seen.push(format!("{host}{path} {field}: {found:?}"));
        }
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn change_by_change_ends_where_all_at_once_does(
        steps in proptest::collection::vec(
            (0..FILES.len(), proptest::option::weighted(0.9, proptest::collection::vec(entry(), 0..6))),
            1..12,
        ),
    ) {
        let mut compiler = Compiler::default();
        let mut accepted: BTreeMap<&str, String> = BTreeMap::new();
        for (file, entries) in steps {
            let file = FILES[file];
            let mut wanted = accepted.clone();
            let change = match &entries {
                Some(entries) => {
                    wanted.insert(file, text_of(entries));
                    fragment(file, &text_of(entries))
                }
                None => {
                    wanted.remove(file);
                    gone(file)
                }
            };
            let before = (dump(compiler.snapshot()), behaviour(compiler.snapshot()));
            let result = compiler.apply(vec![change]);

            let mut whole = Compiler::default();
            let all = wanted.iter().map(|(file, text)| fragment(file, text)).collect();
            let at_once = whole.apply(all);
            prop_assert_eq!(result.is_ok(), at_once.is_ok());
            if let Ok(compiled) = result {
                prop_assert_eq!(dump(compiler.snapshot()), dump(whole.snapshot()));
                prop_assert_eq!(behaviour(compiler.snapshot()), behaviour(whole.snapshot()));
                prop_assert_eq!(dump(&compiled.snapshot), dump(compiler.snapshot()));
                accepted = wanted;
            } else {
                let after = (dump(compiler.snapshot()), behaviour(compiler.snapshot()));
                prop_assert_eq!(before, after);
            }
        }
    }
}

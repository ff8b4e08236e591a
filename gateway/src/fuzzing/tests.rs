//! Replays of the seeds: everything the fuzzers ever found stays found.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::{TARGETS, run};

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// Names of what stands in a directory, without this ending.
fn names(directory: &Path, ending: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter_map(|name| Some(name.strip_suffix(ending)?.to_owned()))
        .collect()
}

/// Gives every seed of a target to it.
fn replay(target: &str) {
    let directory = fuzz().join("corpus").join(target);
    let seeds = names(&directory, "");
    assert!(!seeds.is_empty(), "{target} has no seeds");
    for seed in seeds {
        let input = fs::read(directory.join(&seed)).unwrap();
        let replayed = catch_unwind(AssertUnwindSafe(|| run(target, &input)));
        assert!(replayed.is_ok(), "fuzz/corpus/{target}/{seed}");
    }
}

/// A test for each target, and one that knows whether all have theirs.
macro_rules! replays {
    ($($target:ident),* $(,)?) => {
        $(
            #[test]
            fn $target() {
                replay(stringify!($target));
            }
        )*

        #[test]
        fn every_target_is_built_fuzzed_and_replayed() {
            let known: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
            let replayed = [$(stringify!($target).to_owned()),*];
            assert_eq!(known, BTreeSet::from(replayed));
            assert_eq!(known, names(&fuzz().join("corpus"), ""));
            assert_eq!(known, names(&fuzz().join("fuzz_targets"), ".rs"));
            let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
            for name in known {
                assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
                let body = fs::read_to_string(fuzz().join(format!("fuzz_targets/{name}.rs"))).unwrap();
                assert!(body.contains(&format!("run(\"{name}\"")), "{name}");
            }
        }
    };
}

replays!(
    access_log,
    admin_question,
    authority,
    body,
    certificate,
    configuration,
    cookie,
    forwarded,
    grpc_timeout,
    h1_exchange,
    h2_client,
    h2_endpoint,
    h2_frames,
    h2_heads,
    ingress,
    path,
    proxy_header,
    request_head,
    request_log,
    response_head,
    routes,
);

//! What the core must never know.

use std::path::Path;
use std::process::Command;

const CRATE: &str = env!("CARGO_MANIFEST_DIR");

fn sources(directory: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(directory).expect("it can be listed") {
        let path = entry.expect("it is listed").path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            let text = std::fs::read_to_string(&path).expect("it can be read");
            found.push((path.to_string_lossy().into_owned(), text));
        }
    }
}

#[test]
fn the_core_brings_no_runtime() {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--package",
            "config",
            "--no-default-features",
        ])
        .args(["--edges", "normal", "--prefix", "none"])
        .current_dir(CRATE)
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8_lossy(&output.stdout);
    assert!(tree.contains("serde-saphyr"), "{tree}");
    for runtime in ["tokio", "notify", "mio", "hyper", "futures"] {
        let used = tree
            .lines()
            .any(|line| line.split(' ').next() == Some(runtime));
        assert!(!used, "the core depends on {runtime}");
    }
}

#[test]
fn the_core_never_imports_a_source() {
    let mut found = Vec::new();
    sources(&Path::new(CRATE).join("src"), &mut found);
    assert!(found.len() > 20);
    for (path, text) in found
        .iter()
        .filter(|(path, _)| !path.contains("/src/source/"))
    {
        for word in [
            "crate::source",
            "super::source",
            "tokio::",
            "std::net::Tcp",
            "SystemTime",
            "Instant",
        ] {
            let imported = text.contains(word) && !path.ends_with("/parse/tests.rs");
            assert!(!imported, "{path} knows {word}");
        }
    }
}

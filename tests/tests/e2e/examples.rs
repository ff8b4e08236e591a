//! The files of `examples/` are valid, and a gateway starts with each of them.

use std::path::{Path, PathBuf};

use tests::Launch;

#[tokio::test]
async fn every_example_is_valid_and_starts() {
    let examples = examples();
    assert!(!examples.is_empty());
    for path in examples {
        let file = path.to_str().unwrap();
        let exit = Launch::without_file()
            .command(["validate", "-f", file])
            .run()
            .await;
        assert_eq!(exit.code(), Some(0), "{exit:#?}");
        let gateway = Launch::without_file().arguments(["-f", file]).start().await;
        assert_eq!(gateway.ask("/readyz").await.status, 200, "{file}");
        assert_ne!(gateway.ask("/api/routes").await.text(), "[]", "{file}");
    }
}

fn examples() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("examples");
    let entries = std::fs::read_dir(&directory).expect("there are examples");
    let files = entries.map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|kind| kind == "yaml"))
        .collect()
}

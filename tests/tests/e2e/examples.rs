//! The files of `examples/` are valid, and a gateway starts with each of them.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::Launch;
use tests::python::interpreter;

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

#[tokio::test]
async fn grpc_service_of_the_examples_greets() {
    let Some(python) = interpreter() else { return };
    let file = directory().join("grpc.yaml");
    // Where `python3` has grpcio, as in the environment that the readme makes.
    let path = python.parent().unwrap().to_str().unwrap();
    let path = format!(
        "{path}:{}",
        std::env::var_os("PATH").unwrap().to_str().unwrap()
    );
    let launch = Launch::without_file().arguments(["-f", file.to_str().unwrap()]);
    let gateway = launch.environment("PATH", path).start().await;
    let mut call = Command::new(python);
    call.arg(directory().join("grpc/greeter.py"));
    call.args(["call", "World", &gateway.public().to_string()]);
    let output = tokio::task::spawn_blocking(move || call.output());
    let output = output.await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with("Hello World! (process "), "{output:?}");
}

fn directory() -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    crates.unwrap().join("examples")
}

fn examples() -> Vec<PathBuf> {
    let directory = directory();
    let entries = std::fs::read_dir(&directory).expect("there are examples");
    let files = entries.map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|kind| kind == "yaml"))
        .collect()
}

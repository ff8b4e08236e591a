//! What the demo is played with: a configuration in a temporary directory, and what to try.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tempfile::TempDir;

/// Removes its directory when it is dropped.
#[derive(Debug)]
pub(super) struct Stage {
    _directory: TempDir,
    file: PathBuf,
}

impl Stage {
    pub(super) fn set() -> anyhow::Result<Stage> {
        let program = std::env::current_exe()?;
        let program = program
            .to_str()
            .with_context(|| format!("{} is not UTF-8", program.display()))?;
        let directory = tempfile::Builder::new()
            .prefix("tidegate-demo-")
            .tempdir()?;
        let file = directory.path().join("tidegate.yaml");
        std::fs::write(&file, configuration(program)?)?;
        Ok(Stage {
            _directory: directory,
            file,
        })
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// What to try, in one piece.
    pub(super) fn tour(&self, public: SocketAddr, admin: SocketAddr) -> String {
        let file = self.file.display();
        format!(
            "
One route, `hello`, sends 70 % to revision hello-00001 and 30 % to hello-00002.
Nothing of either runs. In another terminal, try:

  curl -H 'Host: hello.default.example.com' http://{public}/
      is held until a process has started, and counts as any request after that
  curl http://{public}/
      the same: the route takes any host
  curl -H 'Host: latest-hello.default.example.com' http://{public}/
      tag `latest`, always hello-00002; `current` is the other one
  for i in $(seq 60); do curl -s 'http://{public}/?sleep=2000' & done; wait
      more than one process takes at a time: others start beside it
  curl http://{admin}/api/revisions
      what is known of them
  edit {file}
      changes take effect when you save

Without requests for ten seconds, the processes are stopped. Ctrl-C ends all.

"
        )
    }
}

/// `program` is this binary.
fn configuration(program: &str) -> serde_json::Result<String> {
    // A JSON string is a YAML string, whatever is in it.
    let program = serde_json::to_string(program)?;
    let revision = |name: &str, target: &str| {
        format!(
            "  - name: {name}
    concurrency: 10
    process:
      command: [{program}, demo-service]
      env: {{ TARGET: {target} }}
      readiness: {{ path: /healthz }}
    scale: {{ max: 5, window: 6s, grace: 4s }}
"
        )
    };
    Ok(format!(
        "# The configuration of `tidegate demo`.
gateway:
  accessLog: {{ mode: \"off\" }}

routes:
  - name: hello
    hosts: [\"*\"]
    traffic:
      - {{ revision: hello-00001, percent: 70, tag: current }}
      - {{ revision: hello-00002, percent: 30, tag: latest }}

revisions:
{}{}",
        revision("hello-00001", "from version 1"),
        revision("hello-00002", "from version 2"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_readable_wherever_the_binary_lies() {
        let text = configuration("/home/a \"b\"/tide'gate: #1").unwrap();
        let content = config::parse("tidegate.yaml", &text);
        let config::Content::Documents { documents, .. } = content else {
            panic!("{content:?}");
        };
        let revisions = documents[0].revisions.as_ref().unwrap();
        assert_eq!(revisions.len(), 2);
        let process = revisions[0].value.process.as_ref().unwrap();
        let program = &process.value.command.value[0].value;
        assert_eq!(&**program, "/home/a \"b\"/tide'gate: #1");
    }

    #[test]
    fn the_directory_goes_with_the_stage() {
        let stage = Stage::set().unwrap();
        let directory = stage.file().parent().unwrap().to_owned();
        assert!(stage.file().is_file());
        drop(stage);
        assert!(!directory.exists());
    }

    #[test]
    fn the_tour_names_both_addresses_and_the_file() {
        let stage = Stage::set().unwrap();
        let tour = stage.tour(
            "127.0.0.1:81".parse().unwrap(),
            "127.0.0.1:82".parse().unwrap(),
        );
        for part in [
            "curl -H 'Host: hello.default.example.com' http://127.0.0.1:81/\n",
            "http://127.0.0.1:82/api/revisions\n",
            stage.file().to_str().unwrap(),
        ] {
            assert!(tour.contains(part), "{part} is missing: {tour}");
        }
    }
}

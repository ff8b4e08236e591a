//! Nothing that the gateway started outlives it, however it ends.

use std::path::Path;

use rustix::process::Signal;
use tests::process::living;
use tests::{Gateway, PATIENCE, eventually};

use crate::{COLD, SERVICE};

/// A service below a shell, its child and its sibling. With `apart`, the sibling has left the
/// shell's session and process group. It goes that long after its last request.
fn family(pids: &Path, apart: &str, grace: &str) -> String {
    let script = format!("{apart} {SERVICE} child & {SERVICE}; echo and so sh does not exec it");
    format!(
        "
routes: [{{ name: cold, traffic: [{{ revision: cold-1 }}] }}]
revisions:
  - name: cold-1
    process:
      command: [sh, -c, '{script}']
      env: {{ CHILD: '1', PIDS: '{}' }}
    scale: {{ window: 2s, grace: {grace} }}
",
        pids.display()
    )
}

/// A gateway with the whole family up.
async fn with_family(pids: &Path, apart: &str) -> Gateway {
    let gateway = Gateway::start(&family(pids, apart, "1h")).await;
    gateway.get(COLD, "/").await.expect(200);
    eventually(PATIENCE, "the family is complete", async || {
        (living(pids).len() == 3).then_some(())
    })
    .await;
    gateway
}

async fn none_lives(pids: &Path) {
    eventually(PATIENCE, "no process is left", async || {
        living(pids).is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn sigkill_leaves_no_process_not_even_a_grandchild() {
    let pids = tempfile::TempDir::new().unwrap();
    let mut gateway = with_family(pids.path(), "setsid").await;
    gateway.signal(Signal::KILL);
    assert_eq!(gateway.exit(PATIENCE).await.signal(), Some(9));
    none_lives(pids.path()).await;
}

#[tokio::test]
async fn sigterm_leaves_no_process() {
    let pids = tempfile::TempDir::new().unwrap();
    let mut gateway = with_family(pids.path(), "setsid").await;
    gateway.signal(Signal::TERM);
    gateway.exit(PATIENCE).await.expect(0);
    none_lives(pids.path()).await;
}

#[tokio::test]
async fn scaling_to_zero_leaves_no_process() {
    let pids = tempfile::TempDir::new().unwrap();
    let gateway = with_family(pids.path(), "").await;
    gateway.apply(&family(pids.path(), "", "0s")).await;
    none_lives(pids.path()).await;
}

#[tokio::test]
async fn removing_the_revision_leaves_no_process() {
    let pids = tempfile::TempDir::new().unwrap();
    let gateway = with_family(pids.path(), "").await;
    gateway.apply("routes: []\n").await;
    none_lives(pids.path()).await;
}

//! What a `process` revision is given, and what becomes of it.

use tests::{Gateway, PATIENCE, eventually};

use crate::{COLD, SERVICE, Switch, cold};

#[tokio::test]
async fn it_gets_port_environment_arguments_and_directory() {
    let config = format!(
        "
routes: [{{ name: cold, traffic: [{{ revision: cold-1 }}] }}]
revisions:
  - name: cold-1
    process:
      command: ['{SERVICE}', '--port=$PORT', plain]
      env: {{ TARGET: v1, GIVEN: 'a b' }}
      directory: ./app
"
    );
    let launch = tests::Launch::new(&config)
        .file("app/here", "")
        .environment("INHERITED", "yes")
        .environment("TIDEGATE_WORKERS", "1");
    let gateway = launch.start().await;
    let answer = gateway.get(COLD, "/").await.expect(200);
    assert_eq!(answer.backend(), "v1");
    let variable = async |name: &str| {
        gateway
            .get(COLD, &format!("/environment?name={name}"))
            .await
            .text()
    };
    assert_eq!(variable("GIVEN").await, "a b");
    assert_eq!(variable("INHERITED").await, "yes");
    assert_eq!(variable("TIDEGATE_WORKERS").await, "");
    let port = variable("PORT").await;
    let report = answer.json();
    assert_eq!(
        report["arguments"],
        serde_json::json!([format!("--port={port}"), "plain"])
    );
    // Relative to the file.
    let directory = std::fs::canonicalize(gateway.directory().join("app")).unwrap();
    assert_eq!(report["directory"], directory.to_str().unwrap());
    let endpoint = &gateway.revision("cold-1").await["endpoints"][0];
    assert_eq!(endpoint["address"], format!("127.0.0.1:{port}"));
}

#[tokio::test]
async fn its_output_is_in_the_log_under_the_revisions_name() {
    let gateway = Gateway::start(&cold(&[("SAYS", "the kettle is on")])).await;
    gateway.get(COLD, "/").await.expect(200);
    gateway.until_logged("the kettle is on").await;
    let log = gateway.stderr();
    let line = log
        .lines()
        .find(|line| line.contains("the kettle is on"))
        .unwrap();
    assert!(line.contains("cold-1"), "{line}");
    // Standard output too; the service says there where it listens.
    let said = async || {
        gateway
            .stderr()
            .contains("listening 127.0.0.1:")
            .then_some(())
    };
    eventually(PATIENCE, "standard output is captured", said).await;
}

#[tokio::test]
async fn readiness_may_be_a_path() {
    let switch = Switch::new();
    let config = cold(&[("READY", &switch.path())]).replace(
        "      env:",
        "      readiness: { path: /health }\n      env:",
    );
    let gateway = Gateway::start(&config).await;
    let mut client = gateway.raw().await;
    client
        .send(format!("GET / HTTP/1.1\r\nHost: {COLD}\r\n\r\n"))
        .await;
    gateway.until_waiting("cold-1", 1).await;
    eventually(PATIENCE, "it is starting", async || {
        (gateway.endpoints("cold-1", "starting").await == 1).then_some(())
    })
    .await;
    assert!(
        client
            .silent_for(std::time::Duration::from_millis(300))
            .await,
        "it was not ready yet"
    );
    switch.turn_on();
    assert_eq!(client.answer().await.status(), 200);
    assert_eq!(gateway.endpoints("cold-1", "ready").await, 1);
}

#[tokio::test]
async fn process_that_ends_at_once_is_told_with_its_last_words() {
    let gateway = Gateway::start(&cold(&[("SAYS", "no kettle here"), ("EXIT", "3")])).await;
    let answer = gateway.get(COLD, "/").await;
    assert_ne!(answer.header("retry-after"), "");
    answer.refused(503, "start_failed");
    eventually(PATIENCE, "its last words are in the log", async || {
        let log = gateway.stderr();
        let mut told = log.lines().filter(|line| line.contains("no kettle here"));
        told.any(|line| line.contains("cold-1")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn program_that_does_not_exist_is_a_failed_start() {
    let config = cold(&[]).replace(SERVICE, "/does/not/exist");
    let gateway = Gateway::start(&config).await;
    gateway.get(COLD, "/").await.refused(503, "start_failed");
    gateway.until_logged("/does/not/exist").await;
}

#[tokio::test]
async fn process_that_crashes_is_replaced() {
    let gateway = Gateway::start(&(cold(&[]) + "    scale: { max: 1 }\n")).await;
    let pid = async || gateway.get(COLD, "/").await.expect(200).json()["pid"].clone();
    let first = pid().await;
    let mut client = gateway.raw().await;
    client
        .send(format!(
            "POST /crash HTTP/1.1\r\nHost: {COLD}\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.reason()), (502, "upstream_closed"));
    let second = pid().await;
    assert_ne!(first, second);
    gateway.until_idle().await;
}

#[tokio::test]
async fn two_revisions_have_ports_and_processes_of_their_own() {
    let other = cold(&[]).replace("cold", "other");
    let gateway = Gateway::start(&(cold(&[]) + "---\n" + &other)).await;
    let one = gateway.get(COLD, "/").await.expect(200);
    let two = gateway
        .get("other.default.example.com", "/")
        .await
        .expect(200);
    assert_eq!((one.backend(), two.backend()), ("cold-1", "other-1"));
    assert_ne!(one.json()["pid"], two.json()["pid"]);
}

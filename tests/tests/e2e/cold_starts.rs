//! Starts of revisions, told as they were: the phases of those that came up, the cause of those that
//! did not, and how long it is worth to wait.

use serde_json::Value;
use tests::client::with;
use tests::{Gateway, PATIENCE, Raw, eventually, request};

use crate::{COLD, SERVICE, Switch, cold};

const PHASES: [&str; 6] = ["nudge", "act", "endpoint", "probe", "wire", "firstByte"];

async fn starts(gateway: &Gateway) -> Vec<Value> {
    let told = gateway.ask("/api/cold-starts").await.expect(200).json();
    told.as_array().unwrap().clone()
}

async fn held(gateway: &Gateway, path: &str) -> Raw {
    let mut client = gateway.raw().await;
    client
        .send(format!("GET {path} HTTP/1.1\r\nHost: {COLD}\r\n\r\n"))
        .await;
    client
}

/// As [`cold`], run by this shell script in place of the service.
fn shell(script: &str) -> String {
    cold(&[]).replace(
        &format!("['{SERVICE}']"),
        &format!("[sh, -c, \"{script}\", '{SERVICE}']"),
    )
}

#[tokio::test]
async fn the_phases_of_a_start_come_in_order_and_add_up() {
    let switch = Switch::new();
    let gateway = Gateway::start(&cold(&[("GATE", &switch.path())])).await;
    assert_eq!(starts(&gateway).await, [] as [Value; 0]);
    let mut clients = Vec::new();
    for count in 1..=3 {
        clients.push(held(&gateway, "/").await);
        gateway.until_waiting("cold-1", count).await;
    }
    switch.turn_on();
    for client in &mut clients {
        assert_eq!(client.answer().await.status(), 200);
    }
    let told = starts(&gateway).await;
    let [start] = &told[..] else {
        panic!("{told:?}");
    };
    for (key, value) in [
        ("namespace", "default"),
        ("revision", "cold-1"),
        ("outcome", "ok"),
        ("trigger", "request"),
    ] {
        assert_eq!(start[key], value, "{start}");
    }
    assert_eq!((&start["cause"], &start["held"]), (&Value::Null, &3.into()));
    let revision = gateway.revision("cold-1").await;
    let last = &revision["lastStart"];
    assert_eq!(
        (&last["at"], &revision["coldStarts"]),
        (&start["at"], &1.into())
    );
    let mut all = 0.0;
    for phase in PHASES {
        let length = last["phases"][phase].as_f64().unwrap();
        all += length * 1e3;
        let end = start["phases"][phase].as_f64().unwrap();
        assert!((end - all).abs() < 0.01, "{phase}: {start} {last}");
        let labels = [("revision", "cold-1"), ("phase", phase)];
        let metrics = gateway.metrics().await;
        let sum = metrics
            .sum("tidegate_cold_start_seconds_sum", &labels)
            .unwrap();
        assert!((sum - length).abs() < 1e-5, "{phase}: {sum} {last}");
        let count = metrics.sum("tidegate_cold_start_seconds_count", &labels);
        assert_eq!(count, Some(1.0), "{phase}");
    }
    // The next one that finds it warm starts nothing.
    gateway.get(COLD, "/").await.expect(200);
    assert_eq!(starts(&gateway).await.len(), 1);
}

#[tokio::test]
async fn clients_and_operators_read_why_a_revision_cannot_start() {
    let killed = shell("kill -9 $$");
    let missing = cold(&[]).replace(SERVICE, "/does/not/exist");
    let forbidden = cold(&[]).replace(SERVICE, "/etc/passwd");
    let nowhere = cold(&[]) + "      directory: /does/not/exist\n";
    for (config, cause) in [
        (
            cold(&[("SAYS", "secret of mine"), ("EXIT", "3")]),
            "exited with status 3 before it was ready",
        ),
        (killed, "ended by signal 9 before it was ready"),
        (missing, "its command was not found"),
        (forbidden, "its command may not be executed"),
        (nowhere, "the directory of its command does not exist"),
    ] {
        let gateway = Gateway::start(&config).await;
        let answer = gateway.get(COLD, "/").await.refused(503, "start_failed");
        let expected = format!("The service could not be started: {cause}\n");
        assert_eq!(answer.text(), expected);
        // The first pauses are shorter than that.
        let after: u64 = answer.header("retry-after").parse().unwrap();
        assert!(after <= 2, "{after}");
        let told = starts(&gateway).await;
        let of_client = &told[told.len() - 1];
        assert_eq!(of_client["outcome"], "failed", "{told:?}");
        assert_eq!(of_client["cause"], cause, "{told:?}");
        assert_eq!(gateway.revision("cold-1").await["coldStarts"], 0);
    }
}

#[tokio::test]
async fn programs_read_the_cause_of_a_failed_start_in_their_own_form() {
    let gateway = Gateway::start(&cold(&[("EXIT", "3")])).await;
    let cause = "exited with status 3 before it was ready";
    let asked = with(
        request("GET", COLD, "/"),
        "accept",
        "application/problem+json",
    );
    let answer = gateway.send(asked).await.refused(503, "start_failed");
    assert_eq!(answer.json()["detail"], cause);
    let asked = with(
        request("POST", COLD, "/"),
        "content-type",
        "application/grpc",
    );
    let answer = gateway.send(asked).await.expect(200);
    assert_eq!(
        (answer.reason(), answer.header("grpc-status")),
        ("start_failed", "14")
    );
    let message = answer.header("grpc-message");
    assert!(message.ends_with(cause), "{message}");
}

#[tokio::test]
async fn a_revision_that_failed_is_tried_again() {
    // The fourth attempt comes up, and once it may: a request finds it on its way.
    let (attempts, switch) = (Switch::new(), Switch::new());
    let file = attempts.path();
    let script = format!("echo >> {file}; test $(wc -l < {file}) -gt 3 || exit 7; exec $0");
    let config = shell(&script) + &format!("        GATE: '{}'\n", switch.path());
    let gateway = Gateway::start(&config).await;
    let answer = gateway.get(COLD, "/").await.refused(503, "start_failed");
    assert!(
        answer.text().contains("exited with status 7"),
        "{}",
        answer.text()
    );
    let mut client = eventually(PATIENCE, "a request may wait again", async || {
        let mut client = held(&gateway, "/").await;
        tokio::select! {
            answer = client.answer() => {
                assert_eq!(answer.status(), 503);
                None
            }
            () = gateway.until_waiting("cold-1", 1) => Some(client),
        }
    })
    .await;
    switch.turn_on();
    assert_eq!(client.answer().await.status(), 200);
    let told = starts(&gateway).await;
    assert_eq!(told[0]["outcome"], "ok", "{told:?}");
    assert!(
        told[1..].iter().all(|start| start["outcome"] == "failed"),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_start_that_its_client_gave_up_is_told_and_still_comes_to_an_end() {
    let switch = Switch::new();
    let gateway = Gateway::start(&cold(&[("GATE", &switch.path())])).await;
    let client = held(&gateway, "/").await;
    gateway.until_waiting("cold-1", 1).await;
    drop(client);
    let given_up = eventually(PATIENCE, "it is given up", async || {
        starts(&gateway).await.pop()
    })
    .await;
    assert_eq!(given_up["outcome"], "gave_up", "{given_up}");
    assert_eq!(given_up["cause"], "client_gone", "{given_up}");
    assert_eq!(given_up["phases"]["probe"], Value::Null, "{given_up}");
    switch.turn_on();
    let ended = eventually(PATIENCE, "its endpoint comes", async || {
        let mut told = starts(&gateway).await;
        assert_eq!(told.len(), 1, "{told:?}");
        told.pop().filter(|start| start["phases"]["probe"].is_f64())
    })
    .await;
    assert_eq!(
        (&ended["outcome"], &ended["at"]),
        (&"gave_up".into(), &given_up["at"])
    );
    assert_eq!(ended["phases"]["wire"], Value::Null, "{ended}");
}

#[tokio::test]
async fn how_long_to_wait_is_learned_from_starts_and_capped_by_the_timeout() {
    let switch = Switch::new();
    let keys = "    queue: { wait: auto }\n    timeout: 40s\n";
    let rule = "    rules:
      - path: /quick
        timeout: 300ms
        traffic: [{ revision: cold-1 }]
      - traffic: [{ revision: cold-1 }]
    traffic:\n";
    let config = cold(&[("GATE", &switch.path())]).replace("    traffic:\n", rule) + keys;
    let gateway = Gateway::start(&config).await;
    let wait = async || gateway.revision("cold-1").await["queueWait"].clone();
    assert_eq!(wait().await, 40.0);
    // The timeout of its rule bounds the wait of this one.
    gateway
        .get(COLD, "/quick")
        .await
        .refused(504, "start_timeout");
    let told = starts(&gateway).await;
    assert_eq!(told[0]["cause"], "start_timeout", "{told:?}");
    let mut client = held(&gateway, "/").await;
    gateway.until_waiting("cold-1", 1).await;
    switch.turn_on();
    assert_eq!(client.answer().await.status(), 200);
    // Three and a half times as long as it took until the endpoint was there, but no less than ten
    // seconds, which is only more where the machine is slow.
    let told = starts(&gateway).await;
    let took = told[0]["phases"]["probe"].as_f64().unwrap() / 1e3;
    let expected = (3.5 * took).clamp(10.0, 40.0);
    let learned = wait().await.as_f64().unwrap();
    assert!((learned - expected).abs() < 0.01, "{learned} {told:?}");
}

//! `POST /api/prewarm`: endpoints before requests come, for those who may ask for them.

use serde_json::json;
use tests::client::with;
use tests::{Answer, Client, Gateway, Launch, PATIENCE, eventually, request};

use crate::{COLD, Switch, cold};

const WITH_TOKEN: &str = "gateway: { adminTokenFile: token }\n";

async fn start(yaml: &str) -> Gateway {
    let launch = Launch::new(&format!("{WITH_TOKEN}{yaml}"));
    launch.file("token", "secret\n").start().await
}

async fn ask(gateway: &Gateway, query: &str, token: Option<&str>) -> Answer {
    let mut asked = request("POST", "admin", &format!("/api/prewarm?{query}"));
    if let Some(token) = token {
        asked = with(asked, "authorization", &format!("Bearer {token}"));
    }
    Client::connect(gateway.admin()).await.send(asked).await
}

async fn prewarm(gateway: &Gateway, query: &str) -> Answer {
    ask(gateway, query, Some("secret")).await
}

async fn until_none(gateway: &Gateway) {
    eventually(2 * PATIENCE, "the revision is at zero", async || {
        let revision = gateway.revision("cold-1").await;
        (revision["endpoints"].as_array()?.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn prewarmed_processes_are_there_before_any_request_and_go_when_none_comes() {
    let scale = "    scale: { window: 1s, grace: 0s, max: 2 }\n";
    let gateway = start(&(cold(&[]) + scale)).await;
    let answer = prewarm(&gateway, "revision=cold-1&endpoints=5&for=1h&wait=60s").await;
    let revision = json!({"namespace": "default", "name": "cold-1", "scaler": "process",
                          "endpoints": 2, "ready": 2, "why": null});
    // No more than there may be.
    let expected = json!({"ready": true, "revisions": [revision]});
    assert_eq!((answer.status, answer.json()), (200, expected));
    assert_eq!(gateway.endpoints("cold-1", "ready").await, 2);
    gateway.get(COLD, "/").await.expect(200);
    gateway
        .until_metric("tidegate_requests_total", &[], |n| n == 1.0)
        .await;
    let waited = gateway
        .metric("tidegate_queue_wait_seconds_count", &[])
        .await;
    assert_eq!(waited, 0.0);
    // Where their time is over, they go.
    let gateway = start(&(cold(&[]) + scale)).await;
    let answer = prewarm(&gateway, "revision=cold-1&endpoints=2&for=3s&wait=60s").await;
    assert_eq!(answer.status, 200);
    until_none(&gateway).await;
}

#[tokio::test]
async fn time_of_prewarming_begins_when_the_process_is_ready() {
    let gate = Switch::new();
    let scale = "    scale: { window: 1s, grace: 0s }\n";
    let yaml = cold(&[("GATE", &gate.path())]) + scale;
    // Another is ready at once, and let go when its time is over.
    let clock = (cold(&[]) + scale).replace("cold-1", "clock-1");
    let (_, revision) = clock
        .split_once(
            "revisions:
",
        )
        .unwrap();
    let gateway = start(&(yaml + revision)).await;
    assert_eq!(
        prewarm(&gateway, "revision=cold-1&for=1s").await.status,
        202
    );
    let answer = prewarm(&gateway, "revision=clock-1&for=2s&wait=60s").await;
    assert_eq!(answer.status, 200);
    eventually(2 * PATIENCE, "two seconds are over", async || {
        let revision = gateway.revision("clock-1").await;
        (revision["endpoints"].as_array()?.is_empty()).then_some(())
    })
    .await;
    assert_eq!(gateway.endpoints("cold-1", "starting").await, 1);
    gate.turn_on();
    let answer = prewarm(&gateway, "revision=cold-1&for=1s&wait=60s").await;
    assert_eq!(answer.status, 200);
    // It is the start that was asked for first.
    let told = gateway.ask("/api/cold-starts").await.expect(200).json();
    let starts = told.as_array().unwrap().iter();
    let of_it: Vec<_> = starts
        .filter(|start| start["revision"] == "cold-1")
        .collect();
    assert_eq!(of_it.len(), 1, "{told}");
    until_none(&gateway).await;
}

#[tokio::test]
async fn prewarming_answers_at_once_unless_asked_to_wait() {
    let gate = Switch::new();
    let gateway = start(&cold(&[("GATE", &gate.path())])).await;
    for route in [
        "cold.default.example.com/x",
        "http://cold.default.example.com:8080/x?y",
    ] {
        let answer = prewarm(&gateway, &format!("route={route}&for=60s")).await;
        assert_eq!(
            (answer.status, &answer.json()["ready"]),
            (202, &json!(false)),
            "{route}"
        );
    }
    let answer = prewarm(&gateway, "revision=cold-1&wait=100ms").await;
    assert_eq!(
        (answer.status, &answer.json()["ready"]),
        (504, &json!(false))
    );
    gate.turn_on();
    let answer = prewarm(&gateway, "namespace=default&revision=cold-1&wait=60s").await;
    assert_eq!(
        (answer.status, &answer.json()["ready"]),
        (200, &json!(true))
    );
}

#[tokio::test]
async fn what_cannot_start_is_told_with_its_cause() {
    let gateway = start(&cold(&[("EXIT", "3")])).await;
    let answer = prewarm(&gateway, "revision=cold-1&wait=60s").await;
    let why = answer.json()["revisions"][0]["why"].to_string();
    assert_eq!(answer.status, 503);
    assert!(why.contains('3'), "{why}");
}

#[tokio::test]
async fn nobody_prewarms_without_the_token() {
    let gateway = start(&cold(&[])).await;
    for token in [None, Some("wrong"), Some("secre")] {
        let answer = ask(&gateway, "revision=cold-1&wait=1s", token).await;
        assert_eq!(answer.status, 401, "{token:?}");
    }
    assert_eq!(gateway.revision("cold-1").await["endpoints"], json!([]));
    // The file is read each time.
    std::fs::write(gateway.directory().join("token"), "fresh").unwrap();
    assert_eq!(prewarm(&gateway, "revision=cold-1").await.status, 401);
    let answer = ask(&gateway, "revision=cold-1&wait=60s", Some("fresh")).await;
    assert_eq!(answer.status, 200);

    let gateway = Gateway::start(&cold(&[])).await;
    let answer = ask(&gateway, "revision=cold-1", Some("secret")).await;
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("gateway.adminTokenFile"));
}

#[tokio::test]
async fn command_line_asks_and_says_what_became_of_it() {
    let gateway = start(&cold(&[])).await;
    let admin = format!("http://{}", gateway.admin());
    let token = gateway.directory().join("token");
    let run = async |what: &[&str]| {
        let line = [
            "prewarm",
            "--admin",
            &admin,
            "--token-file",
            token.to_str().unwrap(),
        ];
        let launch = Launch::without_file().command(line).arguments(what);
        launch.run().await
    };
    let exit = run(&["--wait", "60s", "default/cold-1"]).await.expect(0);
    assert_eq!(exit.stdout, "default/cold-1 process 1 of 1 ready\n");
    let exit = run(&["unknown"]).await.expect(1);
    assert!(
        exit.stderr.contains("no revision default/unknown"),
        "{}",
        exit.stderr
    );
    run(&[]).await.expect(2);
}

#[tokio::test]
async fn what_nobody_starts_is_told_apart() {
    let backend = tests::Backend::start("one");
    let yaml = format!(
        "revisions:\n  - {{name: fixed, endpoints: ['{}']}}\n  - {{name: nobody}}\n",
        backend.address
    );
    let gateway = start(&yaml).await;
    let answer = prewarm(&gateway, "revision=fixed").await;
    let told = &answer.json()["revisions"][0];
    assert_eq!(
        (answer.status, &told["scaler"], &told["ready"]),
        (200, &json!("fixed"), &json!(1))
    );
    assert_eq!(prewarm(&gateway, "revision=nobody").await.status, 409);
    assert_eq!(prewarm(&gateway, "revision=unknown").await.status, 404);
    assert_eq!(prewarm(&gateway, "route=unknown.test/").await.status, 404);
    assert_eq!(
        prewarm(&gateway, "revision=fixed&for=never").await.status,
        400
    );
}

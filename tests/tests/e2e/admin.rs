//! The admin address answers operators, in shapes that programs rely on.

use serde_json::{Value, json};
use tests::{Backend, Client, Gateway, Raw, request};

use crate::{HELLO, hello};

#[tokio::test]
async fn probes_and_pages_answer() {
    let gateway = Gateway::start("routes: []\n").await;
    assert_eq!(gateway.ask("/livez").await.status, 200);
    let ready = gateway.ask("/readyz").await.expect(200);
    assert!(ready.json().is_object(), "{}", ready.text());
    let metrics = gateway.ask("/metrics").await.expect(200);
    assert!(
        metrics.header("content-type").starts_with("text/plain"),
        "{metrics:?}"
    );
    let page = gateway.ask("/").await.expect(200);
    assert!(page.header("content-type").starts_with("text/"), "{page:?}");
    assert_eq!(gateway.ask("/nothing-here").await.status, 404);
}

#[tokio::test]
async fn it_is_read_only() {
    let gateway = Gateway::start("routes: []\n").await;
    let mut client = Client::connect(gateway.admin()).await;
    for method in ["POST", "PUT", "DELETE"] {
        for path in ["/livez", "/api/routes", "/api/revisions", "/metrics"] {
            let status = client.send(request(method, "admin", path)).await.status;
            assert!((400..500).contains(&status), "{method} {path} got {status}");
        }
    }
}

#[tokio::test]
async fn it_is_not_served_on_public_addresses() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    for path in ["/metrics", "/livez", "/api/routes"] {
        gateway
            .get("127.0.0.1", path)
            .await
            .refused(404, "no_route");
        let seen = gateway.get(HELLO, path).await.expect(200).json();
        assert_eq!(seen["target"], path);
    }
}

#[tokio::test]
async fn routes_have_their_shape() {
    let gateway = Gateway::start(
        "
routes:
  - name: chatterbot
    hosts: [bot.example.org]
    rules:
      - { path: /api, traffic: [{ revision: r-1 }] }
      - traffic: [{ revision: r-1, percent: 70, tag: current }, { revision: r-2, percent: 30 }]
  - { name: inner, namespace: tools, visibility: cluster-local, rules: [{ respond: { status: 200 } }] }
revisions:
  - { name: r-1, endpoints: ['127.0.0.1:9'] }
  - { name: r-2, endpoints: ['127.0.0.1:9'] }
",
    )
    .await;
    let routes = gateway.ask("/api/routes").await.expect(200).json();
    let find = |name: &str| {
        let routes = routes.as_array().unwrap();
        routes
            .iter()
            .find(|route| route["name"] == name)
            .unwrap()
            .clone()
    };
    let route = find("chatterbot");
    assert_eq!(
        (&route["namespace"], &route["visibility"]),
        (&json!("default"), &json!("public"))
    );
    let hosts = route["hosts"].as_array().unwrap();
    assert!(
        hosts.contains(&json!("chatterbot.default.example.com")),
        "{route}"
    );
    assert!(hosts.contains(&json!("bot.example.org")), "{route}");
    assert!(route["source"].is_string(), "{route}");
    let rules = route["rules"].as_array().unwrap();
    let api = rules.iter().find(|rule| rule["path"] == "/api").unwrap();
    assert_eq!(api["targets"][0]["revision"], "r-1");
    assert_eq!(api["targets"][0]["percent"], 100);
    let split = rules
        .iter()
        .find(|rule| rule["targets"].as_array().is_some_and(|t| t.len() == 2));
    let split = split.unwrap_or_else(|| panic!("{route}"));
    assert_eq!(split["targets"][0]["tag"], "current");
    assert_eq!(split["targets"][1]["percent"], 30);
    let inner = find("inner");
    assert_eq!(
        (&inner["namespace"], &inner["visibility"]),
        (&json!("tools"), &json!("cluster-local"))
    );
}

#[tokio::test]
async fn revisions_have_their_shape_and_live_numbers() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&(hello(&backend) + "    concurrency: 2\n")).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client: Raw = gateway.raw().await;
        client
            .send(format!("GET /?hold HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
            .await;
        clients.push(client);
    }
    gateway.until_waiting("hello-1", 3).await;
    let revision = gateway.revision("hello-1").await;
    let keys =
        ["namespace", "limit", "inFlight", "waiting", "coldStarts"].map(|key| &revision[key]);
    assert_eq!(
        keys,
        [
            &json!("default"),
            &json!(2),
            &json!(2),
            &json!(3),
            &json!(0)
        ],
        "{revision}"
    );
    let endpoint = json!({ "address": backend.to_string(), "state": "ready", "inFlight": 2 });
    for (key, value) in endpoint.as_object().unwrap() {
        assert_eq!(&revision["endpoints"][0][key], value, "{revision}");
    }
    for window in ["1s", "6s", "60s"] {
        assert!(revision["average"][window].is_number(), "{revision}");
    }
    // Five are asked for, all the time: the average over a second comes to that.
    tests::eventually(
        tests::PATIENCE,
        "the average of a second is five",
        async || {
            let average = gateway.revision("hello-1").await["average"]["1s"]
                .as_f64()
                .unwrap();
            (4.5..=5.5).contains(&average).then_some(())
        },
    )
    .await;
    backend.open_gate();
    for client in &mut clients {
        assert_eq!(client.answer().await.status(), 200);
    }
    gateway.until_idle().await;
    let revision = gateway.revision("hello-1").await;
    assert_eq!(
        (&revision["inFlight"], &revision["waiting"]),
        (&json!(0), &json!(0)),
        "{revision}"
    );
}

#[tokio::test]
async fn broken_endpoint_is_suspect() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let gateway = Gateway::start(&hello(&format!("{one}', '{two}"))).await;
    let address = two.address.to_string();
    let _socket = two.kill_for_now().await;
    tests::eventually(tests::PATIENCE, "it is found out", async || {
        gateway.get(HELLO, "/").await.expect(200);
        let revision = gateway.revision("hello-1").await;
        let endpoints: &Vec<Value> = revision["endpoints"].as_array().unwrap();
        let dead = endpoints
            .iter()
            .find(|endpoint| endpoint["address"] == address)
            .unwrap();
        (dead["state"] == "suspect").then_some(())
    })
    .await;
}

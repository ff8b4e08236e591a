//! Which route a host belongs to.

use tests::{Client, Gateway, Launch, request};

const CONFIG: &str = "
routes:
  - name: plain
    rules: [{ respond: { status: 200, body: plain } }]
  - name: team
    namespace: tools
    rules: [{ respond: { status: 200, body: team } }]
  - name: own
    hosts: [own.example.org]
    rules: [{ respond: { status: 200, body: own } }]
  - name: wide
    hosts: ['*.example.org']
    rules: [{ respond: { status: 200, body: wide } }]
  - name: wider
    hosts: ['*.deep.example.org']
    rules: [{ respond: { status: 200, body: deep } }]
";

const CASES: &[(&str, &str)] = &[
    // NAME.NAMESPACE.DOMAIN, beside the hosts that are written.
    ("plain.default.example.com", "plain"),
    ("team.tools.example.com", "team"),
    ("own.default.example.com", "own"),
    ("own.example.org", "own"),
    // Case, port and one trailing dot are ignored.
    ("PLAIN.Default.Example.COM", "plain"),
    ("plain.default.example.com:8080", "plain"),
    ("plain.default.example.com.", "plain"),
    ("Plain.default.example.com.:80", "plain"),
    ("OWN.example.org:1", "own"),
    // A star covers one or more labels; exact beats wildcard, longer wildcard beats shorter.
    ("any.example.org", "wide"),
    ("a.b.c.example.org", "wide"),
    ("x.own.example.org", "wide"),
    ("a.deep.example.org", "deep"),
    ("b.a.deep.example.org", "deep"),
    ("deep.example.org", "wide"),
    ("A.Deep.example.org.:443", "deep"),
];

const NOBODY: &[&str] = &[
    "example.org",
    "plain.example.com",
    "plain.tools.example.com",
    "team.default.example.com",
    "aexample.org",
    "plain.default",
    "plain.default.svc.cluster.local",
    "localhost",
    "127.0.0.1",
];

#[tokio::test]
async fn hosts_find_their_routes() {
    let gateway = Gateway::start(CONFIG).await;
    let mut client = gateway.connect().await;
    for (host, route) in CASES {
        assert_eq!(client.get(host, "/").await.text(), *route, "{host}");
    }
    for host in NOBODY {
        let answer = gateway.get(host, "/").await;
        assert_eq!(
            (answer.status, answer.reason()),
            (404, "no_route"),
            "{host}"
        );
    }
}

#[tokio::test]
async fn star_alone_matches_last() {
    let all = "  - { name: all, hosts: ['*'], rules: [{ respond: { status: 200, body: all } }] }\n";
    let gateway = Gateway::start(&format!("{CONFIG}{all}")).await;
    let mut client = gateway.connect().await;
    for (host, route) in CASES {
        assert_eq!(client.get(host, "/").await.text(), *route, "{host}");
    }
    for host in NOBODY {
        assert_eq!(client.get(host, "/").await.text(), "all", "{host}");
    }
}

#[tokio::test]
async fn domain_of_the_file_ends_the_default_hosts() {
    let gateway = Gateway::start(&format!("domain: apps.test\n{CONFIG}")).await;
    assert_eq!(
        gateway.get("plain.default.apps.test", "/").await.text(),
        "plain"
    );
    gateway
        .get("plain.default.example.com", "/")
        .await
        .refused(404, "no_route");
}

#[tokio::test]
async fn absolute_target_names_the_host_too() {
    let gateway = Gateway::start(CONFIG).await;
    let mut raw = gateway.raw().await;
    raw.send("GET http://own.example.org/x HTTP/1.1\r\nHost: own.example.org\r\n\r\n")
        .await;
    assert_eq!(raw.answer().await.text(), "own");
    raw.send("GET http://OWN.example.org:80/ HTTP/1.1\r\nHost: own.example.org\r\n\r\n")
        .await;
    assert_eq!(raw.answer().await.text(), "own");
}

#[tokio::test]
async fn cluster_local_routes_answer_on_internal_listeners_only() {
    let config = "
gateway:
  listeners:
    - address: 127.0.0.1:0
    - address: 127.0.0.1:0
      audience: internal
routes:
  - name: inner
    visibility: cluster-local
    rules: [{ respond: { status: 200, body: inner } }]
  - name: outer
    rules: [{ respond: { status: 200, body: outer } }]
";
    let gateway = Launch::new(config).own_listeners().start().await;
    let mut public = Client::connect(gateway.listeners[0].0).await;
    let mut internal = Client::connect(gateway.listeners[1].0).await;
    let names = [
        "inner.default",
        "inner.default.svc",
        "inner.default.svc.cluster.local",
    ];
    for host in names {
        assert_eq!(internal.get(host, "/").await.text(), "inner", "{host}");
        public.get(host, "/").await.refused(404, "no_route");
    }
    public
        .get("inner.default.example.com", "/")
        .await
        .refused(404, "no_route");
    for client in [&mut public, &mut internal] {
        let answer = client
            .send(request("GET", "outer.default.example.com", "/"))
            .await;
        assert_eq!(answer.text(), "outer");
    }
}

//! `explain` says where a request would go, and why.

use tests::gateway::Exit;
use tests::{Gateway, Launch};

const CONFIG: &str = "
routes:
  - name: chatterbot
    hosts: [bot.example.org]
    rules:
      - path: /api
        methods: [POST]
        traffic: [{ revision: chatterbot-2 }]
      - headers: { x-canary: '1' }
        traffic: [{ revision: chatterbot-2 }]
      - traffic:
          - { revision: chatterbot-1, percent: 70, tag: current }
          - { revision: chatterbot-2, percent: 30, tag: latest }
revisions:
  - { name: chatterbot-1, endpoints: ['127.0.0.1:9'] }
  - { name: chatterbot-2, endpoints: ['127.0.0.1:9'] }
";

#[tokio::test]
async fn it_prints_route_rule_targets_host_and_why() {
    let exit = explain(&["http://bot.example.org/x"]).await.expect(0);
    let said = &exit.stdout;
    line(said, "route default/chatterbot");
    let rule = line(said, "rule ").trim_start_matches("rule ");
    assert!(
        rule.starts_with(|first: char| first.is_ascii_digit()),
        "{said}"
    );
    assert!(
        line(said, "target chatterbot-1 70%").contains("current"),
        "{said}"
    );
    assert!(
        line(said, "target chatterbot-2 30%").contains("latest"),
        "{said}"
    );
    assert!(line(said, "host").contains("bot.example.org"), "{said}");
    line(said, "why");
}

#[tokio::test]
async fn method_headers_and_tags_count() {
    let cases: &[(&[&str], &str)] = &[
        (
            &["-X", "POST", "http://bot.example.org/api/1"],
            "target chatterbot-2 100%",
        ),
        (
            &["-X", "GET", "http://bot.example.org/api/1"],
            "target chatterbot-1 70%",
        ),
        (
            &["-H", "x-canary: 1", "http://bot.example.org/"],
            "target chatterbot-2 100%",
        ),
        (
            &["http://latest-chatterbot.default.example.com/"],
            "target chatterbot-2",
        ),
        (
            &[
                "-H",
                "Knative-Serving-Tag: latest",
                "http://bot.example.org/",
            ],
            "target chatterbot-2",
        ),
    ];
    for (arguments, target) in cases {
        let exit = explain(arguments).await.expect(0);
        line(&exit.stdout, target);
    }
}

#[tokio::test]
async fn what_goes_nowhere_gives_the_reason_and_exits_with_1() {
    let exit = explain(&["http://nowhere.example.org/"]).await.expect(1);
    assert!((exit.stdout + &exit.stderr).contains("no_route"));
}

#[tokio::test]
async fn running_gateway_explains_too() {
    let gateway = Gateway::start(CONFIG).await;
    let admin = format!("http://{}", gateway.admin());
    let ask = |url: &str| {
        Launch::without_file()
            .command(["explain", "--admin", &admin, url])
            .run()
    };
    let exit = ask("http://bot.example.org/x").await.expect(0);
    line(&exit.stdout, "route default/chatterbot");
    line(&exit.stdout, "target chatterbot-1 70%");
    ask("http://nowhere.example.org/").await.expect(1);

    let answer = gateway
        .ask("/api/explain?url=http%3A%2F%2Fbot.example.org%2Fx")
        .await
        .expect(200);
    assert!(answer.text().contains("chatterbot-1"), "{}", answer.text());
    let answer = gateway
        .ask("/api/explain?url=http%3A%2F%2Fnowhere.example.org%2F")
        .await;
    assert!(answer.text().contains("no_route"), "{}", answer.text());
}

async fn explain(arguments: &[&str]) -> Exit {
    let mut all = vec!["explain", "-f", "tidegate.yaml"];
    all.extend(arguments);
    Launch::new(CONFIG).command(all).run().await
}

#[track_caller]
fn line<'s>(said: &'s str, start: &str) -> &'s str {
    let found = said.lines().find(|line| line.starts_with(start));
    found.unwrap_or_else(|| panic!("no line begins with {start:?}:\n{said}"))
}

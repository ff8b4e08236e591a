//! `tidegate run` says where it listens, then serves; or it says why not, and is gone.

use rustix::process::Signal;
use serde_json::Value;
use tests::{Client, Gateway, Launch, PATIENCE, eventually};

const CONFIG: &str = "
routes:
  - name: hello
    rules:
      - respond: { status: 200, body: hello }
";

use crate::HELLO;

#[tokio::test]
async fn run_prints_its_addresses_then_ready_and_serves() {
    let gateway = Gateway::start(CONFIG).await;
    let (public, admin) = (gateway.public(), gateway.admin());
    assert_ne!(public.port(), 0);
    assert_eq!(
        gateway.stdout(),
        format!("listening http://{public} public\nadmin http://{admin}\nready\n")
    );
    assert_eq!(gateway.get(HELLO, "/").await.expect(200).text(), "hello");
    assert_eq!(gateway.ask("/readyz").await.status, 200);
}

#[tokio::test]
async fn without_a_file_named_it_takes_the_one_of_the_working_directory() {
    let launch = Launch::without_file().file("tidegate.yaml", CONFIG);
    let gateway = launch.start().await;
    gateway.get(HELLO, "/").await.expect(200);
}

#[tokio::test]
async fn without_any_address_it_takes_8080_and_9901() {
    // Somebody else's right to these ports is no failure of the gateway.
    let ports = ["0.0.0.0:8080", "127.0.0.1:9901"];
    if ports
        .iter()
        .any(|port| std::net::TcpListener::bind(port).is_err())
    {
        return;
    }
    let launch = Launch::without_file().file("tidegate.yaml", CONFIG);
    let mut gateway = launch.command(["run"]).spawn();
    eventually(2 * PATIENCE, "it is ready, or over", async || {
        (gateway.is_ready() || !gateway.lives()).then_some(())
    })
    .await;
    if !gateway.lives() {
        // Somebody came in between.
        let exit = gateway.exit(PATIENCE).await.expect(1);
        let taken = [":8080", ":9901"].map(|port| exit.stderr.contains(port));
        assert!(taken.contains(&true), "{exit:#?}");
        return;
    }
    let gateway = gateway.ready().await;
    assert_eq!(
        gateway.stdout(),
        "listening http://0.0.0.0:8080 public\nadmin http://127.0.0.1:9901\nready\n"
    );
}

#[tokio::test]
async fn several_files_merge() {
    let routes = "routes: [{ name: hello, traffic: [{ revision: hello-1 }] }]";
    let revisions = "revisions: [{ name: hello-1, endpoints: ['127.0.0.1:9'] }]";
    let launch = Launch::without_file()
        .file("a.yaml", routes)
        .file("b.yaml", revisions);
    let gateway = launch
        .arguments(["-f", "a.yaml", "-f", "b.yaml"])
        .start()
        .await;
    assert_eq!(
        gateway.revision("hello-1").await["endpoints"][0]["address"],
        "127.0.0.1:9"
    );
    let routes = gateway.ask("/api/routes").await.json();
    assert_eq!(routes[0]["rules"][0]["targets"][0]["revision"], "hello-1");
}

#[tokio::test]
async fn listen_flags_replace_every_listener_of_the_file() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let file = format!("gateway: {{ listeners: [{{ address: '{address}' }}] }}\n{CONFIG}");
    let gateway = Launch::new(&file)
        .arguments(["--listen", "127.0.0.1:0"])
        .start()
        .await;
    assert_eq!(gateway.listeners.len(), 2);
    for (address, audience) in &gateway.listeners {
        assert_eq!(audience, "public");
        Client::connect(*address)
            .await
            .get(HELLO, "/")
            .await
            .expect(200);
    }
}

#[tokio::test]
async fn file_says_listeners_admin_and_workers() {
    let file = format!(
        "
gateway:
  listeners:
    - address: 127.0.0.1:0
    - address: 127.0.0.1:0
      audience: internal
  admin: 127.0.0.1:0
  workers: 3
{CONFIG}"
    );
    let gateway = Launch::new(&file)
        .command(["run", "-f", "tidegate.yaml"])
        .start()
        .await;
    let audiences: Vec<_> = gateway
        .listeners
        .iter()
        .map(|(_, audience)| &**audience)
        .collect();
    assert_eq!(audiences, ["public", "internal"]);
    assert_ne!(gateway.listeners[0].0, gateway.listeners[1].0);
    assert_eq!(
        gateway
            .metrics()
            .await
            .samples("tidegate_worker_busy_ratio", &[])
            .count(),
        3
    );
}

#[tokio::test]
async fn variables_stand_in_for_flags() {
    let gateway = Launch::new(CONFIG)
        .command(["run", "-f", "tidegate.yaml"])
        .environment("TIDEGATE_LISTEN", "127.0.0.1:0")
        .environment("TIDEGATE_ADMIN", "127.0.0.1:0")
        .environment("TIDEGATE_WORKERS", "2")
        .start()
        .await;
    assert_eq!(gateway.listeners.len(), 1);
    assert_eq!(
        gateway
            .metrics()
            .await
            .samples("tidegate_worker_busy_ratio", &[])
            .count(),
        2
    );
}

#[tokio::test]
async fn json_logs_are_json_line_by_line() {
    let quiet = format!("gateway: {{ accessLog: {{ mode: off }} }}\n{CONFIG}");
    let log = ["--log-format", "json"];
    let mut gateway = Launch::new(&quiet).arguments(log).start().await;
    gateway.replace("routes: [{ name: a, traffic: [{ revision: nowhere }] }]");
    gateway.until_logged("nowhere").await;
    gateway.signal(Signal::TERM);
    for line in gateway.exit(PATIENCE).await.expect(0).stderr.lines() {
        let parsed = serde_json::from_str::<Value>(line);
        assert!(parsed.is_ok_and(|value| value.is_object()), "{line}");
    }
}

#[tokio::test]
async fn bad_file_is_explained_and_nothing_is_bound() {
    let launch = Launch::new("routes:\n  - name: hello\n    traffic:\n      - revision: nowhere\n");
    let exit = launch.run().await.expect(1);
    assert!(!exit.stdout.contains("listening"), "{}", exit.stdout);
    let said = exit.stdout + &exit.stderr;
    assert!(said.contains("tidegate.yaml:4:19"), "{said}");
    assert!(said.contains("nowhere"), "{said}");
}

#[tokio::test]
async fn missing_file_is_named() {
    let exit = Launch::without_file()
        .arguments(["-f", "missing.yaml"])
        .run()
        .await
        .expect(1);
    assert!((exit.stdout + &exit.stderr).contains("missing.yaml"));
}

#[tokio::test]
async fn second_run_on_an_address_says_so_and_exits() {
    let first = Gateway::start(CONFIG).await;
    for (public, admin) in [
        (first.public(), None),
        ("127.0.0.1:0".parse().unwrap(), Some(first.admin())),
    ] {
        let admin = admin.map_or("127.0.0.1:0".into(), |admin| admin.to_string());
        let flags = [
            "run",
            "-f",
            "tidegate.yaml",
            "--listen",
            &public.to_string(),
            "--admin",
            &admin,
        ];
        let exit = Launch::new(CONFIG).command(flags).run().await.expect(1);
        let taken = if public.port() == 0 {
            first.admin()
        } else {
            public
        };
        assert!(exit.stderr.contains(&taken.to_string()), "{exit:#?}");
        assert!(!exit.stdout.contains("ready"), "{exit:#?}");
    }
    for _ in 0..20 {
        first.get(HELLO, "/").await.expect(200);
    }
}

#[tokio::test]
async fn descriptor_limit_is_raised_to_what_is_allowed() {
    let gateway = Launch::new(CONFIG).after("ulimit -S -n 200").start().await;
    let pid = gateway.pid().as_raw_nonzero();
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .unwrap();
    let values: Vec<_> = line.split_whitespace().collect();
    assert_eq!(values[0], values[1], "{line}");
}

#[tokio::test]
async fn version_and_help_are_told() {
    let bare = Launch::without_file;
    let version = bare().command(["--version"]).run().await.expect(0).stdout;
    assert!(
        version.starts_with("tidegate 0.") || version.starts_with("tidegate 1."),
        "{version}"
    );
    let help = bare().command(["help"]).run().await.expect(0).stdout;
    for command in ["run", "validate", "explain", "demo", "schema"] {
        assert!(help.contains(command), "{command} is missing: {help}");
    }
    bare().command(["frobnicate"]).run().await.expect(2);
}

#[tokio::test]
async fn what_is_not_built_yet_is_refused() {
    let exit = Launch::new(CONFIG).arguments(["--kubernetes"]).run().await;
    assert!(matches!(exit.code(), Some(1 | 2)), "{exit:#?}");
    assert!(!exit.stderr.is_empty());
}

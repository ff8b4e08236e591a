//! A changed file is noticed however it is changed; a bad one changes nothing.

use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::process::Signal;
use tests::{Gateway, Launch, PATIENCE, eventually};

use crate::HELLO;

fn saying(text: &str) -> String {
    format!(
        "routes: [{{ name: hello, rules: [{{ respond: {{ status: 200, body: '{text}' }} }}] }}]\n"
    )
}

async fn until_said(gateway: &Gateway, text: &str) {
    eventually(PATIENCE, &format!("it says {text}"), async || {
        let answer = gateway.get(HELLO, "/").await;
        assert_eq!(
            answer.status, 200,
            "a change in the middle was served: {answer:?}"
        );
        (answer.text() == text).then_some(())
    })
    .await;
}

#[tokio::test]
async fn editors_that_rename_are_noticed_again_and_again() {
    let gateway = Gateway::start(&saying("v0")).await;
    for number in 1..10 {
        gateway.replace(&saying(&format!("v{number}")));
        until_said(&gateway, &format!("v{number}")).await;
    }
}

#[tokio::test]
async fn editors_that_write_in_place_are_noticed_and_no_half_file_is_served() {
    let gateway = Gateway::start(&saying("v0")).await;
    for number in 1..10 {
        std::fs::write(gateway.config(), saying(&format!("v{number}"))).unwrap();
        until_said(&gateway, &format!("v{number}")).await;
    }
}

#[tokio::test]
async fn editors_that_move_the_old_file_away_first_are_noticed() {
    let gateway = Gateway::start(&saying("v0")).await;
    for number in 1..5 {
        std::fs::rename(gateway.config(), gateway.directory().join("tidegate.yaml~")).unwrap();
        std::fs::write(gateway.config(), saying(&format!("v{number}"))).unwrap();
        until_said(&gateway, &format!("v{number}")).await;
    }
}

#[tokio::test]
async fn file_written_slowly_is_taken_when_it_is_whole() {
    use std::io::Write;
    let gateway = Gateway::start(&saying("v0")).await;
    let many: String = (0..2000)
        .map(|n| {
            format!("  - {{ name: r{n}, rules: [{{ respond: {{ status: 200, body: r{n} }} }}] }}\n")
        })
        .collect();
    let whole = format!(
        "{}{many}",
        saying("v1")
            .replace("routes: [{", "routes:\n  - {")
            .replace("}]\n", "}\n")
    );
    assert_eq!(whole.matches("name:").count(), 2001);
    let mut file = std::fs::File::create(gateway.config()).unwrap();
    for piece in whole.as_bytes().chunks(5000) {
        file.write_all(piece).unwrap();
        file.sync_all().unwrap();
        gateway.get(HELLO, "/").await.expect(200);
    }
    drop(file);
    until_said(&gateway, "v1").await;
    assert_eq!(
        gateway.get("r1999.default.example.com", "/").await.text(),
        "r1999"
    );
}

#[tokio::test]
async fn directory_is_watched_for_added_changed_and_removed_files() {
    let launch = Launch::without_file().file("conf/hello.yaml", &saying("v0"));
    let gateway = launch.arguments(["-f", "conf"]).start().await;
    let directory = gateway.directory().join("conf");
    std::fs::write(directory.join("hello.yaml"), saying("v1")).unwrap();
    until_said(&gateway, "v1").await;

    let other = saying("other").replace("hello", "other");
    std::fs::write(directory.join("other.yaml"), other).unwrap();
    let status = async |wanted: u16| {
        let answer = gateway.get("other.default.example.com", "/").await;
        (answer.status == wanted).then_some(())
    };
    eventually(PATIENCE, "the new file is served", async || {
        status(200).await
    })
    .await;
    std::fs::remove_file(directory.join("other.yaml")).unwrap();
    eventually(PATIENCE, "the removed file is not", async || {
        status(404).await
    })
    .await;
    until_said(&gateway, "v1").await;
    // What is not a configuration file is none.
    std::fs::write(directory.join("README.txt"), "not: [yaml").unwrap();
    std::fs::write(directory.join("hello.yaml"), saying("v2")).unwrap();
    until_said(&gateway, "v2").await;
}

/// What the kubelet does to a mounted ConfigMap: a new directory, and `..data` points to it.
fn mount(directory: &Path, number: u32, content: &str) {
    let data = directory.join(format!("..{number}"));
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("hello.yaml"), content).unwrap();
    let fresh = directory.join("..data_tmp");
    symlink(format!("..{number}"), &fresh).unwrap();
    std::fs::rename(fresh, directory.join("..data")).unwrap();
    if number == 0 {
        symlink("..data/hello.yaml", directory.join("hello.yaml")).unwrap();
    } else {
        std::fs::remove_dir_all(directory.join(format!("..{}", number - 1))).unwrap();
    }
}

#[tokio::test]
async fn symlink_swap_of_kubernetes_is_noticed() {
    for source in ["conf", "conf/hello.yaml"] {
        let launch = Launch::without_file();
        let directory = launch.directory().join("conf");
        std::fs::create_dir(&directory).unwrap();
        mount(&directory, 0, &saying("v0"));
        let gateway = launch.arguments(["-f", source]).start().await;
        for number in 1..6 {
            mount(&directory, number, &saying(&format!("v{number}")));
            until_said(&gateway, &format!("v{number}")).await;
        }
    }
}

#[tokio::test]
async fn bad_file_changes_nothing_and_is_told_everywhere() {
    let gateway = Gateway::start(&saying("v0")).await;
    let version = gateway.version().await;
    gateway.replace("routes:\n  - name: hello\n    traffic:\n      - revision: nowhere\n");
    // It is counted before it is told.
    eventually(PATIENCE, "/readyz tells it", async || {
        let ready = gateway.ask("/readyz").await.expect(200);
        ready.json().to_string().contains("nowhere").then_some(())
    })
    .await;
    let rejected = gateway.metrics().await;
    assert!(rejected.sum("tidegate_config_rejected_total", &[]) >= Some(1.0));
    let mut samples = rejected.samples("tidegate_config_rejected_total", &[]);
    assert!(samples.all(|sample| sample.labels.contains_key("source")));
    gateway.until_logged("nowhere").await;
    gateway.until_logged("tidegate.yaml:4:19").await;
    until_said(&gateway, "v0").await;
    assert_eq!(gateway.version().await, version);

    gateway.replace(&saying("v1"));
    until_said(&gateway, "v1").await;
    gateway.until_problems(0).await;
    let ready = gateway.ask("/readyz").await.expect(200);
    assert!(!ready.text().contains("nowhere"), "{}", ready.text());
}

#[tokio::test]
async fn removed_or_emptied_of_sense_is_bad_too() {
    let gateway = Gateway::start(&saying("v0")).await;
    let rejected = async || gateway.metric("tidegate_config_rejected_total", &[]).await;
    for content in ["routes: [", "hello", "\u{0}"] {
        let before = rejected().await;
        gateway.replace(content);
        gateway
            .until_metric("tidegate_config_rejected_total", &[], |n| n > before)
            .await;
        until_said(&gateway, "v0").await;
    }
    std::fs::remove_file(gateway.config()).unwrap();
    until_said(&gateway, "v0").await;
    gateway.replace(&saying("v1"));
    until_said(&gateway, "v1").await;
}

#[tokio::test]
async fn sighup_rereads() {
    let mut gateway = Gateway::start(&saying("v0")).await;
    gateway.replace(&saying("v1"));
    gateway.signal(Signal::HUP);
    until_said(&gateway, "v1").await;
    gateway.signal(Signal::HUP);
    until_said(&gateway, "v1").await;
    assert!(gateway.lives());
}

#[tokio::test]
async fn version_starts_at_one_and_grows_by_one_per_swap() {
    let gateway = Gateway::start(&saying("v0")).await;
    assert_eq!(gateway.version().await, 1.0);
    for number in 1..4_u32 {
        gateway.apply(&saying(&format!("v{number}"))).await;
        assert_eq!(gateway.version().await, f64::from(number + 1));
        until_said(&gateway, &format!("v{number}")).await;
    }
}

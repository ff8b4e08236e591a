//! What is said of proxies that are missing or do not start, and what becomes of a page.

use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn a_missing_proxy_is_listed_with_what_gives_it() {
    let none = "--haproxy=/nowhere/haproxy";
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args([
            "compare",
            "--rounds=1",
            "--duration=50ms",
            "--connections=2",
        ])
        .args(["--scenario=post", "--peers=copier,haproxy", none, "--out"])
        .arg(directory.path())
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("haproxy is missing"), "{text}");
    assert!(text.contains("haproxy (Debian)"), "{text}");
}

#[test]
fn a_proxy_that_does_not_start_is_shown_with_what_it_said() {
    let directory = tempfile::tempdir().unwrap();
    let fake = directory.path().join("haproxy");
    let script = "#!/bin/sh\n[ \"$1\" = -v ] && echo 'HAProxy version 0.1' && exit\n\
                  echo 'no such luck' >&2\nexit 3\n";
    std::fs::write(&fake, script).unwrap();
    let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(&fake, mode).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args([
            "compare",
            "--rounds=1",
            "--duration=50ms",
            "--connections=2",
        ])
        .args([
            "--scenario=keepalive",
            "--peers=copier,haproxy",
            "--haproxy",
        ])
        .arg(&fake)
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("| haproxy ⚠ | – |"), "{text}");
    assert!(text.contains("no such luck"), "{text}");
}

#[test]
fn work_that_cannot_be_measured_is_refused_before_it_begins() {
    for args in [["--duration=0s"], ["--rate=0"], ["--rate=nan"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .args(["compare", "--peers=copier", "--scenario=keepalive"])
            .args(args)
            .output()
            .unwrap();
        assert!(!output.status.success(), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn a_report_that_could_not_be_written_is_refused_before_it_is_measured() {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.md");
    std::fs::write(&page, "# Without marks\n").unwrap();
    for (option, path) in [
        ("--docs", &*page),
        ("--docs", Path::new("/nowhere/page.md")),
        ("--out", &page.join("below-a-file")),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .args(["compare", "--peers=copier", "--scenario=keepalive", option])
            .arg(path)
            .output()
            .unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("starting"), "{said}");
    }
    let kept = std::fs::read_to_string(&page).unwrap();
    assert_eq!(kept, "# Without marks\n");
}

#[test]
fn a_comparison_goes_on_when_nobody_listens_to_its_progress() {
    let directory = tempfile::tempdir().unwrap();
    let (closed, stderr) = std::io::pipe().unwrap();
    drop(closed);
    let status = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["compare", "--peers=copier", "--scenario=keepalive"])
        .args(["--rounds=1", "--duration=50ms", "--connections=2", "--keep"])
        .env("TMPDIR", directory.path())
        .stdout(Stdio::null())
        .stderr(stderr)
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn a_comparison_of_nothing_fails() {
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["compare", "--peers=copier", "--scenario=swap"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("nothing was measured"), "{said}");
}

#[test]
fn a_page_gets_its_sections_and_charts() {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.md");
    let marks = "<!-- measured: begin -->\n<!-- measured: end -->\n";
    std::fs::write(&page, format!("# Page\n\n{marks}\nThe end.\n")).unwrap();
    for connections in ["2", "3"] {
        let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .args([
                "compare",
                "--rounds=1",
                "--duration=50ms",
                "--scenario=keepalive",
            ])
            .args(["--peers=copier", "--connections", connections, "--docs"])
            .arg(&page)
            .output()
            .unwrap();
        assert!(output.status.success());
        let text = std::fs::read_to_string(&page).unwrap();
        assert!(
            text.starts_with("# Page\n\n") && text.ends_with("\nThe end.\n"),
            "{text}"
        );
        assert_eq!(text.matches("<!-- section keepalive-1 -->").count(), 1);
        assert!(
            text.contains(&format!("{connections} connections")),
            "{text}"
        );
        assert!(text.contains("](page/keepalive-1.svg)"), "{text}");
    }
    assert!(directory.path().join("page/keepalive-1.svg").is_file());
}

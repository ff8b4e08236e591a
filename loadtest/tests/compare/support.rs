//! Running a comparison, and what must hold of any.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use loadtest::compare::{Comparison, Sample, Section};

/// Proxies that take part where a scenario is for several.
pub(crate) const PEERS: &str = "--peers=copier,nginx,tidegate";

/// The gateway's binary: `$TIDEGATE_BIN`, else built once, of the profile of these tests.
pub(crate) fn tidegate() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("TIDEGATE_BIN") {
        Some(path) => std::path::absolute(path).unwrap(),
        None => build(),
    })
}

fn build() -> PathBuf {
    // …/TARGET/PROFILE/tidegate
    let binary = Path::new(env!("CARGO_BIN_EXE_loadtest")).with_file_name("tidegate");
    let profile = binary.parent().unwrap();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--package=tidegate", "--bin=tidegate"])
        .arg("--target-dir")
        .arg(profile.parent().unwrap())
        .arg("--profile")
        .arg(match profile.file_name().and_then(OsStr::to_str).unwrap() {
            "debug" => "dev",
            other => other,
        })
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(built.success(), "cargo could not build tidegate");
    binary
}

/// A comparison of one round; `args` may say otherwise.
pub(crate) fn command(out: &Path, connections: u32, duration: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command
        .args(["compare", "--rounds=1", "--duration", duration])
        .args(["--connections", &connections.to_string(), "--out"])
        .arg(out)
        .arg("--tidegate")
        .arg(tidegate())
        .args(args);
    command
}

/// Everything a comparison has written.
pub(crate) struct Written {
    pub(crate) comparison: Comparison,
    pub(crate) markdown: String,
    pub(crate) svg: String,
    pub(crate) output: Output,
}

pub(crate) fn compare(connections: u32, args: &[&str]) -> Written {
    compare_for("250ms", connections, args)
}

/// The same with measurements of this length.
pub(crate) fn compare_for(duration: &str, connections: u32, args: &[&str]) -> Written {
    let directory = tempfile::tempdir().unwrap();
    let output = command(directory.path(), connections, duration, args)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
    Written {
        comparison: serde_json::from_str(&read("compare.json")).unwrap(),
        markdown: read("compare.md"),
        svg: read("compare.svg"),
        output,
    }
}

/// The only section, without a problem, of a comparison that is sound as a whole.
pub(crate) fn only(written: &Written, name: &str) -> Section {
    check_whole(written);
    let [section] = &*written.comparison.sections else {
        panic!("{:?}", written.comparison.sections);
    };
    assert_eq!(section.name, name);
    assert_eq!(section.problems, Vec::<String>::new());
    section.clone()
}

pub(crate) fn check_sample(sample: &Sample) {
    let report = &sample.report;
    assert_eq!(sample.problems, Vec::<String>::new());
    assert_eq!(report.sent, report.answers + report.errors.total());
    assert_eq!(report.errors.total(), 0);
    assert_eq!(report.statuses.get(&200), Some(&report.answers));
    assert_eq!(report.answers, sample.answered);
    assert_eq!(sample.answered, sample.arrived);
    assert!(report.answers > 0);
    assert!(sample.spent.nanos > 0);
    assert!(sample.memory.rss > 0);
}

pub(crate) fn check_whole(written: &Written) {
    assert!(written.svg.starts_with("<svg "));
    assert_eq!(
        String::from_utf8_lossy(&written.output.stdout),
        written.markdown
    );
    for section in &written.comparison.sections {
        assert!(written.markdown.contains(&section.title));
        for cell in section
            .tables
            .iter()
            .flat_map(|table| table.rows.iter().flatten())
        {
            assert!(written.markdown.contains(cell));
        }
    }
}

//! What the image is built from, and that the Deployment runs what it is.

use std::collections::BTreeSet;
use std::path::Path;

use super::overlay::texts;
use super::{container, overlays, root};

/// The words of the Dockerfile's instructions, one list for each.
fn dockerfile() -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(root().join("deploy/Dockerfile")).unwrap();
    let text = text.replace("\\\n", " ");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let lines = lines.map(|line| line.split_whitespace().map(str::to_owned).collect());
    lines.filter(|words: &Vec<_>| !words.is_empty()).collect()
}

fn instructions<'a>(file: &'a [Vec<String>], name: &str) -> impl Iterator<Item = &'a [String]> {
    let lines = file.iter().filter(move |words| words[0] == name);
    lines.map(|words| &words[1..])
}

/// What the image is built from, as the Dockerfile names it.
fn copied() -> BTreeSet<String> {
    let file = dockerfile();
    let copies = instructions(&file, "COPY").filter(|words| !words[0].starts_with("--"));
    let sources = copies.flat_map(|words| words[..words.len() - 1].to_owned());
    sources.collect()
}

#[test]
fn image_is_built_from_what_is_there_and_all_it_needs() {
    let sources = copied();
    let ignored = std::fs::read_to_string(root().join(".dockerignore")).unwrap();
    let kept = ignored.lines().filter_map(|line| line.strip_prefix('!'));
    assert_eq!(sources, kept.map(str::to_owned).collect());
    for source in &sources {
        assert!(root().join(source).exists(), "{source}");
    }
    // Cargo reads no workspace with a member missing, whatever it is to build.
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = manifest
        .lines()
        .find(|line| line.starts_with("members = "))
        .unwrap();
    for member in members.split('"').skip(1).step_by(2) {
        assert!(sources.contains(member), "{member}");
    }
    for name in ["config", "activator", "gateway"] {
        included(&root().join(name).join("src"), &sources);
    }
}

/// Files that sources below `directory` include are among `sources`.
fn included(directory: &Path, sources: &BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            included(&path, sources);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for name in text.split("include_str!(\"").skip(1) {
            let name = name.split('"').next().unwrap();
            let file = path.parent().unwrap().join(name).canonicalize().unwrap();
            let file = file.strip_prefix(root()).unwrap();
            let first = file.components().next().unwrap().as_os_str();
            assert!(
                sources.contains(first.to_str().unwrap()),
                "{path:?}: {name}"
            );
        }
    }
}

#[test]
fn image_is_what_the_deployment_runs() {
    let file = dockerfile();
    let toolchain = std::fs::read_to_string(root().join("rust-toolchain.toml")).unwrap();
    let channel = toolchain.split('"').nth(1).unwrap();
    let image = instructions(&file, "ARG").next().unwrap()[0].clone();
    assert!(image.contains(&format!("rust:{channel}-")), "{image}");
    let environment = instructions(&file, "ENV").next().unwrap();
    assert!(environment.contains(&format!("RUSTUP_TOOLCHAIN={channel}")));
    assert_eq!(instructions(&file, "FROM").last().unwrap(), ["scratch"]);

    let overlay = overlays().remove("gateway").unwrap();
    let pod = &overlay.get("Deployment", "tidegate")["spec"]["template"]["spec"];
    let user = &pod["securityContext"];
    let user = format!("{}:{}", user["runAsUser"], user["runAsGroup"]);
    assert_eq!(instructions(&file, "USER").last().unwrap(), [user]);
    let ports = container(&overlay)["ports"].as_array().unwrap();
    let ports = ports.iter().map(|port| port["containerPort"].to_string());
    let exposed = instructions(&file, "EXPOSE").last().unwrap();
    assert_eq!(
        exposed.iter().cloned().collect::<BTreeSet<_>>(),
        ports.collect()
    );
    let mount = container(&overlay)["volumeMounts"][0]["mountPath"]
        .as_str()
        .unwrap();
    assert!(texts(&container(&overlay)["args"]).any(|argument| argument == mount));
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let version = container(&overlay)["image"].as_str().unwrap();
    let version = version.strip_prefix("tidegate:").unwrap();
    assert!(manifest.contains(&format!("version = \"{version}\"")));
}

//! What the control group of this process says about memory: versions 1 and 2, as text that is read
//! without trust.

use std::path::{Path, PathBuf};

/// From here on a limit is none: version 1 says so with a number next to 2^63.
const UNLIMITED: u64 = 1 << 60;

/// Directories that are looked at on the way up to the root of the hierarchy.
const DEPTH_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// The nearest group with a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    version: Version,
    directory: PathBuf,
}

/// What a group uses and may use, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) used: u64,
    pub(super) limit: u64,
    /// Of `used`, buffers of TCP; `None` = they are not among it.
    pub(super) sockets: Option<u64>,
}

impl Group {
    /// The group of this process whose limit counts, if there is one.
    pub(super) fn find() -> Option<Group> {
        let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
        [Version::Two, Version::One]
            .into_iter()
            .find_map(|version| {
                let (mount, directory) = locate(&groups, &mounts, version)?;
                nearest(version, &mount, &directory)
            })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// What it says now; `None` if it cannot be read or has no limit any more.
    pub(super) fn read(&self) -> Option<Usage> {
        let text = |name| std::fs::read_to_string(self.directory.join(name)).ok();
        let names = self.version.names();
        let stat = text("memory.stat").unwrap_or_default();
        // The kernel gives these up by itself before it kills anybody.
        let cached = value(&stat, names.cached).unwrap_or(0);
        let used = number(&text(names.used)?)?;
        // Version 1 counts buffers of TCP apart, and only if it was asked to.
        let sockets = match self.version {
            Version::Two => Some(value(&stat, "sock").unwrap_or(0)),
            Version::One => text("memory.kmem.tcp.usage_in_bytes")
                .and_then(|text| number(&text))
                .filter(|sockets| *sockets > 0),
        };
        let apart = match self.version {
            Version::Two => 0,
            Version::One => sockets.unwrap_or(0),
        };
        Some(Usage {
            used: used.saturating_sub(cached).saturating_add(apart),
            limit: limit(&text(names.limit)?)?,
            sockets,
        })
    }
}

struct Names {
    used: &'static str,
    limit: &'static str,
    /// In `memory.stat`.
    cached: &'static str,
}

impl Version {
    fn names(self) -> Names {
        match self {
            Version::One => Names {
                used: "memory.usage_in_bytes",
                limit: "memory.limit_in_bytes",
                cached: "total_inactive_file",
            },
            Version::Two => Names {
                used: "memory.current",
                limit: "memory.max",
                cached: "inactive_file",
            },
        }
    }
}

/// The first directory from `directory` up to `mount` that has a limit.
pub(super) fn nearest(version: Version, mount: &Path, directory: &Path) -> Option<Group> {
    let up = directory.ancestors().take(DEPTH_MAX);
    let mut up = up.take_while(|directory| directory.starts_with(mount));
    let directory = up.find(|directory| {
        let text = std::fs::read_to_string(directory.join(version.names().limit));
        text.is_ok_and(|text| limit(&text).is_some())
    })?;
    Some(Group {
        version,
        directory: directory.to_owned(),
    })
}

/// Where the hierarchy of memory is mounted, and our directory in it.
fn locate(groups: &str, mounts: &str, version: Version) -> Option<(PathBuf, PathBuf)> {
    let path = groups.lines().find_map(|line| path_of(line, version))?;
    let (root, mount) = mounts.lines().find_map(|line| mount_of(line, version))?;
    // In a container the path may be told from outside: then the mount shows our own group.
    let below = path.strip_prefix(&root).unwrap_or(Path::new(""));
    let directory = if below == Path::new("") {
        mount.clone()
    } else {
        mount.join(below)
    };
    // Nothing of what was read may lead out of the hierarchy.
    let plain = directory
        .components()
        .all(|part| part != std::path::Component::ParentDir);
    plain.then_some((mount, directory))
}

/// `hierarchy:controllers:path`
fn path_of(line: &str, version: Version) -> Option<PathBuf> {
    let mut parts = line.splitn(3, ':');
    let (_hierarchy, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let ours = match version {
        Version::One => controllers.split(',').any(|name| name == "memory"),
        Version::Two => controllers.is_empty(),
    };
    (ours && path.starts_with('/')).then(|| PathBuf::from(path))
}

/// `id parent major:minor root mount options… - type source superoptions`
fn mount_of(line: &str, version: Version) -> Option<(PathBuf, PathBuf)> {
    let (of_mount, of_type) = line.split_once(" - ")?;
    let mut of_mount = of_mount.split(' ').skip(3);
    let (root, mount) = (of_mount.next()?, of_mount.next()?);
    let mut of_type = of_type.split(' ');
    let (kind, _source, options) = (of_type.next()?, of_type.next()?, of_type.next()?);
    let ours = match version {
        Version::One => kind == "cgroup" && options.split(',').any(|name| name == "memory"),
        Version::Two => kind == "cgroup2",
    };
    let absolute = root.starts_with('/') && mount.starts_with('/');
    (ours && absolute).then(|| (unescaped(root), unescaped(mount)))
}

/// Spaces and the like are written as `\040`.
fn unescaped(text: &str) -> PathBuf {
    let mut parts = text.split('\\');
    let mut path = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part
            .get(..3)
            .and_then(|code| u8::from_str_radix(code, 8).ok());
        match code.filter(u8::is_ascii) {
            Some(code) => {
                path.push(char::from(code));
                path.push_str(&part[3..]);
            }
            None => {
                path.push('\\');
                path.push_str(part);
            }
        }
    }
    path.into()
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// A limit that is one: `max`, 0 and what no machine has are none.
fn limit(text: &str) -> Option<u64> {
    number(text).filter(|limit| (1..UNLIMITED).contains(limit))
}

/// The number behind a name, of lines of both.
fn value(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find_map(|(found, value)| (found == name).then(|| number(value))?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    const V1: &str = "9:pids:/x\n4:cpu,memory:/docker/abc\n1:name=systemd:/\n0::/\n";
    const V1_MOUNTS: &str = "22 1 0:5 / /proc rw - proc proc rw\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:5 - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    fn located(groups: &str, mounts: &str, version: Version) -> Option<(String, String)> {
        let (mount, directory) = locate(groups, mounts, version)?;
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        Some((text(mount), text(directory)))
    }

    #[test]
    fn both_versions_are_found_where_they_are_mounted() {
        let (mount, directory) = located(V1, V1_MOUNTS, Version::One).unwrap();
        assert_eq!(mount, "/sys/fs/cgroup/memory");
        assert_eq!(directory, "/sys/fs/cgroup/memory/docker/abc");
        let two = located(V1, V1_MOUNTS, Version::Two).unwrap();
        assert_eq!(two.1, "/sys/fs/cgroup/unified");
        // From inside a container without a namespace of groups.
        let groups = "0::/kubepods/pod1/c1\n";
        let mounts = "1 0 0:1 /kubepods/pod1/c1 /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n";
        let own = ("/sys/fs/cgroup".to_owned(), "/sys/fs/cgroup".to_owned());
        assert_eq!(located(groups, mounts, Version::Two), Some(own.clone()));
        // And with one, whose root is not ours to see.
        let mounts = "1 0 0:1 /elsewhere /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n";
        assert_eq!(located(groups, mounts, Version::Two), Some(own));
        assert_eq!(located(groups, mounts, Version::One), None);
        let spaced = "1 0 0:1 / /a\\040b\\134\\0 ro - cgroup2 cgroup2 rw\n";
        let (mount, _) = located("0::/\n", spaced, Version::Two).unwrap();
        assert_eq!(mount, "/a b\\\\0");
        let out = located("0::/../../etc\n", V1_MOUNTS, Version::Two);
        assert_eq!(out, None, "leads out");
    }

    #[test]
    fn limits_that_are_none_are_none() {
        for text in [
            "max\n",
            "0",
            "",
            "-1",
            "9223372036854771712\n",
            "1e9",
            "1 2",
        ] {
            assert_eq!(limit(text), None, "{text:?}");
        }
        assert_eq!(limit("268435456\n"), Some(268_435_456));
    }

    fn write(directory: &Path, files: &[(&str, &str)]) {
        std::fs::create_dir_all(directory).unwrap();
        for (name, text) in files {
            std::fs::write(directory.join(name), text).unwrap();
        }
    }

    #[test]
    fn the_nearest_group_with_a_limit_counts_and_its_cache_does_not() {
        let mount = TempDir::new().unwrap();
        let (mount, stat) = (mount.path(), "anon 1\ninactive_file 400\nsock 70\n");
        write(
            &mount.join("pod"),
            &[
                ("memory.max", "2000\n"),
                ("memory.current", "1500\n"),
                ("memory.stat", stat),
            ],
        );
        let own = mount.join("pod/container");
        write(&own, &[("memory.max", "max\n"), ("memory.current", "1\n")]);
        let group = nearest(Version::Two, mount, &own).unwrap();
        assert_eq!(group.directory(), mount.join("pod"));
        let usage = Usage {
            used: 1100,
            limit: 2000,
            sockets: Some(70),
        };
        assert_eq!(group.read(), Some(usage));
        write(&own, &[("memory.max", "0x10\n")]);
        assert_eq!(nearest(Version::Two, mount, &own), Some(group.clone()));
        write(&mount.join("pod"), &[("memory.max", "max\n")]);
        assert_eq!(
            (group.read(), nearest(Version::Two, mount, &own)),
            (None, None)
        );
    }

    #[test]
    fn version_1_counts_buffers_of_tcp_apart_or_not_at_all() {
        let mount = TempDir::new().unwrap();
        let files = [
            ("memory.limit_in_bytes", "2000\n"),
            ("memory.usage_in_bytes", "1500\n"),
            ("memory.stat", "inactive_file 1\ntotal_inactive_file 500\n"),
            ("memory.kmem.tcp.usage_in_bytes", "0\n"),
        ];
        write(mount.path(), &files);
        let group = nearest(Version::One, mount.path(), mount.path()).unwrap();
        let used = |group: &Group| group.read().map(|usage| (usage.used, usage.sockets));
        assert_eq!(used(&group), Some((1000, None)));
        write(mount.path(), &[("memory.kmem.tcp.usage_in_bytes", "300\n")]);
        assert_eq!(used(&group), Some((1300, Some(300))));
        std::fs::remove_file(mount.path().join("memory.stat")).unwrap();
        assert_eq!(used(&group), Some((1800, Some(300))));
        std::fs::remove_file(mount.path().join("memory.usage_in_bytes")).unwrap();
        assert_eq!(used(&group), None);
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_borne(groups in ".{0,200}", mounts in ".{0,300}") {
            for version in [Version::One, Version::Two] {
                if let Some((mount, directory)) = locate(&groups, &mounts, version) {
                    prop_assert!(directory.starts_with(mount));
                }
            }
            let _any = (limit(&groups), value(&mounts, "sock"), unescaped(&mounts));
        }

        #[test]
        fn what_looks_right_is_borne_too(
            path in "/[a-z./\\\\0-9 ]{0,30}", root in "/[a-z.\\\\0-9]{0,30}", mount in "/[a-z.\\\\0-9]{0,30}"
        ) {
            let groups = format!("0::{path}\n");
            let mounts = format!("1 0 0:1 {root} {mount} rw - cgroup2 cgroup2 rw\n");
            if let Some((mount, directory)) = locate(&groups, &mounts, Version::Two) {
                prop_assert!(directory.starts_with(mount));
            }
        }
    }
}

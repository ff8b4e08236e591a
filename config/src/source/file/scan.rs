//! Which files there are, and which of them say something new, themselves or through a file they
//! refer to.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::refer::referred;
use crate::fragment::{Content, Fragment, Origin};
use crate::parse::{FILE_BYTES_MAX, broken, parse, too_large};
use crate::problem::Problem;
use crate::table::hash;

/// Files of one directory.
const FILES_MAX: usize = 100_000;
/// A file that changed so recently may change again without a visible trace.
const FRESH: Duration = Duration::from_secs(2);

/// Whether a file of a directory counts.
pub(super) fn is_configuration(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden
        && path
            .extension()
            .is_some_and(|ext| ext == "yaml" || ext == "yml")
}

/// What to watch.
#[derive(Default)]
pub(super) struct Directories {
    pub(super) paths: BTreeSet<PathBuf>,
    /// Names of files that count whatever they look like.
    pub(super) names: BTreeSet<OsString>,
}

#[derive(Debug)]
pub(super) struct Scan {
    paths: Vec<PathBuf>,
    /// By the name problems and origins carry.
    seen: BTreeMap<Arc<str>, Seen>,
    /// What is not taken in yet.
    pending: BTreeMap<Arc<str>, Content>,
    /// Refused content need not be offered again before something changes.
    refused: bool,
}

/// What a file was when it was last looked at.
#[derive(Debug)]
enum Seen {
    Read {
        stamp: Stamp,
        hash: u64,
        behind: Box<[Behind]>,
    },
    Unreadable {
        why: String,
    },
}

/// Tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    /// Of who owns it and who may read it, too.
    changed: (i64, i64),
    /// It had been changed just before it was read: the stamp alone proves nothing.
    fresh: bool,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        let age = metadata
            .modified()
            .ok()
            .map(|at| SystemTime::now().duration_since(at));
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            // A time in the future proves nothing either.
            fresh: !matches!(age, Some(Ok(age)) if age > FRESH),
        }
    }

    fn proves(self, now: Stamp) -> bool {
        !self.fresh
            && Stamp {
                fresh: false,
                ..now
            } == self
    }
}

/// A file that documents refer to. It is not read here: a change offers them again.
#[derive(Debug)]
struct Behind {
    path: PathBuf,
    /// `None` where there is none, or none to be had.
    stamp: Option<Stamp>,
}

impl Behind {
    fn of(name: &str, content: &Content) -> Box<[Behind]> {
        let documents = match content {
            Content::Documents { documents, .. } => documents,
            Content::Broken { readable, .. } => readable,
            Content::Gone => return Box::default(),
        };
        let paths = documents.iter().flat_map(|one| referred(name, one));
        let behind = paths.map(|path| Behind {
            stamp: Behind::look(&path),
            path,
        });
        behind.collect()
    }

    fn look(path: &Path) -> Option<Stamp> {
        let metadata = std::fs::metadata(path).ok()?;
        let stamp = Stamp::of(&metadata);
        // Whoever reads it does so after this: a stamp need not prove more than a change.
        let fresh = false;
        Some(Stamp { fresh, ..stamp })
    }

    fn changed(&self) -> bool {
        Behind::look(&self.path) != self.stamp
    }
}

/// A file that should be there, or why it cannot be had.
struct Found {
    name: Arc<str>,
    path: PathBuf,
    fault: Option<String>,
}

impl Scan {
    pub(super) fn of(paths: Vec<PathBuf>) -> Scan {
        Scan {
            paths,
            seen: BTreeMap::new(),
            pending: BTreeMap::new(),
            refused: false,
        }
    }

    /// Everything that is to be offered now: all that is not taken in yet, if anything is new.
    pub(super) fn pending(&self) -> Vec<Fragment> {
        if self.refused {
            return Vec::new();
        }
        let fragment = |(name, content): (&Arc<str>, &Content)| Fragment {
            origin: Origin::File(Arc::clone(name)),
            content: content.clone(),
        };
        self.pending.iter().map(fragment).collect()
    }

    pub(super) fn taken_in(&mut self) {
        self.pending.clear();
        self.refused = false;
    }

    pub(super) fn refused(&mut self) {
        self.refused = true;
    }

    /// Looks at all files; `all` reads those too that seem unchanged.
    pub(super) fn run(&mut self, all: bool) {
        let found = self.find();
        for file in &found {
            match &file.fault {
                Some(why) => self.unreadable(&file.name, why),
                None => self.read(file, all),
            }
        }
        let present: BTreeSet<&Arc<str>> = found.iter().map(|file| &file.name).collect();
        let gone =
            |name: &&Arc<str>| !present.contains(name) && !self.in_lost_directory(&found, name);
        let gone: Vec<Arc<str>> = self.seen.keys().filter(gone).cloned().collect();
        for name in gone {
            self.seen.remove(&name);
            self.say(&name, Content::Gone);
        }
    }

    /// Whether it stood in a given directory that cannot be read: it keeps its content.
    fn in_lost_directory(&self, found: &[Found], name: &str) -> bool {
        let parent = Path::new(name).parent();
        found
            .iter()
            .any(|file| file.fault.is_some() && Some(&*file.path) == parent)
    }

    fn say(&mut self, name: &Arc<str>, content: Content) {
        self.pending.insert(Arc::clone(name), content);
        self.refused = false;
    }

    /// The given files and those of the given directories, each once.
    fn find(&self) -> Vec<Found> {
        let mut found = Vec::new();
        let mut given = BTreeSet::new();
        for path in &self.paths {
            let real = path.canonicalize().unwrap_or_else(|_| path.clone());
            if !given.insert(real) {
                continue;
            }
            match std::fs::metadata(path) {
                Ok(metadata) if metadata.is_dir() => match list(path) {
                    Ok(files) => found.extend(files.into_iter().map(|path| Found::at(path, None))),
                    Err(why) => found.push(Found::at(path.clone(), Some(why))),
                },
                Ok(_) => found.push(Found::at(path.clone(), None)),
                Err(error) => found.push(Found::at(path.clone(), Some(error.to_string()))),
            }
        }
        found
    }

    fn unreadable(&mut self, name: &Arc<str>, why: &str) {
        if let Some(Seen::Unreadable { why: before }) = self.seen.get(name)
            && before == why
        {
            return;
        }
        let why = why.to_owned();
        let hint = match self.seen.get(name) {
            Some(Seen::Read { .. }) => "put it back; until then it counts as it was",
            _ => "check the path and its permissions",
        };
        let problem = format!("cannot be read: {why}");
        let problem = Problem::of_file(name, problem, hint.to_owned());
        self.seen.insert(Arc::clone(name), Seen::Unreadable { why });
        self.say(name, broken(problem));
    }

    fn read(&mut self, file: &Found, all: bool) {
        let seen = match self.seen.get(&file.name) {
            Some(Seen::Read {
                stamp,
                hash,
                behind,
            }) => Some((*stamp, *hash, behind)),
            _ => None,
        };
        // Asked to read all, nobody can tell what has changed behind the documents.
        let behind = |behind: &[Behind]| match all {
            true => !behind.is_empty(),
            false => behind.iter().any(Behind::changed),
        };
        let again = seen.is_some_and(|(_, _, all)| behind(all));
        let before = seen.map(|(stamp, hash, _)| (stamp, hash));
        match read_changed(&file.path, before.filter(|_| !all && !again)) {
            Err(error) => self.unreadable(&file.name, &error.to_string()),
            Ok(None) => {}
            Ok(Some((stamp, hash, raw))) => {
                if !again && before.is_some_and(|(_, before)| before == hash) {
                    if let Some(Seen::Read { stamp: seen, .. }) = self.seen.get_mut(&file.name) {
                        *seen = stamp;
                    }
                    return;
                }
                let content = raw.into_content(&file.name);
                let seen = Seen::Read {
                    stamp,
                    hash,
                    behind: Behind::of(&file.name, &content),
                };
                self.seen.insert(Arc::clone(&file.name), seen);
                self.say(&file.name, content);
            }
        }
    }

    pub(super) fn directories(&self) -> Directories {
        let mut directories = Directories::default();
        for path in &self.paths {
            directories.watch(path);
        }
        for seen in self.seen.values() {
            if let Seen::Read { behind, .. } = seen {
                behind.iter().for_each(|one| directories.watch(&one.path));
            }
        }
        directories
    }
}

impl Directories {
    /// Where a path stands, and where it leads to.
    fn watch(&mut self, path: &Path) {
        let real = path.canonicalize().ok();
        for path in [Some(path.to_path_buf()), real].into_iter().flatten() {
            if path.is_dir() {
                self.paths.insert(path.clone());
            }
            let parent = path.parent().filter(|parent| *parent != Path::new(""));
            let parent = parent.unwrap_or(Path::new("."));
            self.paths.insert(parent.to_path_buf());
            self.names.extend(path.file_name().map(OsString::from));
        }
    }
}

impl Found {
    fn at(path: PathBuf, fault: Option<String>) -> Found {
        Found {
            name: Arc::from(&*path.to_string_lossy()),
            path,
            fault,
        }
    }
}

/// Configuration files of a directory, sorted; those of its directories are not looked at.
fn list(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let words = |error: std::io::Error| error.to_string();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(words)? {
        let path = entry.map_err(words)?.path();
        // `is_dir` follows symbolic links; a dangling one is a file that cannot be read.
        if is_configuration(&path) && !path.is_dir() {
            files.push(path);
        }
        if files.len() > FILES_MAX {
            return Err(format!("more than {FILES_MAX} files"));
        }
    }
    files.sort();
    Ok(files)
}

/// What was read and is not parsed yet.
enum Raw {
    Text(String),
    TooLarge,
    NotText,
}

impl Raw {
    fn into_content(self, name: &str) -> Content {
        match self {
            Raw::Text(text) => parse(name, &text),
            Raw::TooLarge => broken(too_large(name)),
            Raw::NotText => broken(Problem::of_file(
                name,
                "the file is not UTF-8 text".to_owned(),
                "save it as UTF-8".to_owned(),
            )),
        }
    }
}

/// `None` when it is proved to be as `seen`.
fn read_changed(
    path: &Path,
    seen: Option<(Stamp, u64)>,
) -> std::io::Result<Option<(Stamp, u64, Raw)>> {
    // Before it is opened: opening a pipe would wait for a writer.
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        let kind = std::io::ErrorKind::InvalidInput;
        return Err(std::io::Error::new(kind, "it is not a regular file"));
    }
    let stamp = Stamp::of(&metadata);
    if seen.is_some_and(|(before, _)| before.proves(stamp)) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let bound = FILE_BYTES_MAX as u64 + 1;
    File::open(path)?.take(bound).read_to_end(&mut bytes)?;
    let hash = hash(&bytes);
    let raw = match bytes.len() {
        0..=FILE_BYTES_MAX => String::from_utf8(bytes).map_or(Raw::NotText, Raw::Text),
        _ => Raw::TooLarge,
    };
    Ok(Some((stamp, hash, raw)))
}

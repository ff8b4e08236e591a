use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::*;
use crate::compile::Compiler;
use crate::fragment::Content;
use crate::source::Offer;

/// Longest wait for something that must happen; far beyond what it takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn text(name: &str) -> String {
    format!("revisions: [{{name: {name}}}]\n")
}

fn names(fragments: &[Fragment]) -> Vec<String> {
    let last = |fragment: &Fragment| {
        let name = Path::new(&**fragment.origin.name())
            .file_name()
            .map(|n| n.to_string_lossy());
        let what = match &fragment.content {
            Content::Documents { .. } => "",
            Content::Broken { .. } => " broken",
            Content::Gone => " gone",
        };
        format!("{}{what}", name.unwrap_or_default())
    };
    fragments.iter().map(last).collect()
}

/// A running source and the other end of its sink.
struct Running {
    offers: mpsc::Receiver<Offer>,
    reread: mpsc::Sender<()>,
    compiler: Compiler,
    version: u64,
    task: JoinHandle<()>,
}

impl Running {
    /// Starts watching after a first load that is taken in.
    fn start(paths: Vec<PathBuf>) -> Running {
        let mut source = FileSource::new(paths);
        let mut compiler = Compiler::default();
        compiler
            .apply(source.load_once())
            .expect("the first load is valid");
        let (sink, offers) = Sink::channel();
        let (reread, asked) = mpsc::channel(1);
        Running {
            offers,
            reread,
            compiler,
            version: 1,
            task: tokio::spawn(source.run(sink, asked)),
        }
    }

    /// The next offer and what a compiler says to it.
    async fn next(&mut self) -> (Vec<String>, Result<(), Vec<Problem>>) {
        let offer = timeout(PATIENCE, self.offers.recv()).await;
        let offer = offer.expect("an offer comes").expect("the source runs");
        let named = names(&offer.fragments);
        let result = self.compiler.apply(offer.fragments);
        let verdict = match &result {
            Ok(_) => {
                self.version += 1;
                Verdict::Accepted {
                    version: self.version,
                }
            }
            Err(problems) => Verdict::Rejected(problems.clone()),
        };
        offer.reply.send(verdict).expect("the source waits");
        (named, result.map(drop))
    }

    /// Takes offers until the revisions are these.
    async fn until(&mut self, wanted: &[&str]) {
        while self.revisions() != wanted {
            self.next().await.1.expect("it is valid");
        }
    }

    /// Asks to read again. One question that waits is as good as two.
    fn hang_up(&self) {
        let asked = self.reread.try_send(());
        assert!(!matches!(asked, Err(mpsc::error::TrySendError::Closed(()))));
    }

    fn revisions(&self) -> Vec<String> {
        let all = self.compiler.snapshot().revisions();
        let mut names: Vec<String> = all.map(|revision| revision.key.name.to_string()).collect();
        names.sort();
        names
    }

    /// Proves that nothing is on its way: a marker written now comes alone.
    async fn nothing_but(&mut self, marker: &Path) {
        fs::write(marker, "domain: marker.test\n").expect("it can be written");
        let (named, result) = self.next().await;
        assert_eq!(
            named,
            [marker.file_name().expect("a file").to_string_lossy()]
        );
        result.expect("it is valid");
    }
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn a_directory_gives_its_yaml_files_in_order_and_no_others() {
    let dir = directory();
    for name in ["b.yml", "a.yaml", ".hidden.yaml", "notes.txt", "yaml"] {
        fs::write(dir.path().join(name), text("x")).expect("it can be written");
    }
    fs::create_dir(dir.path().join("sub.yaml")).expect("it can be made");
    fs::write(dir.path().join("sub.yaml/c.yaml"), text("y")).expect("it can be written");
    symlink(dir.path().join("notes.txt"), dir.path().join("link.yaml")).expect("it can be linked");
    let fragments = FileSource::new(vec![dir.path().into()]).load_once();
    assert_eq!(names(&fragments), ["a.yaml", "b.yml", "link.yaml"]);
}

#[test]
fn a_file_given_twice_is_read_once() {
    let dir = directory();
    let file = dir.path().join("a.yaml");
    fs::write(&file, text("x")).expect("it can be written");
    let again = dir.path().join(".").join("a.yaml");
    let fragments = FileSource::new(vec![file, again]).load_once();
    assert_eq!(names(&fragments), ["a.yaml"]);
}

#[test]
fn what_cannot_be_read_is_a_problem_of_its_file() {
    let dir = directory();
    fs::write(dir.path().join("bytes.yaml"), [0xff, 0xfe]).expect("it can be written");
    symlink("nowhere", dir.path().join("dangling.yaml")).expect("it can be linked");
    let missing = dir.path().join("missing.yaml");
    let mut source = FileSource::new(vec![missing.clone(), dir.path().into()]);
    let fragments = source.load_once();
    assert_eq!(
        names(&fragments),
        [
            "bytes.yaml broken",
            "dangling.yaml broken",
            "missing.yaml broken"
        ]
    );
    let problems = Compiler::default()
        .apply(fragments)
        .expect_err("nothing can be read");
    assert!(
        problems
            .iter()
            .any(|p| p.problem == "the file is not UTF-8 text")
    );
    assert!(problems.iter().any(|p| {
        p.file == missing.to_string_lossy() && p.problem.starts_with("cannot be read: No such file")
    }));
}

#[test]
fn a_file_beyond_the_limit_is_refused_unread() {
    let dir = directory();
    let file = dir.path().join("large.yaml");
    let sparse = fs::File::create(&file).expect("it can be made");
    sparse.set_len(1 << 40).expect("it can be long");
    let fragments = FileSource::new(vec![file]).load_once();
    assert_eq!(names(&fragments), ["large.yaml broken"]);
}

#[test]
fn only_what_changed_is_told_again() {
    let dir = directory();
    let (one, two) = (dir.path().join("one.yaml"), dir.path().join("two.yaml"));
    fs::write(&one, text("a")).expect("it can be written");
    fs::write(&two, text("b")).expect("it can be written");
    let mut source = FileSource::new(vec![dir.path().into()]);
    assert_eq!(source.load_once().len(), 2);
    assert_eq!(source.load_once().len(), 0);
    fs::write(&two, text("c")).expect("it can be written");
    assert_eq!(names(&source.load_once()), ["two.yaml"]);
    fs::remove_file(&one).expect("it can be removed");
    assert_eq!(names(&source.load_once()), ["one.yaml gone"]);
}

#[tokio::test]
async fn written_renamed_new_and_removed_files_are_noticed() {
    let dir = directory();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("a.yaml"), text("one")).expect("it can be written");
    let mut running = Running::start(vec![dir.path().into()]);
    assert_eq!(running.revisions(), ["one"]);

    fs::write(path("a.yaml"), text("two")).expect("it can be written");
    running.until(&["two"]).await;

    // As editors do: a new file takes the old one's name.
    fs::write(path(".a.yaml.swp"), text("three")).expect("it can be written");
    fs::rename(path(".a.yaml.swp"), path("a.yaml")).expect("it can be renamed");
    running.until(&["three"]).await;

    fs::write(path("b.yaml"), text("four")).expect("it can be written");
    running.until(&["four", "three"]).await;

    fs::remove_file(path("a.yaml")).expect("it can be removed");
    running.until(&["four"]).await;
}

#[tokio::test]
async fn a_swap_of_the_data_link_is_noticed() {
    // https://kubernetes.io/docs/concepts/configuration/configmap: files are links through
    // `..data`, which is renamed into place.
    let dir = directory();
    let path = |name: &str| dir.path().join(name);
    for version in ["1", "2"] {
        fs::create_dir(path(&format!("..{version}"))).expect("it can be made");
        let file = path(&format!("..{version}/c.yaml"));
        fs::write(file, text(&format!("v{version}"))).expect("it can be written");
    }
    symlink("..1", path("..data")).expect("it can be linked");
    symlink("..data/c.yaml", path("c.yaml")).expect("it can be linked");
    for given in [path("c.yaml"), dir.path().to_owned()] {
        let mut running = Running::start(vec![given]);
        let from = running.revisions();
        let to = if from == ["v1"] { "2" } else { "1" };
        symlink(format!("..{to}"), path("..data_tmp")).expect("it can be linked");
        fs::rename(path("..data_tmp"), path("..data")).expect("it can be renamed");
        running.until(&[&format!("v{to}")]).await;
    }
}

#[tokio::test]
async fn a_file_behind_a_link_is_noticed() {
    let (here, there) = (directory(), directory());
    let real = there.path().join("real");
    fs::write(&real, text("one")).expect("it can be written");
    let link = here.path().join("c.yaml");
    symlink(&real, &link).expect("it can be linked");
    let mut running = Running::start(vec![link]);
    fs::write(&real, text("two")).expect("it can be written");
    running.until(&["two"]).await;
}

/// How long files rest before they are read, when these notices come after these pauses.
async fn settled_after(notices: &[(u64, Noticed)]) -> u128 {
    let (sender, mut receiver) = mpsc::channel(16);
    let notices = notices.to_vec();
    let start = Instant::now();
    let first = notices[0].1;
    tokio::spawn(async move {
        for (pause, notice) in &notices[1..] {
            sleep(Duration::from_millis(*pause)).await;
            if sender.send(*notice).await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    });
    settle(first, &mut receiver).await;
    start.elapsed().as_millis()
}

#[tokio::test(start_paused = true)]
async fn files_are_read_when_they_have_come_to_rest() {
    use Noticed::{Settled, Writing};
    assert_eq!(settled_after(&[(0, Settled)]).await, 50);
    assert_eq!(
        settled_after(&[(0, Settled), (40, Settled), (40, Settled)]).await,
        130
    );
    // Half written: the end of writing is waited for.
    assert_eq!(
        settled_after(&[(0, Writing), (300, Writing), (300, Settled)]).await,
        650
    );
    // Never closed.
    assert_eq!(settled_after(&[(0, Writing)]).await, 500);
    // Never at rest.
    let restless: Vec<_> = (0..100).map(|_| (40, Settled)).collect();
    assert_eq!(settled_after(&restless).await, 2000);
}

#[tokio::test]
async fn refused_content_is_offered_again_with_the_next_change_and_not_before() {
    let dir = directory();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("route.yaml"), "").expect("it can be written");
    let mut running = Running::start(vec![dir.path().into()]);
    let route = "routes: [{name: a, traffic: [{revision: later}]}]";
    fs::write(path("route.yaml"), route).expect("it can be written");
    let (named, result) = running.next().await;
    assert_eq!(named, ["route.yaml"]);
    result.expect_err("the revision is unknown");
    fs::write(path("revision.yaml"), text("later")).expect("it can be written");
    let (named, result) = running.next().await;
    assert_eq!(named, ["revision.yaml", "route.yaml"]);
    result.expect("together they are valid");
    running.nothing_but(&path("marker.yaml")).await;
}

#[tokio::test]
async fn a_given_file_that_vanishes_keeps_its_content_and_is_a_problem() {
    let dir = directory();
    let file = dir.path().join("a.yaml");
    fs::write(&file, text("one")).expect("it can be written");
    let mut running = Running::start(vec![file.clone()]);
    fs::remove_file(&file).expect("it can be removed");
    let (named, result) = running.next().await;
    assert_eq!(named, ["a.yaml broken"]);
    let problems = result.expect_err("it cannot be read");
    assert_eq!(
        problems[0].hint,
        "put it back; until then it counts as it was"
    );
    assert_eq!(running.revisions(), ["one"]);
    fs::write(&file, text("two")).expect("it can be written");
    running.until(&["two"]).await;
}

#[tokio::test]
async fn a_given_directory_that_vanishes_keeps_its_content() {
    let dir = directory();
    let inner = dir.path().join("conf");
    fs::create_dir(&inner).expect("it can be made");
    fs::write(inner.join("a.yaml"), text("one")).expect("it can be written");
    let mut running = Running::start(vec![inner.clone()]);
    let aside = dir.path().join("aside");
    fs::rename(&inner, &aside).expect("it can be moved");
    running.hang_up();
    let (named, result) = running.next().await;
    assert_eq!(named, ["conf broken"]);
    result.expect_err("it cannot be read");
    fs::rename(&aside, &inner).expect("it can be moved");
    running.hang_up();
    running.next().await.1.expect("it is back");
    assert_eq!(running.revisions(), ["one"]);
    // The directory made anew is watched as the old one was.
    fs::write(inner.join("a.yaml"), text("two")).expect("it can be written");
    running.until(&["two"]).await;
}

#[tokio::test]
async fn a_hangup_reads_again_and_offers_only_what_differs() {
    let dir = directory();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("a.yaml"), text("one")).expect("it can be written");
    let mut running = Running::start(vec![dir.path().into()]);
    running.hang_up();
    running.nothing_but(&path("marker.yaml")).await;
}

#[tokio::test]
async fn the_source_ends_when_nobody_listens() {
    let dir = directory();
    let running = Running::start(vec![dir.path().into()]);
    drop(running.offers);
    timeout(PATIENCE, running.task)
        .await
        .expect("it ends")
        .expect("it does not panic");
}

/// A document that refers to `cert.pem` and `key.pem` beside it.
const HTTPS: &str = "gateway: { listeners: [{ address: '127.0.0.1:1', tls: { certificates: [{ cert: cert.pem, key: keys/key.pem }] } }] }\n";

#[tokio::test]
async fn documents_are_offered_again_when_a_file_changes_that_they_refer_to() {
    let dir = directory();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("keys")).expect("it can be made");
    fs::write(path("cert.pem"), "one").expect("it can be written");
    fs::write(path("keys/key.pem"), "one").expect("it can be written");
    fs::write(path("https.yaml"), HTTPS).expect("it can be written");
    fs::write(path("other.yaml"), text("other")).expect("it can be written");
    let mut running = Running::start(vec![dir.path().into()]);

    fs::write(path("cert.pem"), "other").expect("it can be written");
    assert_eq!(running.next().await.0, ["https.yaml"]);
    fs::write(path("key.new"), "two").expect("it can be written");
    fs::rename(path("key.new"), path("keys/key.pem")).expect("it can be renamed");
    assert_eq!(running.next().await.0, ["https.yaml"]);
    fs::remove_file(path("cert.pem")).expect("it can be removed");
    assert_eq!(running.next().await.0, ["https.yaml"]);
    fs::write(path("cert.pem"), "back").expect("it can be written");
    assert_eq!(running.next().await.0, ["https.yaml"]);
    running.nothing_but(&path("marker.yaml")).await;
}

#[tokio::test]
async fn a_swap_of_the_data_link_above_certificates_is_noticed() {
    let (dir, secret) = (directory(), directory());
    let path = |name: &str| secret.path().join(name);
    for version in ["1", "2"] {
        fs::create_dir(path(&format!("..{version}"))).expect("it can be made");
        fs::write(path(&format!("..{version}/ca.pem")), version).expect("it can be written");
    }
    symlink("..1", path("..data")).expect("it can be linked");
    symlink("..data/ca.pem", path("ca.pem")).expect("it can be linked");
    let ca = path("ca.pem");
    let text = format!(
        "revisions: [{{ name: a, tls: {{ ca: '{}' }} }}]\n",
        ca.display()
    );
    fs::write(dir.path().join("a.yaml"), text).expect("it can be written");
    let mut running = Running::start(vec![dir.path().into()]);
    symlink("..2", path("..data_tmp")).expect("it can be linked");
    fs::rename(path("..data_tmp"), path("..data")).expect("it can be renamed");
    assert_eq!(running.next().await.0, ["a.yaml"]);
    running.nothing_but(&dir.path().join("marker.yaml")).await;
}

#[tokio::test]
async fn who_may_read_a_file_that_is_referred_to_is_a_change_too() {
    let dir = directory();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("cert.pem"), "one").expect("it can be written");
    fs::write(path("https.yaml"), HTTPS).expect("it can be written");
    let mut running = Running::start(vec![dir.path().into()]);
    let readable = fs::Permissions::from_mode(0o640);
    fs::set_permissions(path("cert.pem"), readable).expect("it can be set");
    assert_eq!(running.next().await.0, ["https.yaml"]);
}

#[test]
fn asked_to_read_all_what_refers_to_files_is_told_again() {
    let dir = directory();
    fs::write(dir.path().join("https.yaml"), HTTPS).expect("it can be written");
    fs::write(dir.path().join("other.yaml"), text("a")).expect("it can be written");
    let mut source = FileSource::new(vec![dir.path().into()]);
    assert_eq!(source.load_once().len(), 2);
    assert_eq!(names(&source.load_once()), ["https.yaml"]);
}

#[tokio::test]
async fn a_refused_document_is_offered_again_when_what_it_refers_to_changes() {
    let dir = directory();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("keys")).expect("it can be made");
    fs::write(path("https.yaml"), HTTPS).expect("it can be written");
    let (sink, mut offers) = Sink::channel();
    let (_reread, asked) = mpsc::channel(1);
    let source = FileSource::new(vec![dir.path().into()]);
    let running = tokio::spawn(source.run(sink, asked));
    for name in ["cert.pem", "keys/key.pem"] {
        let offer = timeout(PATIENCE, offers.recv()).await;
        let offer = offer.expect("an offer comes").expect("the source runs");
        assert_eq!(names(&offer.fragments), ["https.yaml"]);
        // As whoever reads the files would.
        let problem = Problem::of_file("cert.pem", "there is none".to_owned(), String::new());
        let verdict = Verdict::Rejected(vec![problem]);
        offer.reply.send(verdict).expect("the source waits");
        fs::write(path(name), "text").expect("it can be written");
    }
    let offer = timeout(PATIENCE, offers.recv()).await;
    let offer = offer.expect("an offer comes").expect("the source runs");
    assert_eq!(names(&offer.fragments), ["https.yaml"]);
    drop(offers);
    drop(offer);
    timeout(PATIENCE, running)
        .await
        .expect("it ends")
        .expect("no panic");
}

//! Files of configuration: tables, or problems that say where.

use config::problem::{Problem, Sources, render_for_people};
use config::{Compiled, Compiler, Content, Fragment, Origin};

const FILE: &str = "fuzz.yaml";

pub(super) fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let mut compiler = Compiler::default();
    match compiled(&mut compiler, text) {
        Err(problems) => are_placed(&problems, text),
        Ok(first) => {
            // The same again is no change.
            let again = compiled(&mut compiler, text).expect("as before");
            assert_eq!(
                first.snapshot.routes().count(),
                again.snapshot.routes().count()
            );
            assert!(again.removed_revisions.is_empty());
            // Nothing said leaves nothing behind.
            let gone = compiled(&mut compiler, "").expect("nothing is valid");
            assert_eq!(gone.snapshot.routes().count(), 0);
        }
    }
}

/// Objects of a cluster, as JSON, a line each.
pub(super) fn ingress(bytes: &[u8]) {
    config::source::kubernetes::fuzzing::objects(bytes);
}

pub(super) fn compiled(compiler: &mut Compiler, text: &str) -> Result<Compiled, Vec<Problem>> {
    let content = match text {
        "" => Content::Gone,
        text => config::parse(FILE, text),
    };
    let origin = Origin::File(FILE.into());
    compiler.apply(vec![Fragment { origin, content }])
}

/// Every one of them points into the text.
fn are_placed(problems: &[Problem], text: &str) {
    assert!(!problems.is_empty());
    // YAML knows more ends of a line than one.
    let ends = text.bytes().filter(|byte| matches!(byte, b'\n' | b'\r'));
    let lines = ends.count() + 2;
    for problem in problems {
        assert_eq!(problem.file, FILE, "{problem}");
        assert!(!problem.problem.is_empty(), "{problem:?}");
        assert!(problem.line as usize <= lines, "{problem}");
        assert_eq!(problem.line == 0, problem.column == 0, "{problem}");
    }
    let sources: Sources = [(FILE.to_owned(), text.into())].into();
    assert!(!render_for_people(problems, &sources).is_empty());
}

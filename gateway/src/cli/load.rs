//! Configuration files, read once.

use std::path::PathBuf;
use std::sync::Arc;

use config::problem::{Problem, Sources};
use config::source::file::FileSource;
use config::{Compiled, Compiler};

use crate::control::credentials;
use crate::live::Live;
use crate::run::sources_of;

/// What files say, or what is wrong with them.
pub(super) struct Loaded {
    pub(super) compiled: Result<Compiled, Vec<Problem>>,
    /// The texts of the files, to show problems in.
    pub(super) sources: Sources,
}

/// Reads and compiles files and directories.
pub(super) fn load(files: Vec<PathBuf>) -> Loaded {
    let fragments = FileSource::new(files).load_once();
    let sources = sources_of(&fragments);
    Loaded {
        compiled: Compiler::default().apply(fragments),
        sources,
    }
}

/// Reads what a configuration refers to as well; `explain` does without.
pub(super) fn load_all(files: Vec<PathBuf>) -> Loaded {
    let Loaded { compiled, sources } = load(files);
    let compiled = compiled.and_then(|compiled| {
        let listeners = &compiled.settings.listeners;
        credentials::read(
            &compiled,
            Some(listeners),
            &Arc::default(),
            &Live::default(),
        )?;
        Ok(compiled)
    });
    Loaded { compiled, sources }
}

/// `1 problem`, `2 problems`.
pub(super) fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

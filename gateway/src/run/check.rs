//! Whether a configuration can be run, before anything is bound.

use std::sync::Arc;

use config::settings::{Listener, Overrides, Settings};
use config::source::Fragment;
use config::{Compiled, Compiler};

use super::{RunError, sources_of};
use crate::control::credentials;
use crate::live::{Credentials, Live};
use crate::serve::tls::store::Store;

/// A configuration that can be run, with all it refers to.
pub(super) struct Checked {
    pub(super) compiler: Compiler,
    pub(super) compiled: Compiled,
    pub(super) credentials: Arc<Credentials>,
    pub(super) settings: Settings,
    /// Those of the files, unless flags take their place.
    pub(super) listeners: Option<Vec<Listener>>,
}

/// Compiles what was read, and reads what that refers to.
pub(super) fn check(
    fragments: Vec<Fragment>,
    overrides: &Overrides,
    defaults: Settings,
    store: &Arc<Store>,
) -> Result<Checked, RunError> {
    let sources = sources_of(&fragments);
    let invalid = |problems| RunError::Invalid { problems, sources };
    let mut compiler = Compiler::with_defaults(defaults);
    let compiled = match compiler.apply(fragments) {
        Ok(compiled) => compiled,
        Err(problems) => return Err(invalid(problems)),
    };
    let settings = compiled.settings.clone().with(overrides);
    let listeners = overrides.listen.is_empty();
    let listeners = listeners.then(|| settings.listeners.clone());
    let nothing = Live::default();
    match credentials::read(&compiled, listeners.as_deref(), store, &nothing) {
        Ok(credentials) => Ok(Checked {
            compiler,
            compiled,
            credentials,
            settings,
            listeners,
        }),
        Err(problems) => Err(invalid(problems)),
    }
}

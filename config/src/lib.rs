//! What should happen: the vocabulary and rules of Tidegate's configuration.
//!
//! The core is pure: no runtime, no socket, no clock. Sources, which have those, live behind
//! features in [`source`]; the core never imports them.
//!
//! Text becomes [`Fragment`]s ([`parse`]), fragments become a [`Snapshot`] ([`Compiler`]), and a
//! request is looked up in a snapshot ([`route::find`]).

#![forbid(unsafe_code)]

mod at;
mod compile;
pub mod document;
pub mod duration;
mod fragment;
mod merge;
mod nearest;
mod parse;
pub mod problem;
pub mod reference;
pub mod revision;
pub mod route;
pub mod settings;
pub mod snapshot;
pub mod source;
mod table;

pub use compile::{Compiled, Compiler};
pub use fragment::{Content, Fragment, Origin};
pub use parse::parse;
pub use problem::Problem;
pub use settings::Settings;
pub use snapshot::Snapshot;

/// JSON Schema of a configuration document.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(document::Document).to_value()
}

//! config-logging: how much the parts of Knative say.

use super::read::Map;
use super::{BadValue, Data, Unheeded};

pub(super) const NAME: &str = "config-logging";

const LEVEL: &str = "loglevel.activator";

/// What config-logging says to an activator. `zap-logger-config` describes the logger of programs
/// written in Go and is passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logging {
    /// `loglevel.activator`: how much the process log says. Without effect: `--log` decides.
    pub level: Level,
}

/// How much is said, least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
}

impl Logging {
    pub(super) fn of(data: &Data) -> Result<Logging, BadValue> {
        let map = Map { name: NAME, data };
        let levels = [
            ("debug", Level::Debug),
            ("info", Level::Info),
            ("warn", Level::Warn),
            ("error", Level::Error),
            // Those end a program or a goroutine: what led there is an error.
            ("dpanic", Level::Error),
            ("panic", Level::Error),
            ("fatal", Level::Error),
        ];
        Ok(Logging {
            level: map.word(LEVEL, Level::Info, &levels)?,
        })
    }

    pub(super) fn unheeded(&self) -> Option<Unheeded> {
        (self.level != Level::Info).then_some(Unheeded {
            map: NAME,
            key: LEVEL,
            instead: "say `--log` or TIDEGATE_LOG",
        })
    }
}

//! `validate`: is a configuration right?

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use config::problem::{Problem, render_for_people};

use super::load::{Loaded, counted, load_all};
use super::{Format, print};

const EXAMPLES: &str = "\
Examples:
  tidegate validate -f routes.yaml
  tidegate validate -f conf.d --format json | jq -r '.[] | .file + \":\" + (.line|tostring)'";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ValidateArgs {
    /// A configuration file, or a directory of them; may repeat.
    #[arg(
        short = 'f',
        long = "file",
        value_name = "FILE|DIR",
        num_args = 1..,
        required = true,
        env = "TIDEGATE_FILE"
    )]
    pub(super) files: Vec<PathBuf>,
    /// How problems are told.
    #[arg(long, value_enum, default_value = "text", env = "TIDEGATE_FORMAT")]
    pub(super) format: Format,
}

pub(super) fn validate(args: ValidateArgs) -> anyhow::Result<ExitCode> {
    let loaded = load_all(args.files);
    print(&match args.format {
        Format::Text => text(&loaded),
        Format::Json => json(loaded.compiled.as_ref().err().map_or(&[], Vec::as_slice))?,
    })?;
    Ok(match loaded.compiled {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

fn text(loaded: &Loaded) -> String {
    match &loaded.compiled {
        Ok(compiled) => format!(
            "OK: {}, {}\n",
            counted(compiled.snapshot.routes().count(), "route"),
            counted(compiled.snapshot.revisions().count(), "revision"),
        ),
        Err(problems) => format!(
            "{}{}\n",
            render_for_people(problems, &loaded.sources),
            counted(problems.len(), "problem"),
        ),
    }
}

fn json(problems: &[Problem]) -> serde_json::Result<String> {
    Ok(serde_json::to_string_pretty(problems)? + "\n")
}

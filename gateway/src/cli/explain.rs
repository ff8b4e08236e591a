//! `explain`: where would a request go, and why?

mod question;
mod remote;

use std::fmt::{self, Display, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use config::problem::render_for_people;
use config::route::{self, FieldList, Query};
use hyper::Method;

use self::question::{Field, Question};
use super::admin::Admin;
use super::load::{counted, load};
use super::{print, tell};
use crate::admin::place::Place;
use crate::refusal::Reason;

const EXAMPLES: &str = "\
Examples:
  tidegate explain -f routes.yaml http://hello.default.example.com/api
  tidegate explain -f routes.yaml -X POST -H 'x-canary: 1' http://bot.example.com/api
  tidegate explain -f routes.yaml -H 'Host: bot.example.com' /api
  tidegate explain --admin http://127.0.0.1:9901 http://hello.default.example.com/";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExplainArgs {
    /// A configuration file, or a directory of them; may repeat.
    #[arg(
        short = 'f',
        long = "file",
        value_name = "FILE|DIR",
        env = "TIDEGATE_FILE"
    )]
    pub(super) files: Vec<PathBuf>,
    /// Ask a running gateway at its admin address instead.
    #[arg(long, value_name = "URL|IP:PORT", env = "TIDEGATE_ADMIN")]
    pub(super) admin: Option<Admin>,
    /// Method of the request.
    #[arg(
        short = 'X',
        long,
        value_name = "METHOD",
        default_value = "GET",
        env = "TIDEGATE_METHOD"
    )]
    pub(super) method: Method,
    /// A header field of the request; may repeat. `Host` takes the place of the URL's.
    #[arg(
        short = 'H',
        long = "header",
        value_name = "NAME: VALUE",
        env = "TIDEGATE_HEADER"
    )]
    pub(super) headers: Vec<Field>,
    /// The kind of listener the request comes in at.
    #[arg(long, value_enum, default_value = "public", env = "TIDEGATE_AUDIENCE")]
    pub(super) audience: Audience,
    /// What the request asks for; scheme and host may be missing when `-H 'Host: ...'` names one.
    #[arg(value_name = "URL")]
    pub(super) url: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Audience {
    Public,
    /// Serves cluster-local routes, too.
    Internal,
}

/// What became of a request on paper.
enum Answer {
    Explained(route::Explanation),
    /// A refusal that is not for want of a route.
    Refused {
        reason: String,
        why: Vec<String>,
    },
}

impl ExplainArgs {
    /// Settles whom to ask, and about which host: a flag beats a variable.
    ///
    /// # Errors
    /// A usage error, for people.
    pub(super) fn settle(
        &mut self,
        files_flag: bool,
        admin_flag: bool,
    ) -> Result<(), &'static str> {
        if files_flag && admin_flag {
            return Err("either `-f FILE` or `--admin URL`, not both");
        }
        if files_flag || (!admin_flag && !self.files.is_empty()) {
            self.admin = None;
        } else if self.admin.is_none() {
            return Err("name a file with `-f FILE`, or a running gateway with `--admin URL`");
        }
        question::host(&self.url, &self.headers).map(drop)
    }

    fn question(&self) -> Result<Question, &'static str> {
        Ok(Question {
            method: self.method.clone(),
            host: question::host(&self.url, &self.headers)?,
            path: self.url.path.clone(),
            headers: self.headers.clone(),
            internal: self.audience == Audience::Internal,
        })
    }
}

pub(super) fn explain(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let question = args.question().map_err(anyhow::Error::msg)?;
    let answer = match args.admin {
        Some(admin) => remote::ask(&admin, &question)?,
        None => {
            let loaded = load(args.files);
            match loaded.compiled {
                Ok(compiled) => Answer::Explained(of_snapshot(&compiled.snapshot, &question)),
                Err(problems) => {
                    tell(&render_for_people(&problems, &loaded.sources));
                    tell(&format!("{}\n", counted(problems.len(), "problem")));
                    return Ok(ExitCode::FAILURE);
                }
            }
        }
    };
    print(&answer.to_string())?;
    Ok(match answer {
        Answer::Explained(route::Explanation { route: Some(_), .. }) => ExitCode::SUCCESS,
        Answer::Explained(_) | Answer::Refused { .. } => ExitCode::FAILURE,
    })
}

fn of_snapshot(snapshot: &config::Snapshot, question: &Question) -> route::Explanation {
    let fields = FieldList(question.fields());
    let query = Query {
        host: question.host.as_bytes(),
        path: question.path.as_bytes(),
        method: question.method.as_str().as_bytes(),
        fields: &fields,
        internal: question.internal,
    };
    route::explain(snapshot, &query)
}

/// Lines, each with its end.
impl Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Explained(explanation) => {
                let text = explanation.to_string();
                f.write_str(text.trim_end())?;
                f.write_char('\n')
            }
            Answer::Refused { reason, why } => {
                writeln!(f, "{reason}")?;
                why.iter().try_for_each(|line| writeln!(f, "why {line}"))
            }
        }
    }
}

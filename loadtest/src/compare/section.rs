//! What a comparison found, before it becomes Markdown, bars or JSON.

use serde::{Deserialize, Serialize};

use super::peers::Shown;
use super::spread::Spread;

/// All of it; what `compare.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub conditions: Conditions,
    pub missing: Vec<Missing>,
    pub sections: Vec<Section>,
}

impl Comparison {
    pub(crate) fn charts(&self) -> impl Iterator<Item = &Chart> {
        self.sections.iter().flat_map(|section| &section.charts)
    }
}

/// How it was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// When it began, UTC.
    pub date: String,
    /// Model of the processor.
    pub processor: String,
    /// Processors that could be used.
    pub processors: usize,
    /// Those of the proxy, where it was bound to some.
    pub proxy_on: Vec<usize>,
    /// Those of everything else.
    pub rest_on: Vec<usize>,
    pub rounds: u32,
    /// Of one measurement.
    pub seconds: f64,
    pub connections: u16,
    pub workers: u16,
    /// What makes figures worse than they need be.
    #[serde(default)]
    pub caveats: Vec<String>,
}

impl Conditions {
    /// How often and how long it was measured, with clients of this kind.
    pub(crate) fn measured(&self, clients: &str) -> String {
        let Conditions {
            proxy_on,
            rest_on,
            rounds,
            seconds,
            ..
        } = self;
        let where_to = if proxy_on.is_empty() {
            "all on any processor".to_owned()
        } else {
            format!("the proxy on processor {proxy_on:?}, generator and backend on {rest_on:?}")
        };
        format!("of {rounds} rounds of {seconds} s, {clients}; {where_to},")
    }
}

/// A proxy that could not be compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    pub name: String,
    pub why: String,
    /// What to install.
    pub package: String,
}

/// What one piece of work showed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Section {
    /// A word or two, unique among the sections of any number of workers.
    pub name: String,
    /// Workers of each proxy.
    pub workers: u16,
    pub title: String,
    /// What was done, in a sentence or more.
    pub about: String,
    /// How often and how long it was measured, where that is not as the conditions say.
    #[serde(default)]
    pub measured: Option<String>,
    pub tables: Vec<Table>,
    pub charts: Vec<Chart>,
    pub verdicts: Vec<Verdict>,
    /// What to know when reading it.
    pub notes: Vec<String>,
    /// What went wrong.
    pub problems: Vec<String>,
    pub shown: Vec<Shown>,
    /// How backend and load generator were started.
    pub commands: Vec<String>,
    /// Everything measured, in a form of the scenario's own.
    pub raw: serde_json::Value,
}

/// A table: first column to the left, others to the right.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// A bar chart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    pub title: String,
    /// Of the figures.
    pub unit: String,
    pub bars: Vec<Bar>,
}

/// A bar of it; without a figure its place stays empty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    pub label: String,
    pub figure: Option<Spread>,
}

/// A budget, and whether it holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub what: String,
    /// Which figure is bounded; none where it could not be had.
    pub figure: Option<Spread>,
    pub bound: f64,
    /// Whether the bound is an upper one.
    pub at_most: bool,
    /// Of the median; none where that cannot be said.
    pub holds: Option<bool>,
    /// Why it cannot.
    #[serde(default)]
    pub doubt: Option<String>,
}

impl Verdict {
    pub(crate) fn new(what: String, figure: Option<Spread>, bound: f64, at_most: bool) -> Verdict {
        let within = |figure: Spread| {
            if at_most {
                figure.median <= bound
            } else {
                figure.median >= bound
            }
        };
        Verdict {
            what,
            holds: figure.map(within),
            doubt: figure.is_none().then(|| "errors".to_owned()),
            figure,
            bound,
            at_most,
        }
    }

    /// The same without a judgement: the figure is not what it seems.
    pub(crate) fn doubted(mut self, why: &str) -> Verdict {
        self.holds = None;
        self.doubt.get_or_insert_with(|| why.to_owned());
        self
    }
}

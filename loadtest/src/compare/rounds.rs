//! Interleaved rounds: every proxy in turn, again and again, so that what drifts drifts for all.

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::figures;
use super::lab::Lab;
use super::measure::{Load, Sample, half, line, measure};
use super::peers::{Found, TIDEGATE, fields};
use super::section::{Section, Verdict};
use super::spread::Spread;
use super::stage::{Plan, Stage};

/// Tidegate's limit per endpoint where the limit is not what is measured: counted and never reached.
pub(crate) const AMPLE_LIMIT: u32 = 100;

/// Whose speed at saturation decides the fixed rate.
const CALIBRATES: [&str; 2] = ["nginx", TIDEGATE];

/// A figure of each round.
pub(crate) type Figure = fn(&PeerRounds) -> Vec<f64>;

/// Load through a chain of generator, proxy and backend.
pub(crate) struct Work {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) about: &'static str,
    pub(crate) load: Load,
    /// Options of the backend.
    pub(crate) backend: &'static [&'static str],
    /// What a request is called where processor time is counted per request: `MiB` where it moves
    /// just that.
    pub(crate) unit: &'static str,
    /// Figures beside the usual ones, each a column of its name.
    pub(crate) also: &'static [(&'static str, Figure)],
    pub(crate) budgets: fn(&Rounds) -> Vec<Verdict>,
}

/// All samples of one piece of work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rounds {
    /// The fixed rate, requests per second.
    pub rate: f64,
    /// Workers of each proxy.
    pub workers: u16,
    pub peers: Vec<PeerRounds>,
}

/// Those of one proxy, by round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerRounds {
    pub name: String,
    pub saturation: Vec<Sample>,
    pub fixed: Vec<Sample>,
    /// What kept it from its turns.
    pub problems: Vec<String>,
}

impl PeerRounds {
    /// Whether every figure was come by honestly: no error, no turn missed, all books agree.
    #[must_use]
    pub fn sound(&self) -> bool {
        let mut samples = self.saturation.iter().chain(&self.fixed);
        self.problems.is_empty() && samples.all(|sample| sample.problems.is_empty())
    }
}

impl Rounds {
    pub(crate) fn peer(&self, name: &str) -> Option<&PeerRounds> {
        self.peers.iter().find(|peer| peer.name == name)
    }

    /// A figure of one proxy over that of another in the same round. None where one of them is
    /// missing or has erred.
    pub(crate) fn ratio(
        &self,
        of: &str,
        to: &str,
        figure: impl Fn(&PeerRounds) -> Vec<f64>,
    ) -> Option<Spread> {
        let (of, to) = (self.peer(of)?, self.peer(to)?);
        if !of.sound() || !to.sound() {
            return None;
        }
        let (of, to) = (figure(of), figure(to));
        Spread::of(of.iter().zip(&to).map(|(of, to)| of / to))
    }
}

/// Does a piece of work; none where no proxy takes part in it.
///
/// # Errors
///
/// The backend or the generator fails.
pub(crate) async fn price(lab: &Lab, work: &Work) -> anyhow::Result<Option<Section>> {
    let plan = Plan {
        name: work.name,
        backend: work.backend.iter().map(|&arg| arg.to_owned()).collect(),
        limit: AMPLE_LIMIT,
        workers: lab.workers,
        speech: work.load.speech,
    };
    let peers: Vec<&Found> = lab.cast(work.name, work.load.speech).collect();
    if peers.is_empty() {
        lab.say(format!("{}: left out, for no proxy takes part", work.name));
        return Ok(None);
    }
    let mut stage = Stage::set(lab, &plan, peers).await?;
    let rounds = play(lab, &mut stage, work).await?;
    let mut section = figures::section(lab, work, &rounds);
    let peers = stage.actors.iter().map(|actor| actor.found.peer);
    section.notes.push(fields::note(peers));
    section
        .notes
        .extend(lab.left_out(work.name, work.load.speech));
    section.shown = stage
        .actors
        .iter()
        .map(|actor| actor.shown.clone())
        .collect();
    let certificates = lab.certificate.directory().display().to_string();
    let root = lab.root().display().to_string();
    let first = stage.actors.first().context("no proxy took part")?.listen;
    for shown in [
        stage.backend_line.to_string(),
        line(lab, &work.load, first, None)?.to_string(),
        line(lab, &work.load, first, Some(rounds.rate))?.to_string(),
    ] {
        let shown = shown.replace(&certificates, "$CERTIFICATES");
        section.commands.push(shown.replace(&root, "$DIR"));
    }
    section.raw = serde_json::to_value(&rounds)?;
    Ok(Some(section))
}

async fn play(lab: &Lab, stage: &mut Stage, work: &Work) -> anyhow::Result<Rounds> {
    let mut rounds = Rounds {
        rate: 0.0,
        workers: lab.workers,
        peers: Vec::new(),
    };
    for actor in &stage.actors {
        rounds.peers.push(PeerRounds {
            name: actor.name().to_owned(),
            saturation: Vec::new(),
            fixed: Vec::new(),
            problems: actor.problem.clone().into_iter().collect(),
        });
    }
    // A first round, which does not count, warms everything and shows how fast it can go.
    let mut first = rounds.clone();
    for index in 0..stage.actors.len() {
        turn(
            lab,
            stage,
            work,
            index,
            "calibration",
            &mut first.peers[index],
            None,
        )
        .await?;
    }
    rounds.rate = lab.rate.unwrap_or_else(|| calibrated(&first));
    for (peer, first) in rounds.peers.iter_mut().zip(first.peers) {
        peer.problems = first.problems;
    }
    for round in 1..=lab.rounds {
        let when = format!("round {round} of {}", lab.rounds);
        for index in 0..stage.actors.len() {
            let peer = &mut rounds.peers[index];
            turn(lab, stage, work, index, &when, peer, Some(rounds.rate)).await?;
        }
    }
    Ok(rounds)
}

/// The turn of one proxy: at saturation, then at the fixed rate if there is one yet.
async fn turn(
    lab: &Lab,
    stage: &mut Stage,
    work: &Work,
    index: usize,
    when: &str,
    peer: &mut PeerRounds,
    rate: Option<f64>,
) -> anyhow::Result<()> {
    // Who failed once has no further turns: its pools and queues are in a state nobody asked for.
    if !peer.problems.is_empty() {
        return Ok(());
    }
    for rate in std::iter::once(None).chain(rate.map(Some)) {
        let fixed = rate.is_some();
        let how = if fixed { "fixed rate" } else { "saturation" };
        lab.say(format!("{}, {when}: {}, {how}", work.name, peer.name));
        match measure(lab, stage, index, &work.load, rate, lab.workers).await {
            Ok(sample) if fixed => peer.fixed.push(sample),
            Ok(sample) => peer.saturation.push(sample),
            Err(error) => {
                stage.backend.check()?;
                peer.problems.push(format!("{when}: {error:#}"));
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Half of what the one that calibrates can do; of the slowest, if it is not there.
fn calibrated(first: &Rounds) -> f64 {
    let rate = |peer: &PeerRounds| peer.saturation.first().map(|sample| sample.report.rate);
    let mut calibrates = CALIBRATES.iter().filter_map(|name| rate(first.peer(name)?));
    let slowest = || first.peers.iter().filter_map(rate).reduce(f64::min);
    let rate = calibrates.next().or_else(slowest);
    half(rate.unwrap_or_default())
}

//! Load, and what came back.

/// The options of this command.
#[derive(Debug, clap::Args)]
pub struct RunArgs {}

/// Runs the command.
///
/// # Errors
///
/// What kept it from doing its work.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the command line hands it over"
)]
pub fn main(args: RunArgs) -> anyhow::Result<()> {
    anyhow::bail!("not built yet: {args:?}")
}

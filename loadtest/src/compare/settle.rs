//! Memory that no longer changes.

use std::time::Duration;

use rustix::process::Pid;
use tokio::time::sleep;

use super::kernel::Memory;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// Looks at most. What has not settled by then is taken as it is: some proxies never rest.
const LOOKS: u32 = 12;

/// Two looks that differ by at most one part in this many are the same.
const PART: u64 = 1000;

/// Reads it again and again until it stays.
///
/// # Errors
///
/// The process has gone.
pub(crate) async fn settled(
    read: fn(Pid) -> anyhow::Result<Memory>,
    pid: Pid,
) -> anyhow::Result<Memory> {
    let mut before = read(pid)?;
    for _ in 0..LOOKS {
        sleep(LOOK).await;
        let now = read(pid)?;
        let same = now.rss.abs_diff(before.rss) <= now.rss / PART;
        before = now;
        if same {
            break;
        }
    }
    Ok(before)
}

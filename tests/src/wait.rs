//! Waiting for conditions: the tests' only relation to time.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// How long a test waits for what should happen at once: long enough for the slowest machine,
/// since only a failing test ever waits that long.
pub const PATIENCE: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(5);

/// Asks `check` until it gives a value.
///
/// # Panics
/// After `limit` without one, naming `what` was awaited.
pub async fn eventually<T>(
    limit: Duration,
    what: &str,
    mut check: impl AsyncFnMut() -> Option<T>,
) -> T {
    let check = async || check().await.ok_or("nothing to be seen");
    eventually_seen(limit, what, check).await
}

/// The same of a `check` that says what it saw while that is not yet as wanted.
///
/// # Panics
/// After `limit`, naming `what` was awaited, and what was seen last.
pub async fn eventually_seen<T, S: std::fmt::Display>(
    limit: Duration,
    what: &str,
    mut check: impl AsyncFnMut() -> Result<T, S>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        let seen = match check().await {
            Ok(value) => return value,
            Err(seen) => seen,
        };
        assert!(
            Instant::now() < deadline,
            "waited {limit:?} in vain until {what}: {seen}"
        );
        sleep(PAUSE).await;
    }
}

/// The future's value.
///
/// # Panics
/// If it takes longer than [`PATIENCE`], naming `what` was awaited.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}

/// Waits until a count has begun to grow and grows no longer, and gives it.
pub async fn settled(what: &str, count: impl Fn() -> usize) -> usize {
    let (mut last, mut same) = (0, 0);
    eventually(PATIENCE, what, async || {
        let now = count();
        same = if now == last && now > 0 { same + 1 } else { 0 };
        last = now;
        (same > 40).then_some(now)
    })
    .await
}

/// What a stand-in's work or a long way takes. Not for tests: they wait for conditions.
pub async fn takes(time: Duration) {
    sleep(time).await;
}

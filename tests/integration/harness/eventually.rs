//! Waiting for a condition, with a deadline that fails loudly.

use std::time::{Duration, Instant};

/// How long anything may take on a slow, busy machine before a test fails.
pub const DEADLINE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(15);

/// Asks until `look` finds something; fails with `what` at the deadline.
pub async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    let mut look = look;
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < DEADLINE, "{what}: not after {DEADLINE:?}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks until `holds` says yes; fails with `what` at the deadline.
pub async fn until(what: &str, holds: impl AsyncFnMut() -> bool) {
    let mut holds = holds;
    eventually(what, async || holds().await.then_some(())).await;
}

//! The two clocks. Durations are measured with the `Instant`s of one, which callers pass on; wall
//! time is only shown (`TIME`, `INFO`), because it can jump, and is read here alone.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The present, by tokio's clock, which tests can pause. Cost: some 30 nanoseconds.
#[inline]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Time since 1970-01-01 UTC; zero for a clock set before that.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
pub fn wall_time() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

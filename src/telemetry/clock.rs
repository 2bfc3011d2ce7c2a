//! The one place that reads the wall clock. Durations are measured with `Instant`s that callers
//! pass on; wall time is only shown (`TIME`, `INFO`), because it can jump.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

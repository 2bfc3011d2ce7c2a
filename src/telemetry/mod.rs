//! What Tally knows about itself: counters, the nodes' states, the process, the wall clock.
//!
//! Plain data that every layer above may write or read; it does no I/O but `/proc/self` and the
//! system's clock. A counter is exact, but two counters read one after the other are not one
//! snapshot.

pub mod clock;
mod commands;
mod counter;
mod dead_letters;
mod durations;
pub mod histogram;
mod hot_keys;
mod latency;
pub mod log;
pub mod metrics;
mod node;
mod percentiles;
mod process;
mod rate;
mod seen;
mod slow_log;
mod stats;

pub use commands::{CommandSample, CommandStats, ErrorCounts};
pub use counter::{Counter, Gauge};
pub use dead_letters::{DeadLetter, DeadLetters};
pub use durations::{Durations, DurationsSample};
pub use hot_keys::{HotKey, HotKeys};
pub use latency::{LatencyEvents, LatencyReport, LatencySample};
pub use node::{NodeState, NodeStatus};
pub use percentiles::{NoPercentiles, Percentiles, shown as shown_percentile};
pub use process::{ProcessUsage, kernel_release, random_run_id, system_memory_bytes};
pub use seen::{Refusal, Refusals, Seen, Touch, Use};
pub use slow_log::{SlowEntry, SlowLog};
pub use stats::Stats;

//! Every counter of Tally, in one place.

use std::time::Instant;

use parking_lot::Mutex;

use super::commands::{CommandStats, ErrorCounts};
use super::counter::{Counter, Gauge};
use super::dead_letters::DeadLetters;
use super::hot_keys::HotKeys;
use super::latency::LatencyEvents;
use super::rate::Rate;
use super::seen::{Refusals, Seen};
use super::slow_log::SlowLog;

/// What has happened since the start or the last `CONFIG RESETSTAT`. Shared by every task.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections accepted.
    pub connections_received: Counter,
    /// Connections closed at once because there were too many clients.
    pub rejected_connections: Counter,
    /// Requests of clients executed, failed ones included.
    pub commands_processed: Counter,
    /// Bytes read from clients.
    pub net_input_bytes: Counter,
    /// Bytes written to clients.
    pub net_output_bytes: Counter,
    /// Reads answered from memory.
    pub keyspace_hits: Counter,
    /// Reads that had to ask a node.
    pub keyspace_misses: Counter,
    /// Increments (`INCR` and its family) received.
    pub increments_received: Counter,
    /// Increments answered from memory.
    pub increments_local: Counter,
    /// Increments sent to their node one by one.
    pub increments_forwarded: Counter,
    /// Flushes sent.
    pub flush_batches: Counter,
    /// Keys in these flushes.
    pub flush_keys: Counter,
    /// Acknowledged increments that a flush applied.
    pub increments_flushed: Counter,
    /// Flushes that a node refused for reasons of its own; they are kept.
    pub flush_errors: Counter,
    /// Increments that Redis refused after they were acknowledged. Survives [`Stats::reset`].
    pub dead_letters: Counter,
    /// Keys whose pending increments died with their deadline, as they would have in Redis.
    pub expired_increments: Counter,
    /// Increments whose flush may or may not have been applied. Survives [`Stats::reset`].
    pub in_doubt: Counter,
    /// Clients closed for bytes that are no request.
    pub protocol_errors: Counter,
    /// Clients closed because they did not read their replies.
    pub output_limit_closed: Counter,
    /// Error replies made here; those of nodes are passed on and not counted.
    pub errors_replied: Counter,
    /// Requests sent to nodes.
    pub upstream_requests: Counter,
    /// Requests that took long, for `LATENCY`. Survives [`Stats::reset`].
    pub latency: LatencyEvents,
    /// How many commands of each kind [`Stats::commands_processed`] counts, and how long they took.
    pub commands: CommandStats,
    /// Errors that clients were given, those of nodes too, by their first word.
    pub errors: ErrorCounts,
    /// The last requests that took long. Survives [`Stats::reset`], as in Redis.
    pub slow_log: SlowLog,
    /// Keys asked for lately.
    pub seen: Seen,
    /// The busiest of them.
    pub hot_keys: HotKeys,
    /// Calls of limit scripts that were known as such.
    pub limit_calls: Counter,
    /// Requests that they became.
    pub limit_requests: Counter,
    /// Calls that were denied from memory.
    pub limit_denied: Counter,
    /// What was refused lately.
    pub refusals: Refusals,
    /// The last of the increments that Redis refused after they were acknowledged. Survives
    /// [`Stats::reset`].
    pub refused: DeadLetters,
    /// Slots of the journal; 0 without one. Survives [`Stats::reset`], as the next three do.
    pub journal_slots: Gauge,
    /// Of them, those that hold increments.
    pub journal_slots_taken: Gauge,
    /// When the journal was last written to the disk, in seconds since 1970; 0: never.
    pub journal_last_sync: Gauge,
    /// How often writing it to the disk failed.
    pub journal_sync_errors: Counter,
    commands_rate: Mutex<Rate>,
}

impl Stats {
    /// Notes how many commands were processed up to `now`, for [`Stats::commands_per_second`];
    /// a timer calls it every 100 ms. Earlier calls have no effect.
    pub fn sample(&self, now: Instant) {
        self.commands_rate
            .lock()
            .sample(now, self.commands_processed.get());
    }

    /// Commands per second over the last 16 samples (1.5 s when a timer takes them, else the time
    /// between the calls of this function).
    pub fn commands_per_second(&self, now: Instant) -> u64 {
        self.sample(now);
        self.commands_rate.lock().per_second()
    }

    /// What `CONFIG RESETSTAT` does. The traces of lost counts stay: [`Stats::dead_letters`] and
    /// [`Stats::in_doubt`] must not vanish because a client asked for fresh statistics.
    pub fn reset(&self) {
        for counter in [
            &self.connections_received,
            &self.rejected_connections,
            &self.commands_processed,
            &self.net_input_bytes,
            &self.net_output_bytes,
            &self.keyspace_hits,
            &self.keyspace_misses,
            &self.increments_received,
            &self.increments_local,
            &self.increments_forwarded,
            &self.flush_batches,
            &self.flush_keys,
            &self.increments_flushed,
            &self.flush_errors,
            &self.protocol_errors,
            &self.output_limit_closed,
            &self.errors_replied,
            &self.upstream_requests,
            &self.limit_calls,
            &self.limit_requests,
            &self.limit_denied,
        ] {
            counter.reset();
        }
        self.commands.reset();
        self.errors.reset();
        self.commands_rate.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_keeps_what_was_lost() {
        let stats = Stats::default();
        stats.commands_processed.add(3);
        stats.dead_letters.add(2);
        stats.in_doubt.add(1);
        stats.reset();
        assert_eq!(stats.commands_processed.get(), 0);
        assert_eq!(stats.dead_letters.get(), 2);
        assert_eq!(stats.in_doubt.get(), 1);
    }
}

//! What the requests of one batch came to, in numbers.

use std::time::Duration;

use crate::command::Command;
use crate::telemetry::Stats;

/// What a batch did, added to the shared statistics once.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) commands: u64,
    pub(super) increments: u64,
    pub(super) increments_local: u64,
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) errors: u64,
    pub(super) last_command: Option<&'static Command>,
    /// The counts of a few commands, and in `further` those of other commands.
    counts: [Option<Count>; DISTINCT],
    further: Vec<Count>,
    /// The time of each command that was answered here and not timed by itself.
    pub(super) share: Duration,
}

/// What one command came to.
#[derive(Clone, Copy, Debug)]
struct Count {
    command: &'static Command,
    calls: u64,
    /// How many of the calls share the time of the batch.
    sharing: u64,
    failed: u64,
}

impl Tally {
    /// Adds it to what all sessions did.
    pub(super) fn add_to(&self, stats: &Stats) {
        stats.commands_processed.add(self.commands);
        stats.increments_received.add(self.increments);
        stats.increments_local.add(self.increments_local);
        stats.keyspace_hits.add(self.hits);
        stats.keyspace_misses.add(self.misses);
        stats.errors_replied.add(self.errors);
        for count in self.counts.iter().flatten().chain(&self.further) {
            stats.commands.add(count.command, count.calls);
            if count.sharing > 0 {
                stats
                    .commands
                    .observe(count.command, self.share, count.sharing);
            }
            if count.failed > 0 {
                stats.commands.fail(count.command, count.failed);
            }
        }
    }

    /// Counts one call of `command`. It shares the time of the batch unless it was timed by itself
    /// or waits.
    #[inline]
    pub(super) fn count(&mut self, command: &'static Command, shares: bool, failed: bool) {
        self.add(Count {
            command,
            calls: 1,
            sharing: u64::from(shares),
            failed: u64::from(failed),
        });
    }

    /// Counts calls of `command` that share the time of the batch.
    pub(super) fn count_many(&mut self, command: &'static Command, calls: u64) {
        self.add(Count {
            command,
            calls,
            sharing: calls,
            failed: 0,
        });
    }

    #[inline]
    fn add(&mut self, call: Count) {
        let command = call.command;
        for place in &mut self.counts {
            match place {
                Some(count) if std::ptr::eq(count.command, command) => return count.add(call),
                Some(_) => {}
                None => return *place = Some(call),
            }
        }
        let known = |count: &&mut Count| std::ptr::eq(count.command, command);
        match self.further.iter_mut().find(known) {
            Some(count) => count.add(call),
            None => self.further.push(call),
        }
    }
}

impl Count {
    fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.sharing += other.sharing;
        self.failed += other.failed;
    }
}

/// How many different commands of a batch are counted without an allocation.
const DISTINCT: usize = 4;

//! What happens in a simulated run, and how often.

use std::time::Duration;

use tally::counter::{KeyTable, Limits, Mode, Rules, TableLimits, Treatment};

use super::book::Argv;
use crate::random::Random;

/// What happens in a run, and how often.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each turns one kind of event on"
)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) clients: usize,
    pub(crate) keys: &'static [&'static str],
    /// Commands submitted before everything is brought to rest.
    pub(crate) commands: usize,
    /// Makes a command on some of the keys.
    pub(crate) command: fn(&mut Random, &[&'static str]) -> Argv,
    /// Connections break.
    pub(crate) losses: bool,
    /// The node refuses commands for a while.
    pub(crate) faults: bool,
    /// The node forgets the flush script.
    pub(crate) forgets: bool,
    /// The node's marker is evicted.
    pub(crate) evicts: bool,
    /// The node comes back as it was a while ago.
    pub(crate) restores: bool,
    /// The process is killed, and another goes on from its journal.
    pub(crate) kills: bool,
    /// The machine loses power: of each slot the journal has the last or an earlier state.
    pub(crate) outages: bool,
    /// Replies and batches wait until what they tell of is on the disk.
    pub(crate) commits: bool,
    /// Commands in flight are told of a timeout.
    pub(crate) timeouts: bool,
    /// Nobody but the test does anything.
    pub(crate) quiet: bool,
    /// The node takes scripts; else batches are applied by transactions.
    pub(crate) scripts: bool,
    /// Another program writes to the node.
    pub(crate) foreign: bool,
    pub(crate) table: TableLimits,
    /// Keys that are treated otherwise; then the times in `table` are not used.
    pub(crate) rules: &'static [(&'static str, Treatment)],
    pub(crate) lane: Limits,
}

impl Plan {
    /// One client, three keys, nothing goes wrong.
    pub(crate) fn new(command: fn(&mut Random, &[&'static str]) -> Argv) -> Self {
        Self {
            clients: 1,
            keys: &["a", "b", "c"],
            commands: 60,
            command,
            losses: false,
            faults: false,
            forgets: false,
            evicts: false,
            restores: false,
            kills: false,
            outages: false,
            commits: false,
            timeouts: false,
            quiet: false,
            scripts: true,
            foreign: false,
            table: TableLimits {
                max_keys: 100,
                max_cached_bytes: 1 << 20,
                crowd: 100,
                lease: Duration::from_millis(50),
                counter_lease: Duration::from_millis(50),
                guard: Duration::from_millis(30),
            },
            rules: &[],
            lane: Limits {
                max_in_flight: 40,
                max_unsent_bytes: 1 << 16,
                warm: true,
            },
        }
    }

    /// The keys, treated as the plan says.
    pub(super) fn table(&self, seed: u64) -> KeyTable {
        if self.rules.is_empty() {
            return KeyTable::new(self.table, seed);
        }
        let patterns = self.rules.iter();
        let patterns = patterns.map(|(pattern, treatment)| (pattern.as_bytes(), *treatment));
        KeyTable::with_rules(self.table, Rules::new(BUFFERED, patterns), seed)
    }
}

/// Of keys without a rule, where there are rules.
pub(crate) const BUFFERED: Treatment = Treatment {
    mode: Mode::Buffered,
    flush_interval: Duration::from_millis(10),
    cache_ttl: Duration::from_millis(50),
    window: Duration::ZERO,
    local_grants: false,
};

//! Other rules for the keys of a lane that is in use.
//!
//! ```text
//!   treat ──> begin_treatment ──> held like any whole-node command ──> quiet: forget everything,
//!               ^                                                      take the rules, go on
//!               └── again later, when the node was away or refused a batch
//! ```
//!
//! Nothing is pending, in flight or known of any key at that moment, so no key is ever half of one
//! kind and half of the other: what was acknowledged under the old rules has been applied, and what
//! comes then finds every key cold.

use std::sync::Arc;

use super::lane::{Extent, Lane, Step};
use super::queue::Submission;
use super::rules::Rules;
use super::table::KeyTable;

impl<T> Lane<T> {
    /// From some moment on the keys are treated by these rules; [`Lane::begin_treatment`] says
    /// when. The last ones given count.
    pub fn treat(&mut self, rules: Arc<Rules>) {
        self.next_rules = Some(rules);
    }

    /// The rules given last.
    pub fn rules_to_come(&self, table: &KeyTable) -> Arc<Rules> {
        let next = self.next_rules.as_ref().map(Arc::clone);
        next.unwrap_or_else(|| table.rules())
    }

    /// Whether the keys are still treated by older rules than were given.
    pub fn awaits_treatment(&self) -> bool {
        self.next_rules.is_some()
    }

    /// How often the rules have changed.
    pub fn treatments(&self) -> u64 {
        self.treatments
    }

    /// Has the rules changed as soon as everything pending is applied, and holds back what comes
    /// meanwhile. If something is pending and can not be applied now (the node is away, or takes no
    /// batches), nothing happens: the keys go on as they are.
    pub fn begin_treatment(&mut self, step: &mut Step<'_, T>, is_connected: bool) {
        if !self.awaits_treatment() || self.is_treating() {
            return;
        }
        let can_flush = is_connected && self.series.is_ready() && !self.series.is_fenced();
        let is_quiet = self.is_idle() && step.table.dirty() == 0;
        if can_flush || is_quiet {
            self.hold(step, Box::default(), None, Extent::Treat);
        }
    }

    /// Nothing is pending, in flight or known.
    pub(super) fn treated(&mut self, step: &Step<'_, T>) {
        if let Some(rules) = self.next_rules.take() {
            step.table.treat(rules);
            self.treatments += 1;
        }
    }

    fn is_treating(&self) -> bool {
        let is_treat = |submission: &Submission<T>| {
            matches!(
                submission,
                Submission::WholeNode {
                    extent: Extent::Treat,
                    ..
                }
            )
        };
        self.hold
            .as_ref()
            .is_some_and(|hold| hold.extent == Extent::Treat || hold.queue.iter().any(is_treat))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::counter::{Limits, Mode, TableLimits, Treatment};
    use crate::flush::{Applier, Series};

    const SECOND: Duration = Duration::from_secs(1);

    fn rules(mode: Mode) -> Rules {
        let treatment = |mode, seconds| Treatment {
            mode,
            flush_interval: SECOND * seconds,
            cache_ttl: SECOND,
            window: Duration::ZERO,
            local_grants: false,
        };
        let special = [(&b"special"[..], treatment(Mode::Buffered, 7))];
        Rules::new(treatment(mode, 1), special)
    }

    /// A lane whose clients are numbers, and what they were told.
    struct Bench {
        lane: Lane<u8>,
        table: KeyTable,
        told: Vec<(u8, String)>,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let limits = TableLimits {
                max_keys: 10,
                max_cached_bytes: 1000,
                crowd: 10,
                lease: SECOND,
                counter_lease: SECOND,
                guard: SECOND,
            };
            let bounds = Limits {
                max_in_flight: 100,
                max_unsent_bytes: 1000,
                warm: true,
            };
            let mut series = Series::new("bench", 0, 1);
            series.set_applier(Some(Applier::Script {
                sha: b"sha".to_vec(),
                body: b"body".to_vec(),
            }));
            Self {
                lane: Lane::new(bounds, series),
                table: KeyTable::with_rules(limits, rules(Mode::Buffered), 1),
                told: Vec::new(),
                now: tokio::time::Instant::now().into_std(),
            }
        }

        fn step(&mut self, run: impl FnOnce(&mut Lane<u8>, &mut Step<'_, u8>)) {
            let told = &mut self.told;
            let mut deliver = |ticket, frame: &[u8]| {
                told.push((ticket, String::from_utf8_lossy(frame).into_owned()));
            };
            let mut step = Step {
                table: &self.table,
                now: self.now,
                deliver: &mut deliver,
            };
            run(&mut self.lane, &mut step);
        }

        fn increment(&mut self, ticket: u8) {
            self.step(|lane, step| lane.increment(step, b"k", 1, ticket));
        }

        fn begin(&mut self, is_connected: bool) {
            self.step(|lane, step| lane.begin_treatment(step, is_connected));
        }

        fn reply(&mut self, frame: &str) {
            self.step(|lane, step| lane.on_reply(step, frame.as_bytes()).unwrap());
        }

        fn wire(&mut self) -> String {
            let wire = self.lane.take_wire(&self.table, self.now, Vec::new());
            String::from_utf8_lossy(&wire).into_owned()
        }

        fn mode(&self) -> Mode {
            self.table.policy(b"k").mode
        }
    }

    #[test]
    fn rules_change_when_nothing_is_in_flight_and_what_came_meanwhile_meets_the_new_ones() {
        let mut bench = Bench::new();
        bench.increment(1);
        bench.lane.treat(Arc::new(rules(Mode::Through)));
        bench.begin(true);
        bench.begin(true);
        bench.increment(2);
        bench.wire();
        assert_eq!((bench.mode(), bench.lane.treatments()), (Mode::Buffered, 0));
        bench.reply(":7\r\n");
        assert_eq!((bench.mode(), bench.lane.treatments()), (Mode::Through, 1));
        assert!(!bench.lane.awaits_treatment());
        assert!(bench.wire().contains("INCRBY"));
        bench.reply(":8\r\n");
        let told = [(1, ":7\r\n".to_owned()), (2, ":8\r\n".to_owned())];
        assert_eq!(bench.told, told);
        assert!(bench.lane.is_idle());
        // There are lists for the keys of each interval.
        assert_eq!(bench.table.dirty_by_class(), [0, 0]);
    }

    #[test]
    fn a_node_that_is_away_keeps_the_old_rules_while_something_is_pending() {
        let mut bench = Bench::new();
        bench.increment(1);
        bench.lane.treat(Arc::new(rules(Mode::Exact)));
        bench.begin(false);
        bench.increment(2);
        assert_eq!(bench.mode(), Mode::Buffered);
        bench.begin(true);
        bench.step(|lane, step| lane.disconnected(step, b"-unknown\r\n", b"-unsent\r\n"));
        assert_eq!(bench.told.len(), 2);
        assert!(bench.lane.is_idle() && bench.lane.awaits_treatment());
        // Nothing is pending any more, so it needs no connection.
        bench.begin(false);
        assert_eq!((bench.mode(), bench.lane.treatments()), (Mode::Exact, 1));
    }

    #[test]
    fn of_rules_that_are_given_one_after_the_other_the_last_count() {
        let mut bench = Bench::new();
        bench.increment(1);
        bench.lane.treat(Arc::new(rules(Mode::Exact)));
        bench.begin(true);
        bench.lane.treat(Arc::new(rules(Mode::Through)));
        bench.begin(true);
        bench.wire();
        bench.reply(":1\r\n");
        assert_eq!((bench.mode(), bench.lane.treatments()), (Mode::Through, 1));
    }
}

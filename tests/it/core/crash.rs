//! Processes that are killed, machines that lose power, and what the journal has for the next.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tally::counter::{KeyTable, Lane, Recovered};
use tally::flush::{Commits, Ledger, Series, Slots, Stage, words_of};

use super::book::Ticket;
use super::plan::Plan;
use super::sim::{Sim, UNKNOWN, UNSENT};
use crate::random::Random;

impl Sim {
    /// The words of an empty journal, if the plan has one.
    pub(super) fn journal(plan: &Plan) -> Option<&'static [AtomicU64]> {
        let last = (0..JOURNAL_SLOTS).flat_map(words_of).max();
        // And one that stands for the series' own.
        let words = (0..last.unwrap_or_default() + 2).map(|_| AtomicU64::new(0));
        (plan.kills || plan.outages).then(|| &*Box::leak(words.collect::<Box<_>>()))
    }

    /// The system writes some of the journal, of its own accord or because it was asked for all.
    pub(super) fn turn_disk(&mut self) {
        let some = |random: &mut Random| random.one_in(3);
        match (self.syncing.take(), self.commits) {
            (None, Some(commits)) if self.book.random.one_in(2) => {
                self.syncing = Some(commits.noted());
                self.write_back(some);
            }
            (None, _) => self.write_back(some),
            (Some(note), Some(commits)) => {
                self.write_back(|_| true);
                commits.keep(note);
                self.let_go();
            }
            (Some(_), None) => {}
        }
    }

    /// Some slots are written to the disk as they are.
    fn write_back(&mut self, chosen: impl Fn(&mut Random) -> bool) {
        let Some(words) = self.words else {
            return;
        };
        // The last word stands for the series' own.
        let series = vec![words.len() - 1];
        let slots = (0..JOURNAL_SLOTS).map(|slot| words_of(slot).collect());
        for unit in slots.chain([series]) {
            if chosen(&mut self.book.random) {
                for at in unit {
                    self.disk[at] = words[at].load(Ordering::Relaxed);
                }
            }
        }
    }

    /// Pages of the journal are as the disk has them.
    pub(super) fn lose_power(&mut self) {
        let Some(words) = self.words else {
            return;
        };
        self.write_back(|random| random.one_in(3));
        self.part();
        for (word, disk) in words.iter().zip(&self.disk) {
            word.store(*disk, Ordering::Relaxed);
        }
        self.book.note(|| "power lost".into());
        self.start_anew(true);
    }

    /// The process is killed, and another goes on. To its clients it is a lost connection.
    pub(crate) fn kill(&mut self) {
        self.part();
        self.book.note(|| "killed".into());
        self.start_anew(false);
    }

    /// Clients lose their connections.
    fn part(&mut self) {
        if self.away {
            self.step(|lane, step| lane.disconnected(step, UNKNOWN, UNSENT));
        } else {
            self.disconnect();
        }
    }

    fn start_anew(&mut self, outage: bool) {
        self.book.keep_back(UNKNOWN);
        self.commits = self.commits.map(|_| &*Box::leak(Box::default()));
        self.book.commits = self.commits;
        self.syncing = None;
        // A process begins with that.
        self.write_back(|_| true);
        let seed = self.book.random.next();
        (self.table, self.lane, self.slots) = process(
            &self.book.plan,
            seed,
            self.words,
            self.now,
            (self.commits, outage),
        );
    }
}

/// A process that finds in `words` what the one before had acknowledged.
pub(super) fn process(
    plan: &Plan,
    seed: u64,
    words: Option<&'static [AtomicU64]>,
    now: Instant,
    (commits, outage): (Option<&'static Commits>, bool),
) -> (KeyTable, Lane<Ticket>, Option<&'static Slots>) {
    let table = plan.table(seed);
    let Some(words) = words else {
        return (table, Lane::new(plan.lane, Series::new("sim", 0, 1)), None);
    };
    // The last word stands for the series' own.
    let Some((last, words)) = words.split_last() else {
        panic!("a journal has words");
    };
    let slots: &'static Slots = Box::leak(Box::new(Slots::new(words).with_commits(commits)));
    let table = table.with_ledger(Some(Ledger::new(slots, 0, last)));
    let mut recovered = Recovered {
        after_outage: outage,
        ..Recovered::default()
    };
    for found in slots.read().map(Result::unwrap) {
        match found.stage {
            Stage::InDoubt => recovered.in_doubt.push(found.increment),
            Stage::Sealed(number) => {
                let batch = recovered.batches.entry(number).or_default();
                batch.push(found.increment);
            }
            Stage::Pending if outage && commits.is_none() => {
                let suspect = (found.taken_after, found.increment);
                recovered.suspects.push(suspect);
            }
            Stage::Pending => recovered.pending.push(found.increment),
        }
    }
    let lane = Lane::recover(plan.lane, Series::new("sim", 0, 1), recovered, &table, now);
    (table, lane, Some(slots))
}

/// Slots of a journal: few enough that they run out.
const JOURNAL_SLOTS: usize = 12;

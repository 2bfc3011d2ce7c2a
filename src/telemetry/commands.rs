//! What is known of each command, and of each kind of error.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::Mutex;

use super::counter::Counter;
use super::durations::{Durations, DurationsSample};
use super::percentiles::Percentiles;
use crate::command::{self, Command};

/// Counts and durations of each command, in the order of [`Command::index`].
#[derive(Debug)]
pub struct CommandStats {
    figures: Box<[Figures]>,
    /// What `INFO` tells of the durations. Survives a reset.
    told: Mutex<Told>,
}

#[derive(Clone, Debug)]
struct Told {
    is_on: bool,
    percentiles: Percentiles,
}

#[derive(Debug, Default)]
struct Figures {
    calls: Counter,
    rejected: Counter,
    failed: Counter,
    /// Made with the first call, because most commands are never called.
    durations: OnceLock<Durations>,
}

/// The figures of one command at one moment.
#[derive(Clone, Debug)]
pub struct CommandSample {
    /// Which command.
    pub command: &'static Command,
    /// How often it was executed, failures included.
    pub calls: u64,
    /// How often it was refused before it was executed.
    pub rejected: u64,
    /// Of the calls, those that were answered with an error.
    pub failed: u64,
    /// How long its replies took; those that are still to come are not in it.
    pub durations: DurationsSample,
}

impl Default for CommandStats {
    fn default() -> Self {
        Self {
            figures: (0..command::PLACES).map(|_| Figures::default()).collect(),
            told: Mutex::new(Told {
                is_on: true,
                percentiles: Percentiles::default(),
            }),
        }
    }
}

impl CommandStats {
    /// `n` more of `command` executed.
    pub fn add(&self, command: &'static Command, n: u64) {
        if let Some(figures) = self.figures.get(command.index()) {
            figures.calls.add(n);
        }
    }

    /// One more of `command` refused before it was executed.
    pub fn reject(&self, command: &'static Command) {
        if let Some(figures) = self.figures.get(command.index()) {
            figures.rejected.increment();
        }
    }

    /// `n` of the calls of `command` were answered with an error.
    pub fn fail(&self, command: &'static Command, n: u64) {
        if let Some(figures) = self.figures.get(command.index()) {
            figures.failed.add(n);
        }
    }

    /// `n` of the calls of `command` took `duration` each.
    pub fn observe(&self, command: &'static Command, duration: Duration, n: u64) {
        if let Some(figures) = self.figures.get(command.index()) {
            let durations = figures.durations.get_or_init(Durations::default);
            durations.observe(duration, n);
        }
    }

    /// Whether `INFO` tells of durations.
    pub fn tells_durations(&self) -> bool {
        self.told.lock().is_on
    }

    /// Has `INFO` tell of durations or not. They are counted in any case.
    pub fn tell_durations(&self, is_on: bool) {
        self.told.lock().is_on = is_on;
    }

    /// Which percentiles of the durations it tells.
    pub fn percentiles(&self) -> Percentiles {
        self.told.lock().percentiles.clone()
    }

    /// Sets these.
    pub fn set_percentiles(&self, percentiles: Percentiles) {
        self.told.lock().percentiles = percentiles;
    }

    /// Every command that was called or refused, in the order of the table, then what was
    /// learned.
    pub fn samples(&self) -> impl Iterator<Item = CommandSample> {
        self.figures
            .iter()
            .enumerate()
            .filter_map(|(index, figures)| {
                let command = command::at(index)?;
                let (calls, rejected) = (figures.calls.get(), figures.rejected.get());
                (calls + rejected > 0).then(|| CommandSample {
                    command,
                    calls,
                    rejected,
                    failed: figures.failed.get(),
                    durations: figures
                        .durations
                        .get()
                        .map(Durations::sample)
                        .unwrap_or_default(),
                })
            })
    }

    pub(super) fn reset(&self) {
        for figures in &self.figures {
            figures.calls.reset();
            figures.rejected.reset();
            figures.failed.reset();
            if let Some(durations) = figures.durations.get() {
                durations.reset();
            }
        }
    }
}

/// How often clients were given each kind of error: its first word, such as `WRONGTYPE`.
#[derive(Debug, Default)]
pub struct ErrorCounts(Mutex<BTreeMap<Box<str>, u64>>);

impl ErrorCounts {
    /// Counts an error text, without the `-` before it.
    pub fn note(&self, text: &[u8]) {
        let code = code_of(text);
        let mut counts = self.0.lock();
        if let Some(count) = counts.get_mut(&*code) {
            *count += 1;
        } else if counts.len() < MAX_CODES {
            counts.insert(code.into(), 1);
        } else {
            *counts.entry(OTHERS.into()).or_default() += 1;
        }
    }

    /// Each code, in order, and its count.
    pub fn each(&self) -> Vec<(Box<str>, u64)> {
        let counts = self.0.lock();
        counts.iter().map(|(code, n)| (code.clone(), *n)).collect()
    }

    /// All of them together.
    pub fn total(&self) -> u64 {
        self.0.lock().values().sum()
    }

    pub(super) fn reset(&self) {
        self.0.lock().clear();
    }
}

/// The first word of an error, made fit for a line of `INFO` and a label. A script can make errors
/// of any text.
fn code_of(text: &[u8]) -> std::borrow::Cow<'_, str> {
    let end = text
        .iter()
        .position(|byte| !byte.is_ascii_graphic() || b":=,\"\\".contains(byte))
        .unwrap_or(text.len());
    let code = text.get(..end.min(MAX_CODE_BYTES)).unwrap_or_default();
    if code.is_empty() {
        return "ERR".into();
    }
    String::from_utf8_lossy(code)
}

/// Different codes counted: as many as later versions of Redis count
/// (`ERROR_STATS_LIMIT` in 7.4's `server.c`).
const MAX_CODES: usize = 128;
const MAX_CODE_BYTES: usize = 32;
/// Counts the errors whose codes had no room.
const OTHERS: &str = "OTHERS";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_is_listed() {
        let stats = CommandStats::default();
        let [first, second] = [0, 7].map(|at| &command::commands()[at]);
        stats.add(first, 3);
        stats.fail(first, 1);
        stats.observe(first, Duration::from_micros(5), 3);
        stats.reject(second);
        let samples: Vec<_> = stats.samples().collect();
        assert_eq!(samples.len(), 2);
        assert_eq!((samples[0].calls, samples[0].failed), (3, 1));
        assert_eq!(samples[0].durations.count(), 3);
        assert_eq!((samples[1].calls, samples[1].rejected), (0, 1));
        stats.reset();
        assert_eq!(stats.samples().count(), 0);
    }

    #[test]
    fn errors_are_counted_by_their_first_word_and_bounded() {
        let errors = ErrorCounts::default();
        for text in ["WRONGTYPE Operation", "ERR a", "ERR b", "", "a:b c"] {
            errors.note(text.as_bytes());
        }
        let list: Vec<_> = errors.each();
        let list: Vec<_> = list.iter().map(|(code, n)| (&**code, *n)).collect();
        assert_eq!(list, [("ERR", 3), ("WRONGTYPE", 1), ("a", 1)]);
        for n in 0..500 {
            errors.note(format!("E{n} x").as_bytes());
        }
        assert!(errors.each().len() <= MAX_CODES + 1);
        assert_eq!(errors.total(), 505);
    }
}

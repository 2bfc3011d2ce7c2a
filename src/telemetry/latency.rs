//! `LATENCY`: when requests took long, second by second, once a threshold is set.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::command::{Command, Flags};

/// What took long lately: for each kind of event the worst of each second that had one, and of
/// these the last 160. The kinds are Redis's: commands that ought to be quick, and all others.
#[derive(Debug, Default)]
pub struct LatencyEvents {
    /// Milliseconds; 0: nothing is noted.
    threshold_ms: AtomicI64,
    series: Mutex<[Series; 2]>,
}

#[derive(Debug, Default)]
struct Series {
    samples: VecDeque<LatencySample>,
    /// Since the last reset.
    worst_ms: u64,
}

/// The worst of one second.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LatencySample {
    /// Since 1970.
    pub seconds: u64,
    /// How long it took.
    pub ms: u64,
}

/// One kind of event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LatencyReport {
    /// Its name.
    pub event: &'static str,
    /// From the oldest to the newest; never empty.
    pub samples: Vec<LatencySample>,
    /// The worst since the last reset.
    pub worst_ms: u64,
}

impl LatencyEvents {
    /// From how many milliseconds on an event is noted; 0: none is.
    pub fn threshold_ms(&self) -> i64 {
        self.threshold_ms.load(Ordering::Relaxed)
    }

    /// Sets it.
    pub fn set_threshold_ms(&self, ms: i64) {
        self.threshold_ms.store(ms.max(0), Ordering::Relaxed);
    }

    /// A request took this long, as is known at `wall` (since 1970). Below the threshold it costs
    /// no more than reading that.
    #[inline]
    pub fn observe(&self, command: &Command, took: Duration, wall: impl FnOnce() -> Duration) {
        let threshold = self.threshold_ms();
        if threshold == 0 {
            return;
        }
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        if i64::try_from(ms).is_ok_and(|ms| ms < threshold) {
            return;
        }
        let at = usize::from(command.flags.contains(Flags::FAST));
        let mut series = self.series.lock();
        if let Some(series) = series.get_mut(at) {
            series.note(wall().as_secs(), ms);
        }
    }

    /// All kinds of which there are samples.
    pub fn reports(&self) -> Vec<LatencyReport> {
        let series = self.series.lock();
        let known = EVENTS.iter().zip(series.iter());
        let known = known.filter(|(_, series)| !series.samples.is_empty());
        let reports = known.map(|(event, series)| LatencyReport {
            event,
            samples: series.samples.iter().copied().collect(),
            worst_ms: series.worst_ms,
        });
        reports.collect()
    }

    /// Forgets the kinds for which `is_meant`; returns how many of them had samples.
    pub fn reset(&self, is_meant: impl Fn(&str) -> bool) -> usize {
        let mut series = self.series.lock();
        let meant = EVENTS.iter().zip(series.iter_mut());
        let meant = meant.filter(|(event, series)| is_meant(event) && !series.samples.is_empty());
        meant.map(|(_, series)| *series = Series::default()).count()
    }

    /// What the samples mean, in words.
    pub fn doctor(&self) -> String {
        let mut text = String::new();
        let threshold = self.threshold_ms();
        for report in self.reports() {
            let count = report.samples.len();
            let sum: u64 = report.samples.iter().map(|sample| sample.ms).sum();
            let mean = sum / u64::try_from(count).unwrap_or(1).max(1);
            writeln!(
                text,
                "{}: {count} seconds with requests of {threshold} ms or more, their worst {mean} ms \
                 in the mean, {} ms at most.",
                report.event, report.worst_ms
            )
            .unwrap_or_default();
        }
        let rest = match (threshold, text.is_empty()) {
            (0, _) => {
                "No latency events are noted: CONFIG SET latency-monitor-threshold takes the \
                 milliseconds from which on they are."
            }
            (_, true) => "No request took so long as latency-monitor-threshold.",
            (_, false) => "TALLY SLOWLOG tells where the time of single requests went.",
        };
        text.push_str(rest);
        text.push('\n');
        text
    }
}

impl Series {
    fn note(&mut self, seconds: u64, ms: u64) {
        self.worst_ms = self.worst_ms.max(ms);
        match self.samples.back_mut() {
            Some(last) if last.seconds == seconds => last.ms = last.ms.max(ms),
            _ => {
                if self.samples.len() == SAMPLES {
                    self.samples.pop_front();
                }
                self.samples.push_back(LatencySample { seconds, ms });
            }
        }
    }
}

/// Redis's names (`latency.h`, `call` in `server.c`), by whether a command has the flag `fast`.
const EVENTS: [&str; 2] = ["command", "fast-command"];

/// As in Redis (`LATENCY_TS_LEN`).
const SAMPLES: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::commands;

    fn command(name: &str) -> &'static Command {
        commands()
            .iter()
            .find(|command| command.name == name)
            .unwrap()
    }

    #[test]
    fn the_worst_of_each_second_is_kept_of_what_reaches_the_threshold() {
        let events = LatencyEvents::default();
        let note = |name, ms, second| {
            let wall = || Duration::from_secs(second);
            events.observe(command(name), Duration::from_millis(ms), wall);
        };
        note("set", 500, 1);
        assert_eq!(events.reports(), []);
        events.set_threshold_ms(100);
        for (name, ms, second) in [
            ("sort", 99, 2),
            ("sort", 100, 2),
            ("sort", 300, 2),
            ("sort", 200, 2),
            ("sort", 150, 4),
            ("incr", 1000, 4),
        ] {
            note(name, ms, second);
        }
        let sample = |seconds, ms| LatencySample { seconds, ms };
        let reports = events.reports();
        assert_eq!(reports[0].event, "command");
        assert_eq!(reports[0].samples, [sample(2, 300), sample(4, 150)]);
        assert_eq!(reports[0].worst_ms, 300);
        assert_eq!(
            (reports[1].event, reports[1].worst_ms),
            ("fast-command", 1000)
        );
        assert!(events.doctor().contains("command: 2 seconds"));
        assert_eq!(events.reset(|event| event == "command"), 1);
        assert_eq!(events.reset(|_| true), 1);
        assert_eq!(events.reset(|_| true), 0);
    }

    #[test]
    fn old_samples_go() {
        let events = LatencyEvents::default();
        events.set_threshold_ms(1);
        for second in 0..1000 {
            let wall = || Duration::from_secs(second);
            events.observe(command("sort"), Duration::from_secs(1), wall);
        }
        let reports = events.reports();
        assert_eq!(reports[0].samples.len(), SAMPLES);
        assert_eq!(reports[0].samples[0].seconds, 840);
    }
}

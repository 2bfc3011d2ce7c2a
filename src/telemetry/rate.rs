//! How fast a counter rises now, from samples of it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The last samples of a rising total. Pure: time is an argument.
#[derive(Debug, Default)]
pub(super) struct Rate {
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// Takes a sample, unless the last is too young to tell anything new.
    pub(super) fn sample(&mut self, now: Instant, total: u64) {
        if let Some((last, _)) = self.samples.back()
            && now.saturating_duration_since(*last) < SPACING
        {
            return;
        }
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((now, total));
    }

    /// Rise per second over the samples kept; 0 before there are two.
    pub(super) fn per_second(&self) -> u64 {
        let (Some((first_at, first)), Some((last_at, last))) =
            (self.samples.front(), self.samples.back())
        else {
            return 0;
        };
        let elapsed_ms = last_at.saturating_duration_since(*first_at).as_millis();
        let rise = u128::from(last.saturating_sub(*first)) * 1000;
        u64::try_from(rise.checked_div(elapsed_ms).unwrap_or(0)).unwrap_or(u64::MAX)
    }

    pub(super) fn clear(&mut self) {
        self.samples.clear();
    }
}

/// Redis keeps 16 samples taken 100 ms apart (`STATS_METRIC_SAMPLES` in `server.h`).
const SAMPLES: usize = 16;
const SPACING: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant as Clock;

    #[test]
    fn the_rate_covers_the_samples_kept_only() {
        let start = Clock::now().into_std();
        let mut rate = Rate::default();
        assert_eq!(rate.per_second(), 0);
        rate.sample(start, 1_000_000);
        assert_eq!(rate.per_second(), 0);
        for step in 1..=20_u32 {
            rate.sample(start + SPACING * step, 1_000_000 + 50 * u64::from(step));
        }
        assert_eq!(rate.per_second(), 500);
    }

    #[test]
    fn samples_closer_than_their_spacing_are_skipped() {
        let start = Clock::now().into_std();
        let mut rate = Rate::default();
        rate.sample(start, 0);
        rate.sample(start + Duration::from_millis(1), 1_000_000);
        assert_eq!(rate.per_second(), 0);
    }
}

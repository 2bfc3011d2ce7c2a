//! How long something took, in buckets.

use std::time::Duration;

use super::counter::Counter;

/// Durations counted in fixed buckets. Relaxed, like [`Counter`].
#[derive(Debug, Default)]
pub struct Histogram {
    /// One for each of [`BOUNDS`], and one for what is longer.
    buckets: [Counter; BOUNDS.len() + 1],
    sum_us: Counter,
}

/// A [`Histogram`] at one moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sample {
    /// How many there were in each bucket; the last one is for what exceeds all of [`BOUNDS`].
    pub counts: [u64; BOUNDS.len() + 1],
    /// All durations together.
    pub sum: Duration,
}

impl Histogram {
    /// Counts one. Cost: a search among fifteen bounds and two relaxed additions.
    pub fn observe(&self, duration: Duration) {
        let at = BOUNDS.partition_point(|bound| *bound < duration);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.increment();
        }
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.add(us);
    }

    /// What was counted so far.
    pub fn sample(&self) -> Sample {
        Sample {
            counts: std::array::from_fn(|at| self.buckets.get(at).map_or(0, Counter::get)),
            sum: Duration::from_micros(self.sum_us.get()),
        }
    }
}

impl Sample {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What was counted in both together.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let mut counts = self.counts;
        for (count, other) in counts.iter_mut().zip(other.counts) {
            *count += other;
        }
        Self {
            counts,
            sum: self.sum + other.sum,
        }
    }

    /// What was counted after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut counts = self.counts;
        for (count, earlier) in counts.iter_mut().zip(earlier.counts) {
            *count = count.saturating_sub(earlier);
        }
        Self {
            counts,
            sum: self.sum.saturating_sub(earlier.sum),
        }
    }

    /// The bound of the bucket in which the `part`th of a hundred lies: it took no longer than
    /// this. `None` when nothing was counted, or when it exceeds all bounds.
    pub fn percentile(&self, part: u64) -> Option<Duration> {
        let rank = (self.count() * part).div_ceil(100).max(1);
        let mut seen = 0;
        let at = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        BOUNDS.get(at).copied()
    }
}

/// Upper bounds of the buckets: 1, 2.5 and 5 of each power of ten from 100 µs (less than what a
/// loopback round trip takes under load) to 5 s (the default `upstream.request_timeout`).
pub const BOUNDS: [Duration; 15] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        let histogram = Histogram::default();
        histogram.observe(BOUNDS[0]);
        histogram.observe(BOUNDS[0] + Duration::from_nanos(1));
        histogram.observe(Duration::from_secs(3600));
        let sample = histogram.sample();
        assert_eq!(sample.counts[..3], [1, 1, 0]);
        assert_eq!(sample.counts[BOUNDS.len()], 1);
        assert_eq!(sample.count(), 3);
        assert_eq!(sample.sum, Duration::from_micros(3_600_000_200));
    }

    #[test]
    fn percentiles_are_the_bounds_above() {
        let histogram = Histogram::default();
        assert_eq!(histogram.sample().percentile(50), None);
        for _ in 0..99 {
            histogram.observe(Duration::from_micros(300));
        }
        let before = histogram.sample();
        histogram.observe(Duration::from_secs(60));
        assert_eq!(histogram.sample().percentile(50), Some(BOUNDS[2]));
        assert_eq!(histogram.sample().percentile(99), Some(BOUNDS[2]));
        assert_eq!(histogram.sample().percentile(100), None);
        assert_eq!(histogram.sample().since(&before).count(), 1);
    }
}

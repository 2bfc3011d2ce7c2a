//! How long commands took, from a tenth of a microsecond to a minute, within an eighth of the
//! value.

use std::time::Duration;

use super::counter::Counter;

/// Durations counted in buckets of which every power of two has eight. Relaxed, like [`Counter`].
///
/// The other histogram, [`Histogram`](super::histogram::Histogram), begins at 100 microseconds:
/// what is answered from memory takes a thousandth of that.
#[derive(Debug)]
pub struct Durations {
    buckets: Box<[Counter]>,
    sum_ns: Counter,
}

/// A [`Durations`] at one moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DurationsSample {
    counts: Vec<u64>,
    /// All durations together.
    pub sum: Duration,
}

impl Default for Durations {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| Counter::default()).collect(),
            sum_ns: Counter::default(),
        }
    }
}

impl Durations {
    /// Counts `n` that took `duration` each. Cost: a shift and two relaxed additions.
    pub fn observe(&self, duration: Duration, n: u64) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(bucket_of(ns)) {
            bucket.add(n);
        }
        self.sum_ns.add(ns.saturating_mul(n));
    }

    /// What was counted so far.
    pub fn sample(&self) -> DurationsSample {
        DurationsSample {
            counts: self.buckets.iter().map(Counter::get).collect(),
            sum: Duration::from_nanos(self.sum_ns.get()),
        }
    }

    /// Back to nothing.
    pub fn reset(&self) {
        self.buckets.iter().for_each(Counter::reset);
        self.sum_ns.reset();
    }
}

impl DurationsSample {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The bound of the bucket in which a percentile lies, which is in millionths of a percent: it
    /// took no longer than this, and this is at most an eighth more. Zero when nothing was counted.
    pub fn percentile(&self, millionths: u64) -> Duration {
        let share = u128::from(self.count()) * u128::from(millionths);
        let rank = share.div_ceil(100_000_000).max(1);
        let mut seen = 0_u128;
        let at = self.counts.iter().position(|count| {
            seen += u128::from(*count);
            seen >= rank
        });
        at.map_or(Duration::ZERO, |at| Duration::from_nanos(bound(at)))
    }

    /// For 1,024 nanoseconds and each power of two times that: how many took no longer. Ends with
    /// the first bound that holds all.
    pub fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> {
        let all = self.count();
        let mut steps = (0..OCTAVES).map(|octave| self.within(octave));
        let mut done = all == 0;
        std::iter::from_fn(move || {
            let step = steps.next().filter(|_| !done)?;
            done = step.1 == all;
            Some(step)
        })
    }

    /// How many took no longer than 1,024 nanoseconds times 2 to the power of `octave`.
    pub fn within(&self, octave: usize) -> (Duration, u64) {
        let most = FIRST_BOUND_NS << octave;
        // A power of two is the bound of some bucket, so nothing is cut in two.
        let counts = self.counts.iter().enumerate();
        let held = counts.take_while(|(at, _)| bound(*at) <= most);
        (Duration::from_nanos(most), held.map(|(_, n)| n).sum())
    }
}

/// Which bucket holds a duration. Bounds belong to the bucket below, as in `le`.
fn bucket_of(ns: u64) -> usize {
    let value = ns.saturating_sub(1);
    let exponent = value.checked_ilog2().unwrap_or(0);
    let at = if exponent < PARTS_BITS {
        value
    } else {
        let octave = u64::from(exponent - PARTS_BITS + 1);
        let part = (value >> (exponent - PARTS_BITS)) & (PARTS - 1);
        octave * PARTS + part
    };
    usize::try_from(at).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

/// The longest duration of a bucket, in nanoseconds.
fn bound(at: usize) -> u64 {
    let at = u64::try_from(at).unwrap_or(u64::MAX);
    match (at / PARTS, at % PARTS) {
        (0, part) => part + 1,
        (octave, part) => (PARTS + part + 1) << (octave - 1),
    }
}

/// Buckets of a power of two: a percentile is then at most 12.5 % too high.
const PARTS: u64 = 1 << PARTS_BITS;
const PARTS_BITS: u32 = 3;

/// Up to 2^36 nanoseconds, 69 s: longer than `upstream.hard_timeout`. 2.2 KiB a command.
const BUCKETS: usize = 34 * 8;

/// Redis's `LATENCY HISTOGRAM` begins with 1,024 nanoseconds and doubles (`fillCommandCDF` in
/// `latency.c`).
const FIRST_BOUND_NS: u64 = 1024;

/// Powers of two from there to the last bucket.
const OCTAVES: usize = 27;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_in_the_bucket_whose_bounds_hold_it() {
        assert_eq!(bound(BUCKETS - 1), 1 << 36);
        for shift in 0..36 {
            for ns in [1_u64 << shift, (1 << shift) + 1, (3 << shift) / 2] {
                let at = bucket_of(ns);
                assert!(ns <= bound(at), "{ns} in {at}");
                assert!(at == 0 || ns > bound(at - 1), "{ns} in {at}");
            }
        }
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_at_most_an_eighth_too_high() {
        let durations = Durations::default();
        durations.observe(Duration::from_nanos(100), 990);
        durations.observe(Duration::from_millis(3), 10);
        let sample = durations.sample();
        let ns = |permille: u64| {
            u64::try_from(sample.percentile(permille * 100_000).as_nanos()).unwrap()
        };
        assert!((100..=113).contains(&ns(500)), "{}", ns(500));
        assert!((100..=113).contains(&ns(990)), "{}", ns(990));
        assert!((3_000_000..=3_375_000).contains(&ns(999)), "{}", ns(999));
        assert_eq!(sample.count(), 1000);
        assert_eq!(sample.sum, Duration::from_micros(99 + 30_000));
        durations.reset();
        assert_eq!(durations.sample().percentile(50_000_000), Duration::ZERO);
    }

    #[test]
    fn the_cumulative_counts_end_with_all() {
        let durations = Durations::default();
        durations.observe(Duration::from_nanos(1024), 3);
        durations.observe(Duration::from_nanos(1025), 2);
        durations.observe(Duration::from_micros(9), 1);
        let steps: Vec<_> = durations.sample().cumulative().collect();
        let ns = |ns| Duration::from_nanos(ns);
        let want = [(1024, 3), (2048, 5), (4096, 5), (8192, 5), (16_384, 6)];
        assert_eq!(steps, want.map(|(bound, n)| (ns(bound), n)));
        assert_eq!(Durations::default().sample().cumulative().count(), 0);
    }
}

//! Numbers that many tasks change and few read.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only rises, until it is reset. Relaxed: it orders nothing else.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// `n` more; wraps past `u64::MAX`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Back to zero.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// A number that rises and falls: how many there are now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// `n` fewer; the caller has added them before.
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// So many there are.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// How many there are.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_counts_and_resets() {
        let counter = Counter::default();
        counter.increment();
        counter.add(41);
        assert_eq!(counter.get(), 42);
        counter.reset();
        assert_eq!(counter.get(), 0);
    }

    #[test]
    fn a_gauge_falls_again() {
        let gauge = Gauge::default();
        gauge.add(5);
        gauge.sub(3);
        assert_eq!(gauge.get(), 2);
    }
}

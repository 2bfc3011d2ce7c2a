//! The busiest keys of the last seconds, for whoever asks.

use parking_lot::Mutex;

use crate::key::Key;

/// A key that is read or incremented often.
#[derive(Clone, Debug, PartialEq)]
pub struct HotKey {
    /// The key.
    pub key: Key,
    /// Number of its database.
    pub database: u32,
    /// Increments, or how much it rose, per second over the last ten.
    pub writes: f64,
    /// Reads per second over the last ten, about.
    pub reads: f64,
    /// Its value, where it is known and a count.
    pub value: Option<i64>,
    /// Name of its node.
    pub node: String,
}

/// The busiest keys, [`HotKeys::MOST`] by writes and as many by reads. Whoever watches keys
/// replaces them once a second.
#[derive(Debug, Default)]
pub struct HotKeys(Mutex<(Vec<HotKey>, Vec<HotKey>)>);

impl HotKeys {
    /// Most keys of each list: 20 KiB with keys of usual length.
    pub const MOST: usize = 100;

    /// Replaces both lists; each is ordered, the busiest first.
    pub fn set(&self, writes: Vec<HotKey>, reads: Vec<HotKey>) {
        *self.0.lock() = (writes, reads);
    }

    /// Up to `count` by writes, and up to `count` by reads.
    pub fn first(&self, count: usize) -> (Vec<HotKey>, Vec<HotKey>) {
        let lists = self.0.lock();
        let first = |list: &[HotKey]| list.iter().take(count).cloned().collect();
        (first(&lists.0), first(&lists.1))
    }
}

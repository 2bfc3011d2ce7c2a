//! The slow log: the last requests that took long, and where the time went.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// A request that took long.
#[derive(Clone, Debug)]
pub struct SlowEntry {
    /// Rising from 0; [`SlowLog::push`] sets it.
    pub id: u64,
    /// When it was answered, since 1970.
    pub time: Duration,
    /// From its bytes read to its reply ready.
    pub took: Duration,
    /// Of that, from the request given to a node's connection to the node's reply read: the
    /// network and the node. The rest passed in Tally.
    pub node: Duration,
    /// Its arguments, shortened, secrets hidden.
    pub args: Vec<Vec<u8>>,
    /// Who asked: `ip:port`.
    pub client: String,
    /// The name that the client gave itself.
    pub name: String,
}

/// The last slow requests, and how long a request takes that is slow.
#[derive(Debug)]
pub struct SlowLog {
    /// Microseconds; negative: nothing is slow.
    slower_than_us: AtomicI64,
    max_len: AtomicUsize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    entries: VecDeque<SlowEntry>,
    next_id: u64,
}

impl Default for SlowLog {
    /// As Redis: 10 ms, 128 entries.
    fn default() -> Self {
        Self {
            slower_than_us: AtomicI64::new(10_000),
            max_len: AtomicUsize::new(128),
            kept: Mutex::default(),
        }
    }
}

impl SlowLog {
    /// Most entries that [`SlowLog::set_max_len`] takes: 20 MB, as an entry is 300 bytes at most.
    pub const MOST: usize = 65_536;

    /// A request that takes this long, in microseconds, is slow; negative: none is.
    pub fn slower_than_us(&self) -> i64 {
        self.slower_than_us.load(Ordering::Relaxed)
    }

    /// The same as a duration; `None`: none is.
    pub fn threshold(&self) -> Option<Duration> {
        let us = u64::try_from(self.slower_than_us()).ok()?;
        Some(Duration::from_micros(us))
    }

    /// Changes the threshold for requests that come from now on.
    pub fn set_slower_than_us(&self, us: i64) {
        self.slower_than_us.store(us, Ordering::Relaxed);
    }

    /// Most entries kept.
    pub fn max_len(&self) -> usize {
        self.max_len.load(Ordering::Relaxed)
    }

    /// Changes how many are kept, at most [`SlowLog::MOST`]; the oldest go when there are more.
    pub fn set_max_len(&self, len: i64) {
        let len = usize::try_from(len).unwrap_or(0).min(Self::MOST);
        self.max_len.store(len, Ordering::Relaxed);
        let mut kept = self.kept.lock();
        let excess = kept.entries.len().saturating_sub(len);
        kept.entries.drain(..excess);
    }

    /// Adds one; the oldest goes when there are too many.
    pub fn push(&self, mut entry: SlowEntry) {
        let mut kept = self.kept.lock();
        entry.id = kept.next_id;
        kept.next_id += 1;
        kept.entries.push_back(entry);
        let excess = kept.entries.len().saturating_sub(self.max_len());
        kept.entries.drain(..excess);
    }

    /// Up to `count` of them, the newest first.
    pub fn newest(&self, count: usize) -> Vec<SlowEntry> {
        let kept = self.kept.lock();
        kept.entries.iter().rev().take(count).cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.kept.lock().entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all of them. Ids go on.
    pub fn clear(&self) {
        self.kept.lock().entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(took_ms: u64) -> SlowEntry {
        SlowEntry {
            id: 99,
            time: Duration::ZERO,
            took: Duration::from_millis(took_ms),
            node: Duration::ZERO,
            args: vec![b"GET".to_vec()],
            client: String::new(),
            name: String::new(),
        }
    }

    #[test]
    fn the_oldest_go_and_ids_go_on() {
        let log = SlowLog::default();
        for ms in 0..200 {
            log.push(entry(ms));
        }
        let ids = |log: &SlowLog| {
            let newest = log.newest(usize::MAX);
            newest.iter().map(|entry| entry.id).collect::<Vec<_>>()
        };
        assert_eq!(log.len(), 128);
        assert_eq!(ids(&log)[..2], [199, 198]);
        log.set_max_len(1);
        assert_eq!(ids(&log), [199]);
        log.clear();
        log.push(entry(0));
        assert_eq!(ids(&log), [200]);
        log.set_max_len(0);
        log.push(entry(0));
        assert!(log.is_empty());
    }

    #[test]
    fn a_negative_threshold_turns_it_off() {
        let log = SlowLog::default();
        assert_eq!(log.threshold(), Some(Duration::from_millis(10)));
        log.set_slower_than_us(-1);
        assert_eq!(log.threshold(), None);
    }
}

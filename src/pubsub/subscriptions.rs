//! What one client is subscribed to.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::command::Topics;

/// The names of each kind. Its own session adds and takes them away, others count.
#[derive(Debug, Default)]
pub struct Subscriptions {
    names: Mutex<Names>,
    channels: AtomicUsize,
    patterns: AtomicUsize,
    shards: AtomicUsize,
}

#[derive(Debug, Default)]
struct Names {
    channels: Numbered,
    patterns: Numbered,
    shards: Numbered,
    last: u64,
}

/// Each name with a number that rises with time.
type Numbered = HashMap<Arc<[u8]>, u64>;

impl Subscriptions {
    /// Adds a name; whether it was new.
    pub fn add(&self, kind: Topics, name: &Arc<[u8]>) -> bool {
        let mut names = self.names.lock();
        names.last += 1;
        let number = names.last;
        let of_kind = names.of(kind);
        if of_kind.contains_key(name) {
            return false;
        }
        of_kind.insert(Arc::clone(name), number);
        self.counter(kind).store(of_kind.len(), Ordering::Relaxed);
        true
    }

    /// Takes a name away; whether it was there.
    pub fn remove(&self, kind: Topics, name: &[u8]) -> bool {
        let mut names = self.names.lock();
        let of_kind = names.of(kind);
        let known = of_kind.remove(name).is_some();
        self.counter(kind).store(of_kind.len(), Ordering::Relaxed);
        known
    }

    /// All names of a kind, the oldest first.
    pub fn names(&self, kind: Topics) -> Vec<Arc<[u8]>> {
        let mut names = self.names.lock();
        let mut all: Vec<_> = names.of(kind).iter().collect();
        all.sort_unstable_by_key(|(_, number)| **number);
        all.into_iter().map(|(name, _)| Arc::clone(name)).collect()
    }

    /// Takes all names of a kind away.
    pub fn take(&self, kind: Topics) -> Vec<Arc<[u8]>> {
        if self.count(kind) == 0 {
            return Vec::new();
        }
        let taken = std::mem::take(self.names.lock().of(kind));
        self.counter(kind).store(0, Ordering::Relaxed);
        taken.into_keys().collect()
    }

    /// How many of a kind.
    pub fn count(&self, kind: Topics) -> usize {
        self.counter(kind).load(Ordering::Relaxed)
    }

    /// The number that a confirmation carries: sharded channels are counted apart.
    pub fn counted_with(&self, kind: Topics) -> usize {
        match kind {
            Topics::Shards => self.count(kind),
            Topics::Channels | Topics::Patterns => {
                self.count(Topics::Channels) + self.count(Topics::Patterns)
            }
        }
    }

    /// Whether there are none at all.
    pub fn is_empty(&self) -> bool {
        self.counted_with(Topics::Channels) + self.count(Topics::Shards) == 0
    }

    fn counter(&self, kind: Topics) -> &AtomicUsize {
        match kind {
            Topics::Channels => &self.channels,
            Topics::Patterns => &self.patterns,
            Topics::Shards => &self.shards,
        }
    }
}

impl Names {
    fn of(&mut self, kind: Topics) -> &mut Numbered {
        match kind {
            Topics::Channels => &mut self.channels,
            Topics::Patterns => &mut self.patterns,
            Topics::Shards => &mut self.shards,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_counted_once_and_kept_in_order() {
        let subscriptions = Subscriptions::default();
        let name = |text: &str| Arc::<[u8]>::from(text.as_bytes());
        assert!(subscriptions.add(Topics::Channels, &name("b")));
        assert!(subscriptions.add(Topics::Channels, &name("a")));
        assert!(!subscriptions.add(Topics::Channels, &name("b")));
        assert!(subscriptions.add(Topics::Patterns, &name("b")));
        assert!(subscriptions.add(Topics::Shards, &name("b")));
        assert_eq!(
            subscriptions.names(Topics::Channels),
            [name("b"), name("a")]
        );
        assert_eq!(subscriptions.counted_with(Topics::Patterns), 3);
        assert_eq!(subscriptions.counted_with(Topics::Shards), 1);
        assert!(subscriptions.remove(Topics::Channels, b"b"));
        assert!(!subscriptions.remove(Topics::Channels, b"b"));
        subscriptions.take(Topics::Channels);
        subscriptions.take(Topics::Shards);
        assert!(!subscriptions.is_empty());
        subscriptions.take(Topics::Patterns);
        assert!(subscriptions.is_empty());
    }
}

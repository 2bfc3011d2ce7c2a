//! What users were denied, the latest first: `ACL LOG`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::telemetry::clock::wall_time;

/// At most as many entries as `acllog-max-len` says. What happens again soon is counted in the
/// entry that is there.
#[derive(Debug)]
pub struct AccessLog {
    kept: Mutex<Kept>,
    max_len: AtomicUsize,
}

#[derive(Debug, Default)]
struct Kept {
    entries: VecDeque<Entry>,
    /// The number of the next entry: none is given twice, whatever is forgotten.
    next_id: u64,
}

/// What happened, and how often.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its number.
    pub id: u64,
    /// How often.
    pub count: u64,
    /// What.
    pub denial: Denial,
    /// Whose client.
    pub user: Vec<u8>,
    /// The last time.
    pub at: Instant,
    /// The first time, since 1970.
    pub created: Duration,
    /// The last time, since 1970.
    pub updated: Duration,
    /// The client then, as in `CLIENT LIST`.
    pub client: String,
}

/// What was denied.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Denial {
    /// `command`, `key`, `channel` or `auth`.
    pub reason: &'static str,
    /// Whether it was queued or executed in a transaction.
    pub in_multi: bool,
    /// The name of the command, key or channel.
    pub object: Vec<u8>,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            max_len: AtomicUsize::new(DEFAULT_MAX_LEN),
        }
    }
}

impl AccessLog {
    /// Notes what happened to a client of `user` (`addACLLogEntry` in `acl.c`).
    pub fn add(&self, mut denial: Denial, user: &[u8], client: String, now: Instant) {
        denial.object.truncate(MAX_OBJECT_BYTES);
        let user = user.get(..MAX_OBJECT_BYTES).unwrap_or(user);
        let updated = wall_time();
        let mut kept = self.kept.lock();
        let Kept { entries, next_id } = &mut *kept;
        let is_same = |entry: &Entry| {
            entry.denial == denial
                && entry.user == user
                && now.saturating_duration_since(entry.at) <= GROUPED_WITHIN
        };
        let known = entries.iter().take(GROUPED_AMONG).position(is_same);
        let known = known.and_then(|at| entries.remove(at));
        let (id, created, count) = known.map_or((*next_id, updated, 0), |entry| {
            (entry.id, entry.created, entry.count)
        });
        *next_id = (*next_id).max(id + 1);
        entries.push_front(Entry {
            id,
            count: count + 1,
            denial,
            user: user.to_vec(),
            at: now,
            created,
            updated,
            client,
        });
        entries.truncate(self.max_len());
    }

    /// The last `count` entries.
    pub fn last(&self, count: usize) -> Vec<Entry> {
        let kept = self.kept.lock();
        kept.entries.iter().take(count).cloned().collect()
    }

    /// Forgets all of them.
    pub fn reset(&self) {
        self.kept.lock().entries.clear();
    }

    /// How many are kept.
    pub fn max_len(&self) -> usize {
        self.max_len.load(Ordering::Relaxed)
    }

    /// Sets how many are kept from now on; those that are too many go with the next one.
    pub fn set_max_len(&self, len: usize) {
        self.max_len.store(len, Ordering::Relaxed);
    }
}

/// Redis's default of `acllog-max-len`.
const DEFAULT_MAX_LEN: usize = 128;

/// As in Redis: what is the same within a minute, among the last ten.
const GROUPED_WITHIN: Duration = Duration::from_secs(60);
const GROUPED_AMONG: usize = 10;

/// So much is kept of a key's name.
const MAX_OBJECT_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use tokio::time::Instant as Clock;

    use super::*;

    fn denial(object: &str) -> Denial {
        Denial {
            reason: "key",
            in_multi: false,
            object: object.into(),
        }
    }

    #[test]
    fn what_happens_again_soon_is_counted() {
        let log = AccessLog::default();
        let now = Clock::now().into_std();
        let later = now + Duration::from_secs(61);
        for (object, at) in [("a", now), ("b", now), ("a", now), ("a", later), ("b", now)] {
            log.add(denial(object), b"u", String::new(), at);
        }
        let told: Vec<_> = log
            .last(10)
            .iter()
            .map(|entry| (entry.denial.object.clone(), entry.count, entry.id))
            .collect();
        let want = [("b", 2, 1), ("a", 1, 2), ("a", 2, 0)];
        assert_eq!(
            told,
            want.map(|(object, count, id)| (object.as_bytes().to_vec(), count, id))
        );
    }

    #[test]
    fn no_more_is_kept_than_asked_for() {
        let log = AccessLog::default();
        log.set_max_len(2);
        let now = Clock::now().into_std();
        for object in ["a", "b", "c", &"d".repeat(5000)] {
            log.add(denial(object), b"u", String::new(), now);
        }
        let kept = log.last(10);
        assert_eq!(kept.len(), 2);
        assert_eq!(kept[0].denial.object.len(), MAX_OBJECT_BYTES);
        log.reset();
        assert!(log.last(10).is_empty());
        log.add(denial("e"), b"u", String::new(), now);
        assert_eq!(log.last(10)[0].id, 4);
    }
}

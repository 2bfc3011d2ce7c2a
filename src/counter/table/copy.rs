//! Copies of a table, for the search over all its states.

use std::fmt::Write as _;
use std::hash::{Hash as _, Hasher};

use super::*;
use crate::counter::search::Hashed;

impl KeyTable {
    /// The same table once more.
    pub(in crate::counter) fn copy(&self) -> Self {
        let atomic = |value: &AtomicUsize| AtomicUsize::new(value.load(Ordering::Relaxed));
        Self {
            stripes: self
                .stripes
                .iter()
                .map(|stripe| Mutex::new(stripe.lock().clone()))
                .collect(),
            stripe_bits: self.stripe_bits,
            seed: self.seed,
            used: Arc::new(Used {
                crowd: self.used.crowd,
                keys: atomic(&self.used.keys),
                cached_bytes: atomic(&self.used.cached_bytes),
                max_keys: atomic(&self.used.max_keys),
                max_cached_bytes: atomic(&self.used.max_cached_bytes),
            }),
            cancelled: AtomicU64::new(self.cancelled.load(Ordering::Relaxed)),
            ledger: self.ledger,
            clock: RwLock::new(self.clock()),
            rules: RwLock::new(self.rules()),
        }
    }

    /// Takes in all that the future of `keys` depends on.
    pub(in crate::counter) fn hash(&self, keys: &[&str], hasher: &mut Hashed) {
        for key in keys {
            let mut place = self.lock(key.as_bytes());
            let listed = |list: &Vec<Key>| {
                list.iter()
                    .filter(|listed| listed.as_bytes() == key.as_bytes())
                    .count()
            };
            place
                .shard()
                .dirty
                .iter()
                .map(listed)
                .sum::<usize>()
                .hash(hasher);
            place.shard().closed.hash(hasher);
            let state = place.state();
            write!(hasher, "{state:?}").unwrap_or_default();
            hasher.write_u8(0);
        }
    }
}

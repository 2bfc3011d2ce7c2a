//! About how often keys were incremented of which nothing else is known, in little memory.

use std::time::{Duration, Instant};

/// Counts up to 15 for every possible key, in 256 KiB: a count-min sketch whose counts are halved
/// once a second, so that a key's count is between its rate a second and twice that.
///
/// A key has two of the sixteen counts of one word, and its count is the lesser one. It may be too
/// high, when others share both; then a key becomes warm that is not worth it, and goes cold after
/// its first batch. Cost: one cache line, and a pass over the words each second.
///
/// The sketch and its ageing are those of `TinyLFU` (Einziger, Friedman, Manes: "`TinyLFU`: A
/// Highly Efficient Cache Admission Policy", 2017).
#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default)]
pub(super) struct Touches {
    /// Empty until the first touch.
    words: Box<[u64]>,
    /// When counts were halved.
    aged: Option<Instant>,
}

impl Touches {
    /// Notes an increment of the key with this hash; returns how often that was, up to 15.
    pub(super) fn touch(&mut self, hash: u64, now: Instant) -> u32 {
        self.age(now);
        let word = usize::try_from(hash).unwrap_or_default() % WORDS;
        let Some(word) = self.words.get_mut(word) else {
            return 0;
        };
        let [first, second] = places(hash);
        let (one, other) = (*word >> first & MOST, *word >> second & MOST);
        let least = one.min(other);
        if least < MOST {
            *word += u64::from(one == least) << first;
            *word += u64::from(other == least) << second;
        }
        u32::try_from(MOST.min(least + 1)).unwrap_or_default()
    }

    fn age(&mut self, now: Instant) {
        let aged = *self.aged.get_or_insert(now);
        if self.words.is_empty() {
            self.words = vec![0; WORDS].into();
        }
        let periods = now.saturating_duration_since(aged).as_millis() / PERIOD.as_millis();
        if periods == 0 {
            return;
        }
        self.aged = Some(now);
        for _ in 0..periods.min(HALVINGS) {
            for word in &mut self.words {
                *word = *word >> 1 & HALVES;
            }
        }
    }
}

/// Where a key's two counts begin, in bits. (The word is told by the lowest bits of the hash.)
fn places(hash: u64) -> [u32; 2] {
    let first = (hash >> 32) % COUNTS;
    let second = (first + 1 + (hash >> 40) % (COUNTS - 1)) % COUNTS;
    [first, second].map(|place| u32::try_from(place * BITS).unwrap_or_default())
}

/// Enough for 100,000 keys a second that come once: a key that comes at a tenth of the rate that
/// is asked for then shares both its counts with too many in one case of a thousand.
const WORDS: usize = 1 << 15;
/// Counts in a word, and bits of one.
const COUNTS: u64 = 16;
const BITS: u64 = 4;
/// The greatest count.
const MOST: u64 = 15;
/// What is left of a word when all counts have moved by a bit.
const HALVES: u64 = 0x7777_7777_7777_7777;
/// After so many nothing is left.
const HALVINGS: u128 = 4;
const PERIOD: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// Spreads small numbers over 64 bits (splitmix64).
    fn hash(n: u64) -> u64 {
        let n = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ (n >> 31)
    }

    #[test]
    fn a_key_alone_is_counted_exactly_up_to_fifteen() {
        let (mut touches, now) = (Touches::default(), tokio::time::Instant::now().into_std());
        let counts: Vec<_> = (0..20).map(|_| touches.touch(hash(1), now)).collect();
        let want: Vec<_> = (1..=20).map(|n: u32| n.min(15)).collect();
        assert_eq!(counts, want);
    }

    #[test]
    fn counts_halve_every_second_and_are_gone_after_four() {
        let (mut touches, now) = (Touches::default(), tokio::time::Instant::now().into_std());
        for _ in 0..15 {
            touches.touch(hash(1), now);
        }
        let later = now + Duration::from_millis(999);
        assert_eq!(touches.touch(hash(1), later), 15);
        assert_eq!(touches.touch(hash(1), later + Duration::from_millis(1)), 8);
        assert_eq!(touches.touch(hash(1), later + Duration::from_secs(60)), 1);
    }

    #[test]
    fn a_hundred_thousand_keys_that_come_once_are_not_taken_for_frequent_ones() {
        let (mut touches, now) = (Touches::default(), tokio::time::Instant::now().into_std());
        for key in 0..100_000 {
            touches.touch(hash(key), now);
        }
        let mistaken = (100_000..200_000).filter(|key| touches.touch(hash(*key), now) >= 4);
        assert!(mistaken.count() < 1000);
    }
}

//! The last increments that Redis refused although they were acknowledged.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;

use crate::key::Key;

/// Increments of one key that Redis refused although they were acknowledged.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The counter.
    pub key: Key,
    /// Their sum.
    pub amount: i64,
    /// How many they were.
    pub increments: u32,
    /// Why Redis refused them: `wrong type`, `not an integer` or `overflow`.
    pub cause: &'static str,
    /// Name of the node.
    pub node: String,
    /// Number of its database.
    pub database: u32,
    /// When that became known, since 1970.
    pub time: Duration,
}

/// The last [`DeadLetters::MOST`] of them, or fewer when their keys are long.
#[derive(Debug, Default)]
pub struct DeadLetters(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    letters: VecDeque<DeadLetter>,
    key_bytes: usize,
}

impl DeadLetters {
    /// Most letters kept.
    pub const MOST: usize = 1000;

    /// Most bytes of their keys.
    const MOST_KEY_BYTES: usize = 1 << 20;

    /// Adds one; the oldest go when there are too many.
    pub fn push(&self, letter: DeadLetter) {
        let mut kept = self.0.lock();
        kept.key_bytes += letter.key.as_bytes().len();
        kept.letters.push_back(letter);
        while kept.letters.len() > Self::MOST || kept.key_bytes > Self::MOST_KEY_BYTES {
            let Some(oldest) = kept.letters.pop_front() else {
                return;
            };
            kept.key_bytes -= oldest.key.as_bytes().len();
        }
    }

    /// Up to `count` of them, the newest first.
    pub fn newest(&self, count: usize) -> Vec<DeadLetter> {
        let kept = self.0.lock();
        kept.letters.iter().rev().take(count).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(key: &[u8], amount: i64) -> DeadLetter {
        DeadLetter {
            key: Key::new(key),
            amount,
            increments: 1,
            cause: "wrong type",
            node: "a".to_owned(),
            database: 0,
            time: Duration::ZERO,
        }
    }

    #[test]
    fn the_oldest_go_first() {
        let letters = DeadLetters::default();
        for amount in 1..=1500 {
            letters.push(letter(b"k", amount));
        }
        let amounts = |count| {
            let newest = letters.newest(count);
            newest
                .iter()
                .map(|letter| letter.amount)
                .collect::<Vec<_>>()
        };
        assert_eq!(amounts(2), [1500, 1499]);
        assert_eq!(amounts(usize::MAX).len(), DeadLetters::MOST);
    }

    #[test]
    fn long_keys_are_bounded_in_bytes() {
        let letters = DeadLetters::default();
        for amount in 0..10 {
            letters.push(letter(&vec![b'k'; 400_000], amount));
        }
        assert_eq!(letters.newest(10).len(), 2);
        letters.push(letter(&vec![b'k'; 2_000_000], 10));
        assert_eq!(letters.newest(10).len(), 0);
    }
}

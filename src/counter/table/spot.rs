//! Which shard of a table a key belongs to.

/// Where a key belongs in a [`KeyTable`](super::KeyTable).
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    pub(super) hash: u64,
    pub(super) stripe: u32,
    /// The place of its shard in the stripe.
    pub(super) place: u32,
}

impl Spot {
    /// The spot of a key with this hash. (hashbrown uses the lowest bits for the place in a shard
    /// and the highest seven for the tag.)
    #[inline]
    pub(super) fn new(hash: u64, stripe_bits: u32) -> Self {
        let bits = usize::try_from((hash >> 40) % (1 << SHARES_BITS)).unwrap_or_default();
        let shard = SHARES.get(bits).map_or(0, |shard| u32::from(*shard));
        Self {
            hash,
            stripe: shard & ((1 << stripe_bits) - 1),
            place: shard >> stripe_bits,
        }
    }

    /// The spot of no key, in this shard.
    pub(super) fn in_shard(number: usize, stripe_bits: u32) -> Self {
        let shard = u32::try_from(number).unwrap_or_default();
        Self {
            hash: 0,
            stripe: shard & ((1 << stripe_bits) - 1),
            place: shard >> stripe_bits,
        }
    }
}

/// A table has 2^6 shards. So two to sixteen threads seldom meet at one, and to walk through one,
/// or to enlarge it, holds up nobody for long. (The search over all states copies a table for every
/// step.)
pub(super) const SHARD_BITS: u32 = if cfg!(test) { 1 } else { 6 };

/// Which shard a hash belongs to, by ten of its bits. The last shard has twice as many keys as the
/// first. Were all alike, they would grow at the same time, and half of a table's places, 64 bytes
/// each, would be empty. As it is, some have grown and some have not, and a key takes 1.7 places at
/// most, not 2.3.
static SHARES: [u8; 1 << SHARES_BITS] = shares();
const SHARES_BITS: u32 = 10;

#[expect(
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "evaluated at compile time, where a fault is a build error"
)]
const fn shares() -> [u8; 1 << SHARES_BITS] {
    let mut of = [0; 1 << SHARES_BITS];
    let shards = 1 << SHARD_BITS;
    let (mut bits, mut shard) = (0, 0);
    while bits < of.len() {
        // The first x of all shards have (2 x + x^2) / 3 of all keys.
        let next: usize = shard + 1;
        if 3 * bits * shards * shards >= of.len() * (2 * next * shards + next * next) {
            shard = next;
        }
        of[bits] = shard as u8;
        bits += 1;
    }
    of
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_shards_have_more_keys_and_none_is_left_out() {
        let mut keys = [0_usize; 1 << SHARD_BITS];
        for shard in SHARES {
            keys[usize::from(shard)] += 1;
        }
        let (first, last) = (keys[0], keys[keys.len() - 1]);
        assert!(keys.is_sorted_by(|one, next| *one <= next + 1), "{keys:?}");
        assert!(first < last && last <= 2 * first, "{keys:?}");
    }
}

//! Hashes of keys, each equal to the function that twemproxy 0.5.0 has under the same name.
//!
//! Written from the definition of each algorithm, then held to the placements of a running
//! nutcracker (`tests/it/ring.rs`). twemproxy departs from the definitions in places; those are
//! kept, because keys are stored where they lead, and each is named where it is coded. Two run
//! through everything: results are cut to 32 bits, and several functions read the key as C's
//! plain `char`, which is signed on x86, so a byte above 127 acts as a negative number. (twemproxy
//! on ARM, where `char` is unsigned, places such keys elsewhere; we follow x86 everywhere.)

use std::str::FromStr;

use md5::{Digest, Md5};
use twox_hash::XxHash3_64;

/// Hash that turns a key into a place on the ring.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Hash {
    /// Fowler-Noll-Vo 1a with the low 32 bits of the 64-bit constants: twemproxy's default.
    Fnv1a64,
    /// xxHash 3, 64 bits, seed 0, cut to its low 32 bits. Tally's own: twemproxy has none.
    Xxh3,
    /// The first 4 bytes of the MD5 digest, little-endian: libmemcached's ketama.
    Md5,
    /// CRC-16/XMODEM, but of 32 bits: what leaves the register's low half stays in its high half.
    Crc16,
    /// Bits 16 to 30 of CRC-32, as in libmemcached. All places are below 32,768, so on a ketama
    /// ring nearly every key falls to one node; only for data that is placed so already.
    Crc32,
    /// CRC-32 as zlib has it.
    Crc32a,
    /// Fowler-Noll-Vo 1, 64 bits, cut to the low 32.
    Fnv164,
    /// Fowler-Noll-Vo 1, 32 bits.
    Fnv132,
    /// Fowler-Noll-Vo 1a, 32 bits.
    Fnv1a32,
    /// Paul Hsieh's `SuperFastHash`, started at 0.
    Hsieh,
    /// `MurmurHash2`, 32 bits, seeded from the length of the key.
    Murmur,
    /// Bob Jenkins's lookup3 (`hashlittle`), initial value 13.
    Jenkins,
    /// Bob Jenkins's one-at-a-time.
    OneAtATime,
}

impl Hash {
    /// Every hash, in the order in which they are listed to users.
    pub const ALL: &[Self] = &[
        Self::Xxh3,
        Self::Fnv1a64,
        Self::Fnv164,
        Self::Fnv1a32,
        Self::Fnv132,
        Self::Md5,
        Self::Crc16,
        Self::Crc32,
        Self::Crc32a,
        Self::Hsieh,
        Self::Murmur,
        Self::Jenkins,
        Self::OneAtATime,
    ];

    /// Its name in the configuration: twemproxy's, or `xxh3_64`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fnv1a64 => "fnv1a_64",
            Self::Xxh3 => "xxh3_64",
            Self::Md5 => "md5",
            Self::Crc16 => "crc16",
            Self::Crc32 => "crc32",
            Self::Crc32a => "crc32a",
            Self::Fnv164 => "fnv1_64",
            Self::Fnv132 => "fnv1_32",
            Self::Fnv1a32 => "fnv1a_32",
            Self::Hsieh => "hsieh",
            Self::Murmur => "murmur",
            Self::Jenkins => "jenkins",
            Self::OneAtATime => "one_at_a_time",
        }
    }

    /// The place of `key` on the ring. An empty key is at 0 under every hash, as in twemproxy.
    #[inline]
    pub fn of(self, key: &[u8]) -> u32 {
        if key.is_empty() {
            return 0;
        }
        match self {
            Self::Xxh3 => low_half(XxHash3_64::oneshot(key)),
            Self::Fnv1a64 => fnv1a(low_half(FNV_64_BASIS), low_half(FNV_64_PRIME), key),
            Self::Fnv164 => fnv1(low_half(FNV_64_BASIS), low_half(FNV_64_PRIME), key),
            Self::Fnv1a32 => fnv1a(FNV_32_BASIS, FNV_32_PRIME, key),
            Self::Fnv132 => fnv1(FNV_32_BASIS, FNV_32_PRIME, key),
            Self::Md5 => md5_words(key)[0],
            Self::Crc16 => crc16(key),
            Self::Crc32 => (crc32(key) >> 16) & 0x7fff,
            Self::Crc32a => crc32(key),
            Self::Hsieh => hsieh(key),
            Self::Murmur => murmur2(key),
            Self::Jenkins => lookup3(key),
            Self::OneAtATime => one_at_a_time(key),
        }
    }
}

impl FromStr for Hash {
    type Err = UnknownHash;

    fn from_str(name: &str) -> Result<Self, UnknownHash> {
        let found = Self::ALL.iter().find(|hash| hash.name() == name);
        found.copied().ok_or_else(|| UnknownHash(name.to_owned()))
    }
}

/// A name that no hash has. Its text lists the names there are.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("unknown hash \"{0}\"; allowed: {names}", names = names())]
pub struct UnknownHash(String);

/// Every name, separated by commas.
fn names() -> String {
    let names: Vec<_> = Hash::ALL.iter().map(|hash| hash.name()).collect();
    names.join(", ")
}

/// The MD5 digest as four little-endian words.
pub(super) fn md5_words(bytes: &[u8]) -> [u32; 4] {
    let digest: [u8; 16] = Md5::digest(bytes).into();
    words(&digest)
}

/// Multiply, then xor. Of a product's low 32 bits only the low 32 bits of its factors matter, so
/// the 64-bit hash, cut at the end, is this loop too.
fn fnv1(basis: u32, prime: u32, key: &[u8]) -> u32 {
    key.iter()
        .fold(basis, |hash, &byte| hash.wrapping_mul(prime) ^ signed(byte))
}

/// Xor, then multiply. See [`fnv1`] on 64 bits.
fn fnv1a(basis: u32, prime: u32, key: &[u8]) -> u32 {
    key.iter().fold(basis, |hash, &byte| {
        (hash ^ signed(byte)).wrapping_mul(prime)
    })
}

/// CRC-16/XMODEM (polynomial 0x1021, high bit first, started at 0) in a register of 32 bits that
/// is never cut: bits shifted out of the low half stay in the high half.
fn crc16(key: &[u8]) -> u32 {
    key.iter().fold(0, |register, &byte| {
        let [_, _, above, _] = register.to_be_bytes();
        (register << 8) ^ entry(&CRC16_TABLE, above ^ byte)
    })
}

/// CRC-32 (polynomial 0x04C11DB7, low bit first, complemented before and after).
fn crc32(key: &[u8]) -> u32 {
    !key.iter().fold(u32::MAX, |register, &byte| {
        let [low, ..] = register.to_le_bytes();
        (register >> 8) ^ entry(&CRC32_TABLE, low ^ byte)
    })
}

/// `SuperFastHash`. twemproxy starts at 0 instead of at the length, and reads the third byte of a
/// tail of three as signed (as the original does), but a single one as unsigned (unlike it).
fn hsieh(key: &[u8]) -> u32 {
    let pair = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]));
    let (blocks, tail) = key.as_chunks::<4>();
    let mut hash = 0_u32;
    for &[a, b, c, d] in blocks {
        hash = hash.wrapping_add(pair(a, b));
        hash = (hash << 16) ^ (pair(c, d) << 11) ^ hash;
        hash = hash.wrapping_add(hash >> 11);
    }
    match *tail {
        [a, b, c] => {
            hash = hash.wrapping_add(pair(a, b));
            hash ^= hash << 16;
            hash ^= signed(c) << 18;
            hash = hash.wrapping_add(hash >> 11);
        }
        [a, b] => {
            hash = hash.wrapping_add(pair(a, b));
            hash ^= hash << 11;
            hash = hash.wrapping_add(hash >> 17);
        }
        [a] => {
            hash = hash.wrapping_add(u32::from(a));
            hash ^= hash << 10;
            hash = hash.wrapping_add(hash >> 1);
        }
        _ => {}
    }
    hash ^= hash << 3;
    hash = hash.wrapping_add(hash >> 5);
    hash ^= hash << 4;
    hash = hash.wrapping_add(hash >> 17);
    hash ^= hash << 25;
    hash.wrapping_add(hash >> 6)
}

/// `MurmurHash2`, seeded as libmemcached does: a constant times the length of the key.
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = length(key);
    let (blocks, tail) = key.as_chunks::<4>();
    let mut hash = 0xdead_beef_u32.wrapping_mul(length) ^ length;
    for &block in blocks {
        let mut k = u32::from_le_bytes(block).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        let [rest] = words(tail);
        hash = (hash ^ rest).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// lookup3's `hashlittle`: blocks of 12 bytes, of which the last, even when whole, is only
/// finished, not mixed. A short last block counts as if filled with zeros.
fn lookup3(key: &[u8]) -> u32 {
    const INITIAL: u32 = 13;
    let start = 0xdead_beef_u32
        .wrapping_add(length(key))
        .wrapping_add(INITIAL);
    let (mut a, mut b, mut c) = (start, start, start);
    let mut blocks = key.chunks(12).peekable();
    while let Some(block) = blocks.next() {
        let [first, second, third] = words(block);
        a = a.wrapping_add(first);
        b = b.wrapping_add(second);
        c = c.wrapping_add(third);
        if blocks.peek().is_some() {
            (a, b, c) = lookup3_mix(a, b, c);
        }
    }
    for (count_c, count_a, count_b) in [(14, 11, 25), (16, 4, 14)] {
        c = (c ^ b).wrapping_sub(b.rotate_left(count_c));
        a = (a ^ c).wrapping_sub(c.rotate_left(count_a));
        b = (b ^ a).wrapping_sub(a.rotate_left(count_b));
    }
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

/// lookup3's reversible mixing of three words.
fn lookup3_mix(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32, u32) {
    for (count_a, count_b, count_c) in [(4, 6, 8), (16, 19, 4)] {
        a = a.wrapping_sub(c) ^ c.rotate_left(count_a);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(count_b);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(count_c);
        b = b.wrapping_add(a);
    }
    (a, b, c)
}

/// One-at-a-time, with signed bytes.
fn one_at_a_time(key: &[u8]) -> u32 {
    let mut hash = key.iter().fold(0_u32, |hash, &byte| {
        let hash = hash.wrapping_add(signed(byte));
        let hash = hash.wrapping_add(hash << 10);
        hash ^ (hash >> 6)
    });
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 11;
    hash.wrapping_add(hash << 15)
}

/// A byte as x86's `char` becomes an `uint32_t`: 128 to 255 become 2^32-128 to 2^32-1.
fn signed(byte: u8) -> u32 {
    i32::from(byte.cast_signed()).cast_unsigned()
}

/// Up to `4 * N` bytes as little-endian words, filled with zeros.
fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let mut words = [0; N];
    for (word, part) in words.iter_mut().zip(bytes.chunks(4)) {
        let mut filled = [0; 4];
        for (to, from) in filled.iter_mut().zip(part) {
            *to = *from;
        }
        *word = u32::from_le_bytes(filled);
    }
    words
}

/// The length of `key`, which Redis limits to 512 MiB.
fn length(key: &[u8]) -> u32 {
    u32::try_from(key.len()).unwrap_or(u32::MAX)
}

/// The low 32 bits.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "the cut is what is meant"
)]
const fn low_half(wide: u64) -> u32 {
    wide as u32
}

/// What a CRC's table has for `byte`.
#[expect(clippy::indexing_slicing, reason = "a byte is below 256")]
fn entry(table: &[u32; 256], byte: u8) -> u32 {
    table[usize::from(byte)]
}

/// Remainder of every byte for CRC-16/XMODEM, high bit first.
const CRC16_TABLE: [u32; 256] = {
    let mut remainders = [0; 256];
    let mut rest: &mut [u32] = &mut remainders;
    let mut byte = 0_u32;
    while let Some((remainder, behind)) = rest.split_first_mut() {
        let mut register = byte << 8;
        let mut bit = 0;
        while bit < 8 {
            let carry = register & 0x8000 != 0;
            register = (register << 1) & 0xffff;
            if carry {
                register ^= 0x1021;
            }
            bit += 1;
        }
        *remainder = register;
        byte += 1;
        rest = behind;
    }
    remainders
};

/// Remainder of every byte for CRC-32, low bit first: the polynomial is 0x04C11DB7 reversed.
const CRC32_TABLE: [u32; 256] = {
    let mut remainders = [0; 256];
    let mut rest: &mut [u32] = &mut remainders;
    let mut byte = 0_u32;
    while let Some((remainder, behind)) = rest.split_first_mut() {
        let mut register = byte;
        let mut bit = 0;
        while bit < 8 {
            let carry = register & 1 != 0;
            register >>= 1;
            if carry {
                register ^= 0xedb8_8320;
            }
            bit += 1;
        }
        *remainder = register;
        byte += 1;
        rest = behind;
    }
    remainders
};

const FNV_64_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_64_PRIME: u64 = 0x0100_0000_01b3;
const FNV_32_BASIS: u32 = 0x811c_9dc5;
const FNV_32_PRIME: u32 = 0x0100_0193;

#[cfg(test)]
mod tests {
    use super::*;

    /// Check values that the algorithms' own publications give; where twemproxy departs from
    /// them the golden placements in `tests/it/ring.rs` decide.
    #[test]
    fn hashes_have_their_published_check_values() {
        let check = |hash: Hash, key: &str, expected: u32| {
            assert_eq!(hash.of(key.as_bytes()), expected, "{hash:?} of {key:?}");
        };
        check(Hash::Crc32a, "123456789", 0xcbf4_3926);
        check(Hash::Crc32, "123456789", (0xcbf4_3926 >> 16) & 0x7fff);
        check(Hash::Fnv1a32, "foobar", 0xbf9c_f968);
        check(Hash::Fnv132, "foobar", 0x31f0_b262);
        check(Hash::Fnv164, "foobar", 0xa4dd_a9c2); // of 0x340d_8765_a4dd_a9c2
        check(Hash::OneAtATime, "a", 0xca2e_9442);
        check(Hash::Md5, "", 0);
        check(
            Hash::Md5,
            "abc",
            u32::from_le_bytes([0x90, 0x01, 0x50, 0x98]),
        );
        assert_eq!(crc16(b"123456789") & 0xffff, 0x31c3);
    }

    #[test]
    fn every_name_is_parsed_back_and_others_are_refused_with_the_list() {
        for hash in Hash::ALL {
            assert_eq!(hash.name().parse(), Ok(*hash));
        }
        let error = "sha1".parse::<Hash>().unwrap_err().to_string();
        assert!(
            error.starts_with("unknown hash \"sha1\"; allowed: xxh3_64, fnv1a_64,"),
            "{error}"
        );
    }
}

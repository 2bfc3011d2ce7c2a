//! Which node a key belongs to.

/// Hash of a key, by twemproxy's names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hash {
    /// Fowler-Noll-Vo 1a, 64 bits: twemproxy's default.
    Fnv1a64,
    /// xxHash 3, 64 bits, seed 0.
    Xxh3,
}

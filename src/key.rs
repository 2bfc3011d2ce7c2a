//! A key, stored inline when short. Pure.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};

/// A key as the client sent it, hash tag included; 24 bytes, no allocation up to [`INLINE`] bytes.
#[derive(Clone)]
pub struct Key(Repr);

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE] },
    Heap(Box<[u8]>),
}

impl Key {
    /// Copies a key; allocates only when it is longer than [`INLINE`].
    pub fn new(key: &[u8]) -> Self {
        let mut bytes = [0; INLINE];
        match (bytes.get_mut(..key.len()), u8::try_from(key.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(key);
                Self(Repr::Inline { len, bytes })
            }
            _ => Self(Repr::Heap(key.into())),
        }
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Repr::Heap(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Key {}

impl Hash for Key {
    /// As its bytes, by which it may be looked up.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// Longest key kept without an allocation: what fits beside the tag and the length in 24 bytes.
pub const INLINE: usize = 22;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_every_length() {
        for len in [0, 1, INLINE - 1, INLINE, INLINE + 1, 300, 70_000] {
            let bytes = vec![b'k'; len];
            assert_eq!(Key::new(&bytes).as_bytes(), bytes);
        }
    }

    #[test]
    fn is_three_words() {
        assert_eq!(size_of::<Key>(), 24);
    }
}

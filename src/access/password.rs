//! What is kept of passwords.

use std::fmt;
use std::hint::black_box;

use sha2::{Digest, Sha256};

/// SHA-256 of a password, as Redis keeps it. A comparison says nothing of the password, and takes
/// the same time for every one.
#[derive(Clone, Copy, Eq)]
pub struct PasswordHash([u8; 32]);

impl PasswordHash {
    /// The hash of a password.
    pub fn of(password: &[u8]) -> Self {
        Self(Sha256::digest(password).into())
    }

    /// 64 hexadecimal digits.
    pub fn to_hex(self) -> String {
        let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        digits
            .filter_map(|digit| char::from_digit(digit.into(), 16))
            .collect()
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(digits: &str) -> Option<Self> {
        let mut hash = [0; 32];
        if digits.len() != 2 * hash.len() || !digits.is_ascii() {
            return None;
        }
        for (at, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Self(hash)).filter(|_| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }
}

/// In a time that does not depend on where the two differ.
impl PartialEq for PasswordHash {
    fn eq(&self, other: &Self) -> bool {
        let pairs = self.0.iter().zip(other.0);
        black_box(pairs.fold(0, |difference, (a, b)| difference | black_box(a ^ b))) == 0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<masked>")
    }
}

//! What is kept of clients' passwords.

use std::fmt;

use argon2::password_hash::{PasswordHash as Phc, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Argon2, Params};

/// Argon2id of a password, with its salt and its costs: `$argon2id$v=19$m=19456,t=2,p=1$...$...`.
#[derive(Clone, Eq, PartialEq)]
pub struct Argon2Hash(Box<str>);

impl Argon2Hash {
    /// Reads one.
    ///
    /// # Errors
    ///
    /// It is none, or would cost more than `MAX_MEMORY_KIB` or `MAX_PASSES`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form =
            || "a hash that begins with $argon2id$, as `tally hash-password` prints".to_owned();
        let phc = Phc::new(text).map_err(|_| form())?;
        if phc.algorithm.as_str() != "argon2id" || phc.salt.is_none() || phc.hash.is_none() {
            return Err(form());
        }
        let params = Params::try_from(&phc).map_err(|_| form())?;
        let passes = params.t_cost().saturating_mul(params.p_cost());
        if params.m_cost() > MAX_MEMORY_KIB || passes > MAX_PASSES {
            return Err(format!(
                "a hash of at most {MAX_MEMORY_KIB} KiB (m) and {MAX_PASSES} passes (t times p)"
            ));
        }
        Ok(Self(text.into()))
    }

    /// The hash of a password, with these 16 random bytes as salt, at the costs that OWASP
    /// recommends and the crate has as defaults: 19 MiB, 2 passes.
    ///
    /// # Errors
    ///
    /// The password is longer than 4 GiB.
    pub fn of(password: &[u8], salt: &[u8; 16]) -> Result<Self, String> {
        let text = |error: argon2::password_hash::Error| error.to_string();
        let salt = SaltString::encode_b64(salt).map_err(text)?;
        let hash = Argon2::default().hash_password(password, &salt);
        hash.map(|hash| Self(hash.to_string().into())).map_err(text)
    }

    /// Whether it is that of `password`; compares in constant time. Takes as long, and as much
    /// memory, as the hash says.
    pub fn verify(&self, password: &[u8]) -> bool {
        Phc::new(&self.0).is_ok_and(|phc| Argon2::default().verify_password(password, &phc).is_ok())
    }

    /// As a file has it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Argon2Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<masked>")
    }
}

/// Most memory that checking one password may take: 256 MiB, ten times what is usual.
const MAX_MEMORY_KIB: u32 = 256 << 10;

/// Most passes over that memory, all lanes together.
const MAX_PASSES: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_that_of_its_password_alone() {
        let cheap = "$argon2id$v=19$m=8,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg";
        assert!(Argon2Hash::parse(cheap).is_err(), "it has no hash");
        let salt = SaltString::encode_b64(b"0123456789abcdef").unwrap();
        let params = Params::new(8, 1, 1, None).unwrap();
        let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let text = argon2.hash_password(b"secret", &salt).unwrap().to_string();
        let hash = Argon2Hash::parse(&text).unwrap();
        assert!(hash.verify(b"secret"));
        assert!(!hash.verify(b"Secret") && !hash.verify(b""));
        assert_eq!(format!("{hash:?}"), "<masked>");
    }

    #[test]
    fn what_would_cost_too_much_or_is_another_hash_is_refused() {
        let tail = "MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";
        for head in [
            "$argon2id$v=19$m=262145,t=1,p=1$",
            "$argon2id$v=19$m=1024,t=65,p=1$",
            "$argon2id$v=19$m=1024,t=33,p=2$",
            "$argon2i$v=19$m=1024,t=1,p=1$",
            "$2y$10$",
            "",
        ] {
            assert!(
                Argon2Hash::parse(&format!("{head}{tail}")).is_err(),
                "{head}"
            );
        }
        let good = format!("$argon2id$v=19$m=262144,t=64,p=1${tail}");
        assert!(Argon2Hash::parse(&good).is_ok());
    }
}

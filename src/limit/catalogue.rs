//! Which scripts are known, and how a request is recognised as a call of one.

use std::collections::HashMap;
use std::fmt;

use sha1::{Digest as _, Sha1};

use super::known;
use super::meaning::{Kind, Rule};
use super::normal::normal_form;

/// The scripts whose meaning is known, by SHA-1 and by normal form.
#[derive(Debug)]
pub struct Catalogue {
    scripts: Vec<Script>,
    /// By the SHA-1 of the exact body.
    exact: HashMap<Digest, usize>,
    /// By the SHA-1 of the normal form.
    normal: HashMap<Digest, usize>,
}

/// A script whose meaning is known.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Script {
    name: String,
    kind: Kind,
}

/// A script to be known besides the built-in ones: one of `[[limit_scripts]]`.
#[derive(Clone, Debug)]
pub struct Definition {
    /// For messages and statistics.
    pub name: String,
    /// How it is recognised.
    pub source: Source,
    /// What it does. This is believed: a wrong meaning gives wrong counts.
    pub kind: Kind,
}

/// How a script is recognised.
#[derive(Clone, Debug)]
pub enum Source {
    /// By the SHA-1 of its body, 40 hexadecimal digits.
    Sha1(String),
    /// By its body, which also recognises bodies of the same normal form.
    Body(String),
}

/// Why a definition can not be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CatalogueError {
    /// Not 40 hexadecimal digits.
    #[error("limit script \"{0}\": a SHA-1 has 40 hexadecimal digits")]
    InvalidSha1(String),
    /// An argument's place is 0 or above [`MAX_ARGUMENT`].
    #[error("limit script \"{name}\": argument {place} is not in 1 to {MAX_ARGUMENT}")]
    InvalidArgument {
        /// The script's name.
        name: String,
        /// The place.
        place: u8,
    },
    /// [`Rule::Restart`] with a limit.
    #[error("limit script \"{0}\": a counter with a limit can not restart")]
    RestartWithLimit(String),
    /// [`Rule::First`] with an increment of another size than its argument, or the like.
    #[error("limit script \"{name}\" is the same script as \"{other}\"")]
    Duplicate {
        /// The script's name.
        name: String,
        /// The one that is there.
        other: String,
    },
    /// More than [`MAX_DEFINITIONS`].
    #[error("more than {MAX_DEFINITIONS} limit scripts")]
    TooMany,
}

impl Catalogue {
    /// The built-in scripts and `definitions`.
    ///
    /// A definition may repeat a built-in script, and then counts in its place.
    ///
    /// # Errors
    ///
    /// For the first definition that can not be used.
    pub fn new(definitions: impl IntoIterator<Item = Definition>) -> Result<Self, CatalogueError> {
        let mut catalogue = Self::built_in();
        let own = catalogue.scripts.len();
        for definition in definitions {
            if catalogue.scripts.len() >= own + MAX_DEFINITIONS {
                return Err(CatalogueError::TooMany);
            }
            catalogue.define(definition, own)?;
        }
        Ok(catalogue)
    }

    /// No scripts at all: nothing is recognised.
    pub fn empty() -> Self {
        Self {
            scripts: Vec::new(),
            exact: HashMap::new(),
            normal: HashMap::new(),
        }
    }

    /// The script with this body: the same one, or one with the same normal form.
    ///
    /// Costs a SHA-1 of the body, and for an unknown body up to [`super::MAX_BODY_BYTES`] the
    /// making of its normal form: a caller that sees a body often remembers the result.
    pub fn recognise_body(&self, body: &[u8]) -> Option<&Script> {
        let found = self.exact.get(&Digest::of(body)).or_else(|| {
            let form = normal_form(body)?;
            self.normal.get(&Digest::of(&form))
        });
        self.scripts.get(*found?)
    }

    /// The script whose exact body has this SHA-1, in hexadecimal digits of any case.
    ///
    /// A script known by its normal form only is not found: nobody can tell from a SHA-1.
    pub fn recognise_sha(&self, sha: &[u8]) -> Option<&Script> {
        let digest = Digest::from_hex(sha)?;
        self.scripts.get(*self.exact.get(&digest)?)
    }

    /// All scripts, the built-in ones first.
    pub fn scripts(&self) -> &[Script] {
        &self.scripts
    }

    fn built_in() -> Self {
        let mut catalogue = Self::empty();
        for known in known::SCRIPTS {
            let place = catalogue.scripts.len();
            catalogue.scripts.push(Script {
                name: known.name.to_owned(),
                kind: known.kind,
            });
            let digests = |shas: &[&str]| -> Vec<Digest> {
                let digest = |sha: &&str| Digest::from_hex(sha.as_bytes());
                shas.iter().filter_map(digest).collect()
            };
            for digest in digests(known.exact) {
                catalogue.exact.insert(digest, place);
            }
            for digest in digests(known.normal) {
                catalogue.normal.insert(digest, place);
            }
            for body in known.bodies {
                catalogue.add_body(body.as_bytes(), place);
            }
        }
        catalogue
    }

    /// Adds a script; those from place `own` on are definitions too.
    fn define(&mut self, definition: Definition, own: usize) -> Result<(), CatalogueError> {
        let Definition { name, source, kind } = definition;
        let invalid = |place: &u8| !(1..=MAX_ARGUMENT).contains(place);
        if let Some(place) = kind.arguments().find(invalid) {
            return Err(CatalogueError::InvalidArgument { name, place });
        }
        if let Kind::Limit { ttl: Some(ttl), .. } = kind
            && ttl.rule == Rule::Restart
        {
            return Err(CatalogueError::RestartWithLimit(name));
        }
        let digest = match &source {
            Source::Sha1(sha) => match Digest::from_hex(sha.as_bytes()) {
                Some(digest) => digest,
                None => return Err(CatalogueError::InvalidSha1(name)),
            },
            Source::Body(body) => Digest::of(body.as_bytes()),
        };
        if let Some(other) = self.exact.get(&digest).filter(|place| **place >= own) {
            let other = self.scripts.get(*other).map(|script| script.name.clone());
            let other = other.unwrap_or_default();
            return Err(CatalogueError::Duplicate { name, other });
        }
        let place = self.scripts.len();
        self.exact.insert(digest, place);
        if let Source::Body(body) = &source {
            self.add_body(body.as_bytes(), place);
        }
        self.scripts.push(Script { name, kind });
        Ok(())
    }

    fn add_body(&mut self, body: &[u8], place: usize) {
        self.exact.insert(Digest::of(body), place);
        if let Some(form) = normal_form(body) {
            self.normal.insert(Digest::of(&form), place);
        }
    }
}

impl Script {
    /// Its name: the library's, or as defined.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it does.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

/// A SHA-1.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub(super) struct Digest([u8; 20]);

impl Digest {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(Sha1::digest(bytes).into())
    }

    /// Reads 40 hexadecimal digits of any case.
    fn from_hex(hex: &[u8]) -> Option<Self> {
        let (pairs, []) = hex.as_chunks::<2>() else {
            return None;
        };
        let digit = |byte: u8| {
            char::from(byte)
                .to_digit(16)
                .and_then(|d| u8::try_from(d).ok())
        };
        let mut bytes = [0; 20];
        if pairs.len() != bytes.len() {
            return None;
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(bytes))
    }

    /// 40 lower-case digits.
    pub(super) fn to_hex(self) -> [u8; 40] {
        let mut hex = [0; 40];
        let digit = |nibble: u8| match nibble {
            0..=9 => b'0' + nibble,
            _ => b'a' + nibble - 10,
        };
        for ([high, low], byte) in hex.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
            (*high, *low) = (digit(byte >> 4), digit(byte & 15));
        }
        hex
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_hex().escape_ascii())
    }
}

/// Most definitions; each costs two map entries.
pub const MAX_DEFINITIONS: usize = 256;

/// Highest place of an argument that a meaning may name.
pub const MAX_ARGUMENT: u8 = 64;

/// The name that Redis gives to a script: the SHA-1 of its body, in lower-case hexadecimal digits.
pub fn sha1_hex(body: &[u8]) -> [u8; 40] {
    Digest::of(body).to_hex()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{Amount, CANONICAL, CANONICAL_WITH_TTL, Denied, Granted, Reply};

    fn catalogue() -> Catalogue {
        Catalogue::new([]).unwrap()
    }

    fn definition(source: Source) -> Definition {
        Definition {
            name: "own".to_owned(),
            source,
            kind: Kind::Increment {
                amount: Amount::One,
                ttl: None,
                reply: Reply::Value,
            },
        }
    }

    #[test]
    fn every_built_in_sha_is_one() {
        let catalogue = catalogue();
        for known in known::SCRIPTS {
            for sha in known.exact.iter().chain(known.normal) {
                assert!(Digest::from_hex(sha.as_bytes()).is_some(), "{sha}");
            }
            for sha in known.exact {
                let script = catalogue.recognise_sha(sha.as_bytes()).unwrap();
                assert_eq!(script.name(), known.name);
            }
            assert!(known.kind.arguments().all(|place| place <= MAX_ARGUMENT));
        }
    }

    #[test]
    fn no_two_built_in_scripts_are_the_same() {
        let shas = || {
            let all = known::SCRIPTS.iter();
            all.flat_map(|known| known.exact.iter().chain(known.normal))
        };
        let mut distinct: Vec<_> = shas().collect();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), shas().count());
        let catalogue = catalogue();
        for known in known::SCRIPTS {
            for body in known.bodies {
                let script = catalogue.recognise_body(body.as_bytes()).unwrap();
                assert_eq!(script.name(), known.name);
            }
        }
    }

    #[test]
    fn a_sha_is_read_in_any_case() {
        let catalogue = catalogue();
        let lower = b"628bd136a573a06b346879695681af12ccef300f";
        let script = catalogue.recognise_sha(lower).unwrap();
        let upper = lower.to_ascii_uppercase();
        assert_eq!(catalogue.recognise_sha(&upper), Some(script));
        assert_eq!(catalogue.recognise_sha(&lower[1..]), None);
        assert_eq!(catalogue.recognise_sha(b""), None);
        assert_eq!(catalogue.recognise_sha(&[b'+'; 40]), None);
    }

    #[test]
    fn a_digest_is_that_of_redis() {
        // SCRIPT LOAD "return 1"
        let sha = Digest::of(b"return 1").to_hex();
        assert_eq!(&sha, b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
    }

    /// As it stands between the backquotes of a `counter.js`.
    #[test]
    fn the_tutorials_script_is_known_by_its_sha() {
        let body = "
      local current = redis.call('GET', KEYS[1])
      current = tonumber(current) or 0

      if current >= tonumber(ARGV[1]) then
        return -1
      end

      return redis.call('INCR', KEYS[1])
    ";
        let sha = Digest::of(body.as_bytes()).to_hex();
        let catalogue = catalogue();
        let script = catalogue.recognise_sha(&sha).unwrap();
        assert_eq!(script.name(), "increment with limit");
        // Its normal form is that of a body of ours.
        let reformatted = body.replace('\n', " ");
        assert_eq!(
            catalogue.recognise_body(reformatted.as_bytes()),
            Some(script)
        );
    }

    #[test]
    fn a_reformatted_body_is_recognised() {
        let catalogue = catalogue();
        let plain = catalogue.recognise_body(CANONICAL_WITH_TTL.as_bytes());
        assert_eq!(plain.unwrap().name(), "increment with limit and TTL");
        let text = CANONICAL_WITH_TTL
            .replace("current", "n")
            .replace("  ", "\t");
        let text = format!("-- how many?\n{}", text.replace('\'', "\""));
        assert_eq!(catalogue.recognise_body(text.as_bytes()), plain);
        let other = CANONICAL_WITH_TTL.replace(">=", ">");
        assert_eq!(catalogue.recognise_body(other.as_bytes()), None);
    }

    #[test]
    fn a_definition_takes_the_place_of_a_built_in_script() {
        let own = definition(Source::Body(CANONICAL.to_owned()));
        let catalogue = Catalogue::new([own]).unwrap();
        let reformatted = CANONICAL.replace('\n', " ");
        for body in [CANONICAL, &reformatted] {
            let script = catalogue.recognise_body(body.as_bytes()).unwrap();
            assert_eq!(script.name(), "own");
        }
    }

    #[track_caller]
    fn check_refused(definitions: Vec<Definition>, expected: &str) {
        let error = Catalogue::new(definitions).unwrap_err().to_string();
        assert_eq!(error, expected);
    }

    #[test]
    fn a_definition_that_can_not_be_used_is_refused() {
        let sha = |text: &str| definition(Source::Sha1(text.to_owned()));
        let good = "0123456789abcdef0123456789abcdef01234567";
        let wrong = "limit script \"own\": a SHA-1 has 40 hexadecimal digits";
        check_refused(vec![sha("123")], wrong);
        check_refused(vec![sha(&good.replace('a', "g"))], wrong);
        let twice = "limit script \"own\" is the same script as \"own\"";
        check_refused(vec![sha(good), sha(good)], twice);
        for place in [0, 65] {
            let mut definition = sha(good);
            definition.kind = Kind::Limit {
                limit: place,
                ttl: None,
                granted: Granted::Value,
                denied: Denied::Null,
            };
            let expected = format!("limit script \"own\": argument {place} is not in 1 to 64");
            check_refused(vec![definition], &expected);
        }
        let many = (0..=MAX_DEFINITIONS).map(|number| sha(&format!("{number:040x}")));
        check_refused(many.collect(), "more than 256 limit scripts");
    }
}

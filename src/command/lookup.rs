//! From a request to its entry in the table, and Redis's errors where there is none.

use super::table::TABLE;
use super::{Command, Flags, learned};
use crate::resp::Request;

/// Why a request has no command to execute.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LookupError {
    /// No such command.
    Unknown,
    /// The container has no such subcommand.
    UnknownSubcommand,
    /// The command does not take so many arguments.
    Arity,
}

/// Finds the command of a request, by name in any case; for containers (`CONFIG`, `OBJECT`, ...)
/// the entry of the subcommand that the first argument names.
///
/// Cost: for names of up to eight letters one multiplication and one comparison of words; else a
/// hash of the name, about one probe and one comparison.
///
/// # Errors
///
/// An empty request is `Unknown`. Arity is checked last, as in Redis (`processCommand` in
/// `server.c`).
pub fn lookup(request: &Request<'_>) -> Result<&'static Command, LookupError> {
    let command = match short(request.arg(0)) {
        Some(command) => command,
        None => resolve(request)?,
    };
    if command.accepts(request.len()) || learned::accepts(command, request.len()) {
        Ok(command)
    } else {
        Err(LookupError::Arity)
    }
}

impl LookupError {
    /// The error for the client, word for word as Redis 7.0.15 gives it, code first.
    pub fn text(self, request: &Request<'_>) -> Vec<u8> {
        let mut text = b"ERR ".to_vec();
        let name = c_string(request.arg(0));
        match self {
            Self::Unknown => {
                text.extend_from_slice(b"unknown command '");
                text.extend_from_slice(clip(name, QUOTED_BYTES));
                text.extend_from_slice(b"', with args beginning with: ");
                quote_arguments(request, &mut text);
            }
            Self::UnknownSubcommand => {
                text.extend_from_slice(b"unknown subcommand '");
                text.extend_from_slice(clip(c_string(request.arg(1)), QUOTED_BYTES));
                text.extend_from_slice(b"'. Try ");
                text.extend_from_slice(&name.to_ascii_uppercase());
                text.extend_from_slice(b" HELP.");
            }
            Self::Arity => {
                let name = resolve(request).map_or("", |command| command.name);
                text.extend_from_slice(b"wrong number of arguments for '");
                text.extend_from_slice(name.as_bytes());
                text.extend_from_slice(b"' command");
            }
        }
        for byte in &mut text {
            if matches!(*byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        text
    }
}

/// Most bytes of a name, and of all arguments together, that an error quotes (Redis `server.c`,
/// `commandCheckExistence`).
const QUOTED_BYTES: usize = 128;

/// Each argument in quotes and followed by a space, until Redis's limit is passed: it cuts an
/// argument to what is left of the limit, but counts quotes only afterwards.
fn quote_arguments(request: &Request<'_>, text: &mut Vec<u8>) {
    let start = text.len();
    for arg in request.args().skip(1) {
        let left = QUOTED_BYTES.saturating_sub(text.len() - start);
        if left == 0 {
            return;
        }
        text.push(b'\'');
        text.extend_from_slice(c_string(clip(arg, left)));
        text.extend_from_slice(b"' ");
    }
}

/// What C's `%s` prints of it: everything before the first NUL.
fn c_string(bytes: &[u8]) -> &[u8] {
    memchr::memchr(0, bytes).map_or(bytes, |end| clip(bytes, end))
}

fn clip(bytes: &[u8], len: usize) -> &[u8] {
    bytes.get(..len).unwrap_or(bytes)
}

/// The same, whatever the number of its arguments.
///
/// # Errors
///
/// As [`lookup`], save for the arity.
pub fn resolve(request: &Request<'_>) -> Result<&'static Command, LookupError> {
    let name = request.arg(0);
    if name.is_empty() || name.len() > LONGEST_NAME {
        return Err(LookupError::Unknown);
    }
    // `config|get` is a name of ours, not one that a client may use.
    if name.contains(&SEPARATOR) {
        return Err(LookupError::Unknown);
    }
    let command = named(name).ok_or(LookupError::Unknown)?;
    if !command.flags.contains(Flags::CONTAINER) || request.len() == 1 {
        return Ok(command);
    }
    let sub = request.arg(1);
    if sub.len() > LONGEST_NAME {
        return Err(LookupError::UnknownSubcommand);
    }
    let hash = fold(fold(fold(0, name), &[SEPARATOR]), sub);
    let in_table = probe(hash, |entry| match entry.split_once('|') {
        Some((container, known)) => {
            name.eq_ignore_ascii_case(container.as_bytes())
                && sub.eq_ignore_ascii_case(known.as_bytes())
        }
        None => false,
    });
    in_table
        .or_else(|| learned::find(&[name, sub].join(&SEPARATOR)))
        .ok_or(LookupError::UnknownSubcommand)
}

/// The command of a full name, in any case, as access rules write it: `get`, `config|get`.
pub fn named(name: &[u8]) -> Option<&'static Command> {
    named_in_table(name).or_else(|| learned::find(name))
}

/// The same, without what was learned.
pub(super) fn named_in_table(name: &[u8]) -> Option<&'static Command> {
    if name.is_empty() || name.len() > LONGEST_NAME {
        return None;
    }
    probe(fold(0, name), |entry| {
        name.eq_ignore_ascii_case(entry.as_bytes())
    })
}

/// The command of a name of up to eight letters, in any case, if it has its place in [`SHORT`].
#[inline]
fn short(name: &[u8]) -> Option<&'static Command> {
    let word = word(name)? | LOWER_CASE;
    let (known, entry) = SHORT.get(slot(word))?;
    let command = TABLE.get(usize::from(*entry))?;
    // The words of names of different lengths may be equal.
    (*known == word && command.name.len() == name.len()).then_some(command)
}

/// A name of one to eight bytes as a number: the whole name from three on, its ends together.
#[inline]
const fn word(name: &[u8]) -> Option<u64> {
    if let Some(bytes) = name.first_chunk::<8>() {
        return if name.len() == 8 {
            Some(u64::from_le_bytes(*bytes))
        } else {
            None
        };
    }
    if let (Some(first), Some(last)) = (name.first_chunk::<4>(), name.last_chunk::<4>()) {
        return Some(join(u32::from_le_bytes(*first), u32::from_le_bytes(*last)));
    }
    match name {
        [first, second, third] => Some(join(
            u32::from_le_bytes([*first, *second, 0, 0]),
            u32::from_le_bytes([*third, 0, 0, 0]),
        )),
        [first, last] => Some(join(
            u32::from_le_bytes([*first, 0, 0, 0]),
            u32::from_le_bytes([*last, 0, 0, 0]),
        )),
        _ => None,
    }
}

#[expect(clippy::as_conversions, reason = "`u64::from` is not const")]
const fn join(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

/// Makes the letters of a word lower case. A word of other bytes is never equal to one of letters:
/// what bit 5 makes a letter was one.
const LOWER_CASE: u64 = 0x2020_2020_2020_2020;

/// Words and places in [`TABLE`] of commands without subcommands whose names are two to eight
/// letters; where two meet, the first in the table: the other is found by [`resolve`].
static SHORT: [(u64, u16); SLOTS] = short_names();

#[expect(
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "evaluated at compile time, where a fault is a build error"
)]
const fn short_names() -> [(u64, u16); SLOTS] {
    let mut names = [(0, EMPTY); SLOTS];
    let mut entry = 0;
    while entry < TABLE.len() {
        let name = TABLE[entry].name.as_bytes();
        if let (Some(word), true, false) = (
            word(name),
            is_letters(name),
            TABLE[entry].flags.contains(Flags::CONTAINER),
        ) {
            let slot = slot(word | LOWER_CASE);
            if names[slot].1 == EMPTY {
                names[slot] = (word | LOWER_CASE, entry as u16);
            }
        }
        entry += 1;
    }
    names
}

const fn is_letters(mut name: &[u8]) -> bool {
    while let [byte, rest @ ..] = name {
        if !byte.is_ascii_lowercase() {
            return false;
        }
        name = rest;
    }
    true
}

const SEPARATOR: u8 = b'|';

/// No entry's name is longer, so nothing longer is hashed.
pub(super) const LONGEST_NAME: usize = 32;

/// Slots of the index: a power of two, under half full.
const SLOTS: usize = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 10;
const EMPTY: u16 = u16::MAX;

/// Open addressing with linear probing, built at compile time: [`TABLE`]'s index by name.
static INDEX: [u16; SLOTS] = index();

#[expect(
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "evaluated at compile time, where a fault is a build error"
)]
const fn index() -> [u16; SLOTS] {
    assert!(TABLE.len() * 2 < SLOTS, "the index is too small");
    let mut index = [EMPTY; SLOTS];
    let mut entry = 0;
    while entry < TABLE.len() {
        let name = TABLE[entry].name.as_bytes();
        assert!(name.len() <= LONGEST_NAME, "the longest name grew");
        let mut slot = slot(fold(0, name));
        while index[slot] != EMPTY {
            slot = (slot + 1) % SLOTS;
        }
        index[slot] = entry as u16;
        entry += 1;
    }
    index
}

/// The first entry at or after the hash's slot whose name `matches`.
fn probe(hash: u64, matches: impl Fn(&str) -> bool) -> Option<&'static Command> {
    let mut slot = slot(hash);
    loop {
        let entry = *INDEX.get(slot)?;
        // An empty slot is past the end of the table, which ends the search.
        let command = TABLE.get(usize::from(entry))?;
        if matches(command.name) {
            return Some(command);
        }
        slot = (slot + 1) % SLOTS;
    }
}

/// Takes a name, or a piece of one, into the hash. Setting bit 5 makes letters lower case; what it
/// does to other bytes only costs a comparison.
const fn fold(mut hash: u64, mut name: &[u8]) -> u64 {
    while let [byte, rest @ ..] = name {
        #[expect(clippy::as_conversions, reason = "`u64::from` is not const")]
        let byte = (*byte | 0x20) as u64;
        hash = hash.rotate_left(7) ^ byte;
        name = rest;
    }
    hash
}

/// A number for a name in any case, below [`SLOTS`].
pub(super) fn spread(name: &[u8]) -> usize {
    slot(fold(0, name))
}

/// The high bits of a product with 2^64 / golden ratio (Knuth's multiplicative hashing).
#[expect(
    clippy::as_conversions,
    reason = "the shift leaves SLOT_BITS bits; `usize::try_from` is not const"
)]
const fn slot(hash: u64) -> usize {
    (hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - SLOT_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found_by_its_own_name() {
        for (at, command) in TABLE.iter().enumerate() {
            assert_eq!(command.index(), at, "{}", command.name);
            let found = probe(fold(0, command.name.as_bytes()), |name| {
                name == command.name
            });
            assert!(std::ptr::eq(found.unwrap(), command), "{}", command.name);
        }
    }

    #[test]
    fn a_container_stands_before_its_subcommands() {
        let mut container = "";
        for command in TABLE {
            match command.name.split_once('|') {
                Some((outer, _)) => assert_eq!(outer, container, "{}", command.name),
                None if command.flags.contains(Flags::CONTAINER) => container = command.name,
                None => container = "",
            }
        }
    }

    #[test]
    fn most_names_are_found_at_the_first_or_second_probe() {
        let far = TABLE.iter().filter(|command| {
            let first = slot(fold(0, command.name.as_bytes()));
            (0..2).all(|step| {
                let entry = INDEX[(first + step) % SLOTS];
                TABLE.get(usize::from(entry)).map(|found| found.name) != Some(command.name)
            })
        });
        assert!(far.count() < TABLE.len() / 8);
    }
}

//! Rules as `ACL SETUSER` takes them (`ACLSetUser` and `ACLSetSelector` in `acl.c`).

use std::borrow::Cow;

use super::selector::{KeyPattern, Selector};
use super::{Account, NewChannels, PasswordHash, Payload};
use crate::command::{self, Categories, Flags, KeyAccess};
use crate::glob::MAX_PATTERN_BYTES;
use crate::resp;

/// Why a rule is none. The texts are Redis's, but for the last two.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RuleError {
    /// Names no command and no category.
    #[error("Unknown command or category name in ACL")]
    Unknown,
    /// Is none of the words, or a pattern with spaces.
    #[error("Syntax error")]
    Syntax,
    /// A pattern of keys where there are all.
    #[error(
        "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not \
         have any effect. Try 'resetkeys' to start with an empty list of patterns"
    )]
    AfterAllKeys,
    /// A pattern of channels where there are all.
    #[error(
        "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does \
         not have any effect. Try 'resetchannels' to start with an empty list of channels"
    )]
    AfterAllChannels,
    /// Takes away a password that is not there.
    #[error("The password you are trying to remove from the user does not exist")]
    NoSuchPassword,
    /// Is no hash.
    #[error(
        "The password hash must be exactly 64 characters and contain only lowercase hexadecimal \
         characters"
    )]
    NotAHash,
    /// `+config|get|x`
    #[error("Allowing first-arg of a subcommand is not supported")]
    OfSubcommand,
    /// A pattern is longer than is ever matched.
    #[error("a pattern is longer than {MAX_PATTERN_BYTES} bytes")]
    TooLong,
    /// There is a bound on what a user has.
    #[error(
        "more than {MAX_PASSWORDS} passwords, {MAX_SELECTORS} selectors, or {MAX_PATTERNS} patterns \
         and first arguments"
    )]
    TooMany,
}

impl Account {
    /// Applies rules, one after the other; `new` is for what they make or reset. After an error some
    /// of them may be in force: it is for the caller to drop this copy.
    ///
    /// # Errors
    ///
    /// The text for the client without its code, in Redis's words (`ACLStringSetUser`).
    pub fn apply<'a>(
        &mut self,
        rules: impl Iterator<Item = &'a [u8]>,
        new: NewChannels,
    ) -> Result<(), Vec<u8>> {
        let rules = merged(rules).map_err(|start| {
            let before = b"Unmatched parenthesis in acl selector starting at '";
            [before, start, b"'."].concat()
        })?;
        for rule in rules {
            self.apply_one(&rule, new).map_err(|error| {
                let before = b"Error in ACL SETUSER modifier '";
                [before, &*rule, b"': ", error.to_string().as_bytes()].concat()
            })?;
        }
        Ok(())
    }

    fn apply_one(&mut self, rule: &[u8], new: NewChannels) -> Result<(), RuleError> {
        let is = |word: &str| rule.eq_ignore_ascii_case(word.as_bytes());
        match rule {
            [] => {}
            _ if is("on") => self.is_on = true,
            _ if is("off") => self.is_on = false,
            _ if is("skip-sanitize-payload") => self.payload = Payload::Skip,
            _ if is("sanitize-payload") => self.payload = Payload::Sanitize,
            _ if is("nopass") => self.set_no_passwords(true),
            _ if is("resetpass") => self.set_no_passwords(false),
            [b'>', password @ ..] => self.add_password(PasswordHash::of(password))?,
            [b'#', hash @ ..] => self.add_password(hash_of(hash)?)?,
            [b'<', password @ ..] => self.remove_password(PasswordHash::of(password))?,
            [b'!', hash @ ..] => self.remove_password(hash_of(hash)?)?,
            [b'(', inner @ .., b')'] => {
                if self.selectors.len() == MAX_SELECTORS {
                    return Err(RuleError::TooMany);
                }
                let mut selector = Selector::new(new);
                // Redis takes quotes that are not closed for no rules at all.
                for rule in resp::split(inner).unwrap_or_default() {
                    selector.apply(&rule)?;
                }
                self.selectors.push(selector);
                self.check_size()?;
            }
            _ if is("clearselectors") => self.selectors.clear(),
            _ if is("reset") => {
                *self = Self {
                    payload: Payload::Sanitize,
                    ..Self::new(new)
                };
            }
            _ => {
                self.root.apply(rule)?;
                self.check_size()?;
            }
        }
        Ok(())
    }

    fn set_no_passwords(&mut self, takes_any: bool) {
        self.takes_any = takes_any;
        self.passwords.clear();
        self.other_password = false;
    }

    fn add_password(&mut self, hash: PasswordHash) -> Result<(), RuleError> {
        if !self.passwords.contains(&hash) {
            if self.passwords.len() == MAX_PASSWORDS {
                return Err(RuleError::TooMany);
            }
            self.passwords.push(hash);
        }
        self.takes_any = false;
        Ok(())
    }

    fn remove_password(&mut self, hash: PasswordHash) -> Result<(), RuleError> {
        let at = self.passwords.iter().position(|known| *known == hash);
        let at = at.ok_or(RuleError::NoSuchPassword)?;
        self.passwords.remove(at);
        Ok(())
    }

    fn check_size(&self) -> Result<(), RuleError> {
        let all = std::iter::once(&self.root).chain(&self.selectors);
        let is_within = all.map(Selector::size).sum::<usize>() <= MAX_PATTERNS;
        is_within.then_some(()).ok_or(RuleError::TooMany)
    }
}

impl Selector {
    fn apply(&mut self, rule: &[u8]) -> Result<(), RuleError> {
        let is = |word: &str| rule.eq_ignore_ascii_case(word.as_bytes());
        match rule {
            _ if is("allkeys") || is("~*") => self.keys = None,
            _ if is("resetkeys") => self.keys = Some(Vec::new()),
            _ if is("allchannels") || is("&*") => self.channels = None,
            _ if is("resetchannels") => self.channels = Some(Vec::new()),
            _ if is("allcommands") || is("+@all") => self.commands.set_all(true),
            _ if is("nocommands") || is("-@all") => self.commands.set_all(false),
            [b'~', pattern @ ..] => self.add_keys(KeyAccess::BOTH, pattern)?,
            [b'%', rest @ ..] => {
                // Where there are all, it is not even read.
                if self.keys.is_none() {
                    return Err(RuleError::AfterAllKeys);
                }
                let (access, pattern) = key_access(rest).ok_or(RuleError::Syntax)?;
                self.add_keys(access, pattern)?;
            }
            [b'&', pattern @ ..] => {
                let channels = self.channels.as_mut();
                let channels = channels.ok_or(RuleError::AfterAllChannels)?;
                check_pattern(pattern)?;
                if !channels.iter().any(|known| **known == *pattern) {
                    channels.push(pattern.into());
                }
            }
            [sign @ (b'+' | b'-'), b'@', name @ ..] => {
                let category = Categories::named(name).ok_or(RuleError::Unknown)?;
                self.commands.set_category(category, *sign == b'+');
            }
            [b'+', name @ ..] => self.allow(name)?,
            [b'-', name @ ..] => {
                let command = command::named(name).ok_or(RuleError::Unknown)?;
                self.commands.set(command, false);
            }
            _ => return Err(RuleError::Syntax),
        }
        Ok(())
    }

    /// `+get`, `+config|get`, `+select|0`
    fn allow(&mut self, name: &[u8]) -> Result<(), RuleError> {
        let bar = name.iter().rposition(|byte| *byte == b'|');
        let Some((outer, argument)) = bar.and_then(|at| name.split_at_checked(at)) else {
            let command = command::named(name).ok_or(RuleError::Unknown)?;
            self.commands.set(command, true);
            return Ok(());
        };
        let argument = argument.strip_prefix(b"|").unwrap_or_default();
        let command = command::named(outer).ok_or(RuleError::Unknown)?;
        if command.name.contains('|') {
            return Err(RuleError::OfSubcommand);
        }
        if argument.is_empty() {
            return Err(RuleError::Syntax);
        }
        if command.flags.contains(Flags::CONTAINER) {
            let command = command::named(name).ok_or(RuleError::Unknown)?;
            self.commands.set(command, true);
        } else if argument.len() > MAX_PATTERN_BYTES {
            return Err(RuleError::TooLong);
        } else {
            self.commands.add_first_arg(command, argument);
        }
        Ok(())
    }

    fn add_keys(&mut self, access: KeyAccess, pattern: &[u8]) -> Result<(), RuleError> {
        let patterns = self.keys.as_mut().ok_or(RuleError::AfterAllKeys)?;
        check_pattern(pattern)?;
        match patterns.iter_mut().find(|known| *known.pattern == *pattern) {
            Some(known) => known.access = known.access.with(access),
            None => patterns.push(KeyPattern {
                access,
                pattern: pattern.into(),
            }),
        }
        Ok(())
    }
}

/// What stands between `%` and `~`, each letter at most once, and the pattern behind them. A rule
/// that ends before the `~` has an empty pattern, as in Redis.
fn key_access(rest: &[u8]) -> Option<(KeyAccess, &[u8])> {
    let mut access = KeyAccess::NONE;
    let mut rest = rest;
    while let [letter, tail @ ..] = rest {
        let one = match letter.to_ascii_uppercase() {
            b'R' => KeyAccess::READ,
            b'W' => KeyAccess::WRITE,
            b'~' => {
                rest = tail;
                break;
            }
            _ => return None,
        };
        if access.contains(one) {
            return None;
        }
        access = access.with(one);
        rest = tail;
    }
    (access != KeyAccess::NONE).then_some((access, rest))
}

fn check_pattern(pattern: &[u8]) -> Result<(), RuleError> {
    if has_spaces(pattern) {
        Err(RuleError::Syntax)
    } else if pattern.len() > MAX_PATTERN_BYTES {
        Err(RuleError::TooLong)
    } else {
        Ok(())
    }
}

/// Whether there are bytes that no name and no pattern has (`ACLStringHasSpaces`).
pub fn has_spaces(text: &[u8]) -> bool {
    text.iter().any(|byte| matches!(byte, 0 | b' ' | 9..=13))
}

fn hash_of(digits: &[u8]) -> Result<PasswordHash, RuleError> {
    let digits = std::str::from_utf8(digits).ok();
    let digits = digits.filter(|text| !text.bytes().any(|byte| byte.is_ascii_uppercase()));
    digits
        .and_then(PasswordHash::from_hex)
        .ok_or(RuleError::NotAHash)
}

/// Puts the words of a selector that came one by one together (`ACLMergeSelectorArguments`).
///
/// # Errors
///
/// The word that begins one without an end.
fn merged<'a>(rules: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Cow<'a, [u8]>>, &'a [u8]> {
    let mut all = Vec::new();
    let mut open: Option<(&[u8], Vec<u8>)> = None;
    for rule in rules {
        match &mut open {
            None if rule.starts_with(b"(") && !rule.ends_with(b")") => {
                open = Some((rule, rule.to_vec()));
            }
            None => all.push(Cow::Borrowed(rule)),
            Some((_, selector)) => {
                selector.push(b' ');
                selector.extend_from_slice(rule);
                if rule.ends_with(b")") {
                    all.extend(open.take().map(|(_, selector)| Cow::Owned(selector)));
                }
            }
        }
    }
    match open {
        Some((start, _)) => Err(start),
        None => Ok(all),
    }
}

/// Most passwords of a user: each attempt is compared with them.
pub const MAX_PASSWORDS: usize = 100;

/// Most selectors of a user, beside its own permissions.
pub const MAX_SELECTORS: usize = 100;

/// Most patterns of keys and channels, and first arguments, of a user with all its selectors: each
/// key is compared with them.
pub const MAX_PATTERNS: usize = 1000;

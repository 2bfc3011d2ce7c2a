//! What a user may do, in the rules of Redis 7.0's `ACL`: which commands, with which keys and
//! channels. Pure.
//!
//! An [`Account`] is all that Redis keeps of a user. Rules change it ([`Account::apply`]), a request
//! is checked against it ([`Account::check`]), and it tells itself in the words of `ACL LIST` and
//! `ACL GETUSER`. `tests/it/access.rs` asks a Redis server the same.

mod commands;
mod password;
mod rules;
mod selector;

pub use commands::of_category;
pub use password::PasswordHash;
pub use rules::{MAX_PASSWORDS, MAX_PATTERNS, MAX_SELECTORS, RuleError, has_spaces};

use self::selector::Selector;
use crate::command::{self, Class, Command, Inside, KeyAccess};
use crate::resp::Request;

/// A user without its name. A new one is off, has no password, and may do nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Account {
    /// Whether anybody may log in as this user.
    is_on: bool,
    /// Whether any password is right.
    takes_any: bool,
    /// Whether there is a password that is kept elsewhere, which rules can only take away.
    other_password: bool,
    payload: Payload,
    passwords: Vec<PasswordHash>,
    root: Selector,
    selectors: Vec<Selector>,
}

/// Which channels those may use who are new, or were reset, and of whose channels nothing else is
/// said: Redis's `acl-pubsub-default`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum NewChannels {
    /// Redis's default since 7.0.
    #[default]
    None,
    /// Redis's default before.
    All,
}

/// What is said of payloads of `RESTORE`; the nodes decide what is done with them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Payload {
    #[default]
    Unsaid,
    Skip,
    Sanitize,
}

/// Why a user may not. Of several reasons the greatest is told, as in Redis.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Denied {
    /// Not this command.
    Command,
    /// Not with the key at this place of the request.
    Key(usize),
    /// Not with the channel at this place.
    Channel(usize),
}

/// The keys of a request.
#[derive(Debug)]
struct Keys<'k> {
    command: &'static Command,
    request: Request<'k>,
    positions: &'k [usize],
}

impl Keys<'_> {
    /// Places of the keys, and what is done with each.
    fn uses(&self) -> impl Iterator<Item = (usize, KeyAccess)> {
        let places = self.positions.iter().enumerate();
        places.map(|(nth, at)| (*at, command::key_access(self.command, &self.request, nth)))
    }
}

impl Account {
    /// A user that may do nothing, but perhaps with channels.
    pub fn new(channels: NewChannels) -> Self {
        Self {
            root: Selector::new(channels),
            ..Self::default()
        }
    }

    /// The user that Redis has by default: everything, without a password.
    pub fn everything() -> Self {
        let mut account = Self::default();
        let rules: [&[u8]; 5] = [b"+@all", b"~*", b"&*", b"on", b"nopass"];
        let applied = account.apply(rules.into_iter(), NewChannels::None);
        debug_assert!(applied.is_ok(), "{applied:?}");
        account
    }

    /// Whether everything is allowed, so that no request needs a look.
    pub fn is_unrestricted(&self) -> bool {
        self.all().any(Selector::is_unrestricted)
    }

    /// Whether anybody may log in.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether any password is right.
    pub fn takes_any_password(&self) -> bool {
        self.takes_any
    }

    /// Whether clients are this user without a word.
    pub fn is_open(&self) -> bool {
        self.is_on && self.takes_any
    }

    /// Whether one of its passwords has this hash. All are compared.
    pub fn has_password(&self, hash: PasswordHash) -> bool {
        let each = self.passwords.iter().map(|known| *known == hash);
        each.fold(false, |any, is_it| any | is_it)
    }

    /// Notes that there is a password that is kept elsewhere.
    pub fn set_other_password(&mut self) {
        self.other_password = true;
    }

    /// Whether that password is still right.
    pub fn has_other_password(&self) -> bool {
        self.other_password
    }

    /// Its passwords.
    pub fn passwords(&self) -> &[PasswordHash] {
        &self.passwords
    }

    /// Whether a request may be executed. `positions` is scratch space. A request whose keys can
    /// not be told passes: it is refused for that later.
    ///
    /// # Errors
    ///
    /// It may not.
    pub fn check(
        &self,
        command: &'static Command,
        request: &Request<'_>,
        positions: &mut Vec<usize>,
    ) -> Result<(), Denied> {
        if self.is_unrestricted() {
            return Ok(());
        }
        find_keys(command, request, positions);
        let keys = Keys {
            command,
            request: *request,
            positions,
        };
        let mut reason = Denied::Command;
        for selector in self.all() {
            match selector.check(command, request, &keys) {
                Ok(()) => return Ok(()),
                Err(denied) => reason = reason.max(denied),
            }
        }
        Err(reason)
    }

    /// Whether a request may look at keys that it does not name: it is allowed where every key may
    /// be read. `positions` is scratch space.
    pub fn may_look_anywhere(
        &self,
        command: &'static Command,
        request: &Request<'_>,
        positions: &mut Vec<usize>,
    ) -> bool {
        find_keys(command, request, positions);
        let keys = Keys {
            command,
            request: *request,
            positions,
        };
        self.all().any(|selector| {
            selector.reads_all_keys() && selector.check(command, request, &keys).is_ok()
        })
    }

    /// Whether a script may call this command with this key, whatever that does with it.
    pub fn allows_call(&self, command: &'static Command, key: &[u8]) -> bool {
        self.all()
            .any(|selector| selector.allows_call(command, key))
    }

    /// Its permissions as rules for a user of a node: those that every Redis 7.0 takes, and further
    /// ones for single commands, each to be tried for itself. A selector that names such a command
    /// is left out where a node lacks it.
    pub fn rules_for_node(&self) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let (known, mut others) = self.root.rules_for_node();
        for selector in &self.selectors {
            let (mut known, more) = selector.rules_for_node();
            known.extend(more);
            others.push([b"(", &*known.join(&b' '), b")"].concat());
        }
        (known, others)
    }

    /// Whether all of these channels, or patterns, may be listened to.
    pub fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        self.all()
            .any(|selector| selector.allows_channel(channel, is_pattern))
    }

    /// Whether it may listen to whatever `before` might (`ACLKillPubsubClientsIfNeeded`).
    pub fn keeps_channels(&self, before: &Self) -> bool {
        let present = || self.all().map(|selector| &selector.channels);
        present().any(Option::is_none)
            || before.all().all(|selector| match &selector.channels {
                None => false,
                Some(patterns) => patterns
                    .iter()
                    .all(|old| present().flatten().any(|new| new.contains(old))),
            })
    }

    fn all(&self) -> impl Iterator<Item = &Selector> {
        std::iter::once(&self.root).chain(&self.selectors)
    }

    /// Its flags in rules.
    pub fn flags(&self) -> impl Iterator<Item = &'static str> {
        let state = if self.is_on { "on" } else { "off" };
        let payload = match self.payload {
            Payload::Unsaid => None,
            Payload::Skip => Some("skip-sanitize-payload"),
            Payload::Sanitize => Some("sanitize-payload"),
        };
        let any = self.takes_any.then_some("nopass");
        std::iter::once(state).chain(any).chain(payload)
    }

    /// Its permissions in rules, each as the fields of `ACL GETUSER`: the user's own first, then
    /// those of its selectors.
    pub fn described(&self) -> impl Iterator<Item = Described> {
        self.all().map(|selector| Described {
            commands: selector.command_words(),
            keys: selector.key_words(),
            channels: selector.channel_words(),
        })
    }

    /// All of it in rules, as `ACL LIST` shows it behind the name. A password that is kept elsewhere
    /// has no word.
    pub fn words(&self) -> Vec<u8> {
        let mut words: Vec<Vec<u8>> = self.flags().map(Into::into).collect();
        let hashes = self.passwords.iter();
        words.extend(hashes.map(|hash| format!("#{}", hash.to_hex()).into_bytes()));
        words.push(self.root.words());
        let selectors = self.selectors.iter();
        words.extend(selectors.map(|selector| [b"(", &*selector.words(), b")"].concat()));
        words.join(&b' ')
    }
}

/// One set of permissions in rules.
#[derive(Clone, Debug)]
pub struct Described {
    /// `-@all +get`
    pub commands: Vec<u8>,
    /// `~a:* %R~b`
    pub keys: Vec<u8>,
    /// `&news`
    pub channels: Vec<u8>,
}

/// Notes where the keys of a request are. Channels, which are placed as keys are, are none.
fn find_keys(command: &Command, request: &Request<'_>, positions: &mut Vec<usize>) {
    positions.clear();
    match command.class {
        Class::PubSub(_) => {}
        Class::Own(Inside::Where) => positions.push(2),
        _ => {
            if command::key_positions(command, request, positions).is_err() {
                positions.clear();
            }
        }
    }
}

impl Denied {
    /// The error for the client, in the words of Redis 7.0 (`processCommand` of `server.c`).
    pub fn text(self, command: &Command) -> String {
        let what = match self {
            Self::Command => format!("run the '{}' command", command.name),
            Self::Key(_) => "access one of the keys used as arguments".to_owned(),
            Self::Channel(_) => "access one of the channels used as arguments".to_owned(),
        };
        format!("NOPERM this user has no permissions to {what}")
    }

    /// The error in place of a reply in `EXEC` (`execCommand` of `multi.c`).
    pub fn text_at_exec(self) -> String {
        let why = match self {
            Self::Command => "no permission to execute the command or subcommand",
            Self::Key(_) => "no permission to touch the specified keys",
            Self::Channel(_) => "no permission to access one of the channels used as arguments",
        };
        format!(
            "NOPERM ACLs rules changed between the moment the transaction was accumulated and the \
             EXEC call. This command is no longer allowed for the following reason: {why}"
        )
    }
}

#[cfg(test)]
mod tests;

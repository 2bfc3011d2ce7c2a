//! One set of permissions: commands, keys and channels that go together.

use super::commands::Commands;
use super::rules::has_spaces;
use super::{Denied, Keys, NewChannels};
use crate::command::{Class, Command, KeyAccess, Messages, Topics};
use crate::glob::{self, Case};
use crate::resp::Request;

/// What may be done where all of it holds. A new one allows nothing, but perhaps channels.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Selector {
    pub(super) commands: Commands,
    /// `None`: all keys.
    pub(super) keys: Option<Vec<KeyPattern>>,
    /// `None`: all channels.
    pub(super) channels: Option<Vec<Box<[u8]>>>,
}

/// Keys of a pattern, for this access.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct KeyPattern {
    pub(super) access: KeyAccess,
    pub(super) pattern: Box<[u8]>,
}

impl Default for Selector {
    fn default() -> Self {
        Self::new(NewChannels::None)
    }
}

impl Selector {
    pub(super) fn new(channels: NewChannels) -> Self {
        Self {
            commands: Commands::default(),
            keys: Some(Vec::new()),
            channels: match channels {
                NewChannels::None => Some(Vec::new()),
                NewChannels::All => None,
            },
        }
    }

    /// Whether it allows everything.
    pub(super) fn is_unrestricted(&self) -> bool {
        self.commands.is_all() && self.keys.is_none() && self.channels.is_none()
    }

    /// Whether it allows a request with these keys (`ACLSelectorCheckCmd` in `acl.c`).
    pub(super) fn check(
        &self,
        command: &'static Command,
        request: &Request<'_>,
        keys: &Keys<'_>,
    ) -> Result<(), Denied> {
        if !self.commands.allows(command, request) {
            return Err(Denied::Command);
        }
        for (at, access) in keys.uses() {
            if !self.allows_key(request.arg(at), access) {
                return Err(Denied::Key(at));
            }
        }
        let Class::PubSub(messages) = command.class else {
            return Ok(());
        };
        let places = match messages {
            Messages::Subscribe(_) => 1..request.len(),
            Messages::Publish(_) => 1..2,
            _ => 0..0,
        };
        let is_pattern = messages == Messages::Subscribe(Topics::Patterns);
        for at in places {
            if !self.allows_channel(request.arg(at), is_pattern) {
                return Err(Denied::Channel(at));
            }
        }
        Ok(())
    }

    /// Whether a key may be used in this way.
    fn allows_key(&self, key: &[u8], access: KeyAccess) -> bool {
        let Some(patterns) = &self.keys else {
            return true;
        };
        patterns.iter().any(|known| {
            known.access.contains(access) && glob::matches(&known.pattern, key, Case::Exact)
        })
    }

    /// Whether a command may be called with a key, whatever it does with it.
    pub(super) fn allows_call(&self, command: &'static Command, key: &[u8]) -> bool {
        self.commands.has(command) && self.allows_key(key, KeyAccess::BOTH)
    }

    /// Whether every key may be read.
    pub(super) fn reads_all_keys(&self) -> bool {
        let Some(patterns) = &self.keys else {
            return true;
        };
        patterns
            .iter()
            .any(|known| known.access.contains(KeyAccess::READ) && *known.pattern == *b"*")
    }

    /// Whether messages of a channel may be sent and received. A pattern to subscribe to must be
    /// allowed literally.
    pub(super) fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        let Some(patterns) = &self.channels else {
            return true;
        };
        patterns.iter().any(|known| {
            if is_pattern {
                **known == *channel
            } else {
                glob::matches(known, channel, Case::Exact)
            }
        })
    }

    /// How many patterns and first arguments it holds.
    pub(super) fn size(&self) -> usize {
        let keys = self.keys.as_ref().map_or(0, Vec::len);
        let channels = self.channels.as_ref().map_or(0, Vec::len);
        keys + channels + self.commands.first_args()
    }

    /// Its commands in rules.
    pub(super) fn command_words(&self) -> Vec<u8> {
        join(self.commands.rules().into_iter().map(|rule| rule.word))
    }

    /// Its keys in rules.
    pub(super) fn key_words(&self) -> Vec<u8> {
        join(self.key_rules())
    }

    fn key_rules(&self) -> Vec<Vec<u8>> {
        let Some(patterns) = &self.keys else {
            return vec![b"~*".to_vec()];
        };
        let word = |known: &KeyPattern| {
            let before: &[u8] = match known.access {
                KeyAccess::READ => b"%R~",
                KeyAccess::WRITE => b"%W~",
                _ => b"~",
            };
            [before, &known.pattern].concat()
        };
        patterns.iter().map(word).collect()
    }

    /// Its channels in rules, without the word that says that there are no others.
    pub(super) fn channel_words(&self) -> Vec<u8> {
        join(self.channel_rules())
    }

    fn channel_rules(&self) -> Vec<Vec<u8>> {
        let Some(patterns) = &self.channels else {
            return vec![b"&*".to_vec()];
        };
        let words = patterns.iter().map(|known| [b"&", &**known].concat());
        words.collect()
    }

    /// All of it in rules that every Redis 7.0 takes, and further ones for commands that some
    /// servers lack.
    pub(super) fn rules_for_node(&self) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let mut known = vec![b"resetchannels".to_vec()];
        known.extend(self.key_rules());
        known.extend(self.channel_rules());
        let mut others = Vec::new();
        for rule in self.commands.rules() {
            // No node has Tally's own commands, and a space would end the rule.
            let name = rule.word.get(1..).unwrap_or_default();
            if name.starts_with(b"tally") || has_spaces(name) {
                continue;
            }
            if rule.is_known {
                known.push(rule.word);
            } else {
                others.push(rule.word);
            }
        }
        (known, others)
    }

    /// All of it in rules.
    pub(super) fn words(&self) -> Vec<u8> {
        let (keys, channels) = (self.key_words(), self.channel_words());
        let reset = if self.channels.is_some() {
            &b"resetchannels"[..]
        } else {
            b""
        };
        let parts = [&keys, reset, &channels, &self.command_words()[..]];
        let parts: Vec<&[u8]> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join(&b' ')
    }
}

fn join(words: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    words.into_iter().collect::<Vec<_>>().join(&b' ')
}

//! What a user may do: by category of command, and by pattern of key. Pure.
//!
//! Redis lets a script do what its user may do; here a script runs on a node as Tally's own user.
//! So scripts are a category of their own, for users who are trusted with every key.

use crate::command::{self, Class, Command, EveryNode, Flags, Inside};
use crate::glob::{self, Case};
use crate::resp::Request;

/// Kinds of commands. A command of no category (`PING`, `CLIENT SETNAME`, `INFO`, `MULTI`) may be
/// used by everybody.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Category {
    /// Reads keys, or receives messages.
    Read,
    /// Changes keys, or publishes messages.
    Write,
    /// Runs and loads scripts. The keys that they declare are checked; others they may reach too.
    Script,
    /// Looks at or changes the server, or all keys at once.
    Admin,
}

impl Category {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Script, Self::Admin];

    /// Its name in a file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Script => "script",
            Self::Admin => "admin",
        }
    }

    /// The category of a command.
    fn of(command: &Command) -> Option<Self> {
        let is = |flag| command.flags.contains(flag);
        match command.class {
            Class::Script | Class::EveryNode(EveryNode::ScriptLoad | EveryNode::ScriptExists) => {
                Some(Self::Script)
            }
            Class::EveryNode(
                EveryNode::FlushAll
                | EveryNode::FlushDb
                | EveryNode::SwapDb
                | EveryNode::ScriptFlush
                | EveryNode::Function,
            )
            | Class::Own(Inside::DeadLetters | Inside::Flush | Inside::SlowLog | Inside::Stats) => {
                Some(Self::Admin)
            }
            Class::Own(Inside::Where | Inside::HotKeys) => Some(Self::Read),
            Class::Own(Inside::Help) => None,
            _ if is(Flags::ADMIN) => Some(Self::Admin),
            _ if is(Flags::WRITE) => Some(Self::Write),
            _ if is(Flags::READONLY) => Some(Self::Read),
            _ if matches!(command.name, "publish" | "spublish") => Some(Self::Write),
            _ if is(Flags::PUBSUB) => Some(Self::Read),
            _ => None,
        }
    }
}

/// What a user may do.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Access {
    categories: Vec<Category>,
    /// Patterns of its keys; `None`: all keys.
    keys: Option<Vec<Vec<u8>>>,
}

/// Why a user may not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Denied {
    /// Not this command.
    Command,
    /// Not with these keys.
    Keys,
}

impl Denied {
    /// The error for the client, in the words of Redis 7.0 (`rejectCommand` of `server.c`).
    pub fn text(self, command: &Command) -> String {
        match self {
            Self::Command => format!(
                "NOPERM this user has no permissions to run the '{}' command",
                command.name
            ),
            Self::Keys => "NOPERM this user has no permissions to access one of the keys used as \
                           arguments"
                .to_owned(),
        }
    }
}

impl Access {
    /// The commands of `categories`, on keys that match one of `patterns`. The pattern `*` is all
    /// keys, and with it what names no key or looks at all of them.
    pub fn new(categories: Vec<Category>, patterns: &[String]) -> Self {
        let is_all = patterns.iter().any(|pattern| pattern == "*");
        let keys = patterns
            .iter()
            .map(|pattern| pattern.as_bytes().to_vec())
            .collect();
        Self {
            categories,
            keys: Some(keys).filter(|_| !is_all),
        }
    }

    /// Whether a request may be executed. `positions` is scratch space. A request whose keys can
    /// not be told passes: it is refused for that later.
    ///
    /// # Errors
    ///
    /// It may not.
    pub fn check(
        &self,
        command: &Command,
        request: &Request<'_>,
        positions: &mut Vec<usize>,
    ) -> Result<(), Denied> {
        let category = Category::of(command);
        if category.is_some_and(|category| !self.allows(category)) {
            return Err(Denied::Command);
        }
        let Some(patterns) = &self.keys else {
            return Ok(());
        };
        if looks_at_all_keys(command, request) {
            return Err(Denied::Keys);
        }
        positions.clear();
        if command.class == Class::Own(Inside::Where) {
            positions.push(2);
        } else if command::key_positions(command, request, positions).is_err() {
            return Ok(());
        }
        let mut keys = positions.iter().map(|at| request.arg(*at));
        if keys.all(|key| matches_one(patterns, key)) {
            Ok(())
        } else {
            Err(Denied::Keys)
        }
    }

    /// Whether the commands of a category are allowed.
    pub fn allows(&self, category: Category) -> bool {
        self.categories.contains(&category)
    }

    /// Whether a key may be named.
    pub fn allows_key(&self, key: &[u8]) -> bool {
        let patterns = self.keys.as_deref();
        patterns.is_none_or(|patterns| matches_one(patterns, key))
    }

    /// The patterns of its keys; `None`: all keys.
    pub fn patterns(&self) -> Option<&[Vec<u8>]> {
        self.keys.as_deref()
    }
}

fn matches_one(patterns: &[Vec<u8>], key: &[u8]) -> bool {
    patterns
        .iter()
        .any(|pattern| glob::matches(pattern, key, Case::Exact))
}

/// Whether it reads or changes something of keys that it does not name.
fn looks_at_all_keys(command: &Command, request: &Request<'_>) -> bool {
    match command.class {
        Class::EveryNode(kind) => matches!(
            kind,
            EveryNode::Keys
                | EveryNode::Scan
                | EveryNode::RandomKey
                | EveryNode::DbSize
                | EveryNode::FlushAll
                | EveryNode::FlushDb
                | EveryNode::SwapDb
        ),
        Class::Own(Inside::HotKeys) => true,
        // Redis refuses `SORT BY` and `GET` likewise.
        _ => command::key_patterns(command, request).next().is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::{Limits, RequestScanner, encode};

    fn check(access: &Access, line: &str) -> Result<(), Denied> {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut wire = Vec::new();
        encode::request(&mut wire, &words);
        let mut scanner = RequestScanner::new();
        let limits = Limits {
            authenticated: true,
            ..Limits::default()
        };
        scanner.scan(&wire, &limits).unwrap();
        let request = scanner.request(&wire);
        let command = command::lookup(&request).unwrap_or_else(|_| panic!("{line}"));
        access.check(command, &request, &mut Vec::new())
    }

    fn access(categories: &[Category], patterns: &[&str]) -> Access {
        let patterns: Vec<_> = patterns.iter().map(|&text| text.to_owned()).collect();
        Access::new(categories.to_vec(), &patterns)
    }

    #[track_caller]
    fn check_category(category: Option<Category>, lines: &str) {
        for line in lines.split(", ") {
            for other in Category::ALL {
                let want = if category.is_none_or(|category| category == other) {
                    Ok(())
                } else {
                    Err(Denied::Command)
                };
                assert_eq!(
                    check(&access(&[other], &["*"]), line),
                    want,
                    "{other:?} {line}"
                );
            }
        }
    }

    #[test]
    fn each_category_lets_its_commands_in_and_no_others() {
        check_category(
            Some(Category::Read),
            "GET k, MGET a b, SCAN 0, KEYS *, TALLY WHERE k, TALLY HOTKEYS, DBSIZE, TTL k, SUBSCRIBE c",
        );
        check_category(
            Some(Category::Write),
            "SET k v, INCR k, MSET a 1 b 2, DEL k, EXPIRE k 1, GETDEL k, PUBLISH c m",
        );
        check_category(
            Some(Category::Script),
            "EVAL x 0, EVALSHA x 1 k, EVAL_RO x 0, SCRIPT LOAD x, FCALL f 0",
        );
        check_category(
            Some(Category::Admin),
            "FLUSHALL, FLUSHDB, SWAPDB 0 1, CONFIG SET a b, CLIENT KILL ID 1, CLIENT LIST, SLOWLOG GET, \
             DEBUG SLEEP 1, TALLY FLUSH, TALLY STATS, TALLY DEADLETTERS, TALLY SLOWLOG, SCRIPT FLUSH, \
             FUNCTION FLUSH",
        );
        check_category(
            None,
            "PING, INFO, CLIENT SETNAME a, SELECT 0, COMMAND, TALLY HELP, ECHO x",
        );
    }

    #[test]
    fn every_key_must_match_a_pattern() {
        let access = access(&Category::ALL, &["a:*", "b?"]);
        for line in [
            "GET a:1",
            "MSET a:1 x b1 y",
            "RENAME a:1 a:2",
            "EVAL x 2 a:1 b1 c",
            "TALLY WHERE a:1",
            "SORT a:1 STORE a:2",
            "LMPOP 1 a:1 LEFT",
            "XREAD STREAMS a:1 a:2 0 0",
            "PING",
        ] {
            assert_eq!(check(&access, line), Ok(()), "{line}");
        }
        for line in [
            "GET c",
            "GET A:1",
            "MSET a:1 x c y",
            "MGET a:1 c",
            "DEL a:1 b1 b12",
            "RENAME a:1 c",
            "EVAL x 2 a:1 c b1",
            "TALLY WHERE c",
            "SORT a:1 STORE c",
            "SORT a:1 BY w*",
            "SORT a:1 GET *",
            "LMPOP 2 a:1 c LEFT",
            "KEYS a:*",
            "SCAN 0",
            "RANDOMKEY",
            "DBSIZE",
            "TALLY HOTKEYS",
            "FLUSHALL",
            "SWAPDB 0 1",
        ] {
            assert_eq!(check(&access, line), Err(Denied::Keys), "{line}");
        }
    }

    #[test]
    fn without_patterns_there_are_no_keys() {
        let access = access(&Category::ALL, &[]);
        assert_eq!(check(&access, "GET k"), Err(Denied::Keys));
        assert_eq!(check(&access, "PING"), Ok(()));
    }
}

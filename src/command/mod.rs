//! Every command of Redis 7.0, and Tally's own: arity, flags, key positions, form of the reply, and what Tally does
//! with it. Pure: no I/O, no clock.
//!
//! The one place where a command is classified. What is not in the table may have been learned from a
//! node's own `COMMAND` ([`learn`]); what was not is unknown and gets Redis's error.
//! `tests/it/command_table.rs` compares the table with a live server.

mod categories;
mod copying;
mod doc;
mod flags;
mod keys;
mod learned;
mod lookup;
mod options;
mod secrets;
mod specs;
mod table;
mod told;

pub use categories::{Categories, KeyAccess, Uses, key_access};
pub use copying::Copying;
pub use doc::markdown;
pub use flags::Flags;
pub use keys::{CountRule, Keys, KeysError, key_positions};
pub use learned::{Learned, learn};
pub use lookup::{LookupError, lookup, named, resolve};
pub use options::{
    block_option, blocks, key_patterns, looking_option, needs_whole_node, other_database,
};
pub use secrets::{is_password, is_secret, shown, shown_prefix};
pub use specs::KeySpec;

use crate::resp::{Form, Request};

/// One command, or one subcommand of a container such as `CONFIG`.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// Lower case; subcommands as `config|get`.
    pub name: &'static str,
    /// Number of arguments with the name: exactly so many, or at least `-arity` if negative.
    pub arity: i32,
    /// What Redis says about it.
    pub flags: Flags,
    /// Its categories in access rules.
    pub categories: Categories,
    /// Where its keys are.
    pub keys: Keys,
    /// What it does with them; [`key_access`] tells it of a request.
    pub uses: Uses,
    /// What Tally does with it.
    pub class: Class,
    /// How a reply is converted for a client that speaks RESP2. A session asks
    /// [`Command::form_of`], because some differ by their arguments.
    pub form: Form,
}

impl Command {
    /// How the reply to `request` is converted for a client that speaks RESP2.
    pub fn form_of(&self, request: &Request<'_>) -> Form {
        // With a count, or a score, what is missing is a null array, without one a null string.
        match self.form {
            Form::PopCount if request.len() > 2 => Form::NullArray,
            Form::RankScore if request.len() > 3 => Form::NullArray,
            Form::PopCount | Form::RankScore => Form::Plain,
            form => form,
        }
    }

    /// The same for an element of the reply to `EXEC`, where nothing waits: what finds no element
    /// at once says so as other commands do (`blmoveGenericCommand` in `t_list.c`).
    pub fn form_queued(&self, request: &Request<'_>) -> Form {
        match self.name {
            "blmove" | "brpoplpush" => Form::Plain,
            _ => self.form_of(request),
        }
    }

    /// Its place in [`commands`], or behind them if it was learned; at least [`PLACES`] for a copy of
    /// an entry.
    #[inline]
    pub fn index(&'static self) -> usize {
        let first = commands().as_ptr().addr();
        let index = std::ptr::from_ref(self).addr().wrapping_sub(first) / size_of::<Self>();
        if index < commands().len() {
            index
        } else {
            learned::place(self).map_or(PLACES, |place| commands().len() + place)
        }
    }

    /// Whether `len` arguments, the name included, are a number that the command takes.
    pub fn accepts(&self, len: usize) -> bool {
        let needed = usize::try_from(self.arity.unsigned_abs()).unwrap_or(usize::MAX);
        if self.arity < 0 {
            len >= needed
        } else {
            len == needed
        }
    }
}

/// All commands and subcommands, grouped by family, containers before their subcommands.
pub const fn commands() -> &'static [Command] {
    table::TABLE
}

/// How many [`Command::index`] can tell apart.
pub const PLACES: usize = commands().len() + learned::ROOM;

/// The command with this [`Command::index`], in the table or learned.
pub fn at(index: usize) -> Option<&'static Command> {
    let behind = index.checked_sub(commands().len());
    behind.map_or_else(|| commands().get(index), learned::at)
}

/// What Tally does with a command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// Adds to a counter: coalesced.
    Increment(Increment),
    /// `GET`: may be answered from the key table or the cache.
    Get,
    /// `MGET`: like `GET` for each key, fetched with one command per node.
    MultiGet,
    /// A read that a pending increment of an existing key can not change: forwarded in order,
    /// without a flush.
    Peek,
    /// Forwarded to the one node of its keys; a barrier on all of them. Keys of several nodes get
    /// `CROSSSLOT`.
    Keyed,
    /// Split by node, one command for each, and the replies merged.
    PerNode {
        /// How the replies become one.
        merge: Merge,
        /// As for [`Class::Peek`]: needs no flush. Otherwise a barrier on all keys.
        peek: bool,
    },
    /// A script or function: like [`Class::Keyed`] for the keys that it declares; without any a
    /// barrier on all keys of its node, see [`needs_whole_node`].
    Script,
    /// Sent to every node, and the replies merged.
    EveryNode(EveryNode),
    /// Names no key, and every node answers alike or tells of itself: forwarded to one of them.
    AnyNode,
    /// Subscribes, publishes, or tells of subscriptions.
    PubSub(Messages),
    /// Answered by Tally itself.
    Local,
    /// Begins or ends a transaction.
    Transaction(Transaction),
    /// A command that Redis does not have: shows the inside of Tally.
    Own(Inside),
    /// Answered with an error; the connection lives on.
    Refused(Refusal),
}

/// A command that adds to a counter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Increment {
    /// `INCR key`: adds 1.
    Incr,
    /// `INCRBY key amount`.
    IncrBy,
    /// `DECR key`: adds -1.
    Decr,
    /// `DECRBY key amount`: adds the negated amount, which must not be `i64::MIN`.
    DecrBy,
}

/// How the replies of several nodes become one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Merge {
    /// The sum of integers.
    Sum,
    /// `OK` when all say so.
    Ok,
}

/// A command that is sent to every node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EveryNode {
    /// `DBSIZE`: the sum.
    DbSize,
    /// `KEYS`: all arrays joined.
    Keys,
    /// `SCAN`: node after node, the cursor says which.
    Scan,
    /// `FLUSHALL`: `OK` when all say so.
    FlushAll,
    /// `FLUSHDB`: `OK` when all say so.
    FlushDb,
    /// `SWAPDB`: `OK` when all say so.
    SwapDb,
    /// `RANDOMKEY`: the key of a node that has any.
    RandomKey,
    /// `SCRIPT LOAD`: the hash, which is the same everywhere.
    ScriptLoad,
    /// `SCRIPT EXISTS`: 1 where all nodes know the script.
    ScriptExists,
    /// `SCRIPT FLUSH`: `OK` when all say so.
    ScriptFlush,
    /// `FUNCTION LOAD`, `DELETE`, `FLUSH` and `RESTORE`: the reply, which is the same everywhere.
    Function,
    /// `SCRIPT KILL`, `FUNCTION KILL`: `OK` when one of them was ended.
    Kill,
    /// `WAIT`, `WAITAOF`: the smallest numbers of servers.
    Wait,
    /// `SAVE`, `BGSAVE`, `BGREWRITEAOF`: what is pending is applied first, then all nodes write
    /// their keys to their disks.
    Save,
    /// `LASTSAVE`: the moment by which all had written theirs.
    LastSave,
    /// `MEMORY PURGE`: `OK` when all say so.
    Purge,
    /// A command of a newer version, of which a node has told that.
    Told(Policy),
}

/// What a node's reply to `COMMAND` tells of how the replies of several nodes become one: the
/// command's `response_policy`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Policy {
    /// None: lists are joined.
    Joined,
    /// `all_succeeded`: an error of any node, else the reply of one.
    Succeeded,
    /// `agg_sum`: the sum of integers.
    Sum,
    /// `agg_min`, and `agg_logical_and` of 0 and 1: the smallest integer.
    Least,
    /// `agg_max`, and `agg_logical_or` of 0 and 1: the greatest integer.
    Greatest,
}

/// A command about messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Messages {
    /// `SUBSCRIBE`, `PSUBSCRIBE`, `SSUBSCRIBE`.
    Subscribe(Topics),
    /// `UNSUBSCRIBE`, `PUNSUBSCRIBE`, `SUNSUBSCRIBE`.
    Unsubscribe(Topics),
    /// `PUBLISH`, `SPUBLISH`.
    Publish(Topics),
    /// `PUBSUB CHANNELS`, `PUBSUB SHARDCHANNELS`.
    List(Topics),
    /// `PUBSUB NUMSUB`, `PUBSUB SHARDNUMSUB`.
    Count(Topics),
    /// `PUBSUB NUMPAT`.
    PatternCount,
}

/// What a client can subscribe to; each kind has names of its own.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Topics {
    /// Channels by name.
    Channels,
    /// All channels whose names match.
    Patterns,
    /// Sharded channels by name.
    Shards,
}

/// A command that begins or ends a transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transaction {
    /// `MULTI`: what follows is queued.
    Multi,
    /// `EXEC`: what was queued is executed.
    Exec,
    /// `DISCARD`: what was queued is forgotten.
    Discard,
    /// `WATCH`: a transaction is executed only if these keys stay as they are.
    Watch,
    /// `UNWATCH`: whatever happens to them.
    Unwatch,
}

/// A subcommand of `TALLY`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Inside {
    /// `DEADLETTERS [count]`: increments that a node refused after they were acknowledged.
    DeadLetters,
    /// `FLUSH`: applies what is pending.
    Flush,
    /// `HELP`: the subcommands.
    Help,
    /// `HOTKEYS [count]`: the busiest keys, by writes and by reads.
    HotKeys,
    /// `SLOWLOG [count]`: slow requests, and where their time went.
    SlowLog,
    /// `STATS`: counters and where increments are.
    Stats,
    /// `WHERE key`: its node, what a GET is served from, its mode.
    Where,
}

/// Why a command is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// Is about one server, so makes no sense behind a proxy.
    Never,
    /// Is about a file of users, which there is none.
    AclFile,
}

impl Refusal {
    /// The error for the client, code first.
    pub fn text(self, command: &Command) -> String {
        let name = command.name.replace('|', " ").to_ascii_uppercase();
        match self {
            Self::Never => {
                format!("ERR {name} is not available through Tally, send it to the Redis node")
            }
            // Redis's words without one (`aclCommand` in `acl.c`).
            Self::AclFile => "ERR This Redis instance is not configured to use an ACL file. You \
                may want to specify users via the ACL SETUSER command and then issue a CONFIG \
                REWRITE (assuming you have a Redis configuration file set) in order to store users \
                in the Redis configuration."
                .to_owned(),
        }
    }
}

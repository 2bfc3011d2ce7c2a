//! The table itself: one line a command. Facts come from the `COMMAND` reply of Redis 7.0.15, class
//! and form of the reply from what Tally does with it.

use super::Class::{
    AnyNode, EveryNode, Get, Increment, Keyed, Local, MultiGet, Own, Peek, PerNode, PubSub,
    Refused, Script, Transaction,
};
use super::EveryNode as Each;
use super::Increment::{Decr, DecrBy, Incr, IncrBy};
use super::Keys::{GeoRadius, Migrate, Sort, Streams};
use super::Transaction::{Discard, Exec, Multi, Unwatch, Watch};
use super::{Class, Command, CountRule, Flags, Inside, Keys, Merge, Messages, Refusal, Topics};
use crate::resp::Form::{NullArray, Pairs, PendingSummary, Plain, PopCount, StreamPairs};

const NONE: Keys = Keys::None;
/// The first argument: `GET key`.
const ONE: Keys = Keys::range(1, 1, 1);
/// The first two arguments: `RENAME from to`.
const TWO: Keys = Keys::range(1, 2, 1);
/// The argument after a subcommand: `OBJECT FREQ key`.
const SECOND: Keys = Keys::range(2, 2, 1);
/// Every argument: `DEL key ...`.
const ALL: Keys = Keys::range(1, -1, 1);
/// Every argument after an operation: `BITOP AND destination key ...`.
const FROM_2: Keys = Keys::range(2, -1, 1);
/// Every argument before a timeout: `BLPOP key ... timeout`.
const NOT_LAST: Keys = Keys::range(1, -2, 1);
/// Every other argument: `MSET key value ...`.
const PAIRS: Keys = Keys::range(1, -1, 2);
/// `EVAL script numkeys key ...`.
const SCRIPT: Keys = Keys::counted(2, CountRule::Script);
/// `FCALL function numkeys key ...`.
const FUNCTION: Keys = Keys::counted(2, CountRule::Function);
/// `ZUNION numkeys key ...`.
const ZSETS: Keys = Keys::counted(1, CountRule::Sets);
/// `ZUNIONSTORE destination numkeys key ...`.
const ZSTORE: Keys = Keys::counted(2, CountRule::Store);
/// `SINTERCARD numkeys key ...`.
const CARD: Keys = Keys::counted(1, CountRule::Card);
/// `LMPOP numkeys key ... LEFT`.
const POP: Keys = Keys::counted(1, CountRule::Pop);
/// `BLMPOP timeout numkeys key ... LEFT`.
const BPOP: Keys = Keys::counted(2, CountRule::Pop);

const NEVER: Class = Refused(Refusal::Never);
/// Never executed: a container without a subcommand has the wrong number of arguments.
const CONTAINER: Class = NEVER;
const SUM: Class = PerNode {
    merge: Merge::Sum,
    peek: false,
};
/// Whether a key exists does not depend on its value.
const PEEK_SUM: Class = PerNode {
    merge: Merge::Sum,
    peek: true,
};
const OK: Class = PerNode {
    merge: Merge::Ok,
    peek: false,
};

/// Braces keep the lines as they are written.
macro_rules! table {
    ($($name:literal, $arity:literal, $keys:expr, $class:expr, $form:expr, [$($flag:ident)*];)*) => {
        /// Containers stand before their subcommands.
        pub(super) static TABLE: &[Command] = &[$(Command {
            name: $name,
            arity: $arity,
            flags: Flags::NONE$(.with(Flags::$flag))*,
            keys: $keys,
            class: $class,
            form: $form,
        }),*];
    };
}

// OBJECT ENCODING and REFCOUNT are barriers, unlike FREQ and IDLETIME: an increment makes a `raw`
// string an `int`, and values below 10,000 are shared objects. CLIENT SETINFO and NO-TOUCH are of
// Redis 7.2; client libraries send them to every server.
table! {
    // name, arity, keys, class, form of the reply, flags

    // Keys of any type.
    "copy",                   -3, TWO,       Keyed,                    Plain,          [WRITE DENYOOM];
    "del",                    -2, ALL,       SUM,                      Plain,          [WRITE];
    "dump",                    2, ONE,       Keyed,                    Plain,          [READONLY];
    "exists",                 -2, ALL,       PEEK_SUM,                 Plain,          [READONLY FAST];
    "expire",                 -3, ONE,       Keyed,                    Plain,          [WRITE FAST];
    "expireat",               -3, ONE,       Keyed,                    Plain,          [WRITE FAST];
    "expiretime",              2, ONE,       Peek,                     Plain,          [READONLY FAST];
    "keys",                    2, NONE,      EveryNode(Each::Keys),    Plain,          [READONLY];
    "migrate",                -6, Migrate,   NEVER,                    Plain,          [WRITE MOVABLEKEYS];
    "move",                    3, ONE,       Keyed,                    Plain,          [WRITE FAST];
    "object",                 -2, NONE,      CONTAINER,                Plain,          [CONTAINER];
    "object|encoding",         3, SECOND,    Keyed,                    Plain,          [READONLY];
    "object|freq",             3, SECOND,    Peek,                     Plain,          [READONLY];
    "object|help",             2, NONE,      AnyNode,                  Plain,          [LOADING STALE];
    "object|idletime",         3, SECOND,    Peek,                     Plain,          [READONLY];
    "object|refcount",         3, SECOND,    Keyed,                    Plain,          [READONLY];
    "persist",                 2, ONE,       Keyed,                    Plain,          [WRITE FAST];
    "pexpire",                -3, ONE,       Keyed,                    Plain,          [WRITE FAST];
    "pexpireat",              -3, ONE,       Keyed,                    Plain,          [WRITE FAST];
    "pexpiretime",             2, ONE,       Peek,                     Plain,          [READONLY FAST];
    "pttl",                    2, ONE,       Peek,                     Plain,          [READONLY FAST];
    "randomkey",               1, NONE,      EveryNode(Each::RandomKey), Plain,          [READONLY];
    "rename",                  3, TWO,       Keyed,                    Plain,          [WRITE];
    "renamenx",                3, TWO,       Keyed,                    Plain,          [WRITE FAST];
    "restore",                -4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM];
    "scan",                   -2, NONE,      EveryNode(Each::Scan),    Plain,          [READONLY];
    "sort",                   -2, Sort,      Keyed,                    Plain,          [WRITE DENYOOM MOVABLEKEYS];
    "sort_ro",                -2, ONE,       Keyed,                    Plain,          [READONLY MOVABLEKEYS];
    "touch",                  -2, ALL,       PEEK_SUM,                 Plain,          [READONLY FAST];
    "ttl",                     2, ONE,       Peek,                     Plain,          [READONLY FAST];
    "type",                    2, ONE,       Peek,                     Plain,          [READONLY FAST];
    "unlink",                 -2, ALL,       SUM,                      Plain,          [WRITE FAST];
    "wait",                    3, NONE,      EveryNode(Each::Wait),    Plain,          [NOSCRIPT];

    // Strings, counters among them.
    "append",                  3, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST];
    "decr",                    2, ONE,       Increment(Decr),          Plain,          [WRITE DENYOOM FAST];
    "decrby",                  3, ONE,       Increment(DecrBy),        Plain,          [WRITE DENYOOM FAST];
    "get",                     2, ONE,       Get,                      Plain,          [READONLY FAST];
    "getdel",                  2, ONE,       Keyed,                    Plain,          [WRITE FAST];
    "getex",                  -2, ONE,       Keyed,                    Plain,          [WRITE FAST];
    "getrange",                4, ONE,       Keyed,                    Plain,          [READONLY];
    "getset",                  3, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST];
    "incr",                    2, ONE,       Increment(Incr),          Plain,          [WRITE DENYOOM FAST];
    "incrby",                  3, ONE,       Increment(IncrBy),        Plain,          [WRITE DENYOOM FAST];
    "incrbyfloat",             3, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST];
    "lcs",                    -3, TWO,       Keyed,                    Plain,          [READONLY];
    "mget",                   -2, ALL,       MultiGet,                 Plain,          [READONLY FAST];
    "mset",                   -3, PAIRS,     OK,                       Plain,          [WRITE DENYOOM];
    "msetnx",                 -3, PAIRS,     Keyed,                    Plain,          [WRITE DENYOOM];
    "psetex",                  4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM];
    "set",                    -3, ONE,       Keyed,                    Plain,          [WRITE DENYOOM];
    "setex",                   4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM];
    "setnx",                   3, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST];
    "setrange",                4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM];
    "strlen",                  2, ONE,       Keyed,                    Plain,          [READONLY FAST];
    "substr",                  4, ONE,       Keyed,                    Plain,          [READONLY];

    // Bits of strings.
    "bitcount",               -2, ONE,       Keyed,                    Plain,          [READONLY];
    "bitfield",               -2, ONE,       Keyed,                    Plain,          [WRITE DENYOOM];
    "bitfield_ro",            -2, ONE,       Keyed,                    Plain,          [READONLY FAST];
    "bitop",                  -4, FROM_2,    Keyed,                    Plain,          [WRITE DENYOOM];
    "bitpos",                 -3, ONE,       Keyed,                    Plain,          [READONLY];
    "getbit",                  3, ONE,       Keyed,                    Plain,          [READONLY FAST];
    "setbit",                  4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM];

    // Lists.
    "blmove",                  6, TWO,       Keyed,                    NullArray,      [WRITE DENYOOM NOSCRIPT BLOCKING];
    "blmpop",                 -5, BPOP,      Keyed,                    NullArray,      [WRITE BLOCKING MOVABLEKEYS];
    "blpop",                  -3, NOT_LAST,  Keyed,                    NullArray,      [WRITE NOSCRIPT BLOCKING];
    "brpop",                  -3, NOT_LAST,  Keyed,                    NullArray,      [WRITE NOSCRIPT BLOCKING];
    "brpoplpush",              4, TWO,       Keyed,                    NullArray,      [WRITE DENYOOM NOSCRIPT BLOCKING];
    "lindex",                  3, ONE,       Keyed,                    Plain,          [READONLY];
    "linsert",                 5, ONE,       Keyed,                    Plain,          [WRITE DENYOOM];
    "llen",                    2, ONE,       Keyed,                    Plain,          [READONLY FAST];
    "lmove",                   5, TWO,       Keyed,                    Plain,          [WRITE DENYOOM];
    "lmpop",                  -4, POP,       Keyed,                    NullArray,      [WRITE MOVABLEKEYS];
    "lpop",                   -2, ONE,       Keyed,                    PopCount,       [WRITE FAST];
    "lpos",                   -3, ONE,       Keyed,                    Plain,          [READONLY];
    "lpush",                  -3, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST];
    "lpushx",                 -3, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST];
    "lrange",                  4, ONE,       Keyed,                    Plain,          [READONLY];
    "lrem",                    4, ONE,       Keyed,                    Plain,          [WRITE];
    "lset",                    4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM];
    "ltrim",                   4, ONE,       Keyed,                    Plain,          [WRITE];
    "rpop",                   -2, ONE,       Keyed,                    PopCount,       [WRITE FAST];
    "rpoplpush",               3, TWO,       Keyed,                    Plain,          [WRITE DENYOOM];
    "rpush",                  -3, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST];
    "rpushx",                 -3, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST];

    // Hashes.
    "hdel",                   -3, ONE,       Keyed,                    Plain,          [WRITE FAST];
    "hexists",                 3, ONE,       Keyed,                    Plain,          [READONLY FAST];
    "hget",                    3, ONE,       Keyed,                    Plain,          [READONLY FAST];
    "hgetall",                 2, ONE,       Keyed,                    Plain,          [READONLY];
    "hincrby",                 4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST];
    "hincrbyfloat",            4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST];
    "hkeys",                   2, ONE,       Keyed,                    Plain,          [READONLY];
    "hlen",                    2, ONE,       Keyed,                    Plain,          [READONLY FAST];
    "hmget",                  -3, ONE,       Keyed,                    Plain,          [READONLY FAST];
    "hmset",                  -4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST];
    "hrandfield",             -2, ONE,       Keyed,                    Pairs,          [READONLY];
    "hscan",                  -3, ONE,       Keyed,                    Plain,          [READONLY];
    "hset",                   -4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST];
    "hsetnx",                  4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST];
    "hstrlen",                 3, ONE,       Keyed,                    Plain,          [READONLY FAST];
    "hvals",                   2, ONE,       Keyed,                    Plain,          [READONLY];

    // Sets.
    "sadd",                   -3, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST];
    "scard",                   2, ONE,       Keyed,                    Plain,          [READONLY FAST];
    "sdiff",                  -2, ALL,       Keyed,                    Plain,          [READONLY];
    "sdiffstore",             -3, ALL,       Keyed,                    Plain,          [WRITE DENYOOM];
    "sinter",                 -2, ALL,       Keyed,                    Plain,          [READONLY];
    "sintercard",             -3, CARD,      Keyed,                    Plain,          [READONLY MOVABLEKEYS];
    "sinterstore",            -3, ALL,       Keyed,                    Plain,          [WRITE DENYOOM];
    "sismember",               3, ONE,       Keyed,                    Plain,          [READONLY FAST];
    "smembers",                2, ONE,       Keyed,                    Plain,          [READONLY];
    "smismember",             -3, ONE,       Keyed,                    Plain,          [READONLY FAST];
    "smove",                   4, TWO,       Keyed,                    Plain,          [WRITE FAST];
    "spop",                   -2, ONE,       Keyed,                    Plain,          [WRITE FAST];
    "srandmember",            -2, ONE,       Keyed,                    Plain,          [READONLY];
    "srem",                   -3, ONE,       Keyed,                    Plain,          [WRITE FAST];
    "sscan",                  -3, ONE,       Keyed,                    Plain,          [READONLY];
    "sunion",                 -2, ALL,       Keyed,                    Plain,          [READONLY];
    "sunionstore",            -3, ALL,       Keyed,                    Plain,          [WRITE DENYOOM];

    // Sorted sets.
    "bzmpop",                 -5, BPOP,      Keyed,                    NullArray,      [WRITE BLOCKING MOVABLEKEYS];
    "bzpopmax",               -3, NOT_LAST,  Keyed,                    NullArray,      [WRITE NOSCRIPT BLOCKING FAST];
    "bzpopmin",               -3, NOT_LAST,  Keyed,                    NullArray,      [WRITE NOSCRIPT BLOCKING FAST];
    "zadd",                   -4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST];
    "zcard",                   2, ONE,       Keyed,                    Plain,          [READONLY FAST];
    "zcount",                  4, ONE,       Keyed,                    Plain,          [READONLY FAST];
    "zdiff",                  -3, ZSETS,     Keyed,                    Pairs,          [READONLY MOVABLEKEYS];
    "zdiffstore",             -4, ZSTORE,    Keyed,                    Plain,          [WRITE DENYOOM MOVABLEKEYS];
    "zincrby",                 4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST];
    "zinter",                 -3, ZSETS,     Keyed,                    Pairs,          [READONLY MOVABLEKEYS];
    "zintercard",             -3, ZSETS,     Keyed,                    Plain,          [READONLY MOVABLEKEYS];
    "zinterstore",            -4, ZSTORE,    Keyed,                    Plain,          [WRITE DENYOOM MOVABLEKEYS];
    "zlexcount",               4, ONE,       Keyed,                    Plain,          [READONLY FAST];
    "zmpop",                  -4, POP,       Keyed,                    NullArray,      [WRITE MOVABLEKEYS];
    "zmscore",                -3, ONE,       Keyed,                    Plain,          [READONLY FAST];
    "zpopmax",                -2, ONE,       Keyed,                    Pairs,          [WRITE FAST];
    "zpopmin",                -2, ONE,       Keyed,                    Pairs,          [WRITE FAST];
    "zrandmember",            -2, ONE,       Keyed,                    Pairs,          [READONLY];
    "zrange",                 -4, ONE,       Keyed,                    Pairs,          [READONLY];
    "zrangebylex",            -4, ONE,       Keyed,                    Plain,          [READONLY];
    "zrangebyscore",          -4, ONE,       Keyed,                    Pairs,          [READONLY];
    "zrangestore",            -5, TWO,       Keyed,                    Plain,          [WRITE DENYOOM];
    "zrank",                   3, ONE,       Keyed,                    Plain,          [READONLY FAST];
    "zrem",                   -3, ONE,       Keyed,                    Plain,          [WRITE FAST];
    "zremrangebylex",          4, ONE,       Keyed,                    Plain,          [WRITE];
    "zremrangebyrank",         4, ONE,       Keyed,                    Plain,          [WRITE];
    "zremrangebyscore",        4, ONE,       Keyed,                    Plain,          [WRITE];
    "zrevrange",              -4, ONE,       Keyed,                    Pairs,          [READONLY];
    "zrevrangebylex",         -4, ONE,       Keyed,                    Plain,          [READONLY];
    "zrevrangebyscore",       -4, ONE,       Keyed,                    Pairs,          [READONLY];
    "zrevrank",                3, ONE,       Keyed,                    Plain,          [READONLY FAST];
    "zscan",                  -3, ONE,       Keyed,                    Plain,          [READONLY];
    "zscore",                  3, ONE,       Keyed,                    Plain,          [READONLY FAST];
    "zunion",                 -3, ZSETS,     Keyed,                    Pairs,          [READONLY MOVABLEKEYS];
    "zunionstore",            -4, ZSTORE,    Keyed,                    Plain,          [WRITE DENYOOM MOVABLEKEYS];

    // Places in sorted sets.
    "geoadd",                 -5, ONE,       Keyed,                    Plain,          [WRITE DENYOOM];
    "geodist",                -4, ONE,       Keyed,                    Plain,          [READONLY];
    "geohash",                -2, ONE,       Keyed,                    Plain,          [READONLY];
    "geopos",                 -2, ONE,       Keyed,                    NullArray,      [READONLY];
    "georadius",              -6, GeoRadius, Keyed,                    Plain,          [WRITE DENYOOM MOVABLEKEYS];
    "georadius_ro",           -6, ONE,       Keyed,                    Plain,          [READONLY];
    "georadiusbymember",      -5, GeoRadius, Keyed,                    Plain,          [WRITE DENYOOM MOVABLEKEYS];
    "georadiusbymember_ro",   -5, ONE,       Keyed,                    Plain,          [READONLY];
    "geosearch",              -7, ONE,       Keyed,                    Plain,          [READONLY];
    "geosearchstore",         -8, TWO,       Keyed,                    Plain,          [WRITE DENYOOM];

    // HyperLogLogs.
    "pfadd",                  -2, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST];
    "pfcount",                -2, ALL,       Keyed,                    Plain,          [READONLY];
    "pfdebug",                 3, SECOND,    Keyed,                    Plain,          [WRITE DENYOOM ADMIN];
    "pfmerge",                -2, ALL,       Keyed,                    Plain,          [WRITE DENYOOM];
    "pfselftest",              1, NONE,      AnyNode,                  Plain,          [ADMIN];

    // Streams.
    "xack",                   -4, ONE,       Keyed,                    Plain,          [WRITE FAST];
    "xadd",                   -5, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST];
    "xautoclaim",             -6, ONE,       Keyed,                    Plain,          [WRITE FAST];
    "xclaim",                 -6, ONE,       Keyed,                    Plain,          [WRITE FAST];
    "xdel",                   -3, ONE,       Keyed,                    Plain,          [WRITE FAST];
    "xgroup",                 -2, NONE,      CONTAINER,                Plain,          [CONTAINER];
    "xgroup|create",          -5, SECOND,    Keyed,                    Plain,          [WRITE DENYOOM];
    "xgroup|createconsumer",   5, SECOND,    Keyed,                    Plain,          [WRITE DENYOOM];
    "xgroup|delconsumer",      5, SECOND,    Keyed,                    Plain,          [WRITE];
    "xgroup|destroy",          4, SECOND,    Keyed,                    Plain,          [WRITE];
    "xgroup|help",             2, NONE,      AnyNode,                  Plain,          [LOADING STALE];
    "xgroup|setid",           -5, SECOND,    Keyed,                    Plain,          [WRITE];
    "xinfo",                  -2, NONE,      CONTAINER,                Plain,          [CONTAINER];
    "xinfo|consumers",         4, SECOND,    Keyed,                    Plain,          [READONLY];
    "xinfo|groups",            3, SECOND,    Keyed,                    Plain,          [READONLY];
    "xinfo|help",              2, NONE,      AnyNode,                  Plain,          [LOADING STALE];
    "xinfo|stream",           -3, SECOND,    Keyed,                    Plain,          [READONLY];
    "xlen",                    2, ONE,       Keyed,                    Plain,          [READONLY FAST];
    "xpending",               -3, ONE,       Keyed,                    PendingSummary, [READONLY];
    "xrange",                 -4, ONE,       Keyed,                    NullArray,      [READONLY];
    "xread",                  -4, Streams,   Keyed,                    StreamPairs,    [READONLY BLOCKING MOVABLEKEYS];
    "xreadgroup",             -7, Streams,   Keyed,                    StreamPairs,    [WRITE BLOCKING MOVABLEKEYS];
    "xrevrange",              -4, ONE,       Keyed,                    NullArray,      [READONLY];
    "xsetid",                 -3, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST];
    "xtrim",                  -4, ONE,       Keyed,                    Plain,          [WRITE];

    // Scripts and functions.
    "eval",                   -3, SCRIPT,    Script,                   Plain,          [NOSCRIPT STALE NO_MANDATORY_KEYS MOVABLEKEYS];
    "eval_ro",                -3, SCRIPT,    Script,                   Plain,          [READONLY NOSCRIPT STALE NO_MANDATORY_KEYS MOVABLEKEYS];
    "evalsha",                -3, SCRIPT,    Script,                   Plain,          [NOSCRIPT STALE NO_MANDATORY_KEYS MOVABLEKEYS];
    "evalsha_ro",             -3, SCRIPT,    Script,                   Plain,          [READONLY NOSCRIPT STALE NO_MANDATORY_KEYS MOVABLEKEYS];
    "fcall",                  -3, FUNCTION,  Script,                   Plain,          [NOSCRIPT STALE NO_MANDATORY_KEYS MOVABLEKEYS];
    "fcall_ro",               -3, FUNCTION,  Script,                   Plain,          [READONLY NOSCRIPT STALE NO_MANDATORY_KEYS MOVABLEKEYS];
    "function",               -2, NONE,      CONTAINER,                Plain,          [CONTAINER];
    "function|delete",         3, NONE,      EveryNode(Each::Function), Plain,          [WRITE NOSCRIPT];
    "function|dump",           2, NONE,      AnyNode,                  Plain,          [NOSCRIPT];
    "function|flush",         -2, NONE,      EveryNode(Each::Function), Plain,          [WRITE NOSCRIPT];
    "function|help",           2, NONE,      AnyNode,                  Plain,          [LOADING STALE];
    "function|kill",           2, NONE,      EveryNode(Each::Kill),                Plain,          [NOSCRIPT ALLOW_BUSY];
    "function|list",          -2, NONE,      AnyNode,                  Plain,          [NOSCRIPT];
    "function|load",          -3, NONE,      EveryNode(Each::Function), Plain,          [WRITE DENYOOM NOSCRIPT];
    "function|restore",       -3, NONE,      EveryNode(Each::Function), Plain,          [WRITE DENYOOM NOSCRIPT];
    "function|stats",          2, NONE,      AnyNode,                  Plain,          [NOSCRIPT ALLOW_BUSY];
    "script",                 -2, NONE,      CONTAINER,                Plain,          [CONTAINER];
    "script|debug",            3, NONE,      NEVER,                    Plain,          [NOSCRIPT];
    "script|exists",          -3, NONE,      EveryNode(Each::ScriptExists), Plain,          [NOSCRIPT];
    "script|flush",           -2, NONE,      EveryNode(Each::ScriptFlush), Plain,          [NOSCRIPT];
    "script|help",             2, NONE,      AnyNode,                  Plain,          [LOADING STALE];
    "script|kill",             2, NONE,      EveryNode(Each::Kill),                Plain,          [NOSCRIPT ALLOW_BUSY];
    "script|load",             3, NONE,      EveryNode(Each::ScriptLoad), Plain,          [NOSCRIPT STALE];

    // Transactions.
    "discard",                 1, NONE,      Transaction(Discard),     Plain,          [NOSCRIPT LOADING STALE FAST ALLOW_BUSY];
    "exec",                    1, NONE,      Transaction(Exec),        NullArray,      [NOSCRIPT LOADING STALE];
    "multi",                   1, NONE,      Transaction(Multi),       Plain,          [NOSCRIPT LOADING STALE FAST ALLOW_BUSY];
    "unwatch",                 1, NONE,      Transaction(Unwatch),     Plain,          [NOSCRIPT LOADING STALE FAST ALLOW_BUSY];
    "watch",                  -2, ALL,       Transaction(Watch),       Plain,          [NOSCRIPT LOADING STALE FAST ALLOW_BUSY];

    // Publish and subscribe.
    "psubscribe",             -2, NONE,      PubSub(Messages::Subscribe(Topics::Patterns)), Plain,          [PUBSUB NOSCRIPT LOADING STALE];
    "publish",                 3, NONE,      PubSub(Messages::Publish(Topics::Channels)), Plain,          [PUBSUB LOADING STALE FAST];
    "pubsub",                 -2, NONE,      CONTAINER,                Plain,          [CONTAINER];
    "pubsub|channels",        -2, NONE,      PubSub(Messages::List(Topics::Channels)), Plain,          [PUBSUB LOADING STALE];
    "pubsub|help",             2, NONE,      AnyNode,                  Plain,          [LOADING STALE];
    "pubsub|numpat",           2, NONE,      PubSub(Messages::PatternCount), Plain,          [PUBSUB LOADING STALE];
    "pubsub|numsub",          -2, NONE,      PubSub(Messages::Count(Topics::Channels)), Plain,          [PUBSUB LOADING STALE];
    "pubsub|shardchannels",   -2, NONE,      PubSub(Messages::List(Topics::Shards)), Plain,          [PUBSUB LOADING STALE];
    "pubsub|shardnumsub",     -2, NONE,      PubSub(Messages::Count(Topics::Shards)), Plain,          [PUBSUB LOADING STALE];
    "punsubscribe",           -1, NONE,      PubSub(Messages::Unsubscribe(Topics::Patterns)), Plain,          [PUBSUB NOSCRIPT LOADING STALE];
    "spublish",                3, ONE,       PubSub(Messages::Publish(Topics::Shards)), Plain,          [PUBSUB LOADING STALE FAST];
    "ssubscribe",             -2, ALL,       PubSub(Messages::Subscribe(Topics::Shards)), Plain,          [PUBSUB NOSCRIPT LOADING STALE];
    "subscribe",              -2, NONE,      PubSub(Messages::Subscribe(Topics::Channels)), Plain,          [PUBSUB NOSCRIPT LOADING STALE];
    "sunsubscribe",           -1, ALL,       PubSub(Messages::Unsubscribe(Topics::Shards)), Plain,          [PUBSUB NOSCRIPT LOADING STALE];
    "unsubscribe",            -1, NONE,      PubSub(Messages::Unsubscribe(Topics::Channels)), Plain,          [PUBSUB NOSCRIPT LOADING STALE];

    // The connection itself.
    "auth",                   -2, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE FAST NO_AUTH ALLOW_BUSY];
    "client",                 -2, NONE,      CONTAINER,                Plain,          [CONTAINER];
    "client|caching",          3, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE];
    "client|getname",          2, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE];
    "client|getredir",         2, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE];
    "client|help",             2, NONE,      AnyNode,                  Plain,          [LOADING STALE];
    "client|id",               2, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE];
    "client|info",             2, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE];
    "client|kill",            -3, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "client|list",            -2, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "client|no-evict",         3, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "client|no-touch",         3, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE];
    "client|pause",           -3, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "client|reply",            3, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE];
    "client|setinfo",          4, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE];
    "client|setname",          3, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE];
    "client|tracking",        -3, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE];
    "client|trackinginfo",     2, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE];
    "client|unblock",         -3, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "client|unpause",          2, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "echo",                    2, NONE,      Local,                    Plain,          [LOADING STALE FAST];
    "hello",                  -1, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE FAST NO_AUTH ALLOW_BUSY];
    "ping",                   -1, NONE,      Local,                    Plain,          [FAST];
    "quit",                   -1, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE FAST NO_AUTH ALLOW_BUSY];
    "reset",                   1, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE FAST NO_AUTH ALLOW_BUSY];
    "select",                  2, NONE,      Local,                    Plain,          [LOADING STALE FAST];

    // The server itself.
    "acl",                    -2, NONE,      CONTAINER,                Plain,          [CONTAINER];
    "acl|cat",                -2, NONE,      AnyNode,                  Plain,          [NOSCRIPT LOADING STALE];
    "acl|deluser",            -3, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "acl|dryrun",             -4, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "acl|genpass",            -2, NONE,      AnyNode,                  Plain,          [NOSCRIPT LOADING STALE];
    "acl|getuser",             3, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "acl|help",                2, NONE,      AnyNode,                  Plain,          [LOADING STALE];
    "acl|list",                2, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "acl|load",                2, NONE,      Refused(Refusal::AclFile), Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "acl|log",                -2, NONE,      Refused(Refusal::Users),   Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "acl|save",                2, NONE,      Refused(Refusal::AclFile), Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "acl|setuser",            -3, NONE,      Refused(Refusal::Users),   Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "acl|users",               2, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "acl|whoami",              2, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE];
    "bgrewriteaof",            1, NONE,      EveryNode(Each::Save),    Plain,          [ADMIN NOSCRIPT];
    "bgsave",                 -1, NONE,      EveryNode(Each::Save),    Plain,          [ADMIN NOSCRIPT];
    "command",                -1, NONE,      AnyNode,                  Plain,          [LOADING STALE CONTAINER];
    "command|count",           2, NONE,      AnyNode,                  Plain,          [LOADING STALE];
    "command|docs",           -2, NONE,      AnyNode,                  Plain,          [LOADING STALE];
    "command|getkeys",        -4, NONE,      AnyNode,                  Plain,          [LOADING STALE];
    "command|getkeysandflags",  -4, NONE,      AnyNode,                  Plain,          [LOADING STALE];
    "command|help",            2, NONE,      AnyNode,                  Plain,          [LOADING STALE];
    "command|info",           -2, NONE,      AnyNode,                  Plain,          [LOADING STALE];
    "command|list",           -2, NONE,      AnyNode,                  Plain,          [LOADING STALE];
    "config",                 -2, NONE,      CONTAINER,                Plain,          [CONTAINER];
    "config|get",             -3, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "config|help",             2, NONE,      AnyNode,                  Plain,          [LOADING STALE];
    "config|resetstat",        2, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "config|rewrite",          2, NONE,      NEVER,                    Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "config|set",             -4, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "dbsize",                  1, NONE,      EveryNode(Each::DbSize),  Plain,          [READONLY FAST];
    "debug",                  -2, NONE,      NEVER,                    Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "failover",               -1, NONE,      NEVER,                    Plain,          [ADMIN NOSCRIPT STALE];
    "flushall",               -1, NONE,      EveryNode(Each::FlushAll), Plain,          [WRITE];
    "flushdb",                -1, NONE,      EveryNode(Each::FlushDb), Plain,          [WRITE];
    "info",                   -1, NONE,      Local,                    Plain,          [LOADING STALE];
    "lastsave",                1, NONE,      EveryNode(Each::LastSave), Plain,         [LOADING STALE FAST];
    "latency",                -2, NONE,      CONTAINER,                Plain,          [CONTAINER];
    "latency|doctor",          2, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "latency|graph",           3, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "latency|help",            2, NONE,      AnyNode,                  Plain,          [LOADING STALE];
    "latency|histogram",      -2, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "latency|history",         3, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "latency|latest",          2, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "latency|reset",          -2, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "lolwut",                 -1, NONE,      AnyNode,                  Plain,          [READONLY FAST];
    "memory",                 -2, NONE,      CONTAINER,                Plain,          [CONTAINER];
    "memory|doctor",           2, NONE,      AnyNode,                  Plain,          [];
    "memory|help",             2, NONE,      AnyNode,                  Plain,          [LOADING STALE];
    "memory|malloc-stats",     2, NONE,      AnyNode,                  Plain,          [];
    "memory|purge",            2, NONE,      EveryNode(Each::Purge),   Plain,          [];
    "memory|stats",            2, NONE,      AnyNode,                  Plain,          [];
    "memory|usage",           -3, SECOND,    Keyed,                    Plain,          [READONLY];
    "module",                 -2, NONE,      CONTAINER,                Plain,          [CONTAINER];
    "module|help",             2, NONE,      AnyNode,                  Plain,          [LOADING STALE];
    "module|list",             2, NONE,      AnyNode,                  Plain,          [ADMIN NOSCRIPT];
    "module|load",            -3, NONE,      NEVER,                    Plain,          [ADMIN NOSCRIPT];
    "module|loadex",          -3, NONE,      NEVER,                    Plain,          [ADMIN NOSCRIPT];
    "module|unload",           3, NONE,      NEVER,                    Plain,          [ADMIN NOSCRIPT];
    "monitor",                 1, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE];
    "psync",                  -3, NONE,      NEVER,                    Plain,          [ADMIN NOSCRIPT NO_MULTI];
    "replconf",               -1, NONE,      NEVER,                    Plain,          [ADMIN NOSCRIPT LOADING STALE ALLOW_BUSY];
    "replicaof",               3, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT STALE];
    "restore-asking",         -4, ONE,       NEVER,                    Plain,          [WRITE DENYOOM];
    "role",                    1, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE FAST];
    "save",                    1, NONE,      EveryNode(Each::Save),    Plain,          [ADMIN NOSCRIPT NO_MULTI];
    "shutdown",               -1, NONE,      NEVER,                    Plain,          [ADMIN NOSCRIPT LOADING STALE NO_MULTI ALLOW_BUSY];
    "slaveof",                 3, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT STALE];
    "slowlog",                -2, NONE,      CONTAINER,                Plain,          [CONTAINER];
    "slowlog|get",            -2, NONE,      Local,                    Plain,          [ADMIN LOADING STALE];
    "slowlog|help",            2, NONE,      AnyNode,                  Plain,          [LOADING STALE];
    "slowlog|len",             2, NONE,      Local,                    Plain,          [ADMIN LOADING STALE];
    "slowlog|reset",           2, NONE,      Local,                    Plain,          [ADMIN LOADING STALE];
    "swapdb",                  3, NONE,      EveryNode(Each::SwapDb),  Plain,          [WRITE FAST];
    "sync",                    1, NONE,      NEVER,                    Plain,          [ADMIN NOSCRIPT NO_MULTI];
    "time",                    1, NONE,      Local,                    Plain,          [LOADING STALE FAST];

    // Redis Cluster.
    "asking",                  1, NONE,      Local,                    Plain,          [FAST];
    "cluster",                -2, NONE,      CONTAINER,                Plain,          [CONTAINER];
    "cluster|addslots",       -3, NONE,      Local,                    Plain,          [ADMIN STALE];
    "cluster|addslotsrange",  -4, NONE,      Local,                    Plain,          [ADMIN STALE];
    "cluster|bumpepoch",       2, NONE,      Local,                    Plain,          [ADMIN STALE];
    "cluster|count-failure-reports",   3, NONE,      Local,                    Plain,          [ADMIN STALE];
    "cluster|countkeysinslot",   3, NONE,      Local,                    Plain,          [STALE];
    "cluster|delslots",       -3, NONE,      Local,                    Plain,          [ADMIN STALE];
    "cluster|delslotsrange",  -4, NONE,      Local,                    Plain,          [ADMIN STALE];
    "cluster|failover",       -2, NONE,      Local,                    Plain,          [ADMIN STALE];
    "cluster|flushslots",      2, NONE,      Local,                    Plain,          [ADMIN STALE];
    "cluster|forget",          3, NONE,      Local,                    Plain,          [ADMIN STALE];
    "cluster|getkeysinslot",   4, NONE,      Local,                    Plain,          [STALE];
    "cluster|help",            2, NONE,      Local,                    Plain,          [LOADING STALE];
    "cluster|info",            2, NONE,      Local,                    Plain,          [STALE];
    "cluster|keyslot",         3, NONE,      Local,                    Plain,          [STALE];
    "cluster|links",           2, NONE,      Local,                    Plain,          [STALE];
    "cluster|meet",           -4, NONE,      Local,                    Plain,          [ADMIN STALE];
    "cluster|myid",            2, NONE,      Local,                    Plain,          [STALE];
    "cluster|nodes",           2, NONE,      Local,                    Plain,          [STALE];
    "cluster|replicas",        3, NONE,      Local,                    Plain,          [ADMIN STALE];
    "cluster|replicate",       3, NONE,      Local,                    Plain,          [ADMIN STALE];
    "cluster|reset",          -2, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT STALE];
    "cluster|saveconfig",      2, NONE,      Local,                    Plain,          [ADMIN STALE];
    "cluster|set-config-epoch",   3, NONE,      Local,                    Plain,          [ADMIN STALE];
    "cluster|setslot",        -4, NONE,      Local,                    Plain,          [ADMIN STALE];
    "cluster|shards",          2, NONE,      Local,                    Plain,          [STALE];
    "cluster|slaves",          3, NONE,      Local,                    Plain,          [ADMIN STALE];
    "cluster|slots",           2, NONE,      Local,                    Plain,          [STALE];
    "readonly",                1, NONE,      Local,                    Plain,          [LOADING STALE FAST];
    "readwrite",               1, NONE,      Local,                    Plain,          [LOADING STALE FAST];

    // Tally's own; Redis has nothing like it.
    "tally",                  -2, NONE,      Own(Inside::Help),        Plain,          [CONTAINER];
    "tally|deadletters",      -2, NONE,      Own(Inside::DeadLetters), Plain,          [];
    "tally|flush",             2, NONE,      Own(Inside::Flush),       Plain,          [];
    "tally|help",              2, NONE,      Own(Inside::Help),        Plain,          [];
    "tally|hotkeys",          -2, NONE,      Own(Inside::HotKeys),     Plain,          [];
    "tally|slowlog",          -2, NONE,      Own(Inside::SlowLog),     Plain,          [];
    "tally|stats",             2, NONE,      Own(Inside::Stats),       Plain,          [];
    "tally|where",             3, NONE,      Own(Inside::Where),       Plain,          [FAST];
}

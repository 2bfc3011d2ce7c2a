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
use super::{
    Categories, Class, Command, CountRule, Flags, Inside, KeyAccess, Keys, Merge, Messages,
    Refusal, Topics, Uses,
};
use crate::resp::Form::{
    NullArray, Pairs, PendingSummary, Plain, PopCount, RankScore, StreamPairs,
};

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

/// For commands without keys, and for channels, which are placed as keys are.
const NO_KEY: Uses = LOOK;
/// Asks only whether there is something, or of which kind or size.
const LOOK: Uses = Uses::all(KeyAccess::NONE);
const R: Uses = Uses::all(KeyAccess::READ);
const W: Uses = Uses::all(KeyAccess::WRITE);
const RW: Uses = Uses::all(KeyAccess::BOTH);
/// The first key in one way, the others in another: `COPY from to`.
const R_W: Uses = Uses::first(KeyAccess::READ, KeyAccess::WRITE);
const W_R: Uses = Uses::first(KeyAccess::WRITE, KeyAccess::READ);
const RW_R: Uses = Uses::first(KeyAccess::BOTH, KeyAccess::READ);
const RW_W: Uses = Uses::first(KeyAccess::BOTH, KeyAccess::WRITE);

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
    ($($name:literal, $arity:literal, $keys:expr, $class:expr, $form:expr, [$($flag:ident)*], $uses:expr, [$($category:ident)*];)*) => {
        /// Containers stand before their subcommands.
        pub(super) static TABLE: &[Command] = &[$(Command {
            name: $name,
            arity: $arity,
            flags: Flags::NONE$(.with(Flags::$flag))*,
            categories: Categories::NONE$(.with(Categories::$category))*
                .implied(Flags::NONE$(.with(Flags::$flag))*),
            keys: $keys,
            uses: $uses,
            class: $class,
            form: $form,
        }),*];
    };
}

// OBJECT ENCODING and REFCOUNT are barriers, unlike FREQ and IDLETIME: an increment makes a `raw`
// string an `int`, and values below 10,000 are shared objects. CLIENT SETINFO and NO-TOUCH and WAITAOF
// are of Redis 7.2; client libraries send them to every server.
table! {
    // name, arity, keys, class, form of the reply, flags, how keys are used, ACL categories that the
    // flags do not imply

    // Keys of any type.
    "copy",                   -3, TWO,       Keyed,                    Plain,          [WRITE DENYOOM], R_W, [KEYSPACE];
    "del",                    -2, ALL,       SUM,                      Plain,          [WRITE], W, [KEYSPACE];
    "dump",                    2, ONE,       Keyed,                    Plain,          [READONLY], R, [KEYSPACE];
    "exists",                 -2, ALL,       PEEK_SUM,                 Plain,          [READONLY FAST], LOOK, [KEYSPACE];
    "expire",                 -3, ONE,       Keyed,                    Plain,          [WRITE FAST], W, [KEYSPACE];
    "expireat",               -3, ONE,       Keyed,                    Plain,          [WRITE FAST], W, [KEYSPACE];
    "expiretime",              2, ONE,       Peek,                     Plain,          [READONLY FAST], R, [KEYSPACE];
    "keys",                    2, NONE,      EveryNode(Each::Keys),    Plain,          [READONLY], NO_KEY, [DANGEROUS KEYSPACE];
    "migrate",                -6, Migrate,   NEVER,                    Plain,          [WRITE MOVABLEKEYS], RW, [DANGEROUS KEYSPACE];
    "move",                    3, ONE,       Keyed,                    Plain,          [WRITE FAST], RW, [KEYSPACE];
    "object",                 -2, NONE,      CONTAINER,                Plain,          [CONTAINER], NO_KEY, [];
    "object|encoding",         3, SECOND,    Keyed,                    Plain,          [READONLY], LOOK, [KEYSPACE];
    "object|freq",             3, SECOND,    Peek,                     Plain,          [READONLY], LOOK, [KEYSPACE];
    "object|help",             2, NONE,      AnyNode,                  Plain,          [LOADING STALE], NO_KEY, [KEYSPACE];
    "object|idletime",         3, SECOND,    Peek,                     Plain,          [READONLY], LOOK, [KEYSPACE];
    "object|refcount",         3, SECOND,    Keyed,                    Plain,          [READONLY], LOOK, [KEYSPACE];
    "persist",                 2, ONE,       Keyed,                    Plain,          [WRITE FAST], W, [KEYSPACE];
    "pexpire",                -3, ONE,       Keyed,                    Plain,          [WRITE FAST], W, [KEYSPACE];
    "pexpireat",              -3, ONE,       Keyed,                    Plain,          [WRITE FAST], W, [KEYSPACE];
    "pexpiretime",             2, ONE,       Peek,                     Plain,          [READONLY FAST], R, [KEYSPACE];
    "pttl",                    2, ONE,       Peek,                     Plain,          [READONLY FAST], R, [KEYSPACE];
    "randomkey",               1, NONE,      EveryNode(Each::RandomKey), Plain,          [READONLY], NO_KEY, [KEYSPACE];
    "rename",                  3, TWO,       Keyed,                    Plain,          [WRITE], RW_W, [KEYSPACE];
    "renamenx",                3, TWO,       Keyed,                    Plain,          [WRITE FAST], RW_W, [KEYSPACE];
    "restore",                -4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM], W, [DANGEROUS KEYSPACE];
    "scan",                   -2, NONE,      EveryNode(Each::Scan),    Plain,          [READONLY], NO_KEY, [KEYSPACE];
    "sort",                   -2, Sort,      Keyed,                    Plain,          [WRITE DENYOOM MOVABLEKEYS], R_W, [DANGEROUS LIST SET SORTEDSET];
    "sort_ro",                -2, ONE,       Keyed,                    Plain,          [READONLY MOVABLEKEYS], R, [DANGEROUS LIST SET SORTEDSET];
    "touch",                  -2, ALL,       PEEK_SUM,                 Plain,          [READONLY FAST], LOOK, [KEYSPACE];
    "ttl",                     2, ONE,       Peek,                     Plain,          [READONLY FAST], R, [KEYSPACE];
    "type",                    2, ONE,       Peek,                     Plain,          [READONLY FAST], LOOK, [KEYSPACE];
    "unlink",                 -2, ALL,       SUM,                      Plain,          [WRITE FAST], W, [KEYSPACE];
    "wait",                    3, NONE,      EveryNode(Each::Wait),    Plain,          [NOSCRIPT], NO_KEY, [CONNECTION];
    "waitaof",                 4, NONE,      EveryNode(Each::Wait),    Plain,          [NOSCRIPT NEWER], NO_KEY, [CONNECTION BLOCKING];

    // Strings, counters among them.
    "append",                  3, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST], W, [STRING];
    "decr",                    2, ONE,       Increment(Decr),          Plain,          [WRITE DENYOOM FAST], RW, [STRING];
    "decrby",                  3, ONE,       Increment(DecrBy),        Plain,          [WRITE DENYOOM FAST], RW, [STRING];
    "get",                     2, ONE,       Get,                      Plain,          [READONLY FAST], R, [STRING];
    "getdel",                  2, ONE,       Keyed,                    Plain,          [WRITE FAST], RW, [STRING];
    "getex",                  -2, ONE,       Keyed,                    Plain,          [WRITE FAST], RW, [STRING];
    "getrange",                4, ONE,       Keyed,                    Plain,          [READONLY], R, [STRING];
    "getset",                  3, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST], RW, [STRING];
    "incr",                    2, ONE,       Increment(Incr),          Plain,          [WRITE DENYOOM FAST], RW, [STRING];
    "incrby",                  3, ONE,       Increment(IncrBy),        Plain,          [WRITE DENYOOM FAST], RW, [STRING];
    "incrbyfloat",             3, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST], RW, [STRING];
    "lcs",                    -3, TWO,       Keyed,                    Plain,          [READONLY], R, [STRING];
    "mget",                   -2, ALL,       MultiGet,                 Plain,          [READONLY FAST], R, [STRING];
    "mset",                   -3, PAIRS,     OK,                       Plain,          [WRITE DENYOOM], W, [STRING];
    "msetnx",                 -3, PAIRS,     Keyed,                    Plain,          [WRITE DENYOOM], W, [STRING];
    "psetex",                  4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM], W, [STRING];
    "set",                    -3, ONE,       Keyed,                    Plain,          [WRITE DENYOOM], RW, [STRING];
    "setex",                   4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM], W, [STRING];
    "setnx",                   3, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST], W, [STRING];
    "setrange",                4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM], W, [STRING];
    "strlen",                  2, ONE,       Keyed,                    Plain,          [READONLY FAST], LOOK, [STRING];
    "substr",                  4, ONE,       Keyed,                    Plain,          [READONLY], R, [STRING];

    // Bits of strings.
    "bitcount",               -2, ONE,       Keyed,                    Plain,          [READONLY], R, [BITMAP];
    "bitfield",               -2, ONE,       Keyed,                    Plain,          [WRITE DENYOOM], RW, [BITMAP];
    "bitfield_ro",            -2, ONE,       Keyed,                    Plain,          [READONLY FAST], R, [BITMAP];
    "bitop",                  -4, FROM_2,    Keyed,                    Plain,          [WRITE DENYOOM], W_R, [BITMAP];
    "bitpos",                 -3, ONE,       Keyed,                    Plain,          [READONLY], R, [BITMAP];
    "getbit",                  3, ONE,       Keyed,                    Plain,          [READONLY FAST], R, [BITMAP];
    "setbit",                  4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM], RW, [BITMAP];

    // Lists.
    "blmove",                  6, TWO,       Keyed,                    NullArray,      [WRITE DENYOOM NOSCRIPT BLOCKING], RW_W, [LIST];
    "blmpop",                 -5, BPOP,      Keyed,                    NullArray,      [WRITE BLOCKING MOVABLEKEYS], RW, [LIST];
    "blpop",                  -3, NOT_LAST,  Keyed,                    NullArray,      [WRITE NOSCRIPT BLOCKING], RW, [LIST];
    "brpop",                  -3, NOT_LAST,  Keyed,                    NullArray,      [WRITE NOSCRIPT BLOCKING], RW, [LIST];
    "brpoplpush",              4, TWO,       Keyed,                    NullArray,      [WRITE DENYOOM NOSCRIPT BLOCKING], RW_W, [LIST];
    "lindex",                  3, ONE,       Keyed,                    Plain,          [READONLY], R, [LIST];
    "linsert",                 5, ONE,       Keyed,                    Plain,          [WRITE DENYOOM], W, [LIST];
    "llen",                    2, ONE,       Keyed,                    Plain,          [READONLY FAST], LOOK, [LIST];
    "lmove",                   5, TWO,       Keyed,                    Plain,          [WRITE DENYOOM], RW_W, [LIST];
    "lmpop",                  -4, POP,       Keyed,                    NullArray,      [WRITE MOVABLEKEYS], RW, [LIST];
    "lpop",                   -2, ONE,       Keyed,                    PopCount,       [WRITE FAST], RW, [LIST];
    "lpos",                   -3, ONE,       Keyed,                    Plain,          [READONLY], R, [LIST];
    "lpush",                  -3, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST], W, [LIST];
    "lpushx",                 -3, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST], W, [LIST];
    "lrange",                  4, ONE,       Keyed,                    Plain,          [READONLY], R, [LIST];
    "lrem",                    4, ONE,       Keyed,                    Plain,          [WRITE], W, [LIST];
    "lset",                    4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM], W, [LIST];
    "ltrim",                   4, ONE,       Keyed,                    Plain,          [WRITE], W, [LIST];
    "rpop",                   -2, ONE,       Keyed,                    PopCount,       [WRITE FAST], RW, [LIST];
    "rpoplpush",               3, TWO,       Keyed,                    Plain,          [WRITE DENYOOM], RW_W, [LIST];
    "rpush",                  -3, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST], W, [LIST];
    "rpushx",                 -3, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST], W, [LIST];

    // Hashes.
    "hdel",                   -3, ONE,       Keyed,                    Plain,          [WRITE FAST], W, [HASH];
    "hexists",                 3, ONE,       Keyed,                    Plain,          [READONLY FAST], LOOK, [HASH];
    "hget",                    3, ONE,       Keyed,                    Plain,          [READONLY FAST], R, [HASH];
    "hgetall",                 2, ONE,       Keyed,                    Plain,          [READONLY], R, [HASH];
    "hincrby",                 4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST], RW, [HASH];
    "hincrbyfloat",            4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST], RW, [HASH];
    "hkeys",                   2, ONE,       Keyed,                    Plain,          [READONLY], R, [HASH];
    "hlen",                    2, ONE,       Keyed,                    Plain,          [READONLY FAST], LOOK, [HASH];
    "hmget",                  -3, ONE,       Keyed,                    Plain,          [READONLY FAST], R, [HASH];
    "hmset",                  -4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST], W, [HASH];
    "hrandfield",             -2, ONE,       Keyed,                    Pairs,          [READONLY], R, [HASH];
    "hscan",                  -3, ONE,       Keyed,                    Plain,          [READONLY], R, [HASH];
    "hset",                   -4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST], W, [HASH];
    "hsetnx",                  4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST], W, [HASH];
    "hstrlen",                 3, ONE,       Keyed,                    Plain,          [READONLY FAST], LOOK, [HASH];
    "hvals",                   2, ONE,       Keyed,                    Plain,          [READONLY], R, [HASH];

    // Sets.
    "sadd",                   -3, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST], W, [SET];
    "scard",                   2, ONE,       Keyed,                    Plain,          [READONLY FAST], LOOK, [SET];
    "sdiff",                  -2, ALL,       Keyed,                    Plain,          [READONLY], R, [SET];
    "sdiffstore",             -3, ALL,       Keyed,                    Plain,          [WRITE DENYOOM], W_R, [SET];
    "sinter",                 -2, ALL,       Keyed,                    Plain,          [READONLY], R, [SET];
    "sintercard",             -3, CARD,      Keyed,                    Plain,          [READONLY MOVABLEKEYS], R, [SET];
    "sinterstore",            -3, ALL,       Keyed,                    Plain,          [WRITE DENYOOM], W_R, [SET];
    "sismember",               3, ONE,       Keyed,                    Plain,          [READONLY FAST], LOOK, [SET];
    "smembers",                2, ONE,       Keyed,                    Plain,          [READONLY], R, [SET];
    "smismember",             -3, ONE,       Keyed,                    Plain,          [READONLY FAST], R, [SET];
    "smove",                   4, TWO,       Keyed,                    Plain,          [WRITE FAST], RW_W, [SET];
    "spop",                   -2, ONE,       Keyed,                    Plain,          [WRITE FAST], RW, [SET];
    "srandmember",            -2, ONE,       Keyed,                    Plain,          [READONLY], R, [SET];
    "srem",                   -3, ONE,       Keyed,                    Plain,          [WRITE FAST], W, [SET];
    "sscan",                  -3, ONE,       Keyed,                    Plain,          [READONLY], R, [SET];
    "sunion",                 -2, ALL,       Keyed,                    Plain,          [READONLY], R, [SET];
    "sunionstore",            -3, ALL,       Keyed,                    Plain,          [WRITE DENYOOM], W_R, [SET];

    // Sorted sets.
    "bzmpop",                 -5, BPOP,      Keyed,                    NullArray,      [WRITE BLOCKING MOVABLEKEYS], RW, [SORTEDSET];
    "bzpopmax",               -3, NOT_LAST,  Keyed,                    NullArray,      [WRITE NOSCRIPT BLOCKING FAST], RW, [SORTEDSET];
    "bzpopmin",               -3, NOT_LAST,  Keyed,                    NullArray,      [WRITE NOSCRIPT BLOCKING FAST], RW, [SORTEDSET];
    "zadd",                   -4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST], W, [SORTEDSET];
    "zcard",                   2, ONE,       Keyed,                    Plain,          [READONLY FAST], LOOK, [SORTEDSET];
    "zcount",                  4, ONE,       Keyed,                    Plain,          [READONLY FAST], R, [SORTEDSET];
    "zdiff",                  -3, ZSETS,     Keyed,                    Pairs,          [READONLY MOVABLEKEYS], R, [SORTEDSET];
    "zdiffstore",             -4, ZSTORE,    Keyed,                    Plain,          [WRITE DENYOOM MOVABLEKEYS], W_R, [SORTEDSET];
    "zincrby",                 4, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST], RW, [SORTEDSET];
    "zinter",                 -3, ZSETS,     Keyed,                    Pairs,          [READONLY MOVABLEKEYS], R, [SORTEDSET];
    "zintercard",             -3, ZSETS,     Keyed,                    Plain,          [READONLY MOVABLEKEYS], R, [SORTEDSET];
    "zinterstore",            -4, ZSTORE,    Keyed,                    Plain,          [WRITE DENYOOM MOVABLEKEYS], W_R, [SORTEDSET];
    "zlexcount",               4, ONE,       Keyed,                    Plain,          [READONLY FAST], R, [SORTEDSET];
    "zmpop",                  -4, POP,       Keyed,                    NullArray,      [WRITE MOVABLEKEYS], RW, [SORTEDSET];
    "zmscore",                -3, ONE,       Keyed,                    Plain,          [READONLY FAST], R, [SORTEDSET];
    "zpopmax",                -2, ONE,       Keyed,                    Pairs,          [WRITE FAST], RW, [SORTEDSET];
    "zpopmin",                -2, ONE,       Keyed,                    Pairs,          [WRITE FAST], RW, [SORTEDSET];
    "zrandmember",            -2, ONE,       Keyed,                    Pairs,          [READONLY], R, [SORTEDSET];
    "zrange",                 -4, ONE,       Keyed,                    Pairs,          [READONLY], R, [SORTEDSET];
    "zrangebylex",            -4, ONE,       Keyed,                    Plain,          [READONLY], R, [SORTEDSET];
    "zrangebyscore",          -4, ONE,       Keyed,                    Pairs,          [READONLY], R, [SORTEDSET];
    "zrangestore",            -5, TWO,       Keyed,                    Plain,          [WRITE DENYOOM], W_R, [SORTEDSET];
    "zrank",                   3, ONE,       Keyed,                    RankScore,      [READONLY FAST], R, [SORTEDSET];
    "zrem",                   -3, ONE,       Keyed,                    Plain,          [WRITE FAST], W, [SORTEDSET];
    "zremrangebylex",          4, ONE,       Keyed,                    Plain,          [WRITE], W, [SORTEDSET];
    "zremrangebyrank",         4, ONE,       Keyed,                    Plain,          [WRITE], W, [SORTEDSET];
    "zremrangebyscore",        4, ONE,       Keyed,                    Plain,          [WRITE], W, [SORTEDSET];
    "zrevrange",              -4, ONE,       Keyed,                    Pairs,          [READONLY], R, [SORTEDSET];
    "zrevrangebylex",         -4, ONE,       Keyed,                    Plain,          [READONLY], R, [SORTEDSET];
    "zrevrangebyscore",       -4, ONE,       Keyed,                    Pairs,          [READONLY], R, [SORTEDSET];
    "zrevrank",                3, ONE,       Keyed,                    RankScore,      [READONLY FAST], R, [SORTEDSET];
    "zscan",                  -3, ONE,       Keyed,                    Plain,          [READONLY], R, [SORTEDSET];
    "zscore",                  3, ONE,       Keyed,                    Plain,          [READONLY FAST], R, [SORTEDSET];
    "zunion",                 -3, ZSETS,     Keyed,                    Pairs,          [READONLY MOVABLEKEYS], R, [SORTEDSET];
    "zunionstore",            -4, ZSTORE,    Keyed,                    Plain,          [WRITE DENYOOM MOVABLEKEYS], W_R, [SORTEDSET];

    // Places in sorted sets.
    "geoadd",                 -5, ONE,       Keyed,                    Plain,          [WRITE DENYOOM], W, [GEO];
    "geodist",                -4, ONE,       Keyed,                    Plain,          [READONLY], R, [GEO];
    "geohash",                -2, ONE,       Keyed,                    Plain,          [READONLY], R, [GEO];
    "geopos",                 -2, ONE,       Keyed,                    NullArray,      [READONLY], R, [GEO];
    "georadius",              -6, GeoRadius, Keyed,                    Plain,          [WRITE DENYOOM MOVABLEKEYS], R_W, [GEO];
    "georadius_ro",           -6, ONE,       Keyed,                    Plain,          [READONLY], R, [GEO];
    "georadiusbymember",      -5, GeoRadius, Keyed,                    Plain,          [WRITE DENYOOM MOVABLEKEYS], R_W, [GEO];
    "georadiusbymember_ro",   -5, ONE,       Keyed,                    Plain,          [READONLY], R, [GEO];
    "geosearch",              -7, ONE,       Keyed,                    Plain,          [READONLY], R, [GEO];
    "geosearchstore",         -8, TWO,       Keyed,                    Plain,          [WRITE DENYOOM], W_R, [GEO];

    // HyperLogLogs.
    "pfadd",                  -2, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST], W, [HYPERLOGLOG];
    "pfcount",                -2, ALL,       Keyed,                    Plain,          [READONLY], R, [HYPERLOGLOG];
    "pfdebug",                 3, SECOND,    Keyed,                    Plain,          [WRITE DENYOOM ADMIN], R, [HYPERLOGLOG];
    "pfmerge",                -2, ALL,       Keyed,                    Plain,          [WRITE DENYOOM], RW_R, [HYPERLOGLOG];
    "pfselftest",              1, NONE,      AnyNode,                  Plain,          [ADMIN], NO_KEY, [HYPERLOGLOG];

    // Streams.
    "xack",                   -4, ONE,       Keyed,                    Plain,          [WRITE FAST], W, [STREAM];
    "xadd",                   -5, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST], W, [STREAM];
    "xautoclaim",             -6, ONE,       Keyed,                    Plain,          [WRITE FAST], W, [STREAM];
    "xclaim",                 -6, ONE,       Keyed,                    Plain,          [WRITE FAST], W, [STREAM];
    "xdel",                   -3, ONE,       Keyed,                    Plain,          [WRITE FAST], W, [STREAM];
    "xgroup",                 -2, NONE,      CONTAINER,                Plain,          [CONTAINER], NO_KEY, [];
    "xgroup|create",          -5, SECOND,    Keyed,                    Plain,          [WRITE DENYOOM], W, [STREAM];
    "xgroup|createconsumer",   5, SECOND,    Keyed,                    Plain,          [WRITE DENYOOM], W, [STREAM];
    "xgroup|delconsumer",      5, SECOND,    Keyed,                    Plain,          [WRITE], W, [STREAM];
    "xgroup|destroy",          4, SECOND,    Keyed,                    Plain,          [WRITE], W, [STREAM];
    "xgroup|help",             2, NONE,      AnyNode,                  Plain,          [LOADING STALE], NO_KEY, [STREAM];
    "xgroup|setid",           -5, SECOND,    Keyed,                    Plain,          [WRITE], W, [STREAM];
    "xinfo",                  -2, NONE,      CONTAINER,                Plain,          [CONTAINER], NO_KEY, [];
    "xinfo|consumers",         4, SECOND,    Keyed,                    Plain,          [READONLY], R, [STREAM];
    "xinfo|groups",            3, SECOND,    Keyed,                    Plain,          [READONLY], R, [STREAM];
    "xinfo|help",              2, NONE,      AnyNode,                  Plain,          [LOADING STALE], NO_KEY, [STREAM];
    "xinfo|stream",           -3, SECOND,    Keyed,                    Plain,          [READONLY], R, [STREAM];
    "xlen",                    2, ONE,       Keyed,                    Plain,          [READONLY FAST], LOOK, [STREAM];
    "xpending",               -3, ONE,       Keyed,                    PendingSummary, [READONLY], R, [STREAM];
    "xrange",                 -4, ONE,       Keyed,                    NullArray,      [READONLY], R, [STREAM];
    "xread",                  -4, Streams,   Keyed,                    StreamPairs,    [READONLY BLOCKING MOVABLEKEYS], R, [STREAM];
    "xreadgroup",             -7, Streams,   Keyed,                    StreamPairs,    [WRITE BLOCKING MOVABLEKEYS], R, [STREAM];
    "xrevrange",              -4, ONE,       Keyed,                    NullArray,      [READONLY], R, [STREAM];
    "xsetid",                 -3, ONE,       Keyed,                    Plain,          [WRITE DENYOOM FAST], W, [STREAM];
    "xtrim",                  -4, ONE,       Keyed,                    Plain,          [WRITE], W, [STREAM];

    // Scripts and functions.
    "eval",                   -3, SCRIPT,    Script,                   Plain,          [NOSCRIPT STALE NO_MANDATORY_KEYS MOVABLEKEYS], RW, [SCRIPTING];
    "eval_ro",                -3, SCRIPT,    Script,                   Plain,          [READONLY NOSCRIPT STALE NO_MANDATORY_KEYS MOVABLEKEYS], R, [SCRIPTING];
    "evalsha",                -3, SCRIPT,    Script,                   Plain,          [NOSCRIPT STALE NO_MANDATORY_KEYS MOVABLEKEYS], RW, [SCRIPTING];
    "evalsha_ro",             -3, SCRIPT,    Script,                   Plain,          [READONLY NOSCRIPT STALE NO_MANDATORY_KEYS MOVABLEKEYS], R, [SCRIPTING];
    "fcall",                  -3, FUNCTION,  Script,                   Plain,          [NOSCRIPT STALE NO_MANDATORY_KEYS MOVABLEKEYS], RW, [SCRIPTING];
    "fcall_ro",               -3, FUNCTION,  Script,                   Plain,          [READONLY NOSCRIPT STALE NO_MANDATORY_KEYS MOVABLEKEYS], R, [SCRIPTING];
    "function",               -2, NONE,      CONTAINER,                Plain,          [CONTAINER], NO_KEY, [];
    "function|delete",         3, NONE,      EveryNode(Each::Function), Plain,          [WRITE NOSCRIPT], NO_KEY, [SCRIPTING];
    "function|dump",           2, NONE,      AnyNode,                  Plain,          [NOSCRIPT], NO_KEY, [SCRIPTING];
    "function|flush",         -2, NONE,      EveryNode(Each::Function), Plain,          [WRITE NOSCRIPT], NO_KEY, [SCRIPTING];
    "function|help",           2, NONE,      AnyNode,                  Plain,          [LOADING STALE], NO_KEY, [SCRIPTING];
    "function|kill",           2, NONE,      EveryNode(Each::Kill),                Plain,          [NOSCRIPT ALLOW_BUSY], NO_KEY, [SCRIPTING];
    "function|list",          -2, NONE,      AnyNode,                  Plain,          [NOSCRIPT], NO_KEY, [SCRIPTING];
    "function|load",          -3, NONE,      EveryNode(Each::Function), Plain,          [WRITE DENYOOM NOSCRIPT], NO_KEY, [SCRIPTING];
    "function|restore",       -3, NONE,      EveryNode(Each::Function), Plain,          [WRITE DENYOOM NOSCRIPT], NO_KEY, [SCRIPTING];
    "function|stats",          2, NONE,      AnyNode,                  Plain,          [NOSCRIPT ALLOW_BUSY], NO_KEY, [SCRIPTING];
    "script",                 -2, NONE,      CONTAINER,                Plain,          [CONTAINER], NO_KEY, [];
    "script|debug",            3, NONE,      NEVER,                    Plain,          [NOSCRIPT], NO_KEY, [SCRIPTING];
    "script|exists",          -3, NONE,      EveryNode(Each::ScriptExists), Plain,          [NOSCRIPT], NO_KEY, [SCRIPTING];
    "script|flush",           -2, NONE,      EveryNode(Each::ScriptFlush), Plain,          [NOSCRIPT], NO_KEY, [SCRIPTING];
    "script|help",             2, NONE,      AnyNode,                  Plain,          [LOADING STALE], NO_KEY, [SCRIPTING];
    "script|kill",             2, NONE,      EveryNode(Each::Kill),                Plain,          [NOSCRIPT ALLOW_BUSY], NO_KEY, [SCRIPTING];
    "script|load",             3, NONE,      EveryNode(Each::ScriptLoad), Plain,          [NOSCRIPT STALE], NO_KEY, [SCRIPTING];

    // Transactions.
    "discard",                 1, NONE,      Transaction(Discard),     Plain,          [NOSCRIPT LOADING STALE FAST ALLOW_BUSY], NO_KEY, [TRANSACTION];
    "exec",                    1, NONE,      Transaction(Exec),        NullArray,      [NOSCRIPT LOADING STALE], NO_KEY, [TRANSACTION];
    "multi",                   1, NONE,      Transaction(Multi),       Plain,          [NOSCRIPT LOADING STALE FAST ALLOW_BUSY], NO_KEY, [TRANSACTION];
    "unwatch",                 1, NONE,      Transaction(Unwatch),     Plain,          [NOSCRIPT LOADING STALE FAST ALLOW_BUSY], NO_KEY, [TRANSACTION];
    "watch",                  -2, ALL,       Transaction(Watch),       Plain,          [NOSCRIPT LOADING STALE FAST ALLOW_BUSY], LOOK, [TRANSACTION];

    // Publish and subscribe.
    "psubscribe",             -2, NONE,      PubSub(Messages::Subscribe(Topics::Patterns)), Plain,          [PUBSUB NOSCRIPT LOADING STALE], NO_KEY, [];
    "publish",                 3, NONE,      PubSub(Messages::Publish(Topics::Channels)), Plain,          [PUBSUB LOADING STALE FAST], NO_KEY, [];
    "pubsub",                 -2, NONE,      CONTAINER,                Plain,          [CONTAINER], NO_KEY, [];
    "pubsub|channels",        -2, NONE,      PubSub(Messages::List(Topics::Channels)), Plain,          [PUBSUB LOADING STALE], NO_KEY, [];
    "pubsub|help",             2, NONE,      AnyNode,                  Plain,          [LOADING STALE], NO_KEY, [];
    "pubsub|numpat",           2, NONE,      PubSub(Messages::PatternCount), Plain,          [PUBSUB LOADING STALE], NO_KEY, [];
    "pubsub|numsub",          -2, NONE,      PubSub(Messages::Count(Topics::Channels)), Plain,          [PUBSUB LOADING STALE], NO_KEY, [];
    "pubsub|shardchannels",   -2, NONE,      PubSub(Messages::List(Topics::Shards)), Plain,          [PUBSUB LOADING STALE], NO_KEY, [];
    "pubsub|shardnumsub",     -2, NONE,      PubSub(Messages::Count(Topics::Shards)), Plain,          [PUBSUB LOADING STALE], NO_KEY, [];
    "punsubscribe",           -1, NONE,      PubSub(Messages::Unsubscribe(Topics::Patterns)), Plain,          [PUBSUB NOSCRIPT LOADING STALE], NO_KEY, [];
    "spublish",                3, ONE,       PubSub(Messages::Publish(Topics::Shards)), Plain,          [PUBSUB LOADING STALE FAST], NO_KEY, [];
    "ssubscribe",             -2, ALL,       PubSub(Messages::Subscribe(Topics::Shards)), Plain,          [PUBSUB NOSCRIPT LOADING STALE], NO_KEY, [];
    "subscribe",              -2, NONE,      PubSub(Messages::Subscribe(Topics::Channels)), Plain,          [PUBSUB NOSCRIPT LOADING STALE], NO_KEY, [];
    "sunsubscribe",           -1, ALL,       PubSub(Messages::Unsubscribe(Topics::Shards)), Plain,          [PUBSUB NOSCRIPT LOADING STALE], NO_KEY, [];
    "unsubscribe",            -1, NONE,      PubSub(Messages::Unsubscribe(Topics::Channels)), Plain,          [PUBSUB NOSCRIPT LOADING STALE], NO_KEY, [];

    // The connection itself.
    "auth",                   -2, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE FAST NO_AUTH ALLOW_BUSY], NO_KEY, [CONNECTION];
    "client",                 -2, NONE,      CONTAINER,                Plain,          [CONTAINER], NO_KEY, [];
    "client|caching",          3, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE], NO_KEY, [CONNECTION];
    "client|getname",          2, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE], NO_KEY, [CONNECTION];
    "client|getredir",         2, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE], NO_KEY, [CONNECTION];
    "client|help",             2, NONE,      AnyNode,                  Plain,          [LOADING STALE], NO_KEY, [CONNECTION];
    "client|id",               2, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE], NO_KEY, [CONNECTION];
    "client|info",             2, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE], NO_KEY, [CONNECTION];
    "client|kill",            -3, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [CONNECTION];
    "client|list",            -2, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [CONNECTION];
    "client|no-evict",         3, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [CONNECTION];
    "client|no-touch",         3, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE NEWER], NO_KEY, [CONNECTION];
    "client|pause",           -3, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [CONNECTION];
    "client|reply",            3, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE], NO_KEY, [CONNECTION];
    "client|setinfo",          4, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE NEWER], NO_KEY, [CONNECTION];
    "client|setname",          3, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE], NO_KEY, [CONNECTION];
    "client|tracking",        -3, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE], NO_KEY, [CONNECTION];
    "client|trackinginfo",     2, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE], NO_KEY, [CONNECTION];
    "client|unblock",         -3, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [CONNECTION];
    "client|unpause",          2, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [CONNECTION];
    "echo",                    2, NONE,      Local,                    Plain,          [LOADING STALE FAST], NO_KEY, [CONNECTION];
    "hello",                  -1, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE FAST NO_AUTH ALLOW_BUSY], NO_KEY, [CONNECTION];
    "ping",                   -1, NONE,      Local,                    Plain,          [FAST], NO_KEY, [CONNECTION];
    "quit",                   -1, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE FAST NO_AUTH ALLOW_BUSY], NO_KEY, [CONNECTION];
    "reset",                   1, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE FAST NO_AUTH ALLOW_BUSY], NO_KEY, [CONNECTION];
    "select",                  2, NONE,      Local,                    Plain,          [LOADING STALE FAST], NO_KEY, [CONNECTION];

    // The server itself.
    "acl",                    -2, NONE,      CONTAINER,                Plain,          [CONTAINER], NO_KEY, [];
    "acl|cat",                -2, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE], NO_KEY, [];
    "acl|deluser",            -3, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [];
    "acl|dryrun",             -4, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [];
    "acl|genpass",            -2, NONE,      AnyNode,                  Plain,          [NOSCRIPT LOADING STALE], NO_KEY, [];
    "acl|getuser",             3, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [];
    "acl|help",                2, NONE,      AnyNode,                  Plain,          [LOADING STALE], NO_KEY, [];
    "acl|list",                2, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [];
    "acl|load",                2, NONE,      Refused(Refusal::AclFile), Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [];
    "acl|log",                -2, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [];
    "acl|save",                2, NONE,      Refused(Refusal::AclFile), Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [];
    "acl|setuser",            -3, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [];
    "acl|users",               2, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [];
    "acl|whoami",              2, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE], NO_KEY, [];
    "bgrewriteaof",            1, NONE,      EveryNode(Each::Save),    Plain,          [ADMIN NOSCRIPT], NO_KEY, [];
    "bgsave",                 -1, NONE,      EveryNode(Each::Save),    Plain,          [ADMIN NOSCRIPT], NO_KEY, [];
    "command",                -1, NONE,      AnyNode,                  Plain,          [LOADING STALE CONTAINER], NO_KEY, [CONNECTION];
    "command|count",           2, NONE,      AnyNode,                  Plain,          [LOADING STALE], NO_KEY, [CONNECTION];
    "command|docs",           -2, NONE,      AnyNode,                  Plain,          [LOADING STALE], NO_KEY, [CONNECTION];
    "command|getkeys",        -4, NONE,      AnyNode,                  Plain,          [LOADING STALE], NO_KEY, [CONNECTION];
    "command|getkeysandflags",  -4, NONE,      AnyNode,                  Plain,          [LOADING STALE], NO_KEY, [CONNECTION];
    "command|help",            2, NONE,      AnyNode,                  Plain,          [LOADING STALE], NO_KEY, [CONNECTION];
    "command|info",           -2, NONE,      AnyNode,                  Plain,          [LOADING STALE], NO_KEY, [CONNECTION];
    "command|list",           -2, NONE,      AnyNode,                  Plain,          [LOADING STALE], NO_KEY, [CONNECTION];
    "config",                 -2, NONE,      CONTAINER,                Plain,          [CONTAINER], NO_KEY, [];
    "config|get",             -3, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [];
    "config|help",             2, NONE,      AnyNode,                  Plain,          [LOADING STALE], NO_KEY, [];
    "config|resetstat",        2, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [];
    "config|rewrite",          2, NONE,      NEVER,                    Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [];
    "config|set",             -4, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [];
    "dbsize",                  1, NONE,      EveryNode(Each::DbSize),  Plain,          [READONLY FAST], NO_KEY, [KEYSPACE];
    "debug",                  -2, NONE,      NEVER,                    Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [];
    "failover",               -1, NONE,      NEVER,                    Plain,          [ADMIN NOSCRIPT STALE], NO_KEY, [];
    "flushall",               -1, NONE,      EveryNode(Each::FlushAll), Plain,          [WRITE], NO_KEY, [DANGEROUS KEYSPACE];
    "flushdb",                -1, NONE,      EveryNode(Each::FlushDb), Plain,          [WRITE], NO_KEY, [DANGEROUS KEYSPACE];
    "info",                   -1, NONE,      Local,                    Plain,          [LOADING STALE], NO_KEY, [DANGEROUS];
    "lastsave",                1, NONE,      EveryNode(Each::LastSave), Plain,         [LOADING STALE FAST], NO_KEY, [ADMIN DANGEROUS];
    "latency",                -2, NONE,      CONTAINER,                Plain,          [CONTAINER], NO_KEY, [];
    "latency|doctor",          2, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [];
    "latency|graph",           3, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [];
    "latency|help",            2, NONE,      AnyNode,                  Plain,          [LOADING STALE], NO_KEY, [];
    "latency|histogram",      -2, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [];
    "latency|history",         3, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [];
    "latency|latest",          2, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [];
    "latency|reset",          -2, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [];
    "lolwut",                 -1, NONE,      AnyNode,                  Plain,          [READONLY FAST], NO_KEY, [];
    "memory",                 -2, NONE,      CONTAINER,                Plain,          [CONTAINER], NO_KEY, [];
    "memory|doctor",           2, NONE,      AnyNode,                  Plain,          [], NO_KEY, [];
    "memory|help",             2, NONE,      AnyNode,                  Plain,          [LOADING STALE], NO_KEY, [];
    "memory|malloc-stats",     2, NONE,      AnyNode,                  Plain,          [], NO_KEY, [];
    "memory|purge",            2, NONE,      EveryNode(Each::Purge),   Plain,          [], NO_KEY, [];
    "memory|stats",            2, NONE,      AnyNode,                  Plain,          [], NO_KEY, [];
    "memory|usage",           -3, SECOND,    Keyed,                    Plain,          [READONLY], LOOK, [];
    "module",                 -2, NONE,      CONTAINER,                Plain,          [CONTAINER], NO_KEY, [];
    "module|help",             2, NONE,      AnyNode,                  Plain,          [LOADING STALE], NO_KEY, [];
    "module|list",             2, NONE,      AnyNode,                  Plain,          [ADMIN NOSCRIPT], NO_KEY, [];
    "module|load",            -3, NONE,      NEVER,                    Plain,          [ADMIN NOSCRIPT], NO_KEY, [];
    "module|loadex",          -3, NONE,      NEVER,                    Plain,          [ADMIN NOSCRIPT], NO_KEY, [];
    "module|unload",           3, NONE,      NEVER,                    Plain,          [ADMIN NOSCRIPT], NO_KEY, [];
    "monitor",                 1, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT LOADING STALE], NO_KEY, [];
    "psync",                  -3, NONE,      NEVER,                    Plain,          [ADMIN NOSCRIPT NO_MULTI], NO_KEY, [];
    "replconf",               -1, NONE,      NEVER,                    Plain,          [ADMIN NOSCRIPT LOADING STALE ALLOW_BUSY], NO_KEY, [];
    "replicaof",               3, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT STALE], NO_KEY, [];
    "restore-asking",         -4, ONE,       NEVER,                    Plain,          [WRITE DENYOOM], W, [DANGEROUS KEYSPACE];
    "role",                    1, NONE,      Local,                    Plain,          [NOSCRIPT LOADING STALE FAST], NO_KEY, [ADMIN DANGEROUS];
    "save",                    1, NONE,      EveryNode(Each::Save),    Plain,          [ADMIN NOSCRIPT NO_MULTI], NO_KEY, [];
    "shutdown",               -1, NONE,      NEVER,                    Plain,          [ADMIN NOSCRIPT LOADING STALE NO_MULTI ALLOW_BUSY], NO_KEY, [];
    "slaveof",                 3, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT STALE], NO_KEY, [];
    "slowlog",                -2, NONE,      CONTAINER,                Plain,          [CONTAINER], NO_KEY, [];
    "slowlog|get",            -2, NONE,      Local,                    Plain,          [ADMIN LOADING STALE], NO_KEY, [];
    "slowlog|help",            2, NONE,      AnyNode,                  Plain,          [LOADING STALE], NO_KEY, [];
    "slowlog|len",             2, NONE,      Local,                    Plain,          [ADMIN LOADING STALE], NO_KEY, [];
    "slowlog|reset",           2, NONE,      Local,                    Plain,          [ADMIN LOADING STALE], NO_KEY, [];
    "swapdb",                  3, NONE,      EveryNode(Each::SwapDb),  Plain,          [WRITE FAST], NO_KEY, [DANGEROUS KEYSPACE];
    "sync",                    1, NONE,      NEVER,                    Plain,          [ADMIN NOSCRIPT NO_MULTI], NO_KEY, [];
    "time",                    1, NONE,      Local,                    Plain,          [LOADING STALE FAST], NO_KEY, [];

    // Redis Cluster.
    "asking",                  1, NONE,      Local,                    Plain,          [FAST], NO_KEY, [CONNECTION];
    "cluster",                -2, NONE,      CONTAINER,                Plain,          [CONTAINER], NO_KEY, [];
    "cluster|addslots",       -3, NONE,      Local,                    Plain,          [ADMIN STALE], NO_KEY, [];
    "cluster|addslotsrange",  -4, NONE,      Local,                    Plain,          [ADMIN STALE], NO_KEY, [];
    "cluster|bumpepoch",       2, NONE,      Local,                    Plain,          [ADMIN STALE], NO_KEY, [];
    "cluster|count-failure-reports",   3, NONE,      Local,                    Plain,          [ADMIN STALE], NO_KEY, [];
    "cluster|countkeysinslot",   3, NONE,      Local,                    Plain,          [STALE], NO_KEY, [];
    "cluster|delslots",       -3, NONE,      Local,                    Plain,          [ADMIN STALE], NO_KEY, [];
    "cluster|delslotsrange",  -4, NONE,      Local,                    Plain,          [ADMIN STALE], NO_KEY, [];
    "cluster|failover",       -2, NONE,      Local,                    Plain,          [ADMIN STALE], NO_KEY, [];
    "cluster|flushslots",      2, NONE,      Local,                    Plain,          [ADMIN STALE], NO_KEY, [];
    "cluster|forget",          3, NONE,      Local,                    Plain,          [ADMIN STALE], NO_KEY, [];
    "cluster|getkeysinslot",   4, NONE,      Local,                    Plain,          [STALE], NO_KEY, [];
    "cluster|help",            2, NONE,      Local,                    Plain,          [LOADING STALE], NO_KEY, [];
    "cluster|info",            2, NONE,      Local,                    Plain,          [STALE], NO_KEY, [];
    "cluster|keyslot",         3, NONE,      Local,                    Plain,          [STALE], NO_KEY, [];
    "cluster|links",           2, NONE,      Local,                    Plain,          [STALE], NO_KEY, [];
    "cluster|meet",           -4, NONE,      Local,                    Plain,          [ADMIN STALE], NO_KEY, [];
    "cluster|myid",            2, NONE,      Local,                    Plain,          [STALE], NO_KEY, [];
    "cluster|nodes",           2, NONE,      Local,                    Plain,          [STALE], NO_KEY, [];
    "cluster|replicas",        3, NONE,      Local,                    Plain,          [ADMIN STALE], NO_KEY, [];
    "cluster|replicate",       3, NONE,      Local,                    Plain,          [ADMIN STALE], NO_KEY, [];
    "cluster|reset",          -2, NONE,      Local,                    Plain,          [ADMIN NOSCRIPT STALE], NO_KEY, [];
    "cluster|saveconfig",      2, NONE,      Local,                    Plain,          [ADMIN STALE], NO_KEY, [];
    "cluster|set-config-epoch",   3, NONE,      Local,                    Plain,          [ADMIN STALE], NO_KEY, [];
    "cluster|setslot",        -4, NONE,      Local,                    Plain,          [ADMIN STALE], NO_KEY, [];
    "cluster|shards",          2, NONE,      Local,                    Plain,          [STALE], NO_KEY, [];
    "cluster|slaves",          3, NONE,      Local,                    Plain,          [ADMIN STALE], NO_KEY, [];
    "cluster|slots",           2, NONE,      Local,                    Plain,          [STALE], NO_KEY, [];
    "readonly",                1, NONE,      Local,                    Plain,          [LOADING STALE FAST], NO_KEY, [CONNECTION];
    "readwrite",               1, NONE,      Local,                    Plain,          [LOADING STALE FAST], NO_KEY, [CONNECTION];

    // Tally's own; Redis has nothing like it.
    "tally",                  -2, NONE,      Own(Inside::Help),        Plain,          [CONTAINER NEWER], NO_KEY, [];
    "tally|deadletters",      -2, NONE,      Own(Inside::DeadLetters), Plain,          [NEWER], NO_KEY, [ADMIN DANGEROUS];
    "tally|flush",             2, NONE,      Own(Inside::Flush),       Plain,          [NEWER], NO_KEY, [ADMIN DANGEROUS];
    "tally|help",              2, NONE,      Own(Inside::Help),        Plain,          [NEWER], NO_KEY, [];
    "tally|hotkeys",          -2, NONE,      Own(Inside::HotKeys),     Plain,          [NEWER], NO_KEY, [READ];
    "tally|slowlog",          -2, NONE,      Own(Inside::SlowLog),     Plain,          [NEWER], NO_KEY, [ADMIN DANGEROUS];
    "tally|stats",             2, NONE,      Own(Inside::Stats),       Plain,          [NEWER], NO_KEY, [ADMIN DANGEROUS];
    "tally|where",             3, NONE,      Own(Inside::Where),       Plain,          [FAST NEWER], LOOK, [READ];
}

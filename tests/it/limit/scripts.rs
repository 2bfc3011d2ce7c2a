//! The scripts that `limit.rs` compares, and what their arguments look like.

use tally::limit::{
    CANONICAL, CANONICAL_WITH_TTL, Catalogue, Denied, Granted, Kind, Rule, TtlArg, Unit,
};

use crate::random::Random;

/// A script of the tests, with the meaning of the built-in one of that name, or of its own.
pub(super) struct Script {
    pub(super) name: &'static str,
    pub(super) body: &'static str,
    pub(super) kind: Kind,
    pub(super) args: Args,
}

/// How the arguments of a script look.
#[derive(Clone, Copy)]
pub(super) enum Args {
    /// Limit.
    Limit,
    /// Limit, seconds.
    LimitSeconds,
    /// Limit, milliseconds.
    LimitMs,
    /// 0 or 1, milliseconds.
    FlagMs,
    /// Milliseconds.
    Ms,
    None,
    /// Points, seconds, and two that do not matter.
    PointsSeconds,
    /// Seconds, amount.
    SecondsAmount,
}

impl Args {
    pub(super) fn make(self, random: &mut Random) -> Vec<String> {
        let limit = *random.pick(&[&"0", &"1", &"5", &"20", &"-3", &"-20", &"4503599627370496"]);
        let amount = *random.pick(&[&"1", &"1", &"1", &"2", &"5", &"7", &"-1", &"-3"]);
        let (seconds, ms) = ("50", "50000");
        let args: &[&str] = match self {
            Self::Limit => &[limit],
            Self::LimitSeconds => &[limit, seconds],
            Self::LimitMs => &[limit, ms],
            Self::FlagMs => &[*random.pick(&[&"0", &"1"]), ms],
            Self::Ms => &[ms],
            Self::None => &[],
            Self::PointsSeconds => &[amount, seconds, "3", "60"],
            Self::SecondsAmount => &[seconds, amount],
        };
        args.iter().map(|arg| (*arg).to_owned()).collect()
    }
}

/// Every built-in script, and others that can be configured.
pub(super) fn own_scripts() -> Vec<Script> {
    let catalogue = Catalogue::new([]).unwrap();
    let built_in = |name: &'static str, body, args| {
        let mut scripts = catalogue.scripts().iter();
        let known = scripts.find(|script| script.name() == name).expect(name);
        Script {
            name,
            body,
            kind: known.kind(),
            args,
        }
    };
    let configured = |name, body, rule, granted, denied| Script {
        name,
        body,
        kind: Kind::Limit {
            limit: 1,
            ttl: Some(TtlArg {
                arg: 2,
                unit: Unit::Seconds,
                rule,
                always_if: None,
            }),
            granted,
            denied,
        },
        args: Args::LimitSeconds,
    };
    let scripts = vec![
        built_in("increment with limit", CANONICAL, Args::Limit),
        built_in(
            "increment with limit and TTL",
            CANONICAL_WITH_TTL,
            Args::LimitSeconds,
        ),
        built_in(
            "increment with limit and TTL in ms",
            LIMIT_MS,
            Args::LimitMs,
        ),
        built_in("rate-limit-redis 3.0 increment", HITS_3_0, Args::FlagMs),
        built_in("rate-limit-redis 4.2.1 increment", HITS_4_2_1, Args::FlagMs),
        built_in("rate-limit-redis 4.3 increment", HITS_4_3, Args::FlagMs),
        built_in("rate-limit-redis 6 increment", HITS_6, Args::Ms),
        built_in("rate-limit-redis get", HITS_GET, Args::None),
        built_in("rate-limiter-flexible", CONSUME, Args::PointsSeconds),
        built_in("limits incr_expire", INCREMENT_EXPIRE, Args::SecondsAmount),
        configured(
            "yes or no",
            YES_OR_NO,
            Rule::Missing,
            Granted::Integer(1),
            Denied::Integer(0),
        ),
        configured(
            "sliding",
            SLIDING,
            Rule::Always,
            Granted::Value,
            Denied::Null,
        ),
    ];
    for known in catalogue.scripts() {
        assert!(
            scripts.iter().any(|script| script.name == known.name()),
            "{known:?} has no test"
        );
    }
    scripts
}

const LIMIT_MS: &str = "
if (tonumber(redis.call('GET', KEYS[1]) or 0)) < tonumber(ARGV[1]) then
  local n = redis.call('INCRBY', KEYS[1], 1)
  if n == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
  return n
end
return -1";

const HITS_3_0: &str = "
local hits, left = redis.call('INCRBY', KEYS[1], 1), redis.call('PTTL', KEYS[1])
if ARGV[1] == '1' or left < 1 then
  left = tonumber(ARGV[2])
  redis.call('PEXPIRE', KEYS[1], left)
end
return {hits, left}";

const HITS_4_2_1: &str = "
local hits, left = redis.call('INCRBY', KEYS[1], 1), redis.call('PTTL', KEYS[1])
if ARGV[1] == '1' or left == -1 then
  left = tonumber(ARGV[2])
  redis.call('PEXPIRE', KEYS[1], left)
end
return {hits, left}";

const HITS_4_3: &str = "
local left, hits = redis.call('PTTL', KEYS[1]), 1
if left > 0 then
  hits = redis.call('INCR', KEYS[1])
  if ARGV[1] == '1' then left = 0 + ARGV[2] redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
else
  left = 0 + ARGV[2]
  redis.call('PSETEX', KEYS[1], ARGV[2], '1')
end
return {hits, left}";

const HITS_6: &str = "
local left, hits = redis.call('PTTL', KEYS[1]), 1
if left > 0 then
  hits = redis.call('INCR', KEYS[1])
else
  left = 0 + ARGV[1]
  redis.call('PSETEX', KEYS[1], ARGV[1], '1')
end
return {hits, left}";

const HITS_GET: &str = "return {redis.call('GET', KEYS[1]), (redis.call('PTTL', KEYS[1]))}";

const CONSUME: &str = "
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('SETEX', KEYS[1], ARGV[2], 0) end
local n = redis.call('INCRBY', KEYS[1], ARGV[1])
if redis.call('TTL', KEYS[1]) == -1 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return {n, redis.call('PTTL', KEYS[1])}";

const INCREMENT_EXPIRE: &str = "
local n = redis.call('INCRBY', KEYS[1], ARGV[2])
if n == tonumber(ARGV[2]) then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return n";

const YES_OR_NO: &str = "
if tonumber(redis.call('GET', KEYS[1]) or 0) >= tonumber(ARGV[1]) then return 0 end
redis.call('INCR', KEYS[1])
if redis.call('TTL', KEYS[1]) == -1 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return 1";

const SLIDING: &str = "
if tonumber(redis.call('GET', KEYS[1]) or 0) >= tonumber(ARGV[1]) then return false end
local n = redis.call('INCR', KEYS[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return n";

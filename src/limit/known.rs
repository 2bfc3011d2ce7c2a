//! The scripts that are known without being configured.
//!
//! Those of libraries are known by the SHA-1 of what the library sends, recorded from the
//! libraries as installed, and by the SHA-1 of its normal form (see `normal.rs`).

use super::meaning::{Amount, Denied, Granted, Kind, Reply, Rule, TtlArg, Unit};

/// One known script, or several that mean the same.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// SHA-1s of exact bodies.
    pub(super) exact: &'static [&'static str],
    /// SHA-1s of normal forms.
    pub(super) normal: &'static [&'static str],
    /// Bodies that are ours.
    pub(super) bodies: &'static [&'static str],
}

/// The canonical increment with a limit: `ARGV[1]` is the limit; -1 is a denial.
pub const CANONICAL: &str = "\
local current = tonumber(redis.call('GET', KEYS[1]) or '0')
if current >= tonumber(ARGV[1]) then
  return -1
end
return redis.call('INCR', KEYS[1])
";

/// The canonical increment with a limit, for `ARGV[2]` seconds from the first increment on.
pub const CANONICAL_WITH_TTL: &str = "\
local current = tonumber(redis.call('GET', KEYS[1]) or '0')
if current >= tonumber(ARGV[1]) then
  return -1
end
current = redis.call('INCR', KEYS[1])
if current == 1 then
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return current
";

/// As [`CANONICAL_WITH_TTL`], in milliseconds.
const CANONICAL_WITH_TTL_MS: &str = "\
local current = tonumber(redis.call('GET', KEYS[1]) or '0')
if current >= tonumber(ARGV[1]) then
  return -1
end
current = redis.call('INCR', KEYS[1])
if current == 1 then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return current
";

/// As [`CANONICAL`], reading what is no number as 0. It differs only where `INCR` fails anyway.
const LENIENT: &str = "\
local current = redis.call('GET', KEYS[1])
current = tonumber(current) or 0
if current >= tonumber(ARGV[1]) then
  return -1
end
return redis.call('INCR', KEYS[1])
";

/// As [`CANONICAL_WITH_TTL`], reading what is no number as 0.
const LENIENT_WITH_TTL: &str = "\
local current = redis.call('GET', KEYS[1])
current = tonumber(current) or 0
if current >= tonumber(ARGV[1]) then
  return -1
end
current = redis.call('INCR', KEYS[1])
if current == 1 then
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return current
";

pub(super) const SCRIPTS: &[Known] = &[
    Known {
        name: "increment with limit",
        kind: limit(None),
        // The incrementWithLimit of many tutorials, as they send it.
        exact: &["8e33667f7437c9aece25fa6f55896badd9beeb41"],
        normal: &[],
        bodies: &[CANONICAL, LENIENT],
    },
    Known {
        name: "increment with limit and TTL",
        kind: limit(Some(ttl(2, Unit::Seconds, Rule::First))),
        exact: &[],
        normal: &[],
        bodies: &[CANONICAL_WITH_TTL, LENIENT_WITH_TTL],
    },
    Known {
        name: "increment with limit and TTL in ms",
        kind: limit(Some(ttl(2, Unit::Milliseconds, Rule::First))),
        exact: &[],
        normal: &[],
        bodies: &[CANONICAL_WITH_TTL_MS],
    },
    // npm rate-limit-redis, the store of express-rate-limit; `increment` in its `scripts.ts`.
    Known {
        name: "rate-limit-redis 3.0 increment",
        kind: increment(Amount::One, flagged(Rule::Due), Reply::ValueAndTtl),
        // 3.0.0 to 4.2.0
        exact: &["3f424a504987d231baa2e19159bb5def8ad32f87"],
        normal: &["f2d9a76cb9a78d57df37e2e456c9e3bc0d9903d9"],
        bodies: &[],
    },
    Known {
        name: "rate-limit-redis 4.2.1 increment",
        kind: increment(Amount::One, flagged(Rule::Missing), Reply::ValueAndTtl),
        exact: &["b829ec02dca78a148dfc75dd3c86f488ed007c68"],
        normal: &["03c1b355ce6bfdfbae073ab07955c00977d90100"],
        bodies: &[],
    },
    Known {
        name: "rate-limit-redis 4.3 increment",
        kind: increment(Amount::One, flagged(Rule::Restart), Reply::ValueAndTtl),
        // 4.3.1 and 5.0.0
        exact: &["81dbecea94d2d10514719b20ed51faf711529d9d"],
        normal: &["4e319ab69acd977b77499b33445d47751b63029d"],
        bodies: &[],
    },
    Known {
        name: "rate-limit-redis 6 increment",
        kind: increment(
            Amount::One,
            ttl(1, Unit::Milliseconds, Rule::Restart),
            Reply::ValueAndTtl,
        ),
        exact: &["895b92e1712734e1b464999be23953485475357b"],
        normal: &["f41afb7ba201d6a3ece04338b82f4c78aafc6db6"],
        bodies: &[],
    },
    Known {
        name: "rate-limit-redis get",
        kind: Kind::Read,
        // 4.2.0 to 6.0.1
        exact: &["6aeb97ed6086dcdeafdc6fda3999a0d0e38ec96a"],
        normal: &["ea2cf33fa20f0acaa4fca176091096d63d18fa63"],
        bodies: &[],
    },
    // npm rate-limiter-flexible, `RateLimiterRedis`, 2.0.0 to 11.4.0: points, seconds, and two
    // more that the script does not use.
    Known {
        name: "rate-limiter-flexible",
        kind: increment(
            Amount::Arg(1),
            ttl(2, Unit::Seconds, Rule::Missing),
            Reply::ValueAndTtl,
        ),
        exact: &["a1de965f42e177aa339706bd580f049065eca79a"],
        normal: &["9ca26d0534cf22366419383149d339fca2133abe"],
        bodies: &[],
    },
    // PyPI limits (flask-limiter, slowapi), fixed windows, `incr_expire.lua`, 2.8.0 to 5.8.0.
    Known {
        name: "limits incr_expire",
        kind: increment(
            Amount::Arg(2),
            ttl(1, Unit::Seconds, Rule::First),
            Reply::Value,
        ),
        exact: &["628bd136a573a06b346879695681af12ccef300f"],
        normal: &["24ded213c0923053587aa142fa42df1d44e31c0a"],
        bodies: &[],
    },
];

const fn limit(ttl: Option<TtlArg>) -> Kind {
    Kind::Limit {
        limit: 1,
        ttl,
        granted: Granted::Value,
        denied: Denied::Integer(-1),
    }
}

const fn increment(amount: Amount, ttl: TtlArg, reply: Reply) -> Kind {
    let ttl = Some(ttl);
    Kind::Increment { amount, ttl, reply }
}

const fn ttl(arg: u8, unit: Unit, rule: Rule) -> TtlArg {
    TtlArg {
        arg,
        unit,
        rule,
        always_if: None,
    }
}

/// rate-limit-redis before 6: whether each hit starts the window anew, and its milliseconds.
const fn flagged(rule: Rule) -> TtlArg {
    TtlArg {
        arg: 2,
        unit: Unit::Milliseconds,
        rule,
        always_if: Some(1),
    }
}

//! What Redis says about a command in the flags of its `COMMAND` reply.

use std::ops::BitOr;

/// A set of flags. Redis's own names; the ones that nothing here reads are left out
/// (`skip_monitor`, `skip_slowlog`, `asking`, `no_async_loading`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Flags(u32);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// May change data.
    pub const WRITE: Self = Self(1);
    /// Never changes data.
    pub const READONLY: Self = Self(1 << 1);
    /// Refused when the node is at its memory limit.
    pub const DENYOOM: Self = Self(1 << 2);
    /// For administrators.
    pub const ADMIN: Self = Self(1 << 3);
    /// Publishes or subscribes.
    pub const PUBSUB: Self = Self(1 << 4);
    /// Not callable from a script.
    pub const NOSCRIPT: Self = Self(1 << 5);
    /// May wait for another client; see [`super::blocks`] for whether a request does.
    pub const BLOCKING: Self = Self(1 << 6);
    /// Answered while the node loads its data.
    pub const LOADING: Self = Self(1 << 7);
    /// Answered by a replica that lost its primary.
    pub const STALE: Self = Self(1 << 8);
    /// Constant or logarithmic time.
    pub const FAST: Self = Self(1 << 9);
    /// Answered before `AUTH`.
    pub const NO_AUTH: Self = Self(1 << 10);
    /// Answered while a script runs too long.
    pub const ALLOW_BUSY: Self = Self(1 << 11);
    /// Not allowed in `MULTI`.
    pub const NO_MULTI: Self = Self(1 << 12);
    /// Key positions depend on the arguments.
    pub const MOVABLEKEYS: Self = Self(1 << 13);
    /// May name no key at all.
    pub const NO_MANDATORY_KEYS: Self = Self(1 << 14);
    /// Not one of Redis's: the first argument names a subcommand, which has its own entry.
    pub const CONTAINER: Self = Self(1 << 15);
    /// Not one of Redis's: Redis 7.0 has no such command.
    pub const NEWER: Self = Self(1 << 16);

    /// Whether all flags of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags of both, usable where a constant is needed.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Redis's names of the flags that are set, as `COMMAND` prints them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES
            .iter()
            .filter(move |(flag, _)| self.contains(*flag))
            .map(|(_, name)| *name)
    }

    /// The flag that `COMMAND` prints as `name`, unless it is one that is left out here.
    pub fn named(name: &str) -> Option<Self> {
        NAMES
            .iter()
            .find_map(|(flag, known)| (*known == name).then_some(*flag))
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

const NAMES: &[(Flags, &str)] = &[
    (Flags::WRITE, "write"),
    (Flags::READONLY, "readonly"),
    (Flags::DENYOOM, "denyoom"),
    (Flags::ADMIN, "admin"),
    (Flags::PUBSUB, "pubsub"),
    (Flags::NOSCRIPT, "noscript"),
    (Flags::BLOCKING, "blocking"),
    (Flags::LOADING, "loading"),
    (Flags::STALE, "stale"),
    (Flags::FAST, "fast"),
    (Flags::NO_AUTH, "no_auth"),
    (Flags::ALLOW_BUSY, "allow_busy"),
    (Flags::NO_MULTI, "no_multi"),
    (Flags::MOVABLEKEYS, "movablekeys"),
    (Flags::NO_MANDATORY_KEYS, "no_mandatory_keys"),
];

//! What access rules call the kinds of commands (`@read`, `@dangerous`), and how a command uses its
//! keys.

use super::options::find_option;
use super::{Command, Flags};
use crate::resp::Request;

/// A set of Redis's categories.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Categories(u32);

macro_rules! categories {
    ($($name:ident = $at:literal $text:literal,)*) => {
        #[expect(missing_docs, reason = "Redis documents them")]
        impl Categories {
            $(pub const $name: Self = Self(1 << $at);)*

            /// Each with its name, in the order in which Redis lists them.
            pub const ALL: &[(Self, &str)] = &[$((Self::$name, $text)),*];
        }
    };
}

categories! {
    KEYSPACE = 0 "keyspace",
    READ = 1 "read",
    WRITE = 2 "write",
    SET = 3 "set",
    SORTEDSET = 4 "sortedset",
    LIST = 5 "list",
    HASH = 6 "hash",
    STRING = 7 "string",
    BITMAP = 8 "bitmap",
    HYPERLOGLOG = 9 "hyperloglog",
    GEO = 10 "geo",
    STREAM = 11 "stream",
    PUBSUB = 12 "pubsub",
    ADMIN = 13 "admin",
    FAST = 14 "fast",
    SLOW = 15 "slow",
    BLOCKING = 16 "blocking",
    DANGEROUS = 17 "dangerous",
    CONNECTION = 18 "connection",
    TRANSACTION = 19 "transaction",
    SCRIPTING = 20 "scripting",
}

impl Categories {
    /// No category.
    pub const NONE: Self = Self(0);

    /// Whether all categories of `other` are there.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The categories of both, usable where a constant is needed.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// With those that a command's flags imply (`setImplicitACLCategories` in `server.c`).
    #[must_use]
    pub const fn implied(self, flags: Flags) -> Self {
        const PAIRS: [(Flags, Categories); 6] = [
            (Flags::WRITE, Categories::WRITE),
            (Flags::ADMIN, Categories::ADMIN.with(Categories::DANGEROUS)),
            (Flags::PUBSUB, Categories::PUBSUB),
            (Flags::FAST, Categories::FAST),
            (Flags::BLOCKING, Categories::BLOCKING),
            (Flags::READONLY, Categories::READ),
        ];
        let mut all = self;
        let mut rest: &[(Flags, Self)] = &PAIRS;
        while let [(flag, category), tail @ ..] = rest {
            // What a script does is not known by its command.
            let is_script = category.0 == Self::READ.0 && self.contains(Self::SCRIPTING);
            if flags.contains(*flag) && !is_script {
                all = all.with(*category);
            }
            rest = tail;
        }
        if all.contains(Self::FAST) {
            all
        } else {
            all.with(Self::SLOW)
        }
    }

    /// The category of this name, in any case.
    pub fn named(name: &[u8]) -> Option<Self> {
        let is_it = |(_, known): &&(Self, &str)| name.eq_ignore_ascii_case(known.as_bytes());
        Self::ALL.iter().find(is_it).map(|(category, _)| *category)
    }
}

/// What a command does with a key: reads what it holds, changes it, both, or neither.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct KeyAccess(u8);

impl KeyAccess {
    /// Asks only whether it is there, or of which kind or size it is.
    pub const NONE: Self = Self(0);
    /// Reads what it holds.
    pub const READ: Self = Self(1);
    /// Changes it.
    pub const WRITE: Self = Self(2);
    /// Does both.
    pub const BOTH: Self = Self(3);

    /// Whether all of `other` is there.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Either's.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// How a command uses its keys, in the order of [`super::key_positions`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Uses {
    first: KeyAccess,
    others: KeyAccess,
}

impl Uses {
    pub(super) const fn all(access: KeyAccess) -> Self {
        Self::first(access, access)
    }

    pub(super) const fn first(first: KeyAccess, others: KeyAccess) -> Self {
        Self { first, others }
    }
}

/// What a request does with the key at place `at` of its [`super::key_positions`].
pub fn key_access(command: &Command, request: &Request<'_>, at: usize) -> KeyAccess {
    let is = |at: usize, word: &str| request.arg(at).eq_ignore_ascii_case(word.as_bytes());
    match command.name {
        // `setGetKeys` and `bitfieldGetKeys` in `db.c`.
        "set" if !(3..request.len()).any(|at| is(at, "get")) => KeyAccess::WRITE,
        "bitfield" if only_reads_bits(request) => KeyAccess::READ,
        _ if at == 0 => command.uses.first,
        _ => command.uses.others,
    }
}

/// Whether a `BITFIELD` has `GET` and `OVERFLOW` alone, each with its arguments.
fn only_reads_bits(request: &Request<'_>) -> bool {
    let mut at = 2;
    while at < request.len() {
        let left = request.len() - at - 1;
        at += match find_option(request.arg(at), &["get", "overflow"]) {
            Some("get") if left >= 2 => 3,
            Some("overflow") if left >= 1 => 2,
            _ => return false,
        };
    }
    true
}

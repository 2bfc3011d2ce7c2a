//! How a client tracks the keys that it reads (`CLIENT TRACKING`).

/// The options in force, and whether `CLIENT CACHING` was just given.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tracks(u8);

impl Tracks {
    /// Tracking is on.
    pub const ON: Self = Self(1);
    /// All keys of some prefixes, whether read or not.
    pub const BCAST: Self = Self(1 << 1);
    /// Only keys read after `CLIENT CACHING YES`.
    pub const OPTIN: Self = Self(1 << 2);
    /// No keys read after `CLIENT CACHING NO`.
    pub const OPTOUT: Self = Self(1 << 3);
    /// Not told of its own changes.
    pub const NOLOOP: Self = Self(1 << 4);
    /// `CLIENT CACHING` was given for the next command or transaction.
    pub const CACHING: Self = Self(1 << 5);
    /// The client that should get the messages has gone.
    pub const BROKEN: Self = Self(1 << 6);

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The first without the second.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is some of `other`.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether tracking is on.
    pub const fn is_on(self) -> bool {
        self.has(Self::ON)
    }

    /// Whether it is by prefix.
    pub const fn bcast(self) -> bool {
        self.has(Self::BCAST)
    }

    /// Whether the client is not told of its own changes.
    pub const fn noloop(self) -> bool {
        self.has(Self::NOLOOP)
    }

    /// Whether keys that are read now are noted (`trackingRememberKeys` in Redis's `tracking.c`).
    pub const fn notes_reads(self) -> bool {
        let is_left_out = if self.has(Self::OPTIN) {
            !self.has(Self::CACHING)
        } else {
            self.has(Self::OPTOUT) && self.has(Self::CACHING)
        };
        self.is_on() && !self.bcast() && !is_left_out
    }

    pub(super) const fn bits(self) -> u8 {
        self.0
    }

    pub(super) const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
}
